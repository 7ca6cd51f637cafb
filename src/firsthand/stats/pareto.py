"""Finds the Pareto frontier of score against cost."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.stats.score_statistics import finite


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the (cost, score) pairs on the Pareto frontier, the cheapest first.

    A pair is dominated by one that costs no more and scores no less, and is better in one of the two. Pairs without a score
    are left out. These are point estimates: whether a step is more than chance is for the paired tests to say.
    """
    order = sorted(
        (index for index, (_, score) in enumerate(points) if finite(score) is not None),
        key=lambda index: (points[index][0], -points[index][1]),
    )
    best, found = float("-inf"), list[int]()
    for index in order:
        ties = bool(found) and points[index] == points[found[-1]]
        if points[index][1] > best or ties:
            best = points[index][1]
            found.append(index)
    return found
