"""Intervals of figures, and paired bootstrap differences between two, with the same task draws for both.

All draws of two or three units may lie on one side of 0, which says nothing of other units. So a difference is tested as one
of means is, too: Student's t, and sign flips of whole units, over the tasks' influences on it (`influences`).
"""

# D draws, T tasks

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.stats.bootstrap import RESAMPLES, bootstrap, drawn, unit_strata, units
from firsthand.stats.bounded_mean import lowest_mean, score_p_value
from firsthand.stats.intervals import (
    CONFIDENCE,
    Bounds,
    Clusters,
    Interval,
    cluster_labels,
    equal_bounds,
    moments,
    stratum_labels,
    t_value,
    task_means,
    unseen_share,
)
from firsthand.stats.paired import Differences, sign_flip
from firsthand.stats.strata import cluster_freedom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DRAWS = 10_000
"""Of a comparison: enough for the small levels that several comparisons leave to each."""
SLOW_DRAWS = 200
"""Of a figure that takes a while to compute: another library's BLEU over a corpus takes part of a second."""
NO_INTERVAL = "none"
"""The method of an Interval that has none, for its figure is a measure of uncertainty."""
MAX_INFLUENCES = 2000
"""Up to so many tasks each one's influence on a figure is computed, for the tests of `bounded_mean`."""
_STEP = 1e-4
_TINY = 1e-12


def influences(figure: Figure, tasks: Sequence[str] | None = None) -> Array:
    """The figure as if each task alone made it, by its derivative; of a mean of scores, the scores. Their mean is it.

    The infinitesimal jackknife (Jaeckel, 1972): each task's weight is raised a little, the figure's change divided by it.
    """
    import numpy as np

    chosen = figure.tasks if tasks is None else tasks
    n = len(chosen)
    raised_DT = np.ones((n + 1, n))
    raised_DT[1:] += _STEP * np.eye(n)
    found = _of_tasks(figure, chosen, raised_DT)
    changes = (found[1:] - found[0]) * n / _STEP
    centred: Array = found[0] + changes - changes.mean()
    return centred


def strata_gain(values: Sequence[float] | Array, labels: Sequence[str] | None, strata: Sequence[str] | None) -> float:
    """The standard error of a mean of these values without their strata over that with them; 1 if there are none."""
    stratified = moments([float(each) for each in values], labels, strata)
    if not stratified.strata or not stratified.error > _TINY:
        return 1.0
    return replace(stratified, strata=()).error / stratified.error


def figure_value(figure: Figure) -> float:
    """The figure of all its tasks; NaN of none."""
    import numpy as np

    return float(figure.of(np.ones((1, len(figure.tasks))))[0]) if figure.tasks else math.nan


def figure_interval(figure: Figure, clusters: Clusters | None = None, confidence: float = CONFIDENCE) -> Interval:
    """The figure and its bootstrap interval, which has no bounds where some draw is not finite, as of a perplexity.

    Where all draws are equal, as of a perfect micro-F1, the bootstrap would claim certainty. A figure in 0..1 then gets the
    interval of as many equal scores (`intervals.equal_bounds`), another none. Where they differ a little, it would claim to
    have seen every document that is lost: the interval of a figure in 0..1 reaches as far as such documents may take it
    (`bounded_mean`). The interval of an error that chance alone makes as large (`Figure.by_chance`) reaches down to 0.
    """
    found = _with_unseen(_resampled(figure, clusters, confidence), figure, clusters, confidence)
    if figure.by_chance is None or not figure.tasks or not found.value > 0:
        return found
    import numpy as np

    by_chance = float(np.quantile(figure.by_chance(), (1 + confidence) / 2))
    return replace(found, low=min(found.low, 0.0)) if found.value <= by_chance else found


def _resampled(figure: Figure, clusters: Clusters | None, confidence: float) -> Interval:
    n = len(figure.tasks)
    if not n:
        return Interval(math.nan, -math.inf, math.inf, 0)
    if figure.uncertainty:
        return Interval(figure_value(figure), math.nan, math.nan, n, NO_INTERVAL)
    labels, strata = cluster_labels(list(figure.tasks), clusters), stratum_labels(list(figure.tasks), clusters)
    try:
        found = bootstrap(
            figure.of,
            n,
            labels=labels,
            strata=strata,
            method=figure.method,
            confidence=confidence,
            resamples=SLOW_DRAWS if figure.slow else RESAMPLES,
        )
    except (ConfigError, ArithmeticError, ValueError):
        return Interval(figure_value(figure), -math.inf, math.inf, n)
    if found.high - found.low > _TINY:
        return found
    bounds = equal_bounds(found.value, found.clusters or n, 0 <= found.value <= 1, confidence)
    return replace(found, low=bounds.low, high=bounds.high, method="equal draws")


def _with_unseen(found: Interval, figure: Figure, clusters: Clusters | None, confidence: float) -> Interval:
    """The interval of a figure in 0..1, widened to where tasks of the values 0 and 1 that nobody saw may take it."""
    known = math.isfinite(found.low) and math.isfinite(found.high) and found.method != "equal draws"
    if not known or not 0 < found.value < 1 or found.low == found.high:
        return found
    labels, level, n = cluster_labels(list(figure.tasks), clusters), (1 - confidence) / 2, len(figure.tasks)
    if figure.slow or n > MAX_INFLUENCES:
        low, high = equal_bounds(found.value, found.clusters or n, True, confidence)
    else:
        values = influences(figure)
        gain = strata_gain(values, labels, stratum_labels(list(figure.tasks), clusters))

        def above(bar: float) -> float:
            return score_p_value(values.tolist(), bar, 0.0, labels=labels, gain=gain)

        def below(bar: float) -> float:
            return score_p_value((1 - values).tolist(), bar, 0.0, labels=labels, gain=gain)

        low = lowest_mean(above, found.low, 0.0, level)
        high = 1 - lowest_mean(below, 1 - found.high, 0.0, level)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


@dataclass(frozen=True)
class FigureDifference:
    """The paired bootstrap difference of two agents' figures (Koehn, 2004); same interface as `paired.Differences`.

    Bounds and p-values are the more cautious of those of the draws and of Student's t, as the draws alone know nothing of
    how few units there are.
    """

    mean: float
    """The difference of the figures."""
    draws: tuple[float, ...]
    """The difference in each draw, in ascending order; none if some are not finite."""
    n: int
    counts: tuple[int, int]
    """On how many tasks A did better by itself, and worse; both 0 where a task by itself has no worth."""
    labels: tuple[str, ...] | None = None
    lower_is_better: bool = False
    unit: bool = False
    """True if both figures are within 0 to 1."""
    values: tuple[float, ...] = ()
    """The difference as if each task alone made it; none if the figures take long or the tasks are many."""
    gain: float = 1.0
    """The factor by which strata reduce the standard error."""
    strata: tuple[str, ...] | None = None
    """The stratum of each task; None if there are none, or one."""

    @staticmethod
    def between(a: Figure, b: Figure, clusters: Clusters | None = None, draws: int = DRAWS) -> FigureDifference:
        """The difference A - B on the tasks that both attempted."""
        import numpy as np

        common = sorted({*a.tasks} & {*b.tasks})
        if not common:
            return FigureDifference(math.nan, (), 0, (0, 0), lower_is_better=a.lower_is_better)
        labels, strata = cluster_labels(common, clusters), stratum_labels(common, clusters)
        unit_T = units(len(common), labels)
        stratum_U = unit_strata(unit_T, strata)

        def difference(counts_DT: Array) -> Array:
            return _of_tasks(a, common, counts_DT) - _of_tasks(b, common, counts_DT)

        resamples = (min(draws, SLOW_DRAWS) if a.slow or b.slow else draws) if unit_T.max() else 0
        found = [np.zeros(0), *(difference(counts_DT) for counts_DT in drawn(unit_T, resamples, stratum_U=stratum_U))]
        all_draws = np.sort(np.concatenate(found))
        once = np.ones((1, len(common)))
        ends = [float(_of_tasks(each, common, once)[0]) for each in (a, b)]
        return FigureDifference(
            float(difference(once)[0]),
            tuple(all_draws.tolist()) if np.isfinite(all_draws).all() else (),
            len(common),
            _compared(a, b, common),
            tuple(labels) if labels else None,
            a.lower_is_better,
            all(0 <= each <= 1 for each in ends),
            values := () if a.slow or b.slow or len(common) > MAX_INFLUENCES else _influence_differences(a, b, common),
            strata_gain(values, labels, strata) if values else 1.0,
            tuple(strata) if strata else None,
        )

    @property
    def reversed(self) -> FigureDifference:
        """B - A."""
        return replace(
            self,
            mean=-self.mean,
            draws=tuple(-each for each in self.draws[::-1]),
            counts=self.counts[::-1],
            values=tuple(-each for each in self.values),
        )

    @property
    def num_units(self) -> int:
        """The number of independent units: clusters, or tasks."""
        return len(set(self.labels)) if self.labels else self.n

    @cached_property
    def error(self) -> float:
        """The standard deviation of the draws; 0 if there are none, or all are equal."""
        if len(self.draws) < 2 or self.equal:
            return 0.0
        centre = math.fsum(self.draws) / len(self.draws)
        return math.sqrt(math.fsum((each - centre) ** 2 for each in self.draws) / (len(self.draws) - 1))

    @cached_property
    def equal(self) -> bool:
        """True if all draws are equal, as of two perfect figures: they say nothing of the spread."""
        return bool(self.draws) and self.draws[-1] - self.draws[0] <= _TINY

    @property
    def method(self) -> str:
        """The method of the bounds."""
        return "equal draws" if self.equal else "paired bootstrap"

    @cached_property
    def _influences(self) -> Differences | None:
        """The tasks' influences as differences of scores; None if they are not known, or do not differ."""
        found = Differences(self.values, False, self.unit, self.labels, self.strata) if self.values else None
        return found if found and found.error else None

    @cached_property
    def _spread(self) -> tuple[float, float]:
        """The standard error of few units, and its degrees of freedom; 0 of one unit.

        That of the draws is too small by the root of (units - 1) / units.
        """
        if self._influences:
            return self._influences.error, self._influences.freedom
        if self.num_units < 2:
            return 0.0, 0.0
        freedom = cluster_freedom(list(Counter(self.labels).values())) if self.labels else self.n - 1
        return self.error * math.sqrt(self.num_units / (self.num_units - 1)), freedom

    def bounds(self, confidence: float = CONFIDENCE) -> Bounds:
        """The wider of the draws' percentiles and Student's t; of equal draws, what unseen tasks leave possible."""
        if self.equal and self.unit:
            unseen = unseen_share(self.num_units, confidence)
            return Bounds(self.mean * (1 - unseen) - unseen, self.mean * (1 - unseen) + unseen)
        error, freedom = self._spread
        if not self.draws or not error:
            return Bounds(-math.inf, math.inf)
        half, most = t_value(freedom, confidence) * error, 1.0 if self.unit else math.inf
        at = (1 - confidence) / 2 * (len(self.draws) + 1)
        low = max(0, math.floor(at) - 1)
        return Bounds(
            min(self.draws[low], max(-most, self.mean - half)), max(self.draws[-1 - low], min(most, self.mean + half))
        )

    def p_above(self, bar: float) -> float:
        """The one-sided p-value against a true difference of `bar` or less: where the lower bound touches it.

        The larger of the share of draws at `bar` or below, and Student's t.
        """
        if self.equal:
            known = self.unit and self.mean > bar
            return (max(0.0, 1 + bar) / (1 + self.mean)) ** self.num_units if known else 1.0
        return max((1 + bisect_right(self.draws, bar)) / (1 + len(self.draws)), self._t_above(bar))

    def p_below(self, bar: float) -> float:
        """The one-sided p-value against a true difference of `bar` or more; see `p_above`."""
        if self.equal:
            return self.reversed.p_above(-bar)
        found = (1 + len(self.draws) - bisect_left(self.draws, bar)) / (1 + len(self.draws))
        return max(found, self.reversed._t_above(-bar))

    def _t_above(self, bar: float) -> float:
        from scipy.special import stdtr

        error, freedom = self._spread
        return float(stdtr(freedom, (bar - self.mean) / error)) if error else 1.0

    def surely_above(self, bar: float) -> float:
        """The same as `p_above` for a gate: in figures within 0 to 1, documents may be lost that nobody saw."""
        found = self.p_above(bar)
        if self.equal or not self.unit or not self.draws:
            return found
        if self.values:
            return max(found, score_p_value(self.values, bar, -1.0, labels=self.labels, gain=self.gain))
        if self.mean <= bar:
            return 1.0
        return max(found, (max(0.0, 1 + bar) / (1 + self.mean)) ** self.num_units)

    def sure_bounds(self, confidence: float = CONFIDENCE) -> Bounds:
        """The bounds at which `surely_above`, and for the upper one that of B - A, touches half of 1 - confidence."""
        low, high = self.bounds(confidence)
        if self.equal or not self.unit or not self.draws:
            return Bounds(low, high)
        level = (1 - confidence) / 2
        down = lowest_mean(self.surely_above, low, -1.0, level)
        return Bounds(min(low, down), max(high, -lowest_mean(self.reversed.surely_above, -high, -1.0, level)))

    @cached_property
    def p_value(self) -> float:
        """The two-sided p-value of no difference: the larger of the interval's own and that of sign flips of whole units."""
        return max(self._flipped, min(1.0, 2 * min(self.p_above(0.0), self.p_below(0.0))))

    @property
    def _flipped(self) -> float:
        """The p-value of sign flips; where the influences are not known, the smallest that so many units can have."""
        if self.equal or self.n == 0:
            return 0.0  # the bounds of equal draws know how few they are
        if not self._influences:
            return 0.5 ** (self.num_units - 1)
        if self._influences.units:  # sign flips know no strata
            return 0.0
        sums = self._influences.sums  # they are of a small step: where exact ones would be equal, these nearly are
        return sign_flip(sums, tie=4 * _STEP / len(sums))


def _of_tasks(figure: Figure, tasks: Sequence[str], counts_DT: Array) -> Array:
    """The figure of draws of these tasks, which may be some of its own in another order."""
    import numpy as np

    place = {task: index for index, task in enumerate(figure.tasks)}
    own_DT = np.zeros((len(counts_DT), len(place)))
    own_DT[:, [place[task] for task in tasks]] = counts_DT
    return figure.of(own_DT)


def _influence_differences(a: Figure, b: Figure, common: Sequence[str]) -> tuple[float, ...]:
    import numpy as np

    found = influences(a, common) - influences(b, common)
    return tuple(found.tolist()) if np.isfinite(found).all() else ()


def _compared(a: Figure, b: Figure, common: Sequence[str]) -> tuple[int, int]:
    if not all(task in a.values and task in b.values for task in common):
        return 0, 0
    pairs = zip(*(task_means({task: side.values[task] for task in common}) for side in (a, b)), strict=True)
    signs = [(x - y) * (-1 if a.lower_is_better else 1) for x, y in pairs]
    return sum(each > _TINY for each in signs), sum(each < -_TINY for each in signs)
