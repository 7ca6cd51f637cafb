"""Means and paired changes of a measure over the prompts of several seeds, and the range of the seeds.

An interval is about the prompts: it says what more prompts of the same models would give. Each seed trained a model of its
own, so the range over seeds says how another model may differ; three of them are too few for an interval of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from firsthand.message import Json
from firsthand.stats.intervals import Interval, finite, mean_interval
from firsthand.stats.paired import PairedDifference, paired_difference

PerSeed = Sequence[Sequence[float]]
"""The values of each seed's prompts."""


@dataclass(frozen=True)
class SeedMean:
    """The mean over all prompts, its interval, and the mean of each seed."""

    pooled: Interval
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.pooled.value:.3f} [{self.pooled.low:.3f}, {self.pooled.high:.3f}]"

    @property
    def range(self) -> str:
        """The smallest and the largest mean of a seed."""
        return f"{min(self.seeds):.2f} to {max(self.seeds):.2f}"

    def to_json(self) -> Json:
        """The numbers as a JSON object."""
        return {**self.pooled.to_json(), "seeds": list(self.seeds)}


def mean_over_seeds(values: PerSeed, *, interval: Callable[[list[float]], Interval] = mean_interval) -> SeedMean:
    """The mean of all prompts of all seeds, each seed with as many; `interval` makes the interval."""
    pooled = [value for each in values for value in each]
    return SeedMean(interval(pooled), tuple(sum(each) / len(each) for each in values))


def change_over_seeds(after: PerSeed, before: PerSeed) -> PairedDifference:
    """The change from one arm to another, prompt by prompt and seed by seed."""
    one, other = (
        {f"{seed}-{index}": [value] for seed, each in enumerate(arm) for index, value in enumerate(each)}
        for arm in (after, before)
    )
    return paired_difference(one, other)


def change_as_json(change: PairedDifference) -> Json:
    """The change as a JSON object. Its direction is `higher`, `lower` or `inconclusive`, since a rate may be of harm."""
    direction = {"better": "higher", "worse": "lower"}.get(change.verdict, change.verdict)
    numbers = {name: finite(getattr(change, name)) for name in ("difference", "low", "high", "p_value")}
    return {**numbers, "n": change.n, "direction": direction, "method": change.method}
