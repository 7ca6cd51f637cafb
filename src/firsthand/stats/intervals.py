"""Confidence intervals for mean scores: pure functions from numbers to numbers.

Tasks are the unit. Several attempts at one task are averaged before anything else is computed, because they are not
independent draws from the benchmark (Miller, 2024, "Adding Error Bars to Evals", arXiv 2411.00640). Tasks that share a
passage, a repository or a template are not independent either: name their cluster, and the interval accounts for it. Below a
few hundred tasks the central limit theorem gives intervals that are too narrow for 0/1 scores (Bowyer et al., 2025, arXiv
2503.01747), so those get Wilson's interval at every size; above, the two are the same. Metrics of a whole corpus are in
`bootstrap.py`, comparisons in `paired.py`.

numpy and scipy are imported where they are used, so that importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.strata import Strata, cluster_freedom, strata_units, stratified_error, stratified_freedom
from firsthand.trace import unrounded

CONFIDENCE = 0.95
Scores = Mapping[str, Sequence[float]]
"""Task -> the values of its attempts."""
Clusters = Mapping[str, str]
"""Task -> the cluster it belongs to; a task that is not named stands alone. `TaskGroups` holds strata too."""
_TINY = 1e-12

MAX_SCORE = 1e100
"""Scores of larger size have no finite variance."""


class Bounds(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A mean over `n` tasks and the interval that holds the true mean with the stated confidence; NaN if n is 0."""

    value: float
    low: float
    high: float
    n: int
    method: str = ""
    """The method: `Wilson`, `t`, `clustered t`, `BCa bootstrap` ..."""
    error: float = math.nan
    """The standard error of the mean."""
    clusters: int = 0
    """The number of clusters among the tasks; 0 if each task is its own."""
    inflation: float = 1.0
    """The factor by which clustering increases the standard error."""

    def to_json(self) -> Json:
        """The numbers as a JSON object; what is not finite becomes null."""
        body: Json = {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high), "n": self.n}
        body |= {"method": self.method, "error": finite(self.error)}
        return body | ({"clusters": self.clusters, "inflation": finite(self.inflation)} if self.clusters else {})


def finite(value: float) -> float | None:
    """The value, or None if JSON cannot hold it."""
    return value if math.isfinite(value) else None


def proportion_interval(successes: float, n: float, confidence: float = CONFIDENCE) -> Bounds:
    """Wilson's score interval for a proportion (Wilson, 1927; recommended by Brown, Cai and DasGupta, 2001).

    It never leaves 0 to 1 and is of use at 0 or n successes. With n = 0 nothing is known: 0 to 1. Counts need not be whole:
    an effective number of tasks is not.
    """
    if not 0 <= successes <= n:
        raise ConfigError(f"{successes} successes of {n}: give a count from 0 to n")
    if n == 0:
        return Bounds(0.0, 1.0)
    z = z_value(confidence)
    share, shrink = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Bounds(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def mean_interval(
    values: Sequence[float] | Scores, confidence: float = CONFIDENCE, clusters: Clusters | None = None
) -> Interval:
    """The mean score and its interval. Give one value per task, or task -> the values of its attempts.

    Values that are all 0 or 1 get Wilson's interval; others Student's t, if all lie within 0 to 1 that of one task more
    (`_with_one_more`). If all n
    values are equal (n = 1 too) the spread is unknown, and t would claim certainty: for values in 0..1 the interval then
    allows a share 1 - (alpha/2)^(1/n) of tasks, the most that n equal draws leave possible, to score anything; for
    others it is unbounded. With n = 0 everything is NaN. Where tasks share `clusters`, see `interval_of`. A `TaskGroups` as
    clusters holds strata too, whose differences are no uncertainty.
    """
    if isinstance(values, Mapping):
        means, tasks = task_means(values), [task for task, each in values.items() if each]
        labels, fixed = cluster_labels(tasks, clusters), stratum_labels(tasks, clusters)
    else:
        means, labels, fixed = [_number(value) for value in values], None, None
    found = moments(means, labels, fixed)
    if isinstance(values, Mapping):
        found = replace(found, repeats=_repeats(values))
    return interval_of(found, confidence)


def unbounded_mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean and Student's t interval of values without a least and a largest one: nats, logit differences, seconds.

    `mean_interval` takes values that all lie within 0 to 1 for scores, which cannot leave it. With one value, or equal
    ones, the interval is unbounded; with none everything is NaN.
    """
    found = moments([_number(value) for value in values])
    if found.n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if not found.error > _TINY:  # NaN for one value
        return Interval(found.mean, -math.inf, math.inf, found.n, "equal values", found.error)
    half = t_value(found.freedom, confidence) * found.error
    return Interval(found.mean, found.mean - half, found.mean + half, found.n, "t", found.error)


def _repeats(values: Scores) -> int:
    """The attempts at each task if they are equally many and each is 0 or 1, else 1."""
    counts = {len(each) for each in values.values() if each}
    binary = len(counts) == 1 and all(all_binary(each) for each in values.values())
    return counts.pop() if binary else 1


@dataclass(frozen=True)
class Moments:
    """Moments of the task means, sufficient for an interval."""

    n: int
    mean: float
    variance: float
    """With n - 1."""
    lowest: float
    highest: float
    binary: bool
    """True if each is 0 or 1."""
    clusters: tuple[tuple[float, int], ...] = ()
    """Of each cluster its tasks' means added up, and their number; empty if no two tasks share one."""
    strata: Strata = ()
    """The same of each cluster, or task, by stratum; empty if there are not two strata."""
    repeats: int = 1
    """Attempts at each task, where each attempt is 0 or 1; 1 if they are not, or not equally many."""

    @property
    def unit(self) -> bool:
        """True if all are within 0 to 1."""
        return unrounded(self.lowest) >= 0 and unrounded(self.highest) <= 1

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN where one task or one cluster says nothing of the spread."""
        if self.strata:
            return stratified_error(self.strata)
        if not self.clusters:
            return math.sqrt(self.variance / self.n) if self.n > 1 else math.nan
        if len(self.clusters) < 2:
            return math.nan
        squares = [(total - size * self.mean) ** 2 / (1 - size / self.n) for total, size in self.clusters]
        return math.sqrt(math.fsum(squares)) / self.n

    @property
    def freedom(self) -> float:
        """The degrees of freedom of that error."""
        if self.strata:
            return stratified_freedom(self.strata)
        return cluster_freedom([size for _, size in self.clusters]) if self.clusters else self.n - 1


def moments(
    means: Sequence[float], labels: Sequence[str] | None = None, strata: Sequence[str] | None = None
) -> Moments:
    """The moments of task means; `labels` says which cluster each is of, `strata` which stratum."""
    n = len(means)
    if n == 0:
        return Moments(0, math.nan, math.nan, math.nan, math.nan, False)
    sums: dict[str, tuple[float, int]] = {}
    for mean, label in zip(means, labels or (), strict=labels is not None):
        total, size = sums.get(label, (0.0, 0))
        sums[label] = (total + mean, size + 1)
    variance = standard_deviation(means) ** 2 if n > 1 else 0.0
    return Moments(
        n,
        math.fsum(means) / n,
        variance,
        min(means),
        max(means),
        all_binary(means),
        tuple(sums.values()),
        strata_units(means, strata, labels) if strata else (),
    )


def interval_of(found: Moments, confidence: float = CONFIDENCE) -> Interval:
    """The interval that `mean_interval` gives, from moments.

    With clusters it is Student's t over the clustered standard error, with `cluster_freedom` degrees of freedom. 0/1
    scores get Wilson's interval at the effective number of tasks, the one at which independent tasks would have that
    standard error, reduced by (z/t)^2 (Korn and Graubard, 1998, Survey Methodology 24:193): so it stays within 0 to 1
    and is of use near either. Several 0/1 attempts at each task are such clusters too. With strata the standard error is
    the one within them; they may make of n tasks up to twice as many.
    """
    if found.n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    count = len(found.clusters)
    units, named = count or found.n, "clustered " if count else ""
    alone, error = math.sqrt(found.variance / found.n), found.error
    if found.strata and not error > _TINY:  # each stratum agrees in itself: they say nothing of the spread within
        found = replace(found, strata=())
        error = found.error
    named = f"stratified {named}" if found.strata else named
    inflation = error / alone if (count or found.strata) and alone else 1.0
    if found.binary and not count and not found.strata:
        bounds, method = proportion_interval(round(found.mean * found.n), found.n, confidence), "Wilson"
    elif found.lowest == found.highest or not error > _TINY:
        bounds, method = equal_bounds(found.mean, units, found.unit, confidence), f"{named}equal values"
    elif found.binary or found.repeats > 1:
        shrunk = min(1.0, (z_value(confidence) / t_value(found.freedom, confidence)) ** 2)
        most = found.n * found.repeats * (2 if found.strata else 1)
        effective = min(most, found.mean * (1 - found.mean) / error**2) * shrunk
        method = f"{named}Wilson" if found.strata else "clustered Wilson"
        bounds = proportion_interval(found.mean * effective, effective, confidence)
    else:
        half = t_value(found.freedom, confidence) * error
        bounds, method = Bounds(found.mean - half, found.mean + half), f"{named}t"
        if found.unit:
            bounds = _with_one_more(found.mean, error, found.freedom, bounds, confidence)
    return Interval(found.mean, *bounds, found.n, method, error, count, inflation)


def clustered_error(values: Sequence[float], labels: Sequence[str]) -> float:
    """The standard error of the mean when values of one label go together (Miller, 2024, section 2.2).

    The deviations are added up within each cluster before they are squared, so what a cluster has in common counts once.
    Each square is divided by 1 - the cluster's share of the tasks, which removes the bias of few and of unequal clusters
    (CR2; Bell and McCaffrey, 2002): with C equal clusters that is the factor C / (C - 1). NaN if all are of one cluster.
    """
    return moments(values, labels).error


def cluster_labels(tasks: Sequence[str], clusters: Clusters | None) -> list[str] | None:
    """The cluster of each task, or None if no two tasks share one."""
    if not clusters:
        return None
    labels = [f"in {clusters[task]}" if task in clusters else f"alone {task}" for task in tasks]
    return labels if len(set(labels)) < len(labels) else None


def stratum_labels(tasks: Sequence[str], clusters: Clusters | None) -> list[str] | None:
    """The stratum of each task, or None if the groups name none, or all are of one."""
    if not isinstance(clusters, TaskGroups):
        return None
    labels = [f"in {clusters.strata[task]}" if task in clusters.strata else "in none" for task in tasks]
    return labels if len(set(labels)) > 1 else None


def task_means(values: Scores) -> list[float]:
    """The mean over the attempts at each task; a task without an attempt is left out."""
    return [math.fsum(map(_number, each)) / len(each) for each in values.values() if each]


def standard_deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, with n - 1."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def z_value(confidence: float) -> float:
    """The two-sided normal quantile of a confidence level: 1.96 at 0.95."""
    from statistics import NormalDist

    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def t_value(freedom: float, confidence: float) -> float:
    """The same for Student's t with that many degrees of freedom."""
    from scipy.special import stdtrit

    z_value(confidence)
    return float(stdtrit(freedom, (1 + confidence) / 2))


def all_binary(values: Iterable[float]) -> bool:
    """True if each is 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def in_unit(values: Iterable[float]) -> bool:
    """True if each is within 0 to 1."""
    return all(0 <= value <= 1 for value in values)


def unseen_share(n: int, confidence: float) -> float:
    """The largest share of something else that n equal draws leave possible."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """The root of a function that is negative at the first and positive at the second point."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def equal_bounds(mean: float, n: int, unit: bool, confidence: float) -> Bounds:
    """The bounds of a mean of n equal values: a share of the tasks that they leave possible may score anything in 0..1."""
    if not unit:
        return Bounds(-math.inf, math.inf)
    unseen = unseen_share(n, confidence)
    return Bounds(mean * (1 - unseen), min(1.0, mean * (1 - unseen) + unseen))


def _with_one_more(mean: float, error: float, freedom: float, bounds: Bounds, confidence: float) -> Bounds:
    """The t bounds of scores within 0 to 1, stretched to those with one more unit, half of it at 0 and half at 1.

    t knows only the losses that were seen: where few tasks fail altogether it covers the truth in 66 to 90 % of samples of
    10 to 50 tasks. One more unit is what Jeffreys's prior adds to proportions (Brown, Cai and DasGupta, 2001): with it no
    case of `python bench/sims.py --coverage partial` is below 94 %, and at 100 tasks most are 0 to 10 % wider.
    """
    units = freedom + 1
    centre = (units * mean + 0.5) / (units + 1)
    squares = units * freedom * error**2 + units * (mean - centre) ** 2 + (centre**2 + (1 - centre) ** 2) / 2
    half = t_value(units, confidence) * math.sqrt(squares / units / (units + 1))
    return Bounds(max(0.0, min(bounds.low, centre - half)), min(1.0, max(bounds.high, centre + half)))


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"a score is {value}: a mean needs finite numbers, so let the scorer give one")
    if abs(value) > MAX_SCORE:
        raise ConfigError(
            f"a score is {value}: its square is no finite number, so let the scorer give one within {MAX_SCORE:g}"
        )
    return unrounded(float(value))
