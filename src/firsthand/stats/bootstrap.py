"""Bootstrap intervals for any figure, such as corpus-level BLEU, which is not a mean over tasks.

Tasks, or whole clusters of them, are drawn with replacement, and the figure is recomputed for each draw (Efron, 1979). A
draw is a row of counts, one per task. Draws come from a fixed seed. The bootstrap needs a few dozen independent tasks: with
fewer its intervals are too narrow.
"""

# D draws, T tasks, U units (clusters, or tasks), S sums

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from firsthand.errors import ConfigError
from firsthand.stats.intervals import CONFIDENCE, Bounds, Interval
from firsthand.stats.strata import joined_strata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Method = Literal["bca", "percentile"]
RESAMPLES = 2000
SEED = 20241101
MAX_LEFT_OUT = 500
"""The jackknife leaves out one of so many groups of units at most: its skewness is the same, and there are fewer of them."""
MIN_STRATUM = 10
"""Strata of fewer units are drawn together: n draws of n units have 1 - 1/n of the variance."""
_CHUNK = 4_000_000


def bootstrap(
    of: Callable[[Array], Array],
    n: int,
    *,
    labels: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
    method: Method = "bca",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The figure of n tasks and its interval; `of` takes counts (D, T) and gives the figure of each draw (D,).

    `labels` names the cluster of each task, `strata` the stratum: as many units are drawn of each as it has. BCa corrects
    the percentiles for bias and skew (Efron, 1987).
    """
    import numpy as np

    unit_T = units(n, labels)
    stratum_U = unit_strata(unit_T, strata)
    value = float(of(np.ones((1, n)))[0])
    clusters = int(unit_T.max()) + 1 if labels else 0
    if unit_T.max() == 0:
        return Interval(value, -math.inf, math.inf, n, _name(method), clusters=clusters)
    draws = np.concatenate([of(counts_DT) for counts_DT in drawn(unit_T, resamples, seed, stratum_U)])

    def without() -> Array:
        group_T = unit_T % MAX_LEFT_OUT
        found = of((group_T != np.arange(group_T.max() + 1)[:, None]).astype(np.float64))
        if stratum_U is not None and len(stratum_U) <= MAX_LEFT_OUT:  # what strata differ by is no skew of the draws
            for stratum in np.unique(stratum_U):
                found[stratum_U == stratum] -= found[stratum_U == stratum].mean()
        return found

    bounds = _bounds(value, draws, without, method, confidence)
    return Interval(value, *bounds, n, _name(method), float(draws.std(ddof=1)), clusters)


def bootstrap_interval(
    statistic: Callable[[Array], float], n: int, *, labels: Sequence[str] | None = None, **options: Any
) -> Interval:
    """The same for any function of tasks: `statistic` computes the figure of the tasks at the given indices.

    A corpus metric: `bootstrap_interval(lambda chosen: bleu([texts[i] for i in chosen]), len(texts))`. For the difference of
    two agents, compute both figures on the chosen tasks and subtract. The options are those of `bootstrap`.
    """
    return bootstrap(of_chosen(statistic), n, labels=labels, **options)


def bootstrap_sums(
    parts: Array, figure: Callable[[Array], Array], *, labels: Sequence[str] | None = None, **options: Any
) -> Interval:
    """The same for a figure that is made of sums over tasks, thousands of times faster.

    `parts` (T, S) has a row per task and a column per sum: for BLEU matches and totals of each order and both lengths, for
    micro-averaged F1 the true and false positives and negatives. `figure` takes rows of such sums and gives one figure each.
    """
    import numpy as np

    parts = np.asarray(parts, dtype=np.float64)
    return bootstrap(lambda counts_DT: figure(counts_DT @ parts), len(parts), labels=labels, **options)


def of_chosen(statistic: Callable[[Array], float]) -> Callable[[Array], Array]:
    """A figure of the tasks at some indices as one of counts: a task that was drawn twice is given twice."""
    import numpy as np

    def of(counts_DT: Array) -> Array:
        places = np.arange(counts_DT.shape[1])
        return np.array([statistic(np.repeat(places, counts_T.astype(int))) for counts_T in counts_DT], np.float64)

    return of


def units(n: int, labels: Sequence[str] | None) -> Array:
    """The number of each task's independent piece (T,): the task itself, or its cluster."""
    import numpy as np

    if n < 1:
        raise ConfigError("there are no tasks to draw from: a bootstrap needs one or more")
    if labels is None:
        return np.arange(n)
    if len(labels) != n:
        raise ConfigError(f"there are {len(labels)} labels for {n} tasks: give one for each")
    found: dict[str, int] = {}
    return np.array([found.setdefault(label, len(found)) for label in labels])


def unit_strata(unit_T: Array, strata: Sequence[str] | None) -> Array | None:
    """The stratum of each unit (U,) from the stratum of each task; None if there are not two.

    Strata that share a cluster are one, and those of fewer than MIN_STRATUM units are drawn together: draws of so few
    vary too little, and too much across strata errs on the side of a wider interval.
    """
    import numpy as np

    if strata is None:
        return None
    joined = joined_strata(strata, [str(unit) for unit in unit_T])
    named = [""] * (int(unit_T.max()) + 1)
    for unit, stratum in zip(unit_T, joined, strict=True):
        named[unit] = stratum
    _, stratum_U, sizes = np.unique(named, return_inverse=True, return_counts=True)
    small = sizes < MIN_STRATUM
    if small.any():
        if sizes[small].sum() < MIN_STRATUM and not small.all():  # they join the smallest that is large enough
            small[np.argmin(np.where(small, sizes.max() + 1, sizes))] = True
        stratum_U = np.where(small[stratum_U], np.flatnonzero(small)[0], stratum_U)
    return stratum_U if len(np.unique(stratum_U)) > 1 else None


def drawn(unit_T: Array, resamples: int, seed: int = SEED, stratum_U: Array | None = None) -> Iterator[Array]:
    """Counts (D, T) of so many draws, some of them at a time: the tasks of a unit are drawn together.

    With strata, as many units are drawn of each stratum as it has.
    """
    import numpy as np

    rng, num_units = np.random.default_rng(seed), int(unit_T.max()) + 1
    step = max(1, _CHUNK // len(unit_T))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if stratum_U is None:
            counts_DU = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=size)
        else:
            counts_DU = np.zeros((size, num_units), dtype=np.int64)
            for stratum in np.unique(stratum_U):
                places = np.flatnonzero(stratum_U == stratum)
                shares = np.full(len(places), 1 / len(places))
                counts_DU[:, places] = rng.multinomial(len(places), shares, size=size)
        yield counts_DU[:, unit_T].astype(np.float64)


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
