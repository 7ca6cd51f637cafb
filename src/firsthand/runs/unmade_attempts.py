"""Counts the attempts that a run was to make and has not made: it was interrupted, ran out of its budget, or goes on.

What such a run holds is not a sample of what it was to hold: the attempts that take longest are missing first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from firsthand.runs.run_folder import Run

MAX_PLANNED = 10_000_000
"""A run whose plan holds more attempts was not made by `firsthand run`: they would be gone through one by one."""


class Unmade(NamedTuple):
    """The plan of a run, and what is missing of it."""

    epochs: int
    """Attempts planned for each agent at each task; 0 if all planned attempts were made, or there is no plan."""
    counts: Mapping[tuple[str, str], int]
    """Attempts not made, by benchmark and agent: at most, where the plan was of some tasks or agents of the run only."""
    total: int = 0
    """Attempts not made of all of them."""


def unmade(run: Run) -> Unmade:
    """The attempts not made of each of the run's agents at each of its tasks; none for a run that was not planned.

    StoreError if more attempts were planned than MAX_PLANNED.
    """
    info = run.info
    if info.num_planned is None or info.num_traces >= info.num_planned:
        return Unmade(0, {})
    tasks, agents = Counter(benchmark for benchmark, _ in run.tasks()), list(run.agents())
    if info.num_planned > MAX_PLANNED:
        raise run.database.damaged(f"it says that {info.num_planned:,} attempts were planned")
    if not (tasks and agents):
        return Unmade(0, {})
    epochs = math.ceil(info.num_planned / (tasks.total() * len(agents)))
    made = Counter((row.benchmark, row.agent) for row in run.rows())
    counts = {(name, agent): count * epochs - made[name, agent] for name, count in tasks.items() for agent in agents}
    missing = info.num_planned - info.num_traces
    found = {place: min(count, missing) for place, count in counts.items() if count > 0}
    return Unmade(epochs, found, min(sum(found.values()), missing))
