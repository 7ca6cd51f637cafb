"""Intervals for mean scores: pure functions from numbers to numbers.

Tasks are the unit. Several attempts at one task are averaged before anything else is computed, because they are not
independent draws from the benchmark (Miller, 2024, "Adding Error Bars to Evals", arXiv 2411.00640). Tasks that share a
passage, a repository or a template are not independent either: name their cluster, and the interval allows for it. Below a
few hundred tasks the central limit theorem gives intervals that are too narrow for 0/1 scores (Bowyer et al., 2025, arXiv
2503.01747), so those get Wilson's interval at every size; above, the two are the same. Metrics of a whole corpus are in
`bootstrap.py`, comparisons in `paired.py`.

numpy and scipy are imported where they are used, so that importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json

CONFIDENCE = 0.95
Scores = Mapping[str, Sequence[float]]
"""Task -> the values of its attempts."""
Clusters = Mapping[str, str]
"""Task -> the cluster it belongs to; a task that is not named stands alone."""


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
    """How the interval was found, such as `Wilson`, `t`, `clustered t`, `BCa bootstrap`."""
    clusters: int = 0
    """How many clusters the tasks fall into; 0 if each stands alone."""
    inflation: float = 1.0
    """How many times larger the clusters make the standard error."""

    def to_json(self) -> Json:
        """The numbers as a JSON object; what is not finite becomes null."""
        body: Json = {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high), "n": self.n}
        body["method"] = self.method
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

    Values that are all 0 or 1 get Wilson's interval; others Student's t, cut to 0..1 if all values lie there. If all n
    values are equal (n = 1 too) the spread is unknown, and t would claim certainty: for values in 0..1 the interval then
    allows a share 1 - (alpha/2)^(1/n) of tasks, the most that n equal draws leave possible, to score anything; for
    others it is unbounded. With n = 0 everything is NaN. Where tasks share `clusters`, see `clustered_interval`.
    """
    if isinstance(values, Mapping):
        means = task_means(values)
        labels = cluster_labels([task for task, each in values.items() if each], clusters)
    else:
        means, labels = [_number(value) for value in values], None
    n = len(means)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if labels is not None:
        return clustered_interval(means, labels, confidence)
    mean = math.fsum(means) / n
    if all_binary(means):
        return Interval(mean, *proportion_interval(round(sum(means)), n, confidence), n, "Wilson")
    unit = in_unit(means)
    if len(set(means)) == 1:
        return Interval(mean, *_equal_bounds(mean, n, unit, confidence), n, "equal values")
    half = t_value(n - 1, confidence) * standard_deviation(means) / math.sqrt(n)
    return Interval(mean, *_cut(mean, half, unit), n, "t")


def clustered_interval(means: Sequence[float], labels: Sequence[str], confidence: float = CONFIDENCE) -> Interval:
    """The mean of task scores whose labels say which cluster each is of, and an interval that allows for the clusters.

    Student's t with one degree of freedom less than there are clusters, over `clustered_error`. 0/1 scores get Wilson's
    interval at the effective number of tasks, the one at which independent tasks would have that standard error, reduced
    by (z/t)^2 (Korn and Graubard, 1998, Survey Methodology 24:193): so it stays within 0 to 1 and is of use near either.
    """
    n, mean, unit = len(means), math.fsum(means) / len(means), in_unit(means)
    error, num_clusters = clustered_error(means, labels), len(set(labels))
    alone = standard_deviation(means) / math.sqrt(n) if n > 1 else 0.0
    inflation = error / alone if alone else 1.0
    if num_clusters < 2 or error < 1e-12:
        bounds = _equal_bounds(mean, num_clusters, unit, confidence)
        return Interval(mean, *bounds, n, "clustered, equal values", num_clusters, inflation)
    t = t_value(num_clusters - 1, confidence)
    if all_binary(means):
        effective = min(n, mean * (1 - mean) / error**2) * min(1.0, (z_value(confidence) / t) ** 2)
        bounds = proportion_interval(mean * effective, effective, confidence)
        return Interval(mean, *bounds, n, "clustered Wilson", num_clusters, inflation)
    return Interval(mean, *_cut(mean, t * error, unit), n, "clustered t", num_clusters, inflation)


def clustered_error(values: Sequence[float], labels: Sequence[str]) -> float:
    """The standard error of the mean when values of one label go together (Miller, 2024, section 2.2).

    The deviations are added up within each cluster before they are squared, so what a cluster has in common counts once.
    The factor C / (C - 1) removes the bias of few clusters. NaN if all are of one cluster.
    """
    mean, sums = math.fsum(values) / len(values), dict.fromkeys(labels, 0.0)
    for value, label in zip(values, labels, strict=True):
        sums[label] += value - mean
    if len(sums) < 2:
        return math.nan
    return math.sqrt(len(sums) / (len(sums) - 1) * math.fsum(each * each for each in sums.values())) / len(values)


def cluster_labels(tasks: Sequence[str], clusters: Clusters | None) -> list[str] | None:
    """The cluster of each task, or None if no two tasks share one."""
    if not clusters:
        return None
    labels = [f"in {clusters[task]}" if task in clusters else f"alone {task}" for task in tasks]
    return labels if len(set(labels)) < len(labels) else None


def task_means(values: Scores) -> list[float]:
    """The mean over the attempts at each task; a task without an attempt is left out."""
    return [math.fsum(map(_number, each)) / len(each) for each in values.values() if each]


def standard_deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, with n - 1."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def z_value(confidence: float) -> float:
    """How many standard errors a normal variable stays within, with this confidence: 1.96 at 0.95."""
    from statistics import NormalDist

    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def t_value(freedom: int, confidence: float) -> float:
    """The same for Student's t with that many degrees of freedom."""
    from scipy.special import stdtrit

    z_value(confidence)
    return float(stdtrit(freedom, (1 + confidence) / 2))


def all_binary(values: Iterable[float]) -> bool:
    """Whether each is 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def in_unit(values: Iterable[float]) -> bool:
    """Whether each lies in 0 to 1."""
    return all(0 <= value <= 1 for value in values)


def unseen_share(n: int, confidence: float) -> float:
    """The largest share of something else that n equal draws leave possible."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that goes from negative to positive between two points is 0."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _equal_bounds(mean: float, n: int, unit: bool, confidence: float) -> Bounds:
    if not unit:
        return Bounds(-math.inf, math.inf)
    unseen = unseen_share(n, confidence)
    return Bounds(mean * (1 - unseen), mean * (1 - unseen) + unseen)


def _cut(mean: float, half: float, unit: bool) -> Bounds:
    return Bounds(max(0.0, mean - half), min(1.0, mean + half)) if unit else Bounds(mean - half, mean + half)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"a score is {value}: a mean needs finite numbers, so let the scorer give one")
    return float(value)
