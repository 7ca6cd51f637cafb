"""Ranks that hold together: values that cannot be told apart share their ranks.

A pair is told apart if its difference is beyond the quantile of the largest of all studentised differences, found by draws
from the covariance (Mogstad, Romano, Shaikh and Wilhelm, 2024, "Inference for Ranks", one-step). Overlapping intervals of
single values say nothing of a difference. A pair whose difference has no variance, such as one model under two names, is not
told apart and has no part in the quantile.

The quantile is that of normal errors, and few items are not normal. Where each value has degrees of freedom of its own, the
quantile's level takes its place: a pair is told apart if its p-value by Student's t is below it, and by an exact test too
where the caller has one.
"""

# M values, S draws

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from firsthand.stats.intervals import CONFIDENCE

Floats = NDArray[np.float64]
PBounds = Callable[[NDArray[np.int64], NDArray[np.int64]], Floats]
"""From the places of some values and of others to the p-values that each pair has at least, shape (values, others)."""
DRAWS = 4000
MANY = 600
"""Values above which the quantile is Bonferroni's bound over all pairs, which is wider and takes no draws."""
_FEW = 10
"""Degrees of freedom at which the quantile lies half way to Bonferroni's bound."""
_ROWS_AT_ONCE = 256
_ROUNDING = 1e-9
"""Share of two values' variances below which that of their difference is rounding error."""


class RankRange(NamedTuple):
    """The ranks that the data allow, 1 for the best."""

    low: int
    """The best rank: one more than the values that are better beyond doubt."""
    high: int
    """The worst rank: all values but those that are worse beyond doubt."""


def told_apart(
    values_M: Floats,
    covariance_MM: Floats,
    *,
    degrees: float | Floats = np.inf,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    slack: Floats | None = None,
    p_bounds: PBounds | None = None,
) -> NDArray[np.bool_]:
    """Shape (M, M): true where the row's value is higher than the column's, all statements holding together.

    Draws for more than `MANY` values would take minutes: Bonferroni's bound takes their place.

    Args:
        values_M: The estimates.
        covariance_MM: Their covariance.
        degrees: Degrees of freedom that all errors share, or of each value's own error; a pair then has the fewer.
        confidence: Probability that all statements are true at once.
        seed: Of the draws.
        slack: Shape (M, M): what the row's lead over the column could lose for other reasons than chance; 0 without it.
        p_bounds: P-values that pairs have at least, such as those of an exact test.
    """
    size = len(values_M)
    if size < 2:
        return np.zeros((size, size), bool)
    variance = np.diag(covariance_MM)
    spread = variance[:, None] + variance[None, :] - 2 * covariance_MM
    spread[spread <= _ROUNDING * (variance[:, None] + variance[None, :])] = np.inf  # rounding noise over its own root
    errors = np.sqrt(spread)
    if size > MANY:
        critical = _bonferroni(size, degrees, confidence)
    else:
        critical = _of_few(covariance_MM, errors, degrees, confidence, seed)
    difference = values_M[:, None] - values_M[None, :] - (0.0 if slack is None else slack)
    every = np.arange(size)
    return _told(difference, errors, critical, degrees, p_bounds, every, every)


def _told(
    lead: Floats,
    errors: Floats,
    critical: float,
    degrees: float | Floats,
    p_bounds: PBounds | None,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """True where a row's lead over another is beyond the critical value, by its own degrees of freedom and p-values."""
    limit: float | Floats = critical
    if isinstance(degrees, np.ndarray):
        fewer = np.minimum(degrees[rows, None], degrees[None, others])
        with np.errstate(invalid="ignore"):
            student = stdtrit(np.where(np.isfinite(fewer) & (fewer > 0), fewer, 1.0), ndtr(critical))
        limit = np.where(fewer > 0, np.where(np.isfinite(fewer), student, critical), np.inf)
    told: NDArray[np.bool_] = lead > limit * errors
    if p_bounds is not None and told.any():
        told &= p_bounds(rows, others) <= 2 * ndtr(-critical)
    return told


def _of_few(covariance_MM: Floats, errors_MM: Floats, degrees: float | Floats, confidence: float, seed: int) -> float:
    """The quantile, wider where the middle value's degrees of freedom are few.

    A covariance of many values that few items estimate is nearly singular, and draws from it are too much alike: it is
    shrunk towards independent errors, as if these had been seen M times besides. Student's t of pairs whose variances are
    estimated one by one are less alike than normal errors, and so the quantile is moved towards Bonferroni's bound.
    """
    middle = max(float(np.median(degrees)), 0.0) if isinstance(degrees, np.ndarray) else np.inf
    if np.isinf(middle):
        return _largest_difference(covariance_MM, errors_MM, degrees, confidence, seed)
    size = len(covariance_MM)
    variance = np.diag(covariance_MM)
    added = size / (middle + size)
    shrunk = (1 - added) * covariance_MM + added * np.diag(variance)
    spread = variance[:, None] + variance[None, :] - 2 * shrunk
    drawn = _largest_difference(
        shrunk, np.sqrt(np.where(np.isinf(errors_MM), np.inf, spread)), degrees, confidence, seed
    )
    moved = _FEW / (middle + _FEW)
    return (1 - moved) * drawn + moved * _bonferroni(size, degrees, confidence)


def _largest_difference(
    covariance_MM: Floats, errors_MM: Floats, degrees: float | Floats, confidence: float, seed: int
) -> float:
    """The quantile of the largest studentised difference, by draws."""
    size = len(covariance_MM)
    generator = np.random.default_rng(seed)
    eigenvalues, vectors = np.linalg.eigh(covariance_MM)
    root = vectors * np.sqrt(np.clip(eigenvalues, 0, None))
    largest = np.zeros(DRAWS)
    for start in range(0, DRAWS, 200):
        draws = generator.standard_normal((200, size)) @ root.T
        if isinstance(degrees, float | int) and np.isfinite(degrees):
            draws /= np.sqrt(generator.chisquare(degrees, (200, 1)) / degrees)
        highest = largest[start : start + 200]
        for i in range(size - 1):
            studentised = np.abs(draws[:, i, None] - draws[:, i + 1 :]) / errors_MM[i, i + 1 :]
            np.maximum(highest, studentised.max(1), out=highest)
    return max(float(np.quantile(largest, confidence)), 1e-300)  # no pair has a variance: none is told apart


def rank_ranges(
    values_M: Floats,
    covariance: Floats,
    *,
    degrees: float | Floats = np.inf,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    critical: float | None = None,
    slack: Floats | None = None,
    p_bounds: PBounds | None = None,
) -> list[RankRange]:
    """The ranks that each value may have, the highest value first in rank; all ranges hold together.

    Args:
        values_M: The estimates, without NaN.
        covariance: Their covariance, shape (M, M), or the standard errors of independent values, shape (M). A value whose
            variance is NaN or infinite is told apart from none.
        degrees: As in `told_apart`.
        confidence: As in `told_apart`.
        seed: As in `told_apart`.
        critical: The studentised difference beyond which a pair is told apart, where the caller knows it.
        slack: As in `told_apart`.
        p_bounds: As in `told_apart`; it takes places in `values_M`.
    """
    size = len(values_M)
    variance = np.diag(covariance) if covariance.ndim == 2 else covariance**2
    known = np.isfinite(variance)
    beaten, beats = np.zeros(size, np.int64), np.zeros(size, np.int64)
    places = np.flatnonzero(known)
    if len(places) <= MANY and critical is None:
        part = covariance[np.ix_(places, places)] if covariance.ndim == 2 else np.diag(variance[places])
        lost = None if slack is None else slack[np.ix_(places, places)]
        told = told_apart(
            values_M[places],
            part,
            degrees=degrees[places] if isinstance(degrees, np.ndarray) else degrees,
            confidence=confidence,
            seed=seed,
            slack=lost,
            p_bounds=None if p_bounds is None else lambda rows, others: p_bounds(places[rows], places[others]),
        )
        beaten[places], beats[places] = told.sum(0), told.sum(1)
    else:
        critical = critical or _bonferroni(len(places), degrees, confidence)
        for start in range(0, len(places), _ROWS_AT_ONCE):
            rows = places[start : start + _ROWS_AT_ONCE]
            spread = variance[rows, None] + variance[None, places]
            if covariance.ndim == 2:
                spread = spread - 2 * covariance[np.ix_(rows, places)]
            spread[spread <= _ROUNDING * (variance[rows, None] + variance[None, places])] = np.inf
            lead = values_M[rows, None] - values_M[None, places]
            lead -= 0.0 if slack is None else slack[np.ix_(rows, places)]
            told = _told(lead, np.sqrt(spread), critical, degrees, p_bounds, rows, places)
            beats[rows] = told.sum(1)
            beaten[places] += told.sum(0)
    return [RankRange(1 + int(beaten[i]), size - int(beats[i])) for i in range(size)]


def _bonferroni(size: int, degrees: float | Floats, confidence: float) -> float:
    tail = 1 - (1 - confidence) / (size * (size - 1))
    shared = np.inf if isinstance(degrees, np.ndarray) else degrees
    return float(stdtrit(shared, tail) if np.isfinite(shared) else ndtri(tail))
