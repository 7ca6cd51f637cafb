"""Words of searchable chunks in memory as postings, and BM25 over them.

BM25 as Lucene has it (Kamphuis et al., 2020): idf = ln(1 + (N - n + 0.5) / (n + 0.5)), and tf / (tf + k1 (1 - b + b length /
mean)), lengths exact. A word that occurs twice in the query counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firsthand.kernels.search.posting_scores import add_scores, count_alive, sort_postings

K1 = 1.2
B = 0.75
_MAX_SEGMENTS = 8
_DENSE = 64
"""Word numbers up to so many times the postings are counted in an array; a foreign file may hold larger ones."""
Ints = NDArray[np.int64]
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Segment:
    """The postings of some rows, sorted by word."""

    words: Ints
    """The words that occur, ascending."""
    starts: Ints
    """The first posting of each word, and the number of all."""
    rows: NDArray[np.int32]
    counts: NDArray[np.int32]

    def bounds(self, word: int) -> tuple[int, int]:
        """The first posting of a word, and the one after its last."""
        at = int(np.searchsorted(self.words, word))
        if at == len(self.words) or self.words[at] != word:
            return 0, 0
        return int(self.starts[at]), int(self.starts[at + 1])


class TermPostings:
    """For each word the rows that hold it with their counts, in segments that are merged as they become many."""

    def __init__(self) -> None:
        self.lengths: Ints = np.empty(0, dtype=np.int64)
        self._lengths: list[Ints] = []
        self._new: list[tuple[Words, NDArray[np.int32]]] = []
        self._rows = 0
        self._segments: list[Segment] = []

    def append(self, lengths: Sequence[int], words: Sequence[bytes], num_words: int) -> None:
        """Add rows: the number of words of each, and pairs of word number and count. ValueError if they are none."""
        self._lengths.append(np.array(lengths, dtype=np.int64))
        pairs = np.frombuffer(b"".join(words), dtype="<u4").reshape(-1, 2)
        if len(pairs) and int(pairs[:, 0].max()) > num_words:
            raise ValueError("a chunk has a word that the table of words does not know")
        sizes = np.array([len(each) // 8 for each in words])
        rows = np.repeat(np.arange(self._rows, self._rows + len(words), dtype=np.int32), sizes)
        self._new.append((pairs, rows))
        self._rows += len(words)

    def join(self) -> None:
        """Make the appended rows searchable."""
        self.lengths = np.concatenate([self.lengths, *self._lengths])
        pairs = np.concatenate([each for each, _ in self._new])
        rows = np.concatenate([each for _, each in self._new])
        self._segments.append(_segment(pairs[:, 0].astype(np.int64), rows, pairs[:, 1].astype(np.int32)))
        self._lengths, self._new = [], []
        if len(self._segments) > _MAX_SEGMENTS:
            self._merge()

    def _merge(self) -> None:
        """Merge the last segments, and the first too once they hold a quarter of its postings."""
        rest = sum(len(each.rows) for each in self._segments[1:])
        first = 0 if 4 * rest > len(self._segments[0].rows) else 1
        merged = self._segments[first:]
        words = np.concatenate([np.repeat(each.words, np.diff(each.starts)) for each in merged])
        rows, counts = (np.concatenate([getattr(each, name) for each in merged]) for name in ("rows", "counts"))
        self._segments[first:] = [_segment(words, rows, counts)]

    def scores(self, words: Sequence[tuple[int, int]], alive: NDArray[np.bool_], num_alive: int) -> NDArray[np.float64]:
        """BM25 of every row for the words of a query with their counts; 0 where no word occurs."""
        scores = np.zeros(self._rows)
        total = int(self.lengths.sum() if num_alive == self._rows else self.lengths[alive].sum())
        mean = max(total / max(num_alive, 1), 1e-9)
        for word, times in words:
            found = [(each, *each.bounds(word)) for each in self._segments]
            if num_alive == self._rows:
                holding = sum(last - first for _, first, last in found)
            else:
                holding = sum(count_alive(each.rows, first, last, alive) for each, first, last in found)
            weight = times * math.log(1 + (num_alive - holding + 0.5) / (holding + 0.5))
            for each, first, last in found:
                add_scores(each.rows, each.counts, first, last, weight, self.lengths, K1, B, mean, scores)
        return scores


def _segment(words: Ints, rows: NDArray[np.int32], counts: NDArray[np.int32]) -> Segment:
    if len(words) and int(words.max()) > _DENSE * len(words):  # a place for each number would be mostly empty
        known, words = np.unique(words, return_inverse=True)
        made = _segment(words, rows, counts)
        return Segment(known[made.words], made.starts, made.rows, made.counts)
    starts = np.zeros(int(words.max()) + 2 if len(words) else 1, dtype=np.int64)
    sorted_rows, sorted_counts = np.empty_like(rows), np.empty_like(counts)
    sort_postings(words, rows, counts, starts, sorted_rows, sorted_counts)
    present = np.flatnonzero(np.diff(starts))
    return Segment(present, np.append(starts[present], len(rows)), sorted_rows, sorted_counts)
