"""The rows that can be among the k best, where each score is known to within a radius."""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import called, kernel


@called
def _replace_least(heap: Any, value: Any) -> None:
    """Put a value in place of the least of a heap."""
    size, at = heap.shape[0], 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@kernel
def possible_best(scores: Any, radii: Any, factor: float, slack: float, rows: Any, heap: Any, found: Any) -> int:
    """Writes the places i whose scores can be among the k best into `found`, ascending, and returns how many there are.

    scores[i] belongs to row rows[i] and is off by at most radii[row] * factor + slack. `heap` has length k and `found` the
    length of `scores`. Scores that may equal the k-th best are among those found. NaN is never found.
    """
    heap[:] = -np.inf
    count = 0
    for i in range(scores.shape[0]):
        radius = radii[rows[i]] * factor + slack
        low, high = scores[i] - radius, scores[i] + radius
        if low > heap[0]:
            _replace_least(heap, low)
        if high >= heap[0]:
            found[count] = i
            count += 1
    kept = 0
    for j in range(count):
        i = found[j]
        if scores[i] + (radii[rows[i]] * factor + slack) >= heap[0]:
            found[kept] = i
            kept += 1
    return kept
