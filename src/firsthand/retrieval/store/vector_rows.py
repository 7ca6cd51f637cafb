"""Vectors of searchable chunks in memory: whole numbers of 8 bits with a scale, and how far they are from the vector.

The distance bounds the error of a score (Cauchy and Schwarz), so the rows that can be among the best k are known for
certain; their f16 vectors decide.
"""

# R rows, D dimension, W width

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firsthand.kernels.search.byte_rows import OFFSET, PIECE

Floats = NDArray[np.float32]
_LARGEST = 127
_SLACK = 2e-6
"""Rounding of sums in float32, and of the float64 sums that decide."""


class VectorRows:
    """Rows of vectors, appended in batches and then joined."""

    def __init__(self, dimension: int):
        self.dimension = dimension
        self._width = -(-max(dimension, 1) // PIECE) * PIECE
        self._count = 0
        self._codes_RW: NDArray[np.uint8] = np.empty((0, self._width), dtype=np.uint8)
        self._scales: Floats = np.empty(0, dtype=np.float32)
        self._radii: Floats = np.empty(0, dtype=np.float32)

    def append(self, blobs: Sequence[bytes | None]) -> None:
        """Add rows of f16. ValueError if one is not of the dimension, or not finite."""
        if any(blob is None or len(blob) != 2 * self.dimension for blob in blobs):
            raise ValueError("a chunk's vector is missing, or has another dimension than the header says")
        halves = np.frombuffer(b"".join(blob or b"" for blob in blobs), dtype="<f2")
        rows_RD = halves.reshape(len(blobs), self.dimension).astype(np.float32)
        if not np.isfinite(rows_RD).all():
            raise ValueError("a chunk's vector has values that are not finite")
        scales = np.abs(rows_RD).max(axis=1) / np.float32(_LARGEST)
        scales[~(scales > 0)] = 1
        whole_RD = np.rint(rows_RD / scales[:, None])
        distances = np.linalg.norm(rows_RD - whole_RD * scales[:, None], axis=1)
        last = self._count + len(blobs)
        self._reserve(last)
        self._codes_RW[self._count : last, : self.dimension] = (whole_RD + OFFSET).astype(np.uint8)
        self._codes_RW[self._count : last, self.dimension :] = OFFSET
        self._scales[self._count : last] = scales
        self._radii[self._count : last] = distances
        self._count = last

    def _reserve(self, count: int) -> None:
        """Room for so many rows; it grows by half, so that appending one by one copies each row few times."""
        have = len(self._scales)
        if count > have:
            room = max(count, have + have // 2)
            self._codes_RW = np.concatenate([self._codes_RW, np.empty((room - have, self._width), dtype=np.uint8)])
            self._scales, self._radii = (
                np.concatenate([each, np.empty(room - have, dtype=np.float32)]) for each in (self._scales, self._radii)
            )

    def approximate(self, rows: NDArray[np.int64]) -> Floats:
        """The vectors of rows as their codes have them, shape (rows, dimension)."""
        codes = self._codes_RW[rows, : self.dimension].astype(np.float32) - OFFSET
        return codes * self._scales[rows, None]

    def add_to(self, summed: hashlib._Hash, count: int) -> None:
        """Add the first rows to a hash."""
        summed.update(self._codes_RW[:count].tobytes())
        summed.update(self._scales[:count].tobytes())

    def candidates(self, query: Floats, k: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the given rows that can be among the k of highest dot product with the query."""
        if len(rows) <= k:
            return rows
        from firsthand.kernels.search.best_rows import possible_best  # here, since both import and compile with numba
        from firsthand.kernels.search.byte_scan import byte_scores

        parts, coarse, fine, error = self._split(query)
        scores = np.empty(len(rows), dtype=np.float32)
        byte_scores(self._codes_RW.reshape(-1), self._width, self._scales, parts, coarse, fine, rows, scores)
        found = np.empty(len(rows), dtype=np.int64)
        length = float(np.linalg.norm(query))
        slack = error * 1.01 + _SLACK * max(1.0, length)
        heap = np.empty(k, dtype=np.float64)
        count = possible_best(scores, self._radii, length * (1 + 1e-6), slack, rows, heap, found)
        return rows[found[:count]]

    def _split(self, query: Floats) -> tuple[NDArray[np.int8], float, float, float]:
        """The query in coarse and fine bytes, the units of both, and the length of what is left."""
        wide = np.zeros(self._width)
        wide[: self.dimension] = query
        coarse = float(np.abs(wide).max()) / _LARGEST or 1.0
        high = np.rint(wide / coarse)
        fine = coarse / (2 * _LARGEST)
        low = np.rint((wide - coarse * high) / fine)
        left = wide - coarse * high - fine * low
        return np.concatenate([high, low]).astype(np.int8), coarse, fine, float(np.linalg.norm(left))
