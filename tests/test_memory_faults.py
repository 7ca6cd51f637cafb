"""Faults of a shared memory in the middle of attempts: nothing is lost, and the record says what happened."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from firsthand.agent import Agent, Pattern
from firsthand.context import Context
from firsthand.errors import StoreError
from firsthand.loop.journal import MemoryJournal
from firsthand.memories.semantic import semantic
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
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
