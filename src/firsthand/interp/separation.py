"""AUROC, the probability that a positive scores above a negative, with Newcombe's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firsthand.errors import DataError
from firsthand.stats.intervals import bisect, z_value

Scores = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class Separation:
    """A measure of how well a score tells two groups apart; 0.5 is chance, and an interval that holds 0.5 shows nothing."""

    auroc: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        return f"{self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}]"


def separation(positive: Scores, negative: Scores, *, confidence: float = 0.95) -> Separation:
    """AUROC of scores, ties counting half, and its score interval (Newcombe, 2006, method 5), which is of use at 0 and 1.

    DataError for a group without scores, or with one that is not a number.
    """
    high, low = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    _expect_scores(high, low)
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left")
    up_to = np.searchsorted(ordered, high, side="right")
    area = float((below + up_to).mean() / 2 / low.size)
    z = z_value(confidence)

    def distance(theta: float) -> float:
        return (theta - area) ** 2 - z * z * _variance(theta, high.size, low.size)

    # outside of the interval `distance` is above 0; it rises away from the area on both sides
    lower = 0.0 if area == 0 else bisect(lambda theta: -distance(theta), 0.0, area)
    upper = 1.0 if area == 1 else bisect(distance, area, 1.0)
    return Separation(area, lower, upper, high.size, low.size)


def _expect_scores(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> None:
    """DataError for a group without scores, or with one that is not a number."""
    for name, scores in (("positive", positive), ("negative", negative)):
        if not scores.size:
            raise DataError(f"there is no {name} score: two groups are compared, so give one or more of each")
        if np.isnan(scores).any():
            raise DataError(f"{int(np.isnan(scores).sum())} {name} scores are not numbers: look at what made them")


def _variance(theta: float, positives: int, negatives: int) -> float:
    """Hanley and McNeil's variance with both sizes replaced by their mean in the two correction terms."""
    middle = (positives + negatives) / 2 - 1
    more = middle * (1 - theta) / (2 - theta) + middle * theta / (1 + theta)
    return max(0.0, theta * (1 - theta) * (1 + more) / (positives * negatives))


def false_alarm_rate(positive: Scores, negative: Scores, *, caught: float = 0.95) -> float:
    """The share of negatives at or above the threshold that catches this share of positives, of both from 0 to 1.

    DataError for a group without scores, or with one that is not a number.
    """
    if not 0 < caught <= 1:
        raise DataError(f"caught is {caught}: expected a share above 0 and at most 1")
    high, low = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    _expect_scores(high, low)
    least = math.ceil(round(caught * high.size, 9))  # 0.55 * 100 is a little above 55
    threshold = np.sort(high)[high.size - max(1, least)]
    return float((low >= threshold).mean())
