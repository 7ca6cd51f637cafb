"""Chooses the pair whose next battle is expected to narrow the ratings' intervals most."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.ratings import rate

PRIOR = 0.5
"""Precision of the prior on strengths while pairs are chosen, so that the first battles have ratings too."""


def expected_reductions(battles: BattleTable) -> NDArray[np.float64]:
    """Shape (M, M), symmetric: how much one more battle of a pair is expected to lower the sum of the ratings' variances.

    A battle of i and j adds p (1 - p) (e_i - e_j)(e_i - e_j)' to the information; the covariance falls by the rank-one
    update of Sherman and Morrison (the sampling rule of Chiang et al., 2024, arXiv 2403.04132, section 5, in closed form).
    """
    size = len(battles.models)
    theta = rate(battles, prior=PRIOR).theta if len(battles) else np.zeros(size)
    chance = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
    weight = chance * (1 - chance)
    played = battles.counts.sum(0)
    information = (played + played.T) * weight
    laplacian = np.diag(information.sum(1)) - information + PRIOR * np.eye(size)
    covariance = np.linalg.inv(laplacian)
    squared = covariance @ covariance
    distance = np.diag(covariance)[:, None] + np.diag(covariance)[None, :] - 2 * covariance
    gained = np.diag(squared)[:, None] + np.diag(squared)[None, :] - 2 * squared
    reductions: NDArray[np.float64] = weight * gained / (1 + weight * distance)
    np.fill_diagonal(reductions, 0.0)
    return reductions


def choose_pair(
    battles: BattleTable, rng: np.random.Generator, *, without: Collection[frozenset[str]] = ()
) -> tuple[int, int]:
    """Two models, in random order, drawn with probability proportional to what their battle is expected to teach.

    Pairs of names in `without` are not drawn; at least one pair must be left.
    """
    reductions = expected_reductions(battles)
    first, second = np.triu_indices(len(battles.models), 1)
    names = battles.models
    is_left = [frozenset((names[a], names[b])) not in without for a, b in zip(first, second, strict=True)]
    chances = reductions[first, second] * np.array(is_left)
    place = int(rng.choice(len(first), p=chances / chances.sum()))
    pair = int(first[place]), int(second[place])
    return pair if rng.random() < 0.5 else (pair[1], pair[0])
