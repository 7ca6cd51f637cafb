"""The means of a claim's measurement: a seed, a folder for models trained once, agents at tasks, and weights by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import DataError
from firsthand.loop.concurrency import run_sync
from firsthand.model import Model
from firsthand.rollout import rollout
from firsthand.stats.paired import PairedDifference, paired_difference
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.trace import Trace


def _cache() -> Path:
    return data_home() / "claims"


@dataclass(frozen=True)
class Lab:
    """Passed to `measure`. Everything random in a claim comes from `seed`."""

    seed: int = 0
    folder: Path = field(default_factory=_cache)
    """Models that several claims use are trained once and kept here."""

    def attempt(
        self, agent: Agent, benchmark: Benchmark, tasks: Sequence[Task] | int, *, concurrency: int = 4
    ) -> list[Trace]:
        """One attempt at each task, or at the first N; in the order of the tasks. No run is stored."""
        chosen = list(benchmark.tasks(self.seed)[:tasks]) if isinstance(tasks, int) else list(tasks)

        async def all_of_them() -> list[Trace]:
            import asyncio

            gate = asyncio.Semaphore(concurrency)

            async def one(task: Task) -> Trace:
                async with gate:
                    return await rollout(agent, task, benchmark=benchmark, seed=self.seed)

            return list(await asyncio.gather(*(one(task) for task in chosen)))

        return run_sync(all_of_them())

    def path(self, name: str) -> Path:
        """The file of a model; DataError with the command that fetches it if it is not here: a claim downloads nothing."""
        from firsthand.hub.model_lookup import locate

        if (path := locate(name)) is None:
            raise DataError(f"the model {name} is not on this machine: `firsthand models pull {name}` fetches it")
        return path

    def model(self, name: str) -> Model:
        """A model by its name in the catalog. DataError if it is not here."""
        self.path(name)
        return catalog.model(name)


def paired(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """The mean of a's scores less b's, with its interval; equal places are one task."""
    one, two = ({str(at): [value] for at, value in enumerate(values)} for values in (a, b))
    return paired_difference(one, two)


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Median CPU seconds of the process for one call, after one that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return median(taken)
