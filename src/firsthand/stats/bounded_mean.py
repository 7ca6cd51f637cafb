"""One-sided tests and bounds of a mean of bounded values that allow for losses that no task has shown yet.

Student's t and the bootstrap know the losses that were seen. Where few tasks fail altogether, a sample without one has a
small spread and a mean that is too good, and both claim too much. The score test takes the variance under the null
hypothesis instead: that of the most likely distribution with the mean in question, over the values seen and the lowest
possible one (Owen, 2001, Empirical Likelihood). For differences of 0/1 scores this is Tango's test. The p-value is never
below the chance that so many tasks miss the losses that nobody saw.
"""

# V distinct values, C clusters

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from firsthand.stats.intervals import clustered_error, standard_deviation
from firsthand.stats.strata import cluster_freedom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_TINY = 1e-12


def score_p_value(
    values: Sequence[float],
    bar: float,
    lowest: float,
    *,
    labels: Sequence[str] | None = None,
    gain: float = 1.0,
) -> float:
    """The one-sided p-value against a true mean of `bar` or less, for values that cannot be below `lowest`.

    `gain` multiplies the statistic: the factor by which strata reduce the standard error. Tasks in clusters (`labels`) count
    for as many independent ones as have their clustered error, and a cluster that nobody saw may lose half of what its
    tasks have: the p-value is the larger of both tests.
    """
    import numpy as np
    from scipy.special import stdtr

    n = len(values)
    if n < 2 or math.fsum(values) / n <= bar:
        return 1.0
    if bar < lowest - _TINY:
        return 0.0
    found_V, counts_V = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    statistic = _statistic(found_V - bar, counts_V, bar - lowest) * gain
    if labels is None:
        return max(float(stdtr(n - 1, -statistic)), _unseen(found_V - lowest, counts_V, bar - lowest))
    named = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    cluster = np.array([named[label] for label in labels])
    sizes_C = np.bincount(cluster).astype(np.float64)
    if len(sizes_C) < 2:
        return 1.0
    alone, together = standard_deviation(values) / math.sqrt(n), clustered_error(values, labels)
    effect = max(1.0, together / alone) if alone > 0 else 1.0
    freedom, mean = cluster_freedom([int(size) for size in sizes_C]), math.fsum(values) / n
    residuals_C = (np.bincount(cluster, weights=np.asarray(values)) - bar * sizes_C) / sizes_C.mean()
    lost = (lowest + mean) / 2
    by_cluster = _statistic(residuals_C, np.ones(len(sizes_C)), bar - lost) * gain if bar > lost else math.inf
    return float(stdtr(freedom, -min(statistic / effect, by_cluster)))


def lowest_mean(p_above: Callable[[float], float], start: float, lowest: float, level: float) -> float:
    """The largest bar at or below `start` that `p_above` rejects at `level`; `lowest` if it rejects none above that."""
    if p_above(start) <= level + _TINY:
        return start
    if p_above(lowest) > level:
        return lowest
    from scipy.optimize import brentq

    return float(brentq(lambda bar: p_above(bar) - level, lowest, start, xtol=1e-12))  # type: ignore[no-untyped-call]


def _statistic(residuals_V: Array, counts_V: Array, depth: float) -> float:
    """The mean residual in standard errors under the null hypothesis that it is 0, with unseen values at -depth.

    The most likely weights are 1 / n(1 + lambda r). lambda stays below 1/depth, where a value that was not seen is as
    likely: what the weights then leave of 1 is its share.
    """
    import numpy as np
    from scipy.optimize import brentq

    n, worst = float(counts_V.sum()), -float(residuals_V.min())
    mean = float(residuals_V @ counts_V) / n
    most = 1 / max(depth, worst * (1 + _TINY)) if max(depth, worst) > 0 else math.inf

    def slope(tilt: float) -> float:
        return float(np.sum(counts_V * residuals_V / (1 + tilt * residuals_V)))

    if not slope(0.0) > 0:  # the mean is the bar up to rounding: the weights are equal, and the statistic is 0
        return 0.0
    if not math.isfinite(most):  # no value is below the bar, and none can be
        return math.inf
    tilt = most
    if slope(most) < 0:
        tilt = float(brentq(slope, 0.0, most, xtol=1e-14, rtol=1e-12))  # type: ignore[no-untyped-call]
    weights_V = counts_V / (n * (1 + tilt * residuals_V))
    unseen = max(0.0, 1 - float(weights_V.sum()))
    variance = float(weights_V @ residuals_V**2) + unseen * depth * depth
    return mean * math.sqrt(n / variance)


def _unseen(heights_V: Array, counts_V: Array, bar: float) -> float:
    """The chance that no task shows the loss that explains a mean of `bar`; all are counted from the lowest value.

    Where the seen values alone explain a lower mean, their harmonic mean, the chance is that at it.
    """
    import numpy as np

    if heights_V.min() <= _TINY:
        return 0.0
    explained = float(counts_V.sum() / np.sum(counts_V / heights_V))
    at = min(bar, explained)
    return math.exp(float(np.sum(counts_V * np.log(at / heights_V)))) if at > 0 else 0.0
