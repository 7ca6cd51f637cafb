"""Degrees of freedom of Bradley-Terry's intervals where votes are tied.

A tie is half a win and adds no variance, so the sandwich estimate knows the variance from the decided votes alone: four wins
without a loss among ties are a matter of chance (one in eight), and a normal quantile calls them certain. Without ties the
variance of a vote follows from its mean, and nothing is estimated.
"""

# M models, R pairs of models that met

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import TIE, BattleTable

Floats = NDArray[np.float64]
MAX_CELLS = 500_000_000
"""Pairs times models above which each model has a hundred votes and more, and a normal quantile is as good."""
_CELLS_AT_ONCE = 4_000_000


def tie_freedom(battles: BattleTable, bread_MM: NDArray[Any]) -> Floats:
    """Shape (M): the degrees of freedom of each rating, infinite without ties.

    Of two models with d decided votes of n it is d n / (2 (n - d)), a quarter of what Satterthwaite's approximation gives
    for a mean of wins, ties and losses: with it equal models are told apart in at most 5 % of arenas of 6 to 60 votes,
    whatever the share of ties. Among more models a vote counts by its weight in the rating: the few votes that link two
    groups have most of it.

    Args:
        battles: The battles.
        bread_MM: The inverse of the information of the strengths, from which weights follow.
    """
    size = len(battles.models)
    both = np.triu(battles.counts + battles.counts[::-1].transpose(0, 2, 1))
    a, b = np.nonzero(both.sum(0))
    votes, tied = both[:, a, b].sum(0).astype(np.float64), both[TIE, a, b].astype(np.float64)
    if not tied.any() or size * len(a) > MAX_CELLS:
        return np.full(size, np.inf)
    centred = bread_MM - bread_MM.mean(0)  # the strengths sum to zero
    decided = votes - tied
    sums = np.zeros((4, size))
    step = max(1, _CELLS_AT_ONCE // size)
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        weight = (centred[:, a[part]] - centred[:, b[part]]) ** 2
        for total, counts, each in zip(sums, (votes, tied, decided, decided), (1, 1, 1, 2), strict=True):
            total += weight**each @ counts[part]
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(sums[3] > 0, sums[2] ** 2 / sums[3], 0.0)
        found: Floats = np.where(sums[1] > 0, effective * sums[0] / (2 * sums[1]), np.inf)
    return found
