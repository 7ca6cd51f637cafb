"""Words of searchable chunks in memory as postings, and BM25 over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
B = 0.75


class TermPostings:
    """For each word the rows that hold it with their counts."""

    def __init__(self) -> None:
        self.lengths: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._lengths: list[NDArray[np.int64]] = []
        self._words: NDArray[np.uint32] = np.empty((0, 3), dtype=np.uint32)
        self._new: list[NDArray[np.uint32]] = []
        self._rows = 0

    def append(self, lengths: Sequence[int], words: Sequence[bytes]) -> None:
        """Add rows: the number of words of each, and pairs of word number and count."""
        self._lengths.append(np.array(lengths, dtype=np.int64))
        for blob in words:
            pairs = np.frombuffer(blob, dtype="<u4").reshape(-1, 2)
            rows = np.full((len(pairs), 1), self._rows, dtype=np.uint32)
            self._new.append(np.hstack([pairs, rows]))
            self._rows += 1

    def join(self) -> None:
        """Make the appended rows searchable."""
        self.lengths = np.concatenate([self.lengths, *self._lengths])
        self._words = np.concatenate([self._words, *self._new])
        self._words = self._words[np.argsort(self._words[:, 0], kind="stable")]
        self._lengths, self._new = [], []

    def scores(self, words: Mapping[int, int], alive: NDArray[np.bool_]) -> NDArray[np.float64]:
        """BM25 of every row for the words of a query with their counts; 0 where no word occurs."""
        scores = np.zeros(len(self.lengths))
        count = int(alive.sum())
        mean = self.lengths[alive].mean() if count else 1.0
        for word, times in sorted(words.items()):
            first, last = np.searchsorted(self._words[:, 0], [word, word + 1])
            rows, counts = self._words[first:last, 2], self._words[first:last, 1].astype(np.float64)
            holding = int(alive[rows].sum())
            idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
            scores[rows] += times * idf * counts / (counts + K1 * (1 - B + B * self.lengths[rows] / mean))
        return scores
