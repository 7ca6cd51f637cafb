"""Postings in memory: sorted by word, and scored by BM25."""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from firsthand.kernels.jit import kernel


@kernel
def sort_postings(words: Any, rows: Any, counts: Any, starts: Any, sorted_rows: Any, sorted_counts: Any) -> None:
    """Sort postings by word, keeping the order of each word's rows.

    `starts` has two places more than the largest word and is zero; starts[w] and starts[w + 1] bound the word w after it.
    """
    for i in range(words.shape[0]):
        starts[words[i] + 1] += 1
    for word in range(1, starts.shape[0]):
        starts[word] += starts[word - 1]
    for i in range(words.shape[0]):
        place = starts[words[i]]
        starts[words[i]] = place + 1
        sorted_rows[place] = rows[i]
        sorted_counts[place] = counts[i]
    for word in range(starts.shape[0] - 1, 0, -1):
        starts[word] = starts[word - 1]
    starts[0] = 0


@kernel
def count_alive(rows: Any, first: int, last: int, alive: Any) -> int:
    """The number of live rows from first to last."""
    count = 0
    for i in range(first, last):
        count += alive[rows[i]]
    return count


@kernel
def add_scores(
    rows: Any,
    counts: Any,
    first: int,
    last: int,
    weight: float,
    lengths: Any,
    k1: float,
    b: float,
    mean: float,
    scores: Any,
) -> None:
    """Add one word's part of BM25 to the scores of its rows: weight * tf / (tf + k1 (1 - b + b length / mean))."""
    for i in range(first, last):
        row = rows[i]
        scores[row] += weight * counts[i] / (counts[i] + k1 * (1.0 - b + b * lengths[row] / mean))
