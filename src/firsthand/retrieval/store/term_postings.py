"""Words of searchable chunks in memory as postings, and BM25 over them.

BM25 as Lucene has it (Kamphuis et al., 2020): idf = ln(1 + (N - n + 0.5) / (n + 0.5)), and tf / (tf + k1 (1 - b + b length /
mean)), lengths exact. A word that occurs twice in the query counts twice. NumPy alone: terms are searched without numba,
whose import and compilation would take longer than most searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
B = 0.75
_MAX_SEGMENTS = 8
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
        norms = K1 * (1.0 - B + B * self.lengths / mean)
        for word, times in words:
            found = [(each, *each.bounds(word)) for each in self._segments]
            if num_alive == self._rows:
                holding = sum(last - first for _, first, last in found)
            else:
                holding = sum(int(np.count_nonzero(alive[each.rows[first:last]])) for each, first, last in found)
            weight = times * math.log(1 + (num_alive - holding + 0.5) / (holding + 0.5))
            for each, first, last in found:
                rows, counts = each.rows[first:last], each.counts[first:last]
                # not `scores[rows] +=`: a row of a foreign file may hold a word twice
                np.add.at(scores, rows, weight * counts / (counts + norms[rows]))
        return scores


def _segment(words: Ints, rows: NDArray[np.int32], counts: NDArray[np.int32]) -> Segment:
    """The postings sorted by word, those of each word in the order in which they came."""
    keys = (words.astype(np.uint64) << np.uint64(32)) | np.arange(len(words), dtype=np.uint64)
    keys.sort()  # numbers of words have 32 bits; NumPy sorts whole numbers several times as fast as places by them
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    words = words[order]
    first = np.flatnonzero(np.diff(words, prepend=-1))
    return Segment(words[first], np.append(first, len(words)), rows[order], counts[order])
