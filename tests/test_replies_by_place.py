"""A replay gives each attempt its own replies, whatever others were told that asked the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.context import Context
from firsthand.errors import ModelError
from firsthand.experiment.named_agents import ALLOW_ALL
from firsthand.loop.asked_at import REPLAYED_ELSEWHERE, asked_at, asking
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import JournalPart, MemoryJournal
from firsthand.message import Json, ToolCall
from firsthand.providers.replies_by_place import RepliesByPlace
from firsthand.providers.scripted import Scripted
from firsthand.runs.run_folder import Run
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import judged_by, rubric
from firsthand.tool import tool


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def another_each_time() -> Scripted:
    """A model that never says the same twice, as hosted ones may."""
    said = count(1)
    return Scripted(lambda *_: f"{next(said)}", name="scripted:hosted", fingerprint="hosted")


async def once(task: Task, ctx: Context) -> str:
    return (await ctx.say("What?").generate()).text


async def thrice(task: Task, ctx: Context) -> str:
    words = [(await ctx.say("What?").generate()).text]
    words += [(await ctx.say("What?").generate()).text for _ in range(2)]
    return " ".join(words)


def own(*scorers: Any) -> Benchmark:
    return Benchmark("own", lambda seed: [Task(f"t{n}", "What?") for n in range(3)], scorers or (exact,))


def answers(run: Run) -> dict[str, Any]:
    return {trace.place: (trace.answer, [score.value for score in trace.scores]) for trace in run.traces()}


def elsewhere(run: Run) -> list[Json]:
    return [event.data for trace in run.traces() for event in trace.events if event.kind == REPLAYED_ELSEWHERE]


def test_agents_that_ask_the_same_have_each_its_own_reply_again() -> None:
    model = another_each_time()
    agents = [Agent("a", model, once), Agent("b", model, thrice), Agent("c", model, once)]
    experiment = Experiment(agents, own(), epochs=2, concurrency=5)
    with experiment.run() as run:
        before = answers(run)
        assert len(before) == 18
        with experiment.replaying(run.id).run() as again:
            assert answers(again) == before and elsewhere(again) == []
            assert all(trace.error is None for trace in again.traces())


def counter() -> Any:
    numbers = count(1)

    @tool(effect="external", name="poll")
    def poll(key: str) -> str:
        """The next number of a counter outside."""
        return str(next(numbers))

    return poll


async def polls(task: Task, ctx: Context) -> str:
    return " ".join([(await ctx.call(ToolCall(f"{n}", "poll", {"key": "k"}))).content for n in range(3)])


async def polls_after_a_word(task: Task, ctx: Context) -> str:
    for _ in range(5):
        await ctx.call(ToolCall("0", "nothing", {}))
    return await polls(task, ctx)


def test_equal_calls_of_a_tool_have_the_result_of_their_place_and_shifted_ones_that_of_their_turn() -> None:
    agent = Agent("a", Scripted([]), polls, tools=(counter(),), approval=ALLOW_ALL)
    experiment = Experiment([agent], own(), concurrency=1)
    with experiment.run() as run:
        before = answers(run)
        assert sorted(answer for answer, _ in before.values()) == ["1 2 3", "4 5 6", "7 8 9"]
        with experiment.replaying(run.id).run() as again:
            assert answers(again) == before
        changed = replace(experiment, agents=[replace(agent, pattern=polls_after_a_word)])
        with changed.replaying(run.id).run() as again:
            assert answers(again) == before and elsewhere(again) == []
        renamed = replace(experiment, agents=[replace(agent, name="z")])
        with renamed.replaying(run.id).run() as again:
            assert sorted(answer for answer, _ in answers(again).values()) == ["1 2 3", "4 5 6", "7 8 9"]
            noted = elsewhere(again)
            assert [each["call"] for each in noted] == [":0", ":1", ":2"] * 3 == [each["effect"] for each in noted]
            assert {each["place"] for each in noted} == set(before)


def test_judges_of_equal_answers_give_each_its_own_verdict_again() -> None:
    chance = random.Random(3)
    judge = Scripted(score=lambda prompt, each: -5 * chance.random(), name="scripted:j")
    judged: Any = judged_by(rubric(judge="scripted:echo"), judge)  # type: ignore[arg-type]
    same = Scripted({"": "same"}, name="scripted:same")
    experiment = Experiment([Agent("a", same, once), Agent("b", same, once)], own(judged), concurrency=1)
    with experiment.run() as run:
        before = answers(run)
        assert len({str(values) for _, values in before.values()}) == 6
        with experiment.replaying(run.id).run() as again:
            assert answers(again) == before


def test_a_call_that_failed_fails_again_though_another_attempt_was_answered() -> None:
    class Sometimes(Scripted):
        asked_before = 0

        async def complete(self, *args: Any, **named: Any) -> Any:
            self.asked_before += 1
            if self.asked_before == 1:
                raise ModelError("too busy")
            return await super().complete(*args, **named)

    model = Sometimes({"": "x"}, name="scripted:x")
    agents = [Agent(name, model, once, retry=Retry(1)) for name in "ab"]
    experiment = Experiment(agents, Benchmark("own", lambda seed: [Task("t", "What?")], (exact,)), concurrency=1)
    with experiment.run() as run:
        before = answers(run)
        assert sorted(str(answer) for answer, _ in before.values()) == ["None", "x"]
        with experiment.replaying(run.id).run() as again:
            assert answers(again) == before
            (error,) = filter(None, (trace.error for trace in again.traces()))
            assert error.message == "the call failed when it was recorded: too busy"


class Recorded:
    """A PlacedStore of (attempt, effect, request, reply), the oldest first."""

    def __init__(self, rows: Sequence[tuple[str, str, str, int]]):
        self.rows = rows

    def reply(self, request: str) -> Json | None:
        return next(({"n": n} for _, _, asked, n in reversed(self.rows) if asked == request), None)

    def replied_at(self, request: str) -> list[tuple[str, str]]:
        return [(attempt, effect) for attempt, effect, asked, _ in self.rows if asked == request]

    def reply_at(self, attempt: str, effect: str, request: str) -> Json | None:
        found = [n for *place, n in self.rows if place == [attempt, effect, request]]
        return {"n": found[-1]} if found else None

    def failed_at(self, attempt: str, effect: str, request: str) -> str | None:
        return None


def test_turns_are_counted_by_attempt_and_request_and_a_retried_call_keeps_its_own() -> None:
    store = Recorded(
        [("p", ":0", "r", 1), ("p", ":1", "r", 2), ("p", ":1", "s", 9), ("q", ":0", "r", 3), ("q", ":5", "r", 4)]
    )
    found = RepliesByPlace(store)
    notes: list[Json] = []

    def ask(place: str, effect: str, request: str = "r") -> int | None:
        with asking(MemoryJournal(place), effect, lambda kind, **data: notes.append(data)):
            reply = found.find(request)
        return None if reply is None or reply.reply is None else int(reply.reply["n"])

    assert [ask("p", ":7"), ask("p", ":7"), ask("p", ":8"), ask("p", ":9")] == [1, 1, 2, 2]
    assert [ask("q", ":5"), ask("q", ":6"), ask("q", ":0")] == [4, 4, 3]
    assert (ask("p", ":0", "s"), ask("p", ":0", "none"), notes) == (9, None, [])
    assert [ask("x", ":0"), ask("x", ":0"), ask("y", ":0"), ask("z", ":0"), ask("x", ":5")] == [1, 1, 3, 3, 4]
    assert [ask("x", ":9"), ask("y", ":9")] == [1, 2], "no attempt asked it there"
    assert notes[2] == {"call": ":0", "place": "q", "effect": ":0"} and len(notes) == 7
    assert ask("", ":0") == 4, "a call outside of attempts has the last reply"


def test_the_part_of_a_judge_is_named_as_the_whole_journal_names_it() -> None:
    class Plain:
        """A journal that knows no place."""

    def noted(kind: str, **data: Any) -> None: ...

    with asking(JournalPart(MemoryJournal("p"), "scorer 1"), ":2", noted):
        here = asked_at()
        assert here is not None and (here.attempt, here.effect) == ("p", "scorer 1|:2")
        with asking(JournalPart(Plain(), "scorer 1"), ":2", noted):  # type: ignore[arg-type]
            assert asked_at() is None
        assert asked_at() is here
    assert asked_at() is None
    assert asyncio.run(_asked_in_a_task()) == "p"


async def _asked_in_a_task() -> str | None:
    with asking(MemoryJournal("p"), ":0", lambda kind, **data: None):
        return await asyncio.create_task(_place())


async def _place() -> str | None:
    here = asked_at()
    return None if here is None else here.attempt
