"""Calibration of stated or computed confidences: expected calibration error, Brier score, selective accuracy."""

# N answers, B bins

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError

Floats = NDArray[np.float64]
BINS = 10
COVERAGE = 0.1


def expected_calibration_error(confidences: Sequence[float], right: Sequence[float], bins: int = BINS) -> float:
    """The mean distance of confidence and accuracy over bins of about equal numbers of answers (HELM's ECE-10), from 0 to 1.

    Confidences are sorted and cut into `bins` runs, the first ones longer by one where they do not divide. Answers of equal
    confidence share the first of their bins, as in the calibration library of Kumar et al. (2019), which HELM calls, so
    that there may be fewer bins.
    """
    sure, hit = _checked(confidences, right)
    if bins < 1:
        raise ConfigError(f"bins is {bins}: give 1 or more")
    runs = np.array_split(np.sort(sure), min(bins, len(sure)))
    bin_of = np.searchsorted([run[-1] for run in runs], sure)
    return float(np.abs(np.bincount(bin_of, sure - hit)).sum() / len(sure))


def brier_score(confidences: Sequence[float], right: Sequence[float]) -> float:
    """The mean squared distance of confidence and outcome (Brier, 1950, of two outcomes)."""
    sure, hit = _checked(confidences, right)
    return float(np.square(sure - hit).mean())


def selective_accuracy(confidences: Sequence[float], right: Sequence[float], coverage: float = COVERAGE) -> float:
    """The accuracy on the most confident share of answers, at least one, from 0 to 1.

    Answers of equal confidence that the share takes only some of have their mean accuracy.
    """
    sure, hit = _checked(confidences, right)
    if not 0 < coverage <= 1:
        raise ConfigError(f"coverage is {coverage}: give a share above 0, at most 1")
    count = max(1, int(len(sure) * coverage + 1e-9))  # 0.29 * 100 is 28.999999999999996
    last = np.sort(sure)[-count]
    surer, level = hit[sure > last], hit[sure == last]
    return float((surer.sum() + (count - len(surer)) * level.mean()) / count)


def _checked(confidences: Sequence[float], right: Sequence[float]) -> tuple[Floats, Floats]:
    sure, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if len(sure) != len(hit) or not len(sure):
        raise ConfigError(f"{len(sure)} confidences and {len(hit)} outcomes: give as many of both, at least one")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ConfigError("a confidence is not from 0 to 1: give probabilities")
    if not np.isfinite(hit).all():
        raise ConfigError("an outcome is not a finite number: give 1 for right and 0 for wrong")
    return sure, hit
