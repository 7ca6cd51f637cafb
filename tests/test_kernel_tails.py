"""Odd sizes, tails of pieces and words, exact ties and far-away logits, against numpy, torch, and batched draws."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from engine_tiny import tiny_model
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.engine.decoding.sampler import TokenDraw, candidates, choose, draw, is_on_policy
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import CompiledDecoder
from firsthand.nn.quant import pack

pytest.importorskip("numba")

SIZES = [1, 15, 16, 17, 1023, 1024, 1025, 3001, 50_257]
LAST = math.nextafter(1, 0)


def logits_of(size: int, offset: float = 0.0) -> torch.Tensor:
    """Logits with a few likely tokens: the first, the last, and those beside each edge of a piece of 1,024."""
    logits_V = torch.randn(size, generator=torch.Generator().manual_seed(size))
    places = [place for edge in range(0, size + 1, 1024) for place in (edge - 1, edge) if 0 <= place < size]
    logits_V[[*places, size - 1]] += 6.0
    return logits_V + offset


def by_all(logits_V: torch.Tensor, sampling: Sampling, number: float) -> list[TokenDraw]:
    """The draw of the compiled kernel, of torch, and of the batch, at the same random number."""
    kernel = choose(logits_V, sampling, number=number, prompt=[], counts=Counter())
    plain = draw(*candidates(logits_V, sampling), number)
    settings = DrawSettings(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, number)
    rows_MV = torch.stack([logits_V.flip(0), logits_V])  # the row below has company
    batch = draw_rows(rows_MV, [None, settings], otherwise=torch.tensor([0, 0]))
    logprob = float(batch.logprobs[1]) if not settings.is_on_policy else plain.logprob
    return [kernel, plain, TokenDraw(int(batch.tokens[1]), logprob)]


@pytest.mark.parametrize("offset", [0.0, 300.0, -300.0])
@pytest.mark.parametrize("size", SIZES)
def test_a_number_inside_a_tokens_part_draws_that_token_whatever_the_size_of_the_vocabulary(
    size: int, offset: float
) -> None:
    logits_V, sampling = logits_of(size, offset), Sampling(temperature=0.9)
    scaled = logits_V.double().numpy() / 0.9
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    after = np.cumsum(probs)
    likely = np.flatnonzero(logits_V.numpy() > offset + 3.0)
    targets = {0, size - 1, *likely.tolist()[:6], *likely.tolist()[-6:]}
    for token in targets:
        for drawn in by_all(logits_V, sampling, after[token] - probs[token] / 2):
            assert drawn.token == token
            assert drawn.logprob == pytest.approx(math.log(probs[token]), abs=1e-5)
    assert {drawn.token for drawn in by_all(logits_V, sampling, 0.0)} == {0}
    assert {drawn.token for drawn in by_all(logits_V, sampling, LAST)} == {size - 1}


@pytest.mark.parametrize("size", SIZES)
def test_the_nucleus_reaches_the_last_token_of_any_vocabulary(size: int) -> None:
    logits_V = logits_of(size)
    logits_V[size - 1] += 3.0  # the most probable one lies in the tail
    scaled = logits_V.double().numpy() / 0.8
    order = np.argsort(-scaled, kind="stable")
    weights = np.exp(scaled - scaled.max())[order]
    for top_p, min_p in ((0.3, 0.0), (0.9, 0.0), (0.999, 0.05)):
        before = np.cumsum(weights) - weights
        kept = (before < top_p * weights.sum()) & (weights >= min_p)
        kept[0] = True
        count = int(kept.sum())
        share = weights[:count] / weights[:count].sum()
        sampling = Sampling(temperature=0.8, top_p=top_p, min_p=min_p)
        for rank in {0, count // 2, count - 1}:
            number = float(share[:rank].sum() + share[rank] / 2)
            for drawn in by_all(logits_V, sampling, number):
                assert drawn.token == order[rank]
                assert drawn.logprob == pytest.approx(math.log(share[rank]), abs=2e-5)


TIED = torch.tensor([0.0, 2.0, -1.0, 2.0, 2.0, 1.0, 2.0] + [-200.0] * 10)  # four at the top, alike


def test_min_p_of_one_keeps_all_that_are_as_probable_as_the_best() -> None:
    for place, token in enumerate((1, 3, 4, 6)):
        sampled = [
            by_all(TIED, Sampling(temperature=0.7, min_p=1.0, top_p=top_p), (place + 0.5) / 4) for top_p in (1.0, 0.9)
        ]
        for drawn in (*sampled[0], sampled[1][0], sampled[1][2]):  # torch's topk orders equals as it likes
            assert drawn == (token, pytest.approx(math.log(1 / 4), abs=1e-6))


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 2), (0.25, 1), (0.75, 3), (0.5000001, 3), (1e-9, 1)])
def test_top_p_that_is_reached_exactly_is_reached(top_p: float, kept: int) -> None:
    four_V = torch.full((4,), 1.5)
    for place in range(kept):
        kernel, plain, batch = by_all(four_V, Sampling(temperature=1.0, top_p=top_p), (place + 0.5) / kept)
        assert kernel.token == batch.token == place  # equals in the order of their ids
        for drawn in (kernel, plain, batch):
            assert drawn.logprob == pytest.approx(-math.log(kept), abs=1e-6)
    last = by_all(four_V, Sampling(temperature=1.0, top_p=top_p), LAST)
    assert all(drawn.logprob == pytest.approx(-math.log(kept), abs=1e-6) for drawn in last)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_keeps_that_many_of_equals(top_k: int) -> None:
    for number in (0.0, 0.5, LAST):
        for drawn in by_all(TIED, Sampling(temperature=1.0, top_k=top_k), number)[1:]:
            assert drawn.token in (1, 3, 4, 6) and drawn.logprob == pytest.approx(-math.log(top_k), abs=1e-6)


def test_a_number_on_the_edge_between_two_tokens_draws_the_second() -> None:
    for drawn in by_all(torch.zeros(4), Sampling(temperature=1.0), 0.5):
        assert drawn == (2, pytest.approx(math.log(1 / 4), abs=1e-6))
    for piece in (1, 2, 3):  # between two pieces of 1,024 too
        assert {drawn.token for drawn in by_all(torch.zeros(4096), Sampling(temperature=1.0), piece / 4)} == {
            1024 * piece
        }


@pytest.mark.parametrize("settings", list(product([1.0, 0.5], [0, 3], [1.0, 0.9], [0.0, 0.1])))
def test_a_draw_is_the_models_own_only_without_any_setting(settings: tuple[float, int, float, float]) -> None:
    temperature, top_k, top_p, min_p = settings
    row = DrawSettings(temperature, top_k, top_p, min_p, 0.5)
    own = settings == (1.0, 0, 1.0, 0.0)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert row.is_on_policy == is_on_policy(sampling) == own
    logits_V = logits_of(33)
    tokens, logprobs = draw_rows(logits_V[None], [row], otherwise=torch.tensor([0]))
    expected = draw(*candidates(logits_V, sampling), 0.5)
    assert int(tokens[0]) == expected.token
    assert float(logprobs[0]) == pytest.approx(0.0 if own else expected.logprob, abs=1e-6)


@pytest.mark.parametrize("size", [17, 33, 95, 1025, 3001])
@pytest.mark.parametrize("density", [0.02, 0.5, 0.995])
def test_a_mask_takes_and_counts_every_allowed_token_of_any_vocabulary(size: int, density: float) -> None:
    from firsthand.engine.decoding import mask_kernel

    bits_V = np.random.default_rng(size).random(size) < density
    bits_V[[0, size - 1]] = True  # the first, and the last of an unfinished word
    if size > 96:
        bits_V[32:96] = True  # whole words
    words = np.packbits(np.pad(bits_V, (0, -size % 32)), bitorder="little").view(np.uint32)
    logits_V = logits_of(size)
    ids = np.flatnonzero(bits_V)
    np.testing.assert_array_equal(mask_kernel.take(logits_V.numpy(), words), logits_V.numpy()[ids])
    assert [mask_kernel.nth(words, place) for place in range(len(ids))] == ids.tolist()
    assert mask_kernel.nth(words, len(ids)) == -1
    greedy = choose(logits_V, Sampling(), number=0.5, prompt=[], counts=Counter(), allowed=words)
    assert greedy.token == ids[int(logits_V[ids].argmax())]
    last = choose(logits_V, Sampling(temperature=1.0), number=LAST, prompt=[], counts=Counter(), allowed=words)
    assert last.token == size - 1
    short = np.concatenate([words, np.full(2, 0xFFFFFFFF, np.uint32)])  # bits behind the vocabulary are no tokens
    np.testing.assert_array_equal(mask_kernel.take(logits_V.numpy(), short), logits_V.numpy()[ids])


@pytest.mark.parametrize("weights", ["int8", "float16", "float32"])
@pytest.mark.parametrize("vocab_size", [1025, 3001])
def test_the_head_rates_every_token_of_an_odd_vocabulary(vocab_size: int, weights: str) -> None:
    model = tiny_model(vocab_size=vocab_size, tied=False)
    pack(model.eval().requires_grad_(False), weights)  # type: ignore[arg-type]
    hidden_MD = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected_MV = model.logits(hidden_MD)
        best_M = expected_MV.argmax(-1)
        hidden_MD[0] *= 60.0  # logits of hundreds: without the largest taken off, e ** logit overflows
        expected_MV = model.logits(hidden_MD)
    logits = CompiledDecoder(model).logits(hidden_MD.numpy())
    scale = float(expected_MV.abs().max())
    assert scale > 100
    torch.testing.assert_close(logits.values, expected_MV, atol=2e-5 * scale, rtol=1e-4)
    assert logits.best == best_M.tolist()
    # against the logits that it computed, so that only the normaliser's own arithmetic is looked at
    expected_M = logits.values.double().logsumexp(-1).numpy()
    np.testing.assert_allclose(logits.normalisers, expected_M, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("place", [0, 1, 15, 16, 1023, 1024])
def test_the_best_token_is_the_first_of_equals_wherever_it_lies(place: int) -> None:
    model = tiny_model(vocab_size=1025, tied=False).eval().requires_grad_(False)
    model.lm_head.weight[:] = 0.0
    model.lm_head.weight[place:] = 0.25  # all from here on are alike
    pack(model, "float32")
    logits = CompiledDecoder(model).logits(np.ones((1, 32), dtype=np.float32))
    assert logits.best == [place] and float(logits.values[0, place]) == 8.0
    expected = 8.0 + math.log(1025 - place + place * math.exp(-8.0))
    assert logits.normalisers[0] == pytest.approx(expected, abs=1e-5)
