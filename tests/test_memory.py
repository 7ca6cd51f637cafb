"""What an agent remembers does not depend on timing: concurrency, resume and replay give the same recalls and no double."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.distribute import distribute
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.memories.notes import Notes
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Trace

TASKS = [Task(str(i), f"question {i}") for i in range(6)]


def agent(pattern: Any, memory: Any, **rest: Any) -> Agent:
    return Agent("a", Scripted(lambda *_: "fine"), pattern, memory=memory, **rest)


def texts(items: list[MemoryItem]) -> list[str]:
    return [item.text for item in items]


async def learns(task: Task, ctx: Context) -> str:
    """Recall what others wrote, then write, faster for some tasks than for others."""
    await asyncio.sleep(int(task.id) * 7 % 5 / 500)
    found = await ctx.recall("lesson", k=50)
    await ctx.remember(f"lesson of {task.id}", subject="sums")
    own = await ctx.recall("lesson", k=50)
    assert len(own) == len(found) + 1
    return " ".join(sorted(texts(found)))


def outline(trace: Trace) -> Any:
    calls = [(call.id, call.kind, call.detail, call.request) for call in trace.calls]
    return trace.benchmark, trace.task_id, trace.epoch, trace.answer, calls, trace.stop_reason, trace.error


async def all_of(places: list[Place], concurrency: int, done: Mapping[str, Trace] | None = None) -> list[Any]:
    traces = [trace async for trace in rollouts(places, concurrency=concurrency, done=done or {})]
    return sorted(map(outline, traces), key=str)


def places_of(made: Agent, epochs: int = 3, name: str = "b") -> list[Place]:
    benchmark = Benchmark(name, lambda seed: TASKS, ())
    return [Place(made, benchmark, task, epoch) for epoch in range(epochs) for task in TASKS]


@pytest.mark.parametrize("lifetime", ["attempt", "run", "agent"])
def test_runs_of_any_concurrency_have_equal_traces(lifetime: Lifetime) -> None:
    one, eight = (asyncio.run(all_of(places_of(agent(learns, Notes(lifetime))), n)) for n in (1, 8))
    assert one == eight and len(one) == 18
    lessons = " ".join(f"lesson of {task.id}" for task in TASKS)
    if lifetime == "attempt":
        assert {each[3] for each in one} == {""}
    else:
        by_epoch = {epoch: {each[3] for each in one if each[2] == epoch} for epoch in range(3)}
        assert by_epoch[0] == {""} and by_epoch[1] == {lessons} and len(by_epoch[2]) == 1


@pytest.mark.parametrize(("lifetime", "kept"), [("attempt", 0), ("run", 0), ("agent", 6)])
def test_only_the_lifetime_agent_outlives_the_run(lifetime: Lifetime, kept: int) -> None:
    memory = Notes(lifetime)
    asyncio.run(all_of(places_of(agent(learns, memory), epochs=1), 4))
    items = asyncio.run(memory.list())
    assert len(items) == kept
    if items:
        assert {"agent", "benchmark", "task", "epoch", "effect", "subject"} == set(items[0].provenance)
        again = asyncio.run(all_of(places_of(agent(learns, memory), epochs=1, name="next"), 4))
        assert all(each[3].count("lesson") == 6 for each in again)


def test_an_attempt_alone_commits_to_a_memory_that_lives_with_the_agent() -> None:
    made = agent(learns, Notes("agent"))
    first, second = (asyncio.run(rollout(made, task)) for task in TASKS[:2])
    assert (first.answer, second.answer) == ("", "lesson of 0")


def test_a_branch_sees_what_came_before_it_and_not_what_runs_beside_it() -> None:
    def run(waits: tuple[float, float]) -> Trace:
        async def branch(ctx: Context, name: str, wait_s: float) -> list[str]:
            await asyncio.sleep(wait_s)
            id = await ctx.remember(f"note {name}")
            if name == "x":
                await ctx.forget(id)
                await ctx.remember(f"note {name} again")
            await asyncio.sleep(0.02 - wait_s)
            return texts(await ctx.recall("note", k=9))

        async def pattern(task: Task, ctx: Context) -> str:
            await ctx.remember("note before")
            found = await ctx.group([branch(ctx, name, wait_s) for name, wait_s in zip("xy", waits, strict=True)])
            return str([sorted(each) for each in [*found, texts(await ctx.recall("note", k=9))]])

        return asyncio.run(rollout(agent(pattern, Notes()), TASKS[0]))

    trace = run((0.0, 0.01))
    assert trace.answer == str([
        ["note before", "note x again"], ["note before", "note y"], ["note before", "note x again", "note y"],
    ])  # fmt: skip
    assert run((0.01, 0.0)).answer == trace.answer


class Counted(Notes):
    """Counts how often it is searched, its snapshots included."""

    searched = 0

    def snapshot(self) -> Counted:
        return Counted(self.lifetime, self._items)

    async def search(self, query: str, k: int) -> list[MemoryItem]:
        Counted.searched += 1
        return await super().search(query, k)


def test_a_replayed_attempt_recalls_the_same_without_searching_and_writes_nothing_twice() -> None:
    Counted.searched = 0
    journal, memory = MemoryJournal(), Counted("agent")
    made = agent(learns, memory)
    first = asyncio.run(rollout(made, TASKS[0], journal=journal))
    searched = Counted.searched
    again = asyncio.run(rollout(made, TASKS[0], journal=journal))
    assert outline(first) == outline(again) and all(call.replayed for call in again.calls)
    assert Counted.searched == searched == 2
    assert texts(asyncio.run(memory.list())) == ["lesson of 0"]


def test_an_interrupted_attempt_goes_on_with_what_it_remembered() -> None:
    journal = MemoryJournal()

    def pattern(breaks: bool) -> Any:
        async def remembers(task: Task, ctx: Context) -> str:
            await ctx.remember("note one")
            if breaks:
                raise KeyboardInterrupt
            await ctx.remember("note two")
            return " ".join(sorted(texts(await ctx.recall("note"))))

        return remembers

    memory = Notes("agent")
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(rollout(agent(pattern(True), memory), TASKS[0], journal=journal))
    assert asyncio.run(memory.list()) == []
    trace = asyncio.run(rollout(agent(pattern(False), memory), TASKS[0], journal=journal))
    assert trace.answer == "note one note two" and len(asyncio.run(memory.list())) == 2
    assert [call.replayed for call in trace.calls] == [True, False, False]


def test_a_resumed_run_sees_the_writes_of_the_attempts_it_does_not_repeat(tmp_path: Path) -> None:
    whole = asyncio.run(all_of(places_of(agent(learns, Notes("run"))), 3))

    class Stop(BaseException):
        pass

    stopping = [True]

    async def stops(task: Task, ctx: Context) -> str:
        answer = await learns(task, ctx)
        if stopping[0] and answer and task.id == "3":
            raise Stop
        return answer

    stops.__name__ = learns.__name__
    with create(tmp_path, {}, "memory") as run:
        with pytest.raises(BaseException):  # noqa: B017
            asyncio.run(execute(run, places_of(agent(stops, Notes("run"))), concurrency=3))
        assert 6 <= len(run.done()) < 18
        stopping[0] = False
        asyncio.run(execute(run, places_of(agent(stops, Notes("run"))), concurrency=3))
        assert sorted(map(outline, run.traces()), key=str) == whole


def test_memory_operations_are_calls_that_the_budget_counts() -> None:
    trace = asyncio.run(rollout(agent(learns, Notes(), limits=Limits(calls=2)), TASKS[0]))
    assert trace.stop_reason == "calls" and [call.kind for call in trace.calls] == ["memory", "memory"]
    assert trace.agent["memory"] == "notes"


def test_without_a_memory_or_with_no_memory_it_is_one_sentence() -> None:
    trace = asyncio.run(rollout(agent(learns, None), TASKS[0]))
    assert trace.error is not None and "the agent a has no memory" in trace.error.message
    with pytest.raises(ConfigError, match="is no memory"):
        agent(learns, object())
    with pytest.raises(ConfigError, match="k=0"):
        asyncio.run(_recalls_none())


async def _recalls_none() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return str(await ctx.recall("x", k=0))

    trace = await rollout(agent(pattern, Notes()), TASKS[0])
    assert trace.error is not None
    raise ConfigError(trace.error.message)


def test_notes_are_found_by_shared_words_whatever_order_they_were_written_in() -> None:
    items = [MemoryItem.of(text, {}) for text in ("red apples", "green apples and pears", "cars")]

    async def found(order: list[MemoryItem]) -> list[str]:
        notes = Notes()
        for item in order:
            await notes.write(item)
        return texts(await notes.search("Green apples!", 2))

    assert asyncio.run(found(items)) == asyncio.run(found(items[::-1])) == ["green apples and pears", "red apples"]


def test_equals_come_by_id_as_many_as_are_asked_for_and_none_without_a_shared_word() -> None:
    items = [MemoryItem.of(f"apple {number}", {}) for number in range(8)]

    async def ids(order: list[MemoryItem], query: str, k: int) -> list[str]:
        notes = Notes()
        for item in order:
            await notes.write(item)
        return [item.id for item in await notes.search(query, k)]

    for order in (items, items[::-1], items[3:] + items[:3]):
        assert asyncio.run(ids(order, "an APPLE", 5)) == sorted(item.id for item in items)[:5]
        assert asyncio.run(ids(order, "apple 6, apple 6", 1)) == [items[6].id]
        assert asyncio.run(ids(order, "pear", 5)) == asyncio.run(ids(order, "", 5)) == []


@pytest.mark.parametrize("lifetime", ["attempt", "run", "agent"])
def test_a_copy_of_a_memory_is_its_own_and_lives_as_long(lifetime: Lifetime) -> None:
    async def copied() -> tuple[Notes, list[MemoryItem], list[MemoryItem]]:
        first = Notes(lifetime)
        await first.write(kept := MemoryItem.of("kept", {}))
        second = first.snapshot()
        await second.write(MemoryItem.of("later", {}))
        await second.forget(kept.id)
        await second.forget("unknown")
        return second, await first.list(), await second.list()

    second, first_items, second_items = asyncio.run(copied())
    assert second.lifetime == lifetime and texts(first_items) == ["kept"] and texts(second_items) == ["later"]


def test_a_memory_is_found_by_name_with_its_lifetime() -> None:
    memory = catalog.memory("notes:lifetime=run")
    assert isinstance(memory, Notes) and memory.lifetime == "run"
    assert agent(learns, memory).to_json()["memory"] == "notes:lifetime=run"
    with pytest.raises(ConfigError, match="one of attempt, run, agent"):
        catalog.memory("notes:lifetime=day")


def test_workers_of_a_cluster_share_no_memory(tmp_path: Path) -> None:
    with create(tmp_path, {}, "memory") as run, pytest.raises(ConfigError, match="workers share none"):
        asyncio.run(distribute(run, places_of(agent(learns, Notes("run"))), None))  # type: ignore[arg-type]


def test_a_call_of_a_tool_between_memory_operations_keeps_its_place() -> None:
    @tool(effect="read")
    def now() -> str:
        """Tell the time."""
        return "noon"

    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.remember("a")
        await ctx.call(ToolCall("1", "now", {}))
        return "".join(texts(await ctx.recall("a")))

    trace = asyncio.run(rollout(agent(pattern, Notes(), tools=(now,)), TASKS[0]))
    assert trace.answer == "a" and [call.id for call in trace.calls] == [":0", ":1", ":2"]
