"""Faults of a shared memory in the middle of attempts: nothing is lost, and the record says what happened."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from firsthand.agent import Agent, Pattern
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import StoreError
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.feed import Ended, Started
from firsthand.runs.store import create
from firsthand.show.live_tree import Progress
from firsthand.task import Task
from firsthand.trace import Trace


def stored(trace: Trace) -> list[str]:
    """The values that an attempt's own writes gave, as its Trace has them."""
    written = [call.detail["item"] for call in trace.calls if call.detail.get("operation") == "remember"]
    return [item["provenance"]["value"] for item in written]


@pytest.mark.parametrize("same", [True, False])
def test_two_agents_that_write_one_fact_at_once_lose_neither_and_the_traces_have_both(
    tmp_path: Path, same: bool
) -> None:
    path = str(tmp_path / "shared.db")
    cities = ("Oslo", "Oslo" if same else "Rome")

    async def both() -> list[Trace]:
        arrived = asyncio.Barrier(2)

        async def tells(task: Task, ctx: Context) -> str:
            given = {"subject": "Ann", "attribute": "home", "value": task.prompt, "time": "2026-01-01"}
            await arrived.wait()
            await ctx.remember(f"Ann lives in {task.prompt}.", **given)
            return "told"

        agents = [Agent(name, Scripted([]), tells, memory=semantic(path)) for name in ("first", "second")]
        tasks = [Task(str(number), city) for number, city in enumerate(cities)]
        return list(await asyncio.gather(*map(rollout, agents, tasks)))

    traces = asyncio.run(both())
    assert [trace.error for trace in traces] == [None, None]
    assert [stored(trace) for trace in traces] == [[city] for city in cities]
    memory = semantic(path)
    kept = asyncio.run(memory.list())
    assert sorted(item.provenance["agent"] for item in kept) == ["first", "second"]
    disagreeing = [sorted(item.provenance["value"] for item in group) for group in memory.contradictions()]
    assert disagreeing == ([] if same else [["Oslo", "Rome"]])


@pytest.mark.slow
def test_a_file_cut_short_during_an_attempt_stops_it_and_its_write_is_made_when_the_file_is_back(
    tmp_path: Path,
) -> None:
    """A store that fails says nothing about the answer: no Trace with an error, but a sentence, and the journal is kept."""
    path = tmp_path / "facts.db"
    whole = path

    async def fills(task: Task, ctx: Context) -> str:
        texts = [
            f"{name} lives in flat {number}. " + "And so on. " * 50 for number in range(60) for name in ("Ann", "Bo")
        ]
        await ctx.remember_all([(text, {}) for text in texts])
        return "filled"

    async def goes_on(task: Task, ctx: Context) -> str:
        await ctx.recall("Ann")
        if whole != path:
            path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
        await ctx.remember("Di lives in Rome.")
        return "done"

    def attempt(pattern: Pattern, journal: MemoryJournal) -> Trace:
        return asyncio.run(
            rollout(Agent("a", Scripted([]), pattern, memory=semantic(str(path))), Task("1", "?"), journal=journal)
        )

    assert attempt(fills, MemoryJournal()).error is None
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = Path(shutil.copy(path, tmp_path / "whole.db"))
    journal = MemoryJournal()
    with pytest.raises(StoreError, match=r"facts\.db"):
        attempt(goes_on, journal)
    shutil.copy(whole, path)
    whole = path
    trace = attempt(goes_on, journal)
    assert trace.error is None and trace.answer == "done"
    assert all(call.replayed for call in trace.calls)
    assert [item.text for item in asyncio.run(semantic(str(path)).search("Where does Di live?", 1))] == [
        "Di lives in Rome."
    ]


def test_a_run_that_a_broken_memory_stops_keeps_the_attempt_so_far_and_why_until_it_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    tasks = [Task("1", "Where does Ann live?")]

    async def looks(task: Task, ctx: Context) -> str:
        ctx = await ctx.say(task.prompt).generate()
        if memory.search is reads_anew:
            path.write_bytes(whole[:3000])
        await ctx.recall("Ann")
        return ctx.text

    memory = semantic(str(path))
    asyncio.run(memory.write(MemoryItem.of("Ann lives in Oslo. " + "And so on. " * 2000, {})))
    place = Place(
        Agent("a", Scripted(["In Oslo."]), looks, memory=memory), Benchmark("homes", lambda seed: tasks, ()), tasks[0]
    )
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, opened = path.read_bytes(), memory.search

    async def reads_anew(query: str, k: int) -> list[MemoryItem]:  # an open connection has its pages in memory
        return list(await semantic(str(path)).search(query, k))

    memory.search = reads_anew
    with create(tmp_path, {}, "run") as run:
        with pytest.raises(StoreError, match=r"facts\.db"):
            asyncio.run(execute(run, [place]))
        assert list(run.traces()) == []
        unfinished = Progress("", Limits())
        for told in run.feed.after():
            if not isinstance(told.step, Started | Ended):
                unfinished.tell(told.step)
        trace = unfinished.trace()
        assert trace.nodes[-1].message.text == "In Oslo."
        (event,) = trace.events
        assert event.kind == "stopped" and "facts.db" in event.data["message"]
        path.write_bytes(whole)
        memory.search = opened
        asyncio.run(execute(run, [place]))
        (done,) = run.traces()
        assert (done.answer, done.error, done.events) == ("In Oslo.", None, ())
        assert done.calls[0].replayed and [type(told.step) for told in run.feed.after()] == [Ended]
