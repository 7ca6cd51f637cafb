"""Runs rounds of workloads and measures the machine's own speeds, for `firsthand bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

from firsthand.commands.bench_config import Config
from firsthand.system.terminal import progress

if TYPE_CHECKING:
    from firsthand.measure.machine_speeds import Speeds
    from firsthand.measure.measurements import Measured
    from firsthand.measure.workloads import Workload

S = TypeVar("S")
T = TypeVar("T")


def repeat(subject: S, chosen: Sequence[Workload[S]], config: Config) -> tuple[list[Measured], int]:
    """Run every workload once a round; returns the figures, a value per round, and the bytes in use after the first round.

    The first run of each workload does not count: it compiles kernels and touches pages of memory.
    """
    from firsthand.measure.machine import memory_in_use
    from firsthand.measure.measurements import Measured

    rounds = 1 if config.quick else config.rounds
    values: list[list[Sequence[float]]] = [[] for _ in chosen]
    spent = [0.0] * len(chosen)
    steady = 0
    with progress(config.model, len(chosen) * (rounds + 1), shown=config.json != "-") as update:
        for turn in range(rounds + 1):
            for place, workload in enumerate(chosen):
                update(turn * len(chosen) + place, note=workload.name)
                if turn > 1 and spent[place] > config.seconds:
                    continue
                started = time.monotonic()
                found = workload.measure(subject, turn)
                spent[place] += time.monotonic() - started
                if turn > 0:
                    values[place].append(found)
            steady = steady or memory_in_use()
    figures = [
        Measured(figure.name, figure.unit, figure.meaning, tuple(each[index] for each in rows))
        for workload, rows in zip(chosen, values, strict=True)
        for index, figure in enumerate(workload.figures)
    ]
    return figures, steady


def with_machine_speeds(work: Callable[[], T], threads: int, *, once: bool, ours: bool) -> tuple[T, Speeds]:
    """The result of the work, and the best of the machine's speeds before (unless `once`) and after it, which are stored.

    With `ours`, our own matrix products are timed too; they must be compiled by then.
    """
    from firsthand.measure.machine_speeds import faster_of, measure, save_speeds

    early = [] if once else [measure(threads)]
    found = work()
    speeds = reduce(faster_of, early, measure(threads, ours=ours))
    save_speeds(speeds)
    return found, speeds


def is_wanted(workload: Workload[Any], only: Sequence[str]) -> bool:
    """True if a word of `only` is in the name of one of its figures, or `only` is empty."""
    return not only or any(word.lower() in figure.name.lower() for word in only for figure in workload.figures)
