import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.engine.decoding.sampler import candidates, choose, draw, most_probable, penalise, uniform
from firsthand.errors import ConfigError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow


def logits(size: int = 500, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def reference(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution by sorting everything, one step after another."""
    probs = (logits_V.double() / sampling.temperature).softmax(0)
    if sampling.top_k:
        cut = probs.sort(descending=True).values[min(sampling.top_k, len(probs)) - 1]
        probs = torch.where(probs >= cut, probs, 0.0)
        probs = probs / probs.sum()
    if sampling.top_p < 1:
        ordered, ids = probs.sort(descending=True)
        drop = ordered.cumsum(0) - ordered >= sampling.top_p
        drop[0] = False
        probs[ids[drop]] = 0.0
        probs = probs / probs.sum()
    probs = torch.where(probs >= sampling.min_p * probs.max(), probs, 0.0)
    return probs / probs.sum()


@pytest.mark.parametrize(
    "cuts",
    [
        {},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 5000},
        {"top_p": 0.5},
        {"top_p": 0.999},
        {"top_p": 1e-9},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"top_k": 30, "top_p": 0.8},
        {"top_k": 100, "top_p": 0.9, "min_p": 0.02},
    ],
)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_cuts_keep_the_same_distribution_as_sorting_everything(cuts: dict[str, float], temperature: float) -> None:
    sampling = Sampling(temperature=temperature, **cuts)  # type: ignore[arg-type]
    row = logits()
    ids, weights = candidates(row, sampling)
    got = torch.zeros(len(row), dtype=torch.float64)
    got[ids] = weights / weights.sum()
    assert torch.allclose(got, reference(row, sampling), atol=1e-12)


def test_top_p_falls_back_to_the_whole_vocabulary_when_the_prefix_does_not_reach_it() -> None:
    row = logits(5000, spread=0.01)
    ids, _ = candidates(row, Sampling(temperature=1, top_p=0.9))
    assert abs(len(ids) - 4500) < 30
    assert len(set(ids.tolist())) == len(ids)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, 60), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.05, 20))
def test_cuts_equal_the_reference_for_any_settings(seed: int, k: int, p: float, min_p: float, heat: float) -> None:
    row, sampling = logits(80, seed), Sampling(temperature=heat, top_k=k, top_p=p, min_p=min_p)
    expected = reference(row, sampling)
    ids, weights = candidates(row, sampling)
    got = torch.zeros(80, dtype=torch.float64)
    got[ids] = weights / weights.sum()
    assert (got - expected).abs().max() < 1e-9


def test_penalties_are_the_formulas() -> None:
    row = logits(50)
    sampling = Sampling(repetition_penalty=1.7, presence_penalty=0.4, frequency_penalty=0.25)
    got = penalise(row, sampling, [1, 2, 2, 3], Counter({3: 2, 4: 1}))
    for token in range(50):
        value = float(row[token])
        if token in (1, 2, 3, 4):
            value = value / 1.7 if value > 0 else value * 1.7
        count = {3: 2, 4: 1}.get(token, 0)
        value -= 0.25 * count + 0.4 * (count > 0)
        assert float(got[token]) == pytest.approx(value, abs=1e-5)
    assert torch.equal(row, logits(50)), "the input is left alone"


@pytest.mark.parametrize("cuts", [{}, {"top_k": 12}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_draws_follow_the_distribution(cuts: dict[str, float]) -> None:
    sampling = Sampling(temperature=0.8, **cuts)  # type: ignore[arg-type]
    row = logits(20, seed=3, spread=1.0)
    ids, weights = candidates(row, sampling)
    draws = 4000
    found = Counter(draw(ids, weights, uniform(11, 0, position)).token for position in range(draws))
    expected = reference(row, sampling) * draws
    kept = expected > 0
    assert set(found) <= set(kept.nonzero().flatten().tolist())
    test = stats.chisquare([found[i] for i in kept.nonzero().flatten().tolist()], expected[kept].numpy())
    assert test.pvalue > 0.001


def test_numbers_are_uniform_and_every_key_counts() -> None:
    numbers = [uniform(5, index, position) for index in range(20) for position in range(250)]
    assert stats.kstest(numbers, "uniform").pvalue > 0.001
    assert len({uniform(1, 2, 3), uniform(1, 3, 2), uniform(2, 1, 3), uniform(12, 3, 3), uniform(-1, 2, 3)}) == 5
    assert uniform(2**80, 0, 0) != uniform(0, 0, 0), "long seeds are not cut"


def test_the_smallest_and_largest_numbers_draw_the_first_and_last_candidate() -> None:
    ids, weights = torch.tensor([7, 8, 9]), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    assert draw(ids, weights, 0.0).token == 8, "a token of weight 0 is never drawn"
    assert draw(ids, weights, math.nextafter(1, 0)).token == 9


def test_greedy_takes_the_best_after_penalties() -> None:
    row = torch.tensor([1.0, 5.0, 4.5])
    assert choose(row, Sampling(), number=0.5, prompt=[1], counts=Counter()).token == 1
    assert choose(row, Sampling(repetition_penalty=1.3), number=0.5, prompt=[1], counts=Counter()).token == 2


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 2e-39, 1e-200, 1e-300, 5e-324])
@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.9}, {"top_k": 5}, {"top_k": 5, "top_p": 0.9}, {"min_p": 0.1}])
def test_any_temperature_above_0_draws_the_best_where_it_is_tiny(temperature: float, cuts: dict[str, Any]) -> None:
    row, sampling = logits(300), Sampling(temperature=temperature, **cuts)
    row[7] = -math.inf
    best = (int(row.argmax()), 0.0)
    assert choose(row, sampling, number=0.7, prompt=[], counts=Counter()) == best
    assert choose(row.double(), sampling, number=0.7, prompt=[], counts=Counter()) == best, "not compiled"
    settings = DrawSettings(temperature, sampling.top_k, sampling.top_p, sampling.min_p, 0.7)
    drawn = draw_rows(row[None], [settings], otherwise=torch.tensor([7]))
    assert (int(drawn.tokens[0]), float(drawn.logprobs[0])) == best


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    drawn = choose(logits(), Sampling(temperature=1e-30), number=0.7, prompt=[], counts=Counter())
    assert drawn == (logits().argmax(), 0.0)


def test_alternatives_come_most_probable_first() -> None:
    values = logits()
    logprobs = values.log_softmax(0)
    top = most_probable(LogitRow(values, int(values.argmax()), float(values.logsumexp(0))), 5)
    assert [token for token, _ in top] == logprobs.sort(descending=True).indices[:5].tolist()
    assert [value for _, value in top] == pytest.approx(logprobs.sort(descending=True).values[:5].tolist(), abs=1e-5)
    assert len(most_probable(LogitRow(values[:3], 0, 0.0), 100)) == 3


def test_a_bias_is_added_after_penalties_and_nothing_else_changes() -> None:
    logits_V = logits(50)
    sampling = Sampling(logit_bias=((3, 2.5), (7, -100.0)), frequency_penalty=0.5)
    biased_V = penalise(logits_V, sampling, [], Counter({3: 2}))
    expected_V = logits_V.clone()
    expected_V[3] += 2.5 - 1.0
    expected_V[7] -= 100.0
    assert torch.equal(biased_V, expected_V) and not torch.equal(biased_V, logits_V)
    assert choose(logits_V, Sampling(logit_bias=((9, 100.0),)), number=0.5, prompt=[], counts=Counter()).token == 9


@pytest.mark.parametrize("bias", [((3, 101.0),), ((3, math.nan),), tuple((i, 0.0) for i in range(1025))])
def test_a_bias_that_cannot_be_meant_is_refused(bias: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ConfigError, match="at most 1024 pairs"):
        Sampling(logit_bias=bias)


def test_settings_that_came_later_do_not_change_the_key_of_older_requests() -> None:
    assert not {"logit_bias", "stop_ids", "ignore_eos", "grammar"} & Sampling().to_json().keys()
    assert Sampling(stop_ids=(3,), ignore_eos=True).to_json()["stop_ids"] == [3]
