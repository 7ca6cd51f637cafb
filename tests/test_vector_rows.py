"""Vectors in 8 bits: zeros and rows beside each other, what is refused, and rows that may be among the best."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from firsthand.retrieval.store.vector_rows import VectorRows


def blobs(*rows: list[float]) -> list[bytes]:
    return [np.array(row, "<f2").tobytes() for row in rows]


def test_rows_are_kept_within_half_a_step_of_their_largest_value_and_zeros_are_zeros() -> None:
    rows = VectorRows(3)
    given = [[0, 0, 0], [1, -0.5, 0.25], [0, -0.01, 0]]
    rows.append(blobs(*given[:1]))
    rows.append(blobs(*given[1:]))
    rows.append([])
    made = rows.approximate(np.array([2, 0, 1, 1]))
    assert made.dtype == np.float32 and made.shape == (4, 3)
    for row, expected in zip(made, (given[2], given[0], given[1], given[1]), strict=True):
        assert np.abs(row - expected).max() <= max(map(abs, expected)) / 254 + 1e-4
    assert made[1].tolist() == [0, 0, 0] and made[0][1] == pytest.approx(-0.01, rel=1e-3)
    assert rows._scales[:3].tolist() == pytest.approx([1, 1 / 127, 0.01 / 127], rel=1e-3)
    assert rows._radii[0] == 0 == rows._radii[2]
    steps = np.array([0, 63.5 - 64, 31.75 - 32]) / 127  # beside the whole numbers of 1/127 that are kept: 127, -64, 32
    assert rows._radii[1] == pytest.approx(np.sqrt((steps**2).sum()), rel=1e-5)
    assert rows._codes_RW[:3, 3:].min() == rows._codes_RW[:3, 3:].max(), "what pads a row is nothing"
    for wrong in ([b"123456", None], blobs([1, 2]), [b""], blobs([1, 2, 3, 4]), blobs([1, 2, 3, 4], [5, 6])):
        with pytest.raises(
            ValueError, match=r"^a chunk's vector is missing, or has another dimension than the header says$"
        ):
            rows.append(wrong)
    for wrong in ([1, 2, float("nan")], [float("inf"), 0, 0]):
        with pytest.raises(ValueError, match=r"^a chunk's vector has values that are not finite$"):
            rows.append(blobs([1, 1, 1], wrong))
    assert rows._count == 3


def test_a_checksum_is_of_the_first_rows_their_codes_and_their_scales() -> None:
    def summed(count: int, *given: list[float]) -> str:
        rows = VectorRows(2)
        for row in given:  # one by one, so that room is left for more
            rows.append(blobs(row))
        made = hashlib.sha256()
        rows.add_to(made, count)
        return made.hexdigest()

    base = [[1.0, 0.5], [0.25, 1.0], [0.5, 0.5]]
    assert summed(2, *base) == summed(2, *base[:2]) == summed(2, *base[:2], [9, 9]) != summed(3, *base)
    assert summed(2, [2.0, 1.0], base[1]) != summed(2, *base), "the same codes at another scale"
    assert summed(2, base[1], base[0]) != summed(2, *base) and summed(0, *base) == hashlib.sha256().hexdigest()


def test_every_row_that_can_be_among_the_best_is_a_candidate_and_few_others() -> None:
    generator = np.random.default_rng(5)
    vectors = generator.normal(size=(300, 40)).astype("<f2")
    rows = VectorRows(40)
    rows.append([row.tobytes() for row in vectors])
    some = np.arange(0, 300, 3)
    for scale in (1.0, 1e-3, 50.0):
        query = (scale * generator.normal(size=40)).astype(np.float32)
        exact = vectors[some].astype(np.float64) @ query.astype(np.float64)
        best = some[np.argsort(-exact)]
        for k in (1, 7, 99):
            found = rows.candidates(query, k, some)
            assert {*best[:k]} <= {*found} <= {*some} and sorted(found) == found.tolist() and len(found) <= k + 20
        assert rows.candidates(query, 100, some) is some and len(rows.candidates(query, 3, some[:3])) == 3
    assert len(rows.candidates(np.zeros(40, np.float32), 5, some)) == 100, "all are equal"


@pytest.mark.parametrize(("dimension", "width"), [(1, 64), (2, 64), (63, 64), (64, 64), (65, 128), (128, 128)])
def test_the_checksum_of_rows_is_that_of_side_files_made_before(dimension: int, width: int) -> None:
    """Codes are 128 more than the whole numbers, and a row is filled to a multiple of 64 with the code of 0."""
    rows, padding = VectorRows(dimension), bytes([128] * (width - dimension))
    rows.append(blobs([127.0] + [0.0] * (dimension - 1), [-254.0] * dimension))
    rows.append(blobs([0.0] * dimension))
    codes = [[255] + [128] * (dimension - 1), [1] * dimension, [128] * dimension]
    for count in range(4):
        made = hashlib.sha256()
        rows.add_to(made, count)
        body = b"".join(bytes(code) + padding for code in codes[:count])
        scales = np.array([1.0, 2.0, 1.0][:count], np.float32).tobytes()
        assert made.hexdigest() == hashlib.sha256(body + scales).hexdigest(), count
    every = rows.approximate(np.arange(3))
    assert every.tolist() == [[127.0] + [0.0] * (dimension - 1), [-254.0] * dimension, [0.0] * dimension]
    query = np.zeros(dimension, np.float32)
    query[0] = 1
    assert [rows.candidates(query, k, np.arange(3)).tolist() for k in (1, 2, 3)] == [[0], [0, 2], [0, 1, 2]]
