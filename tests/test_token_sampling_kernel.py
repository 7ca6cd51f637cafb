"""Sampling kernels in Python, with pieces of 32 tokens, against the definition of their distributions in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.kernels.step import token_sampling
from interpreted_kernels import Interpreter

RUN = Interpreter(PIECE=32)
DRAW, DRAW_NUCLEUS = RUN(token_sampling.draw), RUN(token_sampling.draw_nucleus)
LAST = float(np.nextafter(1, 0))


def logits_of(size: int) -> NDArray[np.float32]:
    return (np.random.default_rng(size).normal(size=size) * 1.5 + 40).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "temperature", "min_p"), [(75, 0.7, 0.0), (75, 1.3, 0.2), (64, 1.0, 0.05), (1, 0.5, 0.0)]
)
def test_a_number_draws_the_token_whose_share_it_falls_into(size: int, temperature: float, min_p: float) -> None:
    logits = logits_of(size)
    before = logits.copy()
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    weights[weights < min_p] = 0
    ends, whole = np.cumsum(weights), weights.sum()
    for token in np.flatnonzero(weights > 1e-3 * whole).tolist():
        drawn, logprob = DRAW(logits, temperature, min_p, float((ends[token] - weights[token] / 2) / whole))
        assert (drawn, logprob) == (token, pytest.approx(np.log(weights[token] / whole), abs=2e-5))
    kept = np.flatnonzero(weights)
    assert [DRAW(logits, temperature, min_p, number)[0] for number in (0.0, LAST)] == [kept[0], kept[-1]]
    np.testing.assert_array_equal(logits, before)


def test_a_number_at_an_end_draws_the_next_token_also_between_pieces() -> None:
    even = np.full(96, -60, np.float32)
    even[[3, 31, 32, 95]] = 2
    drawn = [DRAW(even, 1.0, 0.1, number) for number in (0.0, 0.24, 0.25, 0.5, 0.74, 0.75, LAST)]
    assert [token for token, _ in drawn] == [3, 3, 31, 32, 32, 95, 95]
    assert {round(float(logprob), 6) for _, logprob in drawn} == {round(float(np.log(0.25)), 6)}
    assert DRAW(even, 1.0, 1.0, 0.6)[0] == 32  # as probable as the best: not below it
    nucleus = [
        DRAW_NUCLEUS(even, 1.0, top_p, 0.0, number) for top_p in (0.5, 0.51, 0.75) for number in (0.0, 0.5, LAST)
    ]
    assert [token for token, _ in nucleus] == [3, 31, 31, 3, 31, 32, 3, 31, 32]
    kept = [2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert [float(logprob) for _, logprob in nucleus] == pytest.approx([-np.log(count) for count in kept], abs=1e-6)


@pytest.mark.parametrize(
    ("size", "top_p", "min_p"), [(75, 0.8, 0.0), (75, 0.95, 0.1), (300, 0.9999, 0.0), (40, 1e-9, 0.0), (40, 0.9, 1.0)]
)
def test_a_nucleus_is_the_fewest_most_probable_tokens_best_first(size: int, top_p: float, min_p: float) -> None:
    logits, temperature = logits_of(size), 2.5 if size == 300 else 0.9
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    kept = [
        token
        for at, token in enumerate(order.tolist())
        if at == 0 or (before[at] < top_p * weights.sum() and weights[token] >= min_p)
    ]
    assert size != 300 or len(kept) > 256  # more than there was room for
    shares = weights[kept] / weights[kept].sum()
    ends = np.cumsum(shares)
    for place in sorted({0, 1, len(kept) // 2, len(kept) - 1} & set(range(len(kept)))):
        token, logprob = DRAW_NUCLEUS(logits, temperature, top_p, min_p, float(ends[place] - shares[place] / 2))
        assert (token, logprob) == (kept[place], pytest.approx(np.log(shares[place]), abs=2e-5))
    assert [DRAW_NUCLEUS(logits, temperature, top_p, min_p, number)[0] for number in (0.0, LAST)] == [kept[0], kept[-1]]


def test_a_piece_is_weighed_whole_or_down_to_a_floor() -> None:
    logits = logits_of(75)
    top, factor = logits.max(), np.float32(0.8)
    expected = np.exp((logits[64:].astype(np.float64) - top) * 0.8)
    weights = np.full(48, 9, np.float32)
    total = RUN(token_sampling._weigh)(logits, 64, top, factor, np.float32(0), weights)
    np.testing.assert_allclose(weights[:11], expected, rtol=1e-5)
    assert total == pytest.approx(expected.sum(), rel=1e-5) and (weights[11:] == 9).all()
    floor = np.float32(sorted(expected)[6])
    total = RUN(token_sampling._weigh)(logits, 64, top, factor, floor, weights)
    expected[weights[:11] == 0] = 0
    assert 4 <= np.count_nonzero(expected) <= 5
    np.testing.assert_allclose(weights[:11], expected, rtol=1e-5)
    assert total == pytest.approx(expected.sum(), rel=1e-5)
    weights[:] = 9
    whole = np.exp((logits[32:64].astype(np.float64) - top) * 0.8)
    assert RUN(token_sampling._weigh)(logits, 32, top, factor, np.float32(0), weights) == pytest.approx(
        whole.sum(), rel=1e-5
    )
    np.testing.assert_allclose(weights[:32], whole, rtol=1e-5)
    assert (weights[32:] == 9).all()
    assert token_sampling.PIECE == 1024
