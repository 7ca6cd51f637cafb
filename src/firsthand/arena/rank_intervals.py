"""Ranks with simultaneous intervals: models that cannot be told apart share their ranks."""

# M models

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from firsthand.arena.ratings import CENTRE, ELO, Ratings
from firsthand.errors import ConfigError
from firsthand.stats.intervals import CONFIDENCE
from firsthand.stats.joint_ranks import told_apart


@dataclass(frozen=True)
class RatedModel:
    """One row of an arena's leaderboard."""

    model: str
    rating: float
    """Elo points."""
    low: float
    high: float
    """The ends of the interval of this rating alone."""
    rank_low: int
    """The best rank that the battles allow: one more than the models that are better beyond doubt."""
    rank_high: int
    """The worst: all models but those that are worse beyond doubt."""
    games: int


def ranked(
    ratings: Ratings, *, confidence: float = CONFIDENCE, anchor: str | None = None, at: float = CENTRE, seed: int = 0
) -> list[RatedModel]:
    """The models from best to worst, each with the interval of its rating and the range of its rank.

    All rank ranges hold together with probability `confidence`: a pair is told apart if its difference is beyond the
    quantile of the largest of all studentised differences (`stats.joint_ranks`). Overlapping intervals of single ratings
    say nothing of differences.

    Args:
        ratings: The fitted ratings.
        confidence: Probability that the rank ranges hold together, and that each interval holds its rating.
        anchor: The model whose rating is `at`; others' intervals are of their distance to it. None: the mean is `at`.
        at: The rating of the anchor or of the mean.
        seed: Of the draws.
    """
    if anchor is not None and anchor not in ratings.models:
        raise ConfigError(f"the anchor {anchor!r} is not among the models: {', '.join(ratings.models)[:300]}")
    size = len(ratings.models)
    theta, variance = ratings.theta, np.diag(ratings.covariance)
    degrees = np.broadcast_to(ratings.degrees, size)
    if anchor is not None:
        place = ratings.models.index(anchor)
        theta = theta - theta[place]
        variance = variance + variance[place] - 2 * ratings.covariance[place]
        degrees = np.minimum(degrees, degrees[place])
    values = at + ELO * theta
    errors = ELO * np.sqrt(np.clip(variance, 0, None))
    tail = (1 + confidence) / 2
    reach = np.where(np.isfinite(degrees), stdtrit(np.where(np.isfinite(degrees), degrees, 1.0), tail), ndtri(tail))
    better = separated(ratings, confidence=confidence, seed=seed)
    rows = [
        RatedModel(
            ratings.models[i],
            float(values[i]),
            float(values[i] - reach[i] * errors[i]),
            float(values[i] + reach[i] * errors[i]),
            1 + int(better[:, i].sum()),
            size - int(better[i].sum()),
            int(ratings.games[i]),
        )
        for i in range(size)
    ]
    return sorted(rows, key=lambda row: (-row.rating, row.model))


def separated(ratings: Ratings, *, confidence: float = CONFIDENCE, seed: int = 0) -> NDArray[np.bool_]:
    """Shape (M, M): true where the row's model is better than the column's, all statements holding together."""
    return told_apart(ratings.theta, ratings.covariance, degrees=ratings.degrees, confidence=confidence, seed=seed)
