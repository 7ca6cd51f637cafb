"""Vectors of searchable chunks in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class VectorRows:
    """Rows of vectors, appended in batches and then joined."""

    def __init__(self, dimension: int):
        self.dimension = dimension
        self._rows: NDArray[np.float32] = np.empty((0, dimension), dtype=np.float32)
        self._new: list[NDArray[np.float32]] = []

    def append(self, blobs: Sequence[bytes]) -> None:
        """Add rows of f16."""
        halves = np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), self.dimension)
        self._new.append(halves.astype(np.float32))

    def join(self) -> None:
        """Make the appended rows searchable."""
        self._rows = np.concatenate([self._rows, *self._new])
        self._new = []

    def candidates(self, query: NDArray[np.float32], k: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the given rows that can be among the k of highest cosine."""
        scores = self._rows[rows] @ query
        if len(rows) <= k:
            return rows
        return rows[scores >= np.partition(scores, -k)[-k] - 1e-3]
