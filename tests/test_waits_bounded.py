"""An environment, a tool source or a scorer that never returns ends after its `max_wait_s`, as an error of the attempt.

A memory ends the run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import ConfigError, WorldFailed
from firsthand.loop.concurrency import run_sync
from firsthand.loop.max_wait import MAX_WAIT_S, awaited, max_wait_s
from firsthand.loop.open_sources import SourceKeeper, opened, reopen
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place as Place_
from firsthand.rollout import rollout, rollouts
from firsthand.safety.attacks.attacked_benchmark import AttackedEnvironment
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Score, Trace
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.world import WorldEnvironment

TASK = Task("1", "q")


class Place:
    """An environment one of whose methods, `hangs`, never returns."""

    tools: Sequence[Tool] = ()
    shared = True

    def __init__(self, hangs: str = "", max_wait_s: Any = 0.05):
        self.hangs, self.max_wait_s = hangs, max_wait_s
        self.log: list[str] = []

    async def _step(self, name: str) -> None:
        self.log.append(name)
        await asyncio.sleep(60 if name == self.hangs else 0)

    async def open(self) -> None:
        await self._step("open")

    async def reopen(self) -> None:
        await self._step("reopen")

    async def final_state(self) -> Json:
        await self._step("final_state")
        return {"n": 3}

    async def close(self) -> None:
        await self._step("close")


async def pattern(task: Task, ctx: Context) -> str:
    return "3"


def right(task: Task, trace: Trace) -> float:
    return 1.0


def attempt(place: Any = None, scorers: Any = (right,), tools: Any = ()) -> Trace:
    environment = None if place is None else lambda task: place
    benchmark = Benchmark("b", lambda seed: [TASK], scorers, environment=environment)
    agent = Agent("a", Scripted([]), pattern, tools=tools)
    return run_sync(asyncio.wait_for(rollout(agent, TASK, benchmark=benchmark), 10))


@pytest.mark.parametrize("hangs", ["open", "final_state", "close"])
def test_an_environment_that_never_returns_is_an_error_of_the_attempt_and_is_closed(hangs: str) -> None:
    trace = attempt(place := Place(hangs))
    assert trace.error is not None and trace.error.kind == "WorldFailed" and trace.stop_reason == "error"
    assert trace.error.message.startswith(f"Place: {hangs} did not end within 0.05 s")
    assert place.log.count("close") == 1 and trace.scores == ()


@pytest.mark.parametrize("hangs", ["open", "close"])
def test_a_tool_source_that_never_returns_is_an_error_of_the_attempt(hangs: str) -> None:
    trace = attempt(tools=(lambda: Place(hangs),))
    assert trace.error is not None and trace.error.message.startswith(f"Place: {hangs} did not end")


def test_a_shared_source_that_never_opens_closes_or_reopens_is_told() -> None:
    async def kept(place: Place) -> None:
        keeper = SourceKeeper([place])
        await keeper.open()
        await reopen([place])
        await keeper.close()

    for hangs in ("open", "reopen", "close"):
        with pytest.raises(WorldFailed, match=f"Place: {hangs} did not end within"):
            run_sync(asyncio.wait_for(kept(Place(hangs)), 10))


def test_the_first_error_is_told_where_closing_hangs_too() -> None:
    async def both() -> None:
        async with opened([outer, Place("close")]):
            raise ValueError("first")

    outer = Place()
    with pytest.raises(ValueError, match="first"):
        run_sync(asyncio.wait_for(both(), 10))
    assert outer.log == ["open", "close"]


async def hang(task: Task, trace: Trace) -> float:
    await asyncio.sleep(60)
    return 1.0


hang.max_wait_s = 0.05  # type: ignore[attr-defined]


class Hanging:
    """A judge whose model never answers."""

    name, max_wait_s = "judge", 0.05

    async def judged(self, task: Task, trace: Trace, journal: Any, budget: Any = None) -> Score:
        return Score("judge", await hang(task, trace))

    def __call__(self, task: Task, trace: Trace) -> float:
        return 0.0


@pytest.mark.parametrize(("scorer", "name"), [(hang, "hang"), (Hanging(), "judge")])
def test_a_scorer_that_never_returns_fails_and_the_others_score(scorer: Any, name: str) -> None:
    late, fine = attempt(scorers=(scorer, right)).scores
    assert late.failed and late.name == name and fine == Score("right", 1.0)
    assert (late.failure or "").startswith(f"WorldFailed: {name}: the score did not end within 0.05 s")


def test_what_takes_less_than_its_bound_is_as_before() -> None:
    trace = attempt(Place(max_wait_s=5))
    assert trace.error is None and trace.final_state == {"n": 3} and trace.scores == (Score("right", 1.0),)
    assert attempt(Place(max_wait_s=None)).error is None


def test_time_errors_of_its_own_keep_their_words() -> None:
    async def late() -> None:
        raise TimeoutError("the database is away")

    with pytest.raises(TimeoutError, match="the database is away"):
        asyncio.run(awaited(5.0, late(), Place(), "open"))


def test_an_error_that_follows_the_end_of_the_time_tells_of_it_and_an_earlier_one_is_its_own() -> None:
    async def cleans_up(wait_s: float) -> None:
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            raise RuntimeError("the connection is closed") from None
        raise RuntimeError("no such place")

    with pytest.raises(WorldFailed, match=r"Place: open did not end within 0\.02 s") as late:
        asyncio.run(awaited(0.02, cleans_up(9), Place(), "open"))
    assert str(late.value.__cause__) == "the connection is closed"
    with pytest.raises(RuntimeError, match="no such place"):
        asyncio.run(awaited(9, cleans_up(0), Place(), "open"))


class Stuck:
    """Notes one of whose methods, `hangs`, never returns."""

    lifetime, max_wait_s = "agent", 0.05

    def __init__(self, hangs: str, *, is_once: bool = True):
        self.inner, self.hangs = notes(lifetime="agent"), hangs
        for name in ("search", "list", "snapshot"):
            setattr(self, name, getattr(self.inner, name))
        for name in ("write", "forget", "learn", *(["once"] if is_once else [])):
            setattr(self, name, self._stuck if name == hangs else getattr(self.inner, name, self._nothing))

    async def _stuck(self, *_: Any) -> str:
        await asyncio.sleep(60)
        return ""

    async def _nothing(self, *_: Any) -> list[MemoryItem]:
        return []


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize(
    ("hangs", "is_once"), [("once", True), ("write", False), ("forget", False), ("learn", True), ("", True)]
)
def test_a_memory_that_never_takes_what_an_attempt_leaves_ends_the_run_with_its_name(
    hangs: str, is_once: bool, is_single: bool
) -> None:
    async def keeps(task: Task, ctx: Context) -> str:
        await ctx.forget(await ctx.remember("x"))
        return "3"

    async def run() -> list[Trace]:
        agent = Agent("a", Scripted([]), keeps, memory=Stuck(hangs, is_once=is_once))  # type: ignore[arg-type]
        if is_single:
            return [await rollout(agent, TASK)]
        return [trace async for trace in rollouts([Place_(agent, Benchmark("b", lambda seed: [TASK], ()), TASK)])]

    if not hangs:
        assert [trace.answer for trace in run_sync(run())] == ["3"]
        return
    with pytest.raises(WorldFailed, match=rf"Stuck: {hangs} did not end within 0\.05 s"):
        run_sync(asyncio.wait_for(run(), 10))


def test_bounds_are_an_hour_or_those_of_what_is_wrapped() -> None:
    assert max_wait_s(right) == MAX_WAIT_S == 3600 and max_wait_s(Place(max_wait_s=7)) == 7.0
    assert max_wait_s(AttackedEnvironment(Place(max_wait_s=7), "text")) == 7.0
    world: Any = BrowseWorld(lambda: None, None)  # type: ignore[arg-type, return-value]
    assert (
        max_wait_s(WorldEnvironment(world, rounds=3)) is None
    )  # other attempts have the browsers for as long as they take


@pytest.mark.parametrize("bound", [0, -1, float("nan"), True, "30"])
def test_a_bound_that_is_no_time_is_refused(bound: object) -> None:
    with pytest.raises(ConfigError, match="give seconds above 0"):
        max_wait_s(Place(max_wait_s=bound))
    place = Place(max_wait_s=bound)
    error = attempt(place).error
    assert error is not None and error.kind == "ConfigError" and place.log == []
