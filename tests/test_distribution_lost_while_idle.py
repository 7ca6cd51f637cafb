"""Distributed runs at two of each: agents of which one shares its memory, a worker that idles beside a lost one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.cluster.spread.distribute import distribute
from firsthand.cluster.spread.run_worker import Lost, attempt_message
from firsthand.errors import ConfigError
from firsthand.memories.notes import notes
from firsthand.message import Json
from firsthand.patterns.direct import direct
from firsthand.rollout import Place
from firsthand.runs.store import create
from firsthand.task import Task
from test_distribution_parts import ADA, BENCH, Crew, Told, ends, places


class Late(Told):
    """Answers only when the other workers have had many turns; keeps how often `beside` was closed by then."""

    beside: Told
    closed_beside: int | None = None

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        for _ in range(20):
            await asyncio.sleep(0)
        if self.closed_beside is None:
            self.closed_beside = self.beside.closed
        return await super().exchange(messages)


def test_a_worker_that_has_nothing_to_do_stays_for_the_attempts_of_one_that_is_lost_later(tmp_path: Path) -> None:
    one, two = every = places(2)
    lost: list[str] = []
    idle = Told([ends(one, "t1"), ends(two, "t2")], name="idle")
    late = Late(Lost("late is gone"), name="late")
    late.beside = idle
    with create(tmp_path, {}, "r") as run:
        work = distribute(run, every, Crew(late, idle), seed=3, on_lost=lost.append)
        asyncio.run(asyncio.wait_for(work, 3))
        assert late.heard == idle.heard == [[attempt_message(each, 3, []) for each in every]]
        assert (late.closed_beside, idle.closed, late.closed) == (0, 1, 1)
        assert lost == ["late is gone: its 2 attempts go to others"] and run.status == "done"
        assert [(trace.id, trace.place) for trace in run.traces()] == [("t1", one.id), ("t2", two.id)]


@pytest.mark.parametrize("lifetime", ["run", "agent"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_shared_memory_is_refused_whichever_agent_of_a_benchmark_has_it(
    lifetime: str, at: int, tmp_path: Path
) -> None:
    agents = [ADA, Agent("bo", ADA.model, direct, memory=notes(lifetime="attempt"))]
    agents.insert(at, Agent("cy", ADA.model, direct, memory=notes(lifetime=lifetime)))  # type: ignore[arg-type]
    every = [Place(agent, BENCH, Task(str(number), "?")) for number in range(2) for agent in agents]
    untouched = Told(name="idle")
    with create(tmp_path, {}, "r") as run:
        with pytest.raises(ConfigError) as told:
            asyncio.run(distribute(run, every, Crew(untouched)))
        assert str(told.value) == (
            "the memory of cy is shared between attempts, and workers share none: run it in one process, or give it the "
            "lifetime attempt"
        )
        assert (untouched.heard, untouched.closed, list(run.traces())) == ([], 0, [])
