"""Intervals for any figure by resampling: metrics of a whole corpus, such as BLEU, which are no mean over tasks.

Tasks are drawn with replacement, whole clusters of them where they share something, and the figure is computed anew for each
draw (Efron, 1979). The draws come from a fixed seed. The bootstrap needs a few dozen independent tasks to be trusted: with
fewer its intervals are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from firsthand.errors import ConfigError
from firsthand.evals.intervals import CONFIDENCE, Bounds, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Method = Literal["bca", "percentile"]
RESAMPLES = 2000
SEED = 20241101


def bootstrap_interval(
    statistic: Callable[[Array], float],
    n: int,
    *,
    labels: Sequence[str] | None = None,
    method: Method = "bca",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The figure of n tasks and its interval; `statistic` computes it of the tasks at the given indices.

    A corpus metric: `bootstrap_interval(lambda chosen: bleu([texts[i] for i in chosen]), len(texts))`. For the difference of
    two agents, compute both figures on the chosen tasks and subtract. `labels` names the cluster of each task. BCa corrects
    the percentiles for bias and skew (Efron, 1987).
    """
    import numpy as np

    units = _units(n, labels)
    everything = np.arange(n)
    value = float(statistic(everything))
    clusters = len(units) if labels else 0
    if len(units) < 2:
        return Interval(value, -math.inf, math.inf, n, _name(method), clusters=clusters)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(units), size=(resamples, len(units)))
    draws = np.array([statistic(np.concatenate([units[i] for i in pick])) for pick in picks])

    def without() -> Array:
        return np.array([statistic(np.delete(everything, unit)) for unit in units])

    bounds = _bounds(value, draws, without, method, confidence)
    return Interval(value, *bounds, n, _name(method), float(draws.std(ddof=1)), clusters)


def bootstrap_sums(
    parts: Array,
    figure: Callable[[Array], Array],
    *,
    labels: Sequence[str] | None = None,
    method: Method = "bca",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The same for a figure that is made of sums over tasks, thousands of times faster.

    `parts` has a row per task and a column per sum: for BLEU matches and totals of each order and both lengths, for
    micro-averaged F1 the true and false positives and negatives. `figure` takes rows of such sums and gives one figure each.
    """
    import numpy as np

    parts = np.asarray(parts, dtype=np.float64)
    units = _units(len(parts), labels)
    sums = np.stack([parts[unit].sum(axis=0) for unit in units])
    value = float(figure(sums.sum(axis=0, keepdims=True))[0])
    clusters = len(units) if labels else 0
    if len(units) < 2:
        return Interval(value, -math.inf, math.inf, len(parts), _name(method), clusters=clusters)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=resamples)
    draws = np.asarray(figure(counts @ sums), dtype=np.float64)
    bounds = _bounds(value, draws, lambda: np.asarray(figure(sums.sum(axis=0) - sums)), method, confidence)
    return Interval(value, *bounds, len(parts), _name(method), float(draws.std(ddof=1)), clusters)


def _units(n: int, labels: Sequence[str] | None) -> list[Array]:
    """The indices of each independent piece: a task, or a cluster of tasks."""
    import numpy as np

    if n < 1:
        raise ConfigError("there are no tasks to draw from: a bootstrap needs one or more")
    if labels is None:
        return list(np.arange(n)[:, None])
    if len(labels) != n:
        raise ConfigError(f"there are {len(labels)} labels for {n} tasks: give one for each")
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label, []).append(index)
    return [np.array(indices) for indices in found.values()]


def _bounds(value: float, draws: Array, without: Callable[[], Array], method: Method, confidence: float) -> Bounds:
    import numpy as np

    if not np.isfinite(draws).all():
        raise ConfigError("the figure is not a finite number for some draws of the tasks: let it be defined for any")
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    if method == "bca":
        tails = [_corrected(tail, value, draws, without()) for tail in tails]
    low, high = np.quantile(draws, tails)
    return Bounds(float(low), float(high))


def _corrected(tail: float, value: float, draws: Array, left_out: Array) -> float:
    """The percentile that BCa reads in place of `tail`: shifted for median bias, bent for skew (from the jackknife)."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    below = (np.sum(draws < value) + np.sum(draws == value) / 2) / len(draws)
    bias = float(ndtri(min(max(below, 1 / (2 * len(draws))), 1 - 1 / (2 * len(draws)))))
    deviations = left_out.mean() - left_out
    scale = float(np.sum(deviations**2)) ** 1.5
    bend = float(np.sum(deviations**3)) / (6 * scale) if scale > 0 else 0.0
    shifted = bias + float(ndtri(tail))
    return float(ndtr(bias + shifted / max(1 - bend * shifted, 1e-6)))


def _name(method: Method) -> str:
    return "BCa bootstrap" if method == "bca" else "percentile bootstrap"
