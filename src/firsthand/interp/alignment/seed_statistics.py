"""Means and paired changes of a measure over seeds, where each seed trained a model of its own."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.stats.intervals import Interval, mean_interval
from firsthand.stats.paired import PairedDifference, paired_difference

PerSeed = Sequence[Sequence[float]]
"""The values of each seed's prompts."""


def mean_over_seeds(values: PerSeed) -> Interval:
    """The mean of the seeds' means and its interval; of one seed alone, that of its prompts."""
    if len(values) == 1:
        return mean_interval(list(values[0]))
    return mean_interval([sum(each) / len(each) for each in values])


def change_over_seeds(after: PerSeed, before: PerSeed) -> PairedDifference:
    """The change prompt by prompt, with the prompts of a seed as one cluster; of one seed alone, each prompt is a unit."""
    rows = [
        {f"{seed}-{index}": [value] for seed, each in enumerate(arm) for index, value in enumerate(each)}
        for arm in (after, before)
    ]
    clusters = {task: task.partition("-")[0] for task in rows[0]} if len(before) > 1 else None
    return paired_difference(rows[0], rows[1], clusters=clusters)
