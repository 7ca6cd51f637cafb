"""The compiled parts of search and of sampling against what they are defined to be, in plain numpy and Python."""

import re
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")
from firsthand.contamination import ngram_overlap
from firsthand.contamination.ngram_overlap import hashes_of
from firsthand.kernels.search.best_rows import possible_best
from firsthand.kernels.search.byte_scan import byte_scores
from firsthand.kernels.search.gram_hashes import bloom_add, bloom_has
from firsthand.kernels.step.token_sampling import draw, draw_nucleus
from interpreted_kernels import Interpreter

ALL = (1 << 64) - 1


@pytest.fixture(params=["in Python", "compiled"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the kernels as they run, and once with their Python bodies."""
    if request.param == "in Python":
        here = sys.modules[__name__]
        for kernel in (possible_best, byte_scores, bloom_add, bloom_has):
            monkeypatch.setattr(here, kernel.__name__, Interpreter()(kernel))
        monkeypatch.setattr(ngram_overlap, "gram_hashes", Interpreter()(ngram_overlap.gram_hashes))


def best_places(
    scores: NDArray[np.float32], radii: NDArray[np.float32], k: int, factor: float, slack: float, rows: list[int]
) -> list[int]:
    found = np.full(len(scores), -7, dtype=np.int64)
    heap = np.full(k, 99.0)
    count = possible_best(scores, radii, factor, slack, np.array(rows, dtype=np.int64), heap, found)
    return [int(place) for place in found[:count]]


@pytest.mark.usefixtures("either_way")
def test_possible_best_keeps_every_row_whose_score_may_reach_the_k_th() -> None:
    rng = np.random.default_rng(5)
    for k in (1, 2, 3, 5, 8, 40):
        for _ in range(12):
            scores = (rng.integers(-20, 20, 41) / 4).astype(np.float32)
            radii = (rng.integers(0, 5, 60) / 4).astype(np.float32)
            rows = rng.permutation(60)[:41]
            radius = radii[rows] * 1.5 + 0.25
            reached = sorted(scores - radius)[-k]
            expected = [i for i in range(41) if scores[i] + radius[i] >= reached]
            assert best_places(scores, radii, k, 1.5, 0.25, rows.tolist()) == expected
    exact = np.zeros(4, dtype=np.float32)
    scores = np.array([1, np.nan, 3, 1, 2, -np.inf], dtype=np.float32)
    rows = [3, 2, 1, 0, 0, 1]
    assert best_places(scores, exact, 3, 0.0, 0.0, rows) == [0, 2, 3, 4]  # two are equal to the third best
    assert best_places(scores, exact, 2, 0.0, 0.0, rows) == [2, 4]
    assert best_places(scores, exact, 5, 0.0, 0.0, rows) == [0, 2, 3, 4, 5]
    assert best_places(scores, exact, 6, 0.0, 0.0, rows) == [0, 2, 3, 4, 5]
    assert best_places(scores[:0], exact, 1, 0.0, 0.0, []) == []


@pytest.mark.usefixtures("either_way")
def test_byte_scores_are_the_dot_products_of_the_rows_that_are_asked_for() -> None:
    rng = np.random.default_rng(6)
    for width in (64, 192):
        codes = rng.integers(-127, 128, (7, width))
        codes[3], codes[4] = 127, -127
        scales = rng.uniform(0.01, 0.2, 7).astype(np.float32)
        parts = rng.integers(-127, 128, (2, width)).astype(np.int8)
        parts[0, :3] = [127, -128, -1]
        rows = np.array([6, 3, 0, 4, 3])
        scores = np.full(5, np.nan, dtype=np.float32)
        byte_scores(
            (codes + 128).astype(np.uint8).reshape(-1), width, scales, parts.reshape(-1), 0.5, 0.002, rows, scores
        )
        query = 0.5 * parts[0].astype(np.float64) + 0.002 * parts[1]
        expected = scales[rows] * (codes[rows] @ query)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-3)


def gram_hash(words: list[bytes]) -> int:
    """FNV-1a of each word, as digits of a number in a base, mixed."""
    number = 0
    for word in words:
        hashed = 14695981039346656037
        for byte in word:
            hashed = ((hashed ^ byte) * 1099511628211) & ALL
        number = (number * 0x9E3779B97F4A7C15 + hashed) & ALL
    return ((number ^ (number >> 31)) * 0xBF58476D1CE4E5B9) & ALL


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_hashes_of_n_grams_are_of_lower_case_words_between_anything_else(n: int) -> None:
    text = "@Az, zA[`0:9/ é-{AZ}a0Z9 m'M\x7f\nÄÀb  B..last".encode()
    words = [(each.group().lower(), each.end()) for each in re.finditer(rb"[A-Za-z0-9\x80-\xff]+", text)]
    assert [word for word, _ in words][:5] == [b"az", b"za", b"0", b"9", "é".encode()]
    expected = [
        (gram_hash([word for word, _ in words[i : i + n]]), words[i + n - 1][1]) for i in range(len(words) - n + 1)
    ]
    hashes, ends = hashes_of(text, n)
    assert list(zip(hashes.tolist(), ends.tolist(), strict=True)) == expected
    short, _ = hashes_of(b" one two"[: 4 * n - 1], n + 1)
    assert short.tolist() == []
    again, _ = hashes_of(b"az ZA 0 9", n)  # only words count
    assert again.tolist() == hashes[: 5 - n].tolist()


def bloom_places(hashed: int, words: int, probes: int) -> list[int]:
    step = (hashed >> 33) | 1
    return [((hashed + i * step * 1099511628211) & ALL) % (words * 64) for i in range(probes)]


@pytest.mark.usefixtures("either_way")
def test_a_bloom_filter_sets_and_asks_for_the_same_bits() -> None:
    hashes = np.array([5, (1 << 63) + 77, ALL, gram_hash([b"one"])], dtype=np.uint64)
    bits = np.zeros(4, dtype=np.uint64)
    bloom_add(hashes, bits, 3)
    expected = {place for each in hashes.tolist() for place in bloom_places(each, 4, 3)}
    set_bits = {at for at in range(256) if int(bits[at // 64]) >> (at % 64) & 1}
    assert set_bits == expected
    asked = np.array([*hashes.tolist(), *range(1, 40)], dtype=np.uint64)
    found = np.zeros(len(asked), dtype=bool)
    found[::2] = True  # what was there before is written over
    for probes in (3, 2, 4):
        bloom_has(asked, bits, probes, found)
        assert found.tolist() == [set(bloom_places(each, 4, probes)) <= expected for each in asked.tolist()]


def vocabulary(size: int, spread: float) -> NDArray[np.float32]:
    logits = np.random.default_rng(size).normal(scale=spread, size=size).astype(np.float32)
    return logits + np.float32(40)  # exponentials of these alone would be large


@pytest.mark.parametrize(("size", "temperature", "min_p"), [(5, 0.7, 0.0), (2077, 1.3, 0.0), (2077, 0.8, 0.05)])
def test_a_draw_is_the_token_whose_share_of_the_whole_holds_the_number(
    size: int, temperature: float, min_p: float
) -> None:
    logits = vocabulary(size, 2.0)
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    weights[weights < min_p] = 0
    whole, ends = weights.sum(), np.cumsum(weights)
    picked = [*np.argsort(weights)[-5:], *(at for at in (0, 1023, 1024, 2047, 2048, size - 1) if at < size)]
    checked = 0
    for token in picked:
        if weights[token] < 1e-4 * whole and size > 5:
            continue
        id, logprob = draw(logits, temperature, min_p, float((ends[token] - weights[token] / 2) / whole))
        assert id == token
        assert logprob == pytest.approx(np.log(weights[token] / whole), abs=2e-5)
        checked += 1
    assert checked >= 5
    assert draw(logits, temperature, min_p, 0.0)[0] == np.flatnonzero(weights)[0]
    assert draw(logits, temperature, min_p, np.nextafter(1, 0))[0] == np.flatnonzero(weights)[-1]


def test_a_number_at_the_end_of_a_share_is_the_next_token_s() -> None:
    even = np.zeros(4, dtype=np.float32)
    assert [draw(even, 1.0, 0.0, number)[0] for number in (0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.99)] == [
        0, 0, 1, 2, 2, 3, 3
    ]  # fmt: skip
    pieces = np.full(3072, -50, dtype=np.float32)
    pieces[[5, 1030, 2050, 3000]] = 10  # quarters, in three pieces of 1,024
    drawn = [draw(pieces, 1.0, 0.1, number)[0] for number in (0.0, 0.25, 0.5, 0.75)]
    assert drawn == [5, 1030, 2050, 3000]
    nucleus = [draw_nucleus(pieces, 1.0, 0.75, 0.1, number)[0] for number in (0.0, 0.32, 0.34, 0.66, 0.67, 0.99)]
    assert nucleus == [5, 5, 1030, 1030, 2050, 2050]  # of equal ones the first ids; three reach 0.75


@pytest.mark.parametrize(
    ("size", "spread", "top_p", "min_p"),
    [(37, 2.0, 0.8, 0.0), (2077, 0.3, 0.9, 0.0), (2077, 3.0, 0.95, 0.02), (21, 1.0, 1e-9, 0.0), (21, 1.0, 0.9, 1.0)],
)
def test_a_nucleus_is_the_fewest_most_probable_tokens_that_reach_top_p(
    size: int, spread: float, top_p: float, min_p: float
) -> None:
    logits, temperature = vocabulary(size, spread), 0.9
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    kept = [
        token
        for at, token in enumerate(order)
        if at == 0 or (before[at] < top_p * weights.sum() and weights[token] >= min_p)
    ]
    mass, at = weights[kept].sum(), 0.0
    for place, token in enumerate(kept):
        share = weights[token] / mass
        if place in (0, 1, len(kept) // 2, len(kept) - 1):
            id, logprob = draw_nucleus(logits, temperature, top_p, min_p, float(at + share / 2))
            assert id == token
            assert logprob == pytest.approx(np.log(share), abs=2e-5)
        at += share
