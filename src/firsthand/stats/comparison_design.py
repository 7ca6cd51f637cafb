"""Plans a comparison: relates tasks, attempts per task and the minimum detectable effect, given a variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from firsthand.errors import ConfigError
from firsthand.stats.intervals import (
    CONFIDENCE,
    Clusters,
    Scores,
    cluster_labels,
    moments,
    stratum_labels,
    task_means,
)
from firsthand.stats.paired import Differences
from firsthand.stats.power_analysis import (
    POWER,
    epochs_needed,
    paired_spread,
    paired_tasks_needed,
    smallest_detectable,
    spread,
    tasks_needed,
)
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class Design:
    """Two agents on the same tasks: the variance of their difference, task by task."""

    between: float
    """omega^2, the variance over tasks of the difference of the agents' own means."""
    within: tuple[float, float] | None
    """sigma^2 of single attempts of each; None if unknown, and then `between` is of one attempt each."""
    disagreement: float | None = None
    """Of 0/1 scores with one attempt each: the share of tasks on which one is right and the other wrong."""
    basis: str = ""
    """The source of the variance, in words."""
    confidence: float = CONFIDENCE
    power: float = POWER
    design_effect: float = 1.0
    """The factor by which clusters of dependent tasks, or strata, multiply the variance of the mean difference."""

    def tasks(self, effect: float, epochs: int = 1) -> int | None:
        """The number of tasks that detects that effect with that many attempts per task; None if unknown."""
        if self.within is None and epochs > 1:
            return None
        levels = {"confidence": self.confidence, "power": self.power}
        if self.disagreement is not None:
            alone = paired_tasks_needed(effect, max(self.disagreement, effect), **levels)
        else:
            alone = tasks_needed(effect, self.between, self.within or (0.0, 0.0), (epochs, epochs), **levels)
        return math.ceil(alone * self.design_effect)

    def effect(self, tasks: int, epochs: int = 1) -> float | None:
        """The smallest effect that so many tasks and attempts show; None if it is not known."""
        if self.within is None and epochs > 1:
            return None
        levels = {"confidence": self.confidence, "power": self.power}
        if self.disagreement is not None:
            return smallest_detectable(self._alone(tasks), disagreement=self.disagreement, **levels)
        variance = self.design_effect * (self.between + sum(self.within or (0.0,)) / epochs)
        return smallest_detectable(tasks, sd=math.sqrt(variance), **levels)

    def epochs(self, effect: float, tasks: int) -> int | None:
        """The attempts per task that detect that effect on so many tasks; None if no number does, or it is unknown."""
        if self.within is None:
            return 1 if (self.tasks(effect) or tasks + 1) <= tasks else None
        alone = self._alone(tasks)
        return epochs_needed(effect, alone, self.between, self.within, confidence=self.confidence, power=self.power)

    def _alone(self, tasks: int) -> int:
        """The number of independent tasks that say as much."""
        return max(1, math.floor(tasks / self.design_effect))


def from_pair(
    a: Scores, b: Scores, clusters: Clusters | None = None, *, confidence: float = CONFIDENCE, power: float = POWER
) -> Design:
    """The plan to repeat a comparison of two agents that were both measured, on tasks that are clustered alike."""
    differences = Differences.between(a, b)
    design = _from_pair(a, b, differences, confidence, power)
    return _grouped(design, Differences.between(a, b, clusters).error, differences.error)


def _from_pair(a: Scores, b: Scores, differences: Differences, confidence: float, power: float) -> Design:
    if differences.n < 2:
        raise ConfigError(f"the agents have {count_of(differences.n, 'task')} in common: a variance needs 2 or more")
    parts, about = paired_spread(a, b), f"both measured on {differences.n} tasks"
    if math.isfinite(parts.within):
        own = spread(a).within, spread(b).within
        return Design(parts.between, own, None, f"{about}, several attempts each", confidence, power)
    if differences.binary:
        share = sum(differences.counts) / differences.n
        return Design(
            share - differences.mean**2, None, share, f"{about}, disagreeing on {share:.1%}", confidence, power
        )
    variance = differences.error**2 * differences.n
    return Design(variance, None, None, f"{about}, one attempt each", confidence, power)


def _grouped(design: Design, grouped: float, alone: float) -> Design:
    """The design with the design effect that the standard error with clusters or strata shows beside that without."""
    if not (grouped > 0 and alone > 0) or grouped == alone:
        return design
    effect = (grouped / alone) ** 2
    what = "clusters multiplying" if effect > 1 else "strata reducing"
    basis = f"{design.basis}, {what} the variance {'by' if effect > 1 else 'to'} {effect:.{1 if effect > 1 else 2}f}"
    return replace(design, design_effect=effect, basis=basis)


def from_one(
    scores: Scores,
    correlation: float,
    clusters: Clusters | None = None,
    *,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> Design:
    """The plan to compare an agent with one that is as variable, and whose scores correlate so with its own.

    The variance of the difference of two such agents is 2 (1 - correlation) times the variance of one: of the task means
    where several attempts tell them apart, of single attempts where there is one each.
    """
    means, named = task_means(scores), [task for task, each in scores.items() if each]
    design = _from_one(scores, correlation, confidence, power)
    grouped = moments(means, cluster_labels(named, clusters), stratum_labels(named, clusters))
    return _grouped(design, grouped.error, moments(means).error)


def _from_one(scores: Scores, correlation: float, confidence: float, power: float) -> Design:
    if not -1 <= correlation <= 1:
        raise ConfigError(f"correlation is {correlation}: give a number from -1 to 1, such as 0.5")
    values = [value for each in scores.values() for value in each]
    parts = spread(scores)
    if parts.tasks < 2:
        raise ConfigError(f"there are scores on {count_of(parts.tasks, 'task')}: a variance needs 2 or more")
    about = f"one agent on {parts.tasks} tasks, and a correlation of {correlation:g} assumed"
    if math.isfinite(parts.within):
        between = 2 * (1 - correlation) * parts.between
        return Design(between, (parts.within, parts.within), None, f"{about} for task means", confidence, power)
    mean = math.fsum(values) / len(values)
    variance = 2 * (1 - correlation) * math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)
    binary = all(value in (0.0, 1.0) for value in values)
    return Design(
        variance, None, min(1.0, variance) if binary else None, f"{about} for single attempts", confidence, power
    )
