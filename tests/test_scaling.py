"""Scaling laws: known laws are recovered, the public points give the published numbers, plans follow from the law."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.decoder import Decoder
from firsthand.train.scaling.bootstrap_fit import bootstrap_chinchilla, bootstrap_kaplan
from firsthand.train.scaling.compute_frontier import envelope_frontier, isoflop_frontier
from firsthand.train.scaling.compute_planner import compute_of, plan_training, predict_loss
from firsthand.train.scaling.flop_counts import (
    forward_flops_per_token,
    matrix_parameters,
    measured_flops_per_second,
    simple_training_flops,
    training_flops,
)
from firsthand.train.scaling.hidden_markov import HiddenMarkov, random_source
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.parametric_fit import fit_chinchilla, fit_kaplan
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points, write_points

PUBLIC = Path(os.environ.get("FIRSTHAND_DATA", "/work/shared/data")) / "training" / "chinchilla_points.csv"
public = pytest.mark.skipif(not PUBLIC.is_file(), reason="the Chinchilla points are not on this machine")
LAW = Chinchilla(e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28)


def grid(law: Chinchilla | Kaplan, *, noise: float = 0.0, seed: int = 0) -> ScalingPoints:
    sizes, lengths = (each.ravel() for each in np.meshgrid(np.logspace(7, 10, 7), np.logspace(9, 11.5, 6)))
    losses = law.loss(sizes, lengths) * np.exp(np.random.default_rng(seed).normal(0, noise, len(sizes)))
    return ScalingPoints(sizes, lengths, losses)


def budgets(law: Chinchilla, flops: tuple[float, ...], sizes: int = 9) -> ScalingPoints:
    rows = []
    for budget in flops:
        best = law.optimum(budget).parameters
        rows += [(n, budget / (6 * n)) for n in best * np.logspace(-0.5, 0.5, sizes)]
    parameters, tokens = np.array(rows).T
    return ScalingPoints(parameters, tokens, law.loss(parameters, tokens))


# -- fits --


@pytest.mark.slow
def test_a_law_is_recovered_from_its_own_points() -> None:
    found = fit_chinchilla(grid(LAW))
    assert found.law.values() == pytest.approx(LAW.values(), rel=1e-3)
    assert found.r_squared > 1 - 1e-9 and found.max_error < 1e-5 and found.points == 42


def test_kaplan_s_law_is_recovered_from_its_own_points() -> None:
    law = Kaplan(nc=8.8e13, dc=5.4e13, alpha_n=0.076, alpha_d=0.103)
    found = fit_kaplan(grid(law))
    assert found.law.values() == pytest.approx(law.values(), rel=5e-2)
    assert (found.law.alpha_n, found.law.alpha_d) == pytest.approx((0.076, 0.103), rel=2e-3)
    assert law.parameters_exponent == pytest.approx(0.103 / 0.179)


@pytest.mark.slow
def test_an_outlier_moves_the_fit_little() -> None:
    points = grid(LAW, noise=1e-3)
    losses = points.loss.copy()
    losses[5] *= 1.3
    found = fit_chinchilla(ScalingPoints(points.parameters, points.tokens, losses)).law
    assert found.e == pytest.approx(LAW.e, rel=0.02) and found.alpha == pytest.approx(LAW.alpha, rel=0.05)
    squares = fit_chinchilla(ScalingPoints(points.parameters, points.tokens, losses), delta=10.0).law
    assert abs(squares.alpha - LAW.alpha) > 2 * abs(found.alpha - LAW.alpha), "least squares follow it"


@pytest.mark.slow
@public
def test_the_public_points_give_the_published_refit() -> None:
    """Besiroglu et al. (2024): E 1.8172, A 482, B 2085, alpha .3478, beta .3658, without the five highest losses."""
    points = read_points(PUBLIC)
    assert len(points) == 245
    found = fit_chinchilla(points.without_highest(5))
    law = found.law
    assert (law.alpha, law.beta, law.e) == pytest.approx((0.347, 0.367, 1.817), abs=6e-4)
    assert (law.a, law.b) == pytest.approx((478, 2143), abs=1)
    assert law.parameters_exponent == pytest.approx(0.514, abs=1e-3)
    assert found.objective == pytest.approx(1.0183e-3, abs=2e-7)


@pytest.mark.slow
@public
def test_the_mean_with_default_tolerances_stops_early() -> None:
    """The reported cause of Chinchilla's own a = .46: each number is a 240th, and so below the optimizer's tolerance."""
    points = read_points(PUBLIC).without_highest(5)
    stopped = fit_chinchilla(points, as_published=True, starts=600)
    assert stopped.law.parameters_exponent == pytest.approx(0.449, abs=0.005)
    assert stopped.law.e < 1.80 and stopped.objective > 1.05 * 1.0183e-3


def test_too_few_points_or_one_size_are_refused() -> None:
    points = grid(LAW)
    with pytest.raises(DataError, match="4 points came: the law has 5 parameters"):
        fit_chinchilla(points.take(np.arange(4)))
    with pytest.raises(DataError, match="all points have 1e\\+07 parameters: a law needs several"):
        fit_chinchilla(points.take(points.parameters == 1e7))
    with pytest.raises(ConfigError, match="delta is 0"):
        fit_chinchilla(points, delta=0.0)


# -- intervals and plans --


@pytest.mark.slow
def test_intervals_cover_the_law_that_made_the_points_and_narrow_with_less_noise() -> None:
    wide = bootstrap_chinchilla(grid(LAW, noise=0.01, seed=3), resamples=60)
    narrow = bootstrap_chinchilla(grid(LAW, noise=0.001, seed=3), resamples=60)
    for name, interval in wide.parameters().items():
        assert interval.low <= getattr(LAW, name) <= interval.high, name
        assert interval.low <= interval.value <= interval.high
    for name, interval in narrow.parameters().items():
        assert interval.high - interval.low < 0.3 * (wide.parameters()[name].high - wide.parameters()[name].low)
    again = bootstrap_chinchilla(grid(LAW, noise=0.01, seed=3), resamples=60)
    assert again.parameters() == wide.parameters()
    with pytest.raises(ConfigError, match="resamples is 5"):
        bootstrap_chinchilla(grid(LAW), resamples=5)
    with pytest.raises(ConfigError, match=r"confidence is 95"):
        bootstrap_kaplan(grid(LAW), confidence=95)


def test_the_optimum_is_the_lowest_loss_of_its_budget() -> None:
    kaplan = Kaplan(nc=8.8e13, dc=5.4e13, alpha_n=0.076, alpha_d=0.103)
    for law in (LAW, kaplan):
        best = law.optimum(1e21)
        assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
        sizes = best.parameters * np.exp(np.linspace(-0.1, 0.1, 201))
        losses = law.loss(sizes, 1e21 / (6 * sizes))
        assert abs(int(losses.argmin()) - 100) <= 1
        assert best.loss == pytest.approx(losses.min(), rel=1e-9)
        grown = law.optimum(1e22).parameters / best.parameters
        assert math.log10(grown) == pytest.approx(law.parameters_exponent, abs=1e-9)
        with pytest.raises(ConfigError, match="flops is -1"):
            law.optimum(-1)


@pytest.mark.slow
def test_a_plan_says_what_to_train_and_how_far_it_reaches() -> None:
    points = grid(LAW, noise=0.002)
    fitted = bootstrap_chinchilla(points, resamples=40)
    plan = plan_training(fitted, points, 1e23)
    assert plan.extrapolates == pytest.approx(1e23 / (6 * 1e10 * 10**11.5))
    assert plan.loss.low <= plan.loss.value <= plan.loss.high
    assert plan.loss.low <= LAW.optimum(1e23).loss <= plan.loss.high
    assert plan.tokens_per_parameter == pytest.approx(plan.tokens.value / plan.parameters.value)
    larger = predict_loss(fitted, 1e11, 1e12)
    assert larger.low <= larger.value <= larger.high
    assert larger.value == pytest.approx(float(LAW.loss(np.array(1e11), np.array(1e12))), abs=0.02)
    assert compute_of(2, 1e12, utilisation=0.5) == 2 * 3600 * 1e12 * 0.5
    with pytest.raises(ConfigError, match="hours is 0"):
        compute_of(0, 1e12)
    with pytest.raises(ConfigError, match="parameters is -1"):
        predict_loss(fitted, -1, 1e9)


# -- approaches 1 and 2 --


def test_parabolas_find_the_exponents_of_the_law() -> None:
    found = isoflop_frontier(budgets(LAW, (1e18, 1e19, 1e20, 1e21)))
    assert len(found.flops) == 4
    assert found.parameters_exponent == pytest.approx(LAW.parameters_exponent, abs=0.01)
    assert found.tokens_exponent == pytest.approx(LAW.tokens_exponent, abs=0.01)
    assert found.parameters_exponent + found.tokens_exponent == pytest.approx(1)
    for budget, best in zip(found.flops, found.optima, strict=True):
        assert best.parameters == pytest.approx(LAW.optimum(budget).parameters, rel=0.1)
        assert best.loss == pytest.approx(LAW.optimum(budget).loss, rel=1e-3)
    assert found.optimum(1e19).parameters == pytest.approx(LAW.optimum(1e19).parameters, rel=0.1)


def test_budgets_without_a_lowest_point_are_left_out() -> None:
    points = budgets(LAW, (1e18, 1e20))
    is_small = points.parameters < LAW.optimum(1e20).parameters / 1.2
    with pytest.raises(DataError, match="1 of 2 budgets have a lowest loss between three or more sizes"):
        isoflop_frontier(points.take(is_small))


def test_the_envelope_finds_the_exponent_of_the_law() -> None:
    rows = [(n, d) for n in np.logspace(7, 10, 25) for d in np.logspace(8, 12, 60)]
    parameters, tokens = np.array(rows).T
    found = envelope_frontier(ScalingPoints(parameters, tokens, LAW.loss(parameters, tokens)))
    assert found.parameters_exponent == pytest.approx(LAW.parameters_exponent, abs=0.03)
    one = parameters == parameters[0]
    with pytest.raises(DataError, match="fewer than two sizes"):
        envelope_frontier(ScalingPoints(parameters[one], tokens[one], LAW.loss(parameters[one], tokens[one])))


# -- compute --

SMALL = Architecture(
    family="llama", vocab_size=100, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, max_position=256, norm_eps=1e-5, windows=(None, 16), ropes=(Rope(), Rope()), tie_embeddings=True,
)  # fmt: skip


@pytest.mark.slow
def test_flops_are_those_of_the_products_of_a_forward_pass() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from firsthand.nn.blocks.attention import Packed

    wide = replace(SMALL, windows=(None, None), attention_softcap=50.0)  # plain products, which the counter sees
    model, length = Decoder(wide), 64
    assert matrix_parameters(SMALL) == sum(p.numel() for p in model.parameters() if p.dim() == 2)  # the head is tied
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.logits(model(torch.zeros(length, dtype=torch.long), torch.arange(length), Packed([length])))
    assert counter.get_total_flops() == forward_flops_per_token(wide, length) * length
    assert training_flops(wide, 1000, length) == 3000 * forward_flops_per_token(wide, length)
    assert simple_training_flops(1e6, 2e7) == 1.2e14


@pytest.mark.parametrize("shared", [0, 16])
def test_a_mixture_of_experts_counts_a_tokens_own_experts(shared: int) -> None:
    experts = ExpertSettings(
        8, 2, 24, (False, True), shared_width=shared, has_shared_gate=shared > 0, has_correction=True
    )
    mixed = replace(SMALL, experts=experts)
    attention, head = 32 * (32 + 16 + 16 + 32), 100 * 32
    routed = 8 * 32 + 2 * 3 * 24 * 32 + (3 * 16 * 32 + 32 if shared else 0)
    assert matrix_parameters(mixed) == head + 2 * attention + 3 * 64 * 32 + routed
    matrices = {name: p.numel() for name, p in Decoder(mixed).named_parameters() if p.dim() > 1}
    idle = sum(size * 6 // 8 for name, size in matrices.items() if ".experts." in name)
    assert idle > 0 and matrix_parameters(mixed) == sum(matrices.values()) - idle
    assert forward_flops_per_token(mixed, 64) == 2 * matrix_parameters(mixed) + 4 * 32 * (64 + 16)


def test_a_plain_mlp_has_two_matrices() -> None:
    plain = replace(SMALL, is_gated=False)
    assert matrix_parameters(SMALL) - matrix_parameters(plain) == 2 * 64 * 32  # of each of two layers


def test_causal_counts_are_what_each_token_sees() -> None:
    seen = sum(min(t + 1, 64) for t in range(64)) / 64, sum(min(t + 1, 16) for t in range(64)) / 64
    expected = 2 * matrix_parameters(SMALL) + 4 * 32 * sum(seen)
    assert forward_flops_per_token(SMALL, 64, causal=True) == pytest.approx(expected)
    assert forward_flops_per_token(SMALL, 64) == 2 * matrix_parameters(SMALL) + 4 * 32 * (64 + 16)


def test_this_machine_multiplies_at_some_speed() -> None:
    assert measured_flops_per_second(size=64, seconds=0.0) > 1e5


# -- files --


def test_points_are_written_and_read(tmp_path: Path) -> None:
    points = grid(LAW)
    write_points(points, tmp_path / "p.csv")
    again = read_points(tmp_path / "p.csv")
    for name in ("parameters", "tokens", "loss", "flops"):
        assert getattr(again, name) == pytest.approx(getattr(points, name), rel=1e-9)
    (tmp_path / "q.csv").write_text("Model Size,Training FLOP,loss,color\n1e6,6e15,3.5,red\n")
    assert read_points(tmp_path / "q.csv").tokens.tolist() == [1e9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has the columns none: expected parameters, loss, and tokens or flops"),
        ("params,loss\n1,2\n", "has the columns params, loss: expected"),
        ("params,tokens,loss\n", "has no points"),
        ("params,tokens,loss\n1e6,1e9,3\n1e6,x,3\n", r":3: tokens is 'x': expected a number above 0"),
        ("params,tokens,loss\n1e6,1e9,nan\n", r":2: loss is 'nan'"),
        ("params,tokens,loss\n1e6,1e9\n", r":2: loss is ''"),
        ("params,tokens,loss\n-5,1e9,2\n", r":2: params is '-5'"),
        ("\0\n", "columns|no CSV"),
    ],
)
def test_files_that_are_wrong_are_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=expected) as raised:
        read_points(tmp_path / "p.csv")
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_points(tmp_path / "none.csv")


def test_points_that_are_no_numbers_above_zero_are_refused() -> None:
    with pytest.raises(DataError, match="not a number above 0"):
        ScalingPoints(np.array([1.0, 0.0]), np.ones(2), np.ones(2))
    with pytest.raises(DataError, match=r"points of shapes"):
        ScalingPoints(np.ones(2), np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="drop is 42 and there are 42 points"):
        grid(LAW).without_highest(42)
    kept = grid(LAW).without_highest(3)
    assert len(kept) == 39 and kept.loss.max() < np.sort(grid(LAW).loss)[-3]


# -- a source with known entropy --


def test_a_markov_chain_s_entropy_rate_is_its_closed_form() -> None:
    """With one token for each state the chain is seen, and its rate is the mean entropy of the rows."""
    chain = HiddenMarkov(np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.6, 0.4]]), np.eye(3))
    weights = chain.stationary()
    assert weights @ chain.transitions == pytest.approx(weights, abs=1e-12)
    rows = -(chain.transitions * np.log(np.where(chain.transitions > 0, chain.transitions, 1))).sum(1)
    found = chain.entropy_rate(tokens=100_000, texts=200)
    assert found.standard_error < 0.005
    assert found.nats == pytest.approx(float(weights @ rows), abs=4 * found.standard_error)


def test_log_probs_are_those_of_all_paths() -> None:
    source = random_source(states=3, tokens=4, seed=1)
    ids = np.array([[2, 0, 3, 1]])
    total = 0.0
    for path in np.ndindex(3, 3, 3, 3):
        p = source.stationary()[path[0]] * source.emissions[path[0], ids[0, 0]]
        for before, after, token in zip(path, path[1:], ids[0, 1:], strict=False):
            p *= source.transitions[before, after] * source.emissions[after, token]
        total += p
    assert source.logprobs(ids).sum() == pytest.approx(math.log(total), rel=1e-12)


def test_samples_follow_the_source_and_the_seed() -> None:
    source = random_source(states=4, tokens=5, seed=2)
    ids = source.sample(400, 50, seed=1)
    expected = source.stationary() @ source.emissions
    assert np.bincount(ids.ravel(), minlength=5) / ids.size == pytest.approx(expected, abs=0.03)
    assert np.array_equal(ids, source.sample(400, 50, seed=1)) and not np.array_equal(
        ids, source.sample(400, 50, seed=2)
    )
    with pytest.raises(ConfigError, match="ids from 0 to 5 came: the source has 5 tokens"):
        source.logprobs(np.array([[0, 5]]))
    with pytest.raises(ConfigError, match="rows of emissions are no distributions"):
        HiddenMarkov(np.eye(2), np.ones((2, 2)))
    for transitions, emissions in (
        (np.eye(2), np.eye(3)), (np.eye(3), np.eye(2)), (np.eye(2)[:1], np.eye(2)), (np.eye(1), np.ones(1)),
        (np.ones((2, 3)) / 3, np.eye(2)), (np.eye(1), np.ones((1, 1, 1))),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="expected S x S and S x V"):
            HiddenMarkov(transitions, emissions)
