"""The one loop: environments, scorers, failures as data, cancellation, and what a pattern may not see."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import LimitExceeded, ModelError, StoreError, ToolError
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Score, Trace

TASK = Task("1", "Count.", secret={"answer": "SECRET"})


async def direct(task: Task, ctx: Context) -> str:
    return (await ctx.say(task.prompt).generate()).text


def agent(pattern: Any = direct, model: Any = None, **rest: Any) -> Agent:
    return Agent("a", model or Scripted(lambda *_: "three"), pattern, retry=Retry(1), **rest)


def attempt(pattern: Any = direct, *scorers: Any, environment: Any = None, task: Task = TASK, **rest: Any) -> Trace:
    benchmark = Benchmark("b", lambda seed: [task], scorers, environment=environment)
    return asyncio.run(rollout(agent(pattern, **rest), task, benchmark=benchmark))


class Counter:
    """An Environment that counts, and remembers whether it was closed."""

    def __init__(self, *, breaks: str = ""):
        self.count, self.log, self.breaks = 0, list[str](), breaks

    @property
    def tools(self) -> Sequence[Tool]:
        @tool(effect="write")
        def increase(by: int = 1) -> str:
            """Count on."""
            self.count += by
            return str(self.count)

        return (increase,)

    async def open(self) -> None:
        self._do("open")

    async def final_state(self) -> Json:
        self._do("final_state")
        return {"count": self.count, "tags": {"x"}, 1: (2, 3)}  # type: ignore[dict-item]

    async def close(self) -> None:
        self._do("close")

    def _do(self, what: str) -> None:
        self.log.append(what)
        if self.breaks == what:
            raise RuntimeError(f"{what} broke")


async def count_twice(task: Task, ctx: Context) -> str:
    assert [each.name for each in ctx.tools] == ["increase"]
    await ctx.call(ToolCall("1", "increase", {}))
    return (await ctx.call(ToolCall("2", "increase", {"by": 2}))).content


def correct(task: Task, trace: Trace) -> Score:
    return Score("correct", float(trace.final_state.get("count") == 3), {"wanted": task.secret["answer"]})


# -- environments --


def test_the_final_state_of_the_environment_reaches_the_scorers() -> None:
    world = Counter()
    trace = attempt(count_twice, correct, environment=lambda task: world)
    assert trace.answer == "3" and trace.scores == (Score("correct", 1.0, {"wanted": "SECRET"}),)
    assert world.log == ["open", "final_state", "close"]
    assert trace.final_state == {"count": 3, "tags": ["x"], "1": [2, 3]}


def test_an_attempt_that_a_limit_ended_is_scored_by_what_it_had_done() -> None:
    async def count_on(task: Task, ctx: Context) -> str:
        while True:
            await ctx.call(ToolCall("1", "increase", {}))

    world = Counter()
    trace = attempt(count_on, correct, environment=lambda task: world, limits=Limits(calls=3))
    assert (trace.stop_reason, trace.answer, trace.error) == ("calls", None, None)
    assert trace.scores[0].value == 1.0
    assert world.log == ["open", "final_state", "close"]


@pytest.mark.parametrize("breaks", ["open", "final_state", "close"])
def test_an_environment_that_breaks_is_a_failure_of_its_attempt_alone(breaks: str) -> None:
    world = Counter(breaks=breaks)
    trace = attempt(count_twice, correct, environment=lambda task: world)
    assert trace.error is not None and trace.error.message == f"{breaks} broke" and trace.stop_reason == "error"
    assert trace.scores == () and world.log[-1] == "close"


def test_an_environment_that_cannot_be_made_is_a_failure_too() -> None:
    def make(task: Task) -> Counter:
        raise ValueError("no room")

    trace = attempt(count_twice, correct, environment=make)
    assert trace.error is not None and trace.error.kind == "ValueError"


def test_the_error_of_the_pattern_is_told_even_if_closing_breaks_too() -> None:
    async def fail(task: Task, ctx: Context) -> str:
        raise ModelError("first")

    trace = attempt(fail, environment=lambda task: Counter(breaks="close"))
    assert trace.error is not None and trace.error.message == "first"


@pytest.mark.parametrize("breaks", ["", "close"])
def test_cancellation_passes_through_and_the_environment_is_closed(breaks: str) -> None:
    world = Counter(breaks=breaks)
    started = asyncio.Event()

    async def wait(task: Task, ctx: Context) -> str:
        started.set()
        await asyncio.sleep(60)
        return "late"

    async def main() -> None:
        benchmark = Benchmark("b", lambda seed: [TASK], (), environment=lambda task: world)
        running = asyncio.create_task(rollout(agent(wait), TASK, benchmark=benchmark))
        await started.wait()
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert world.log == ["open", "close"]


def test_an_interrupt_in_a_pattern_passes_through_and_closes_the_environment() -> None:
    world, journal = Counter(), MemoryJournal()

    async def interrupted(task: Task, ctx: Context) -> str:
        await ctx.say("q").generate()
        raise KeyboardInterrupt

    benchmark = Benchmark("b", lambda seed: [TASK], (), environment=lambda task: world)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(rollout(agent(interrupted), TASK, benchmark=benchmark, journal=journal))
    assert world.log == ["open", "close"] and len(journal.entries) == 1


# -- failures --


def exits(task: Task, ctx: Context) -> str:
    sys.exit(3)


async def exits_later(task: Task, ctx: Context) -> str:
    await ctx.say("q").generate()
    sys.exit(3)


async def exits_in_a_branch(task: Task, ctx: Context) -> str:
    await ctx.group([exits_later(task, ctx), exits_later(task, ctx)])
    return "never"


@pytest.mark.parametrize("pattern", [exits, exits_later, exits_in_a_branch])
def test_a_pattern_that_calls_exit_fails_its_own_attempt(pattern: Any) -> None:
    trace = attempt(pattern, correct)
    assert trace.stop_reason == "error" and trace.error is not None and trace.scores == ()
    assert trace.error.message == "the pattern called sys.exit(3)"
    assert "sys.exit(3)" in (trace.error.traceback or "")


def test_an_environment_or_a_scorer_that_calls_exit_is_an_error() -> None:
    class Leaving(Counter):
        async def final_state(self) -> dict[str, Any]:
            sys.exit(4)

    async def answers(task: Task, ctx: Context) -> str:
        return "4"

    def leaving_scorer(task: Task, trace: Trace) -> float:
        sys.exit(5)

    benchmark = Benchmark("b", lambda seed: [TASK], (), environment=lambda task: Leaving())
    trace = asyncio.run(rollout(agent(answers), TASK, benchmark=benchmark))
    assert trace.error is not None and (trace.error.kind, trace.error.message) == ("SystemExit", "4")
    scored = attempt(answers, leaving_scorer)
    assert scored.error is None and [score.failure for score in scored.scores] == ["SystemExit: 5"]


def test_a_bug_of_a_pattern_keeps_its_traceback() -> None:
    async def buggy(task: Task, ctx: Context) -> str:
        return str(1 // 0)

    trace = attempt(buggy, correct)
    assert trace.error is not None and trace.error.kind == "ZeroDivisionError"
    assert trace.error.traceback is not None and "return str(1 // 0)" in trace.error.traceback
    assert trace.scores == ()


@pytest.mark.parametrize("answer", [None, 12, ["12"], b"12"])
def test_an_answer_that_is_no_text_is_a_clear_failure(answer: Any) -> None:
    async def odd(task: Task, ctx: Context) -> Any:
        await ctx.say("q").generate()
        return answer

    trace = attempt(odd, correct)
    assert trace.error is not None and trace.answer is None
    assert (
        trace.error.message
        == f"the pattern odd returned {answer!r} ({type(answer).__name__}): its answer must be a str"
    )
    assert len(trace.calls) == 1 and trace.error.traceback is None


def test_a_pattern_that_is_no_coroutine_is_a_failure() -> None:
    trace = attempt(lambda task, ctx: "12", correct)
    assert trace.error is not None and trace.error.kind == "ConfigError"


def test_a_pattern_that_is_cancelled_from_inside_does_not_end_the_attempts_beside_it() -> None:
    async def leaky(task: Task, ctx: Context) -> str:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        return ""

    async def main() -> list[Trace]:
        places = [Place(agent(pattern), Benchmark("b", lambda seed: [], ()), Task(str(i), "?"))
                  for i, pattern in enumerate([leaky, direct])]  # fmt: skip
        return [trace async for trace in rollouts(places)]

    failed, fine = sorted(asyncio.run(main()), key=lambda trace: trace.task_id)
    assert failed.error is not None and "cancelled by something it awaited" in failed.error.message
    assert fine.answer == "three"


def test_a_timeout_of_the_patterns_own_is_its_error_and_no_limit() -> None:
    async def impatient(task: Task, ctx: Context) -> str:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
        return ""

    trace = attempt(impatient, limits=Limits(seconds=30))
    assert trace.stop_reason == "error" and trace.error is not None and trace.error.kind == "TimeoutError"


def test_a_time_limit_cancels_what_runs_and_the_trace_is_scored() -> None:
    cancelled = []

    async def slow(task: Task, ctx: Context) -> str:
        async def wait() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return ""

        await ctx.say("q").generate()
        return (await ctx.group([wait(), wait()]))[0]

    trace = attempt(slow, lambda task, trace: Score("any", 0.5), limits=Limits(seconds=0.3))
    assert trace.stop_reason == "seconds" and trace.scores == (Score("any", 0.5),)
    assert cancelled == [True, True]


def test_a_store_that_cannot_be_written_ends_the_rollout() -> None:
    class Full(MemoryJournal):
        def record(self, effect: str, request: str, reply: Json) -> None:
            raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="full"):
        asyncio.run(rollout(agent(), TASK, journal=Full()))


def test_a_tool_that_fails_does_not_end_the_attempt() -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        raise ToolError("it is dark")

    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.call(ToolCall("1", "look", {}))).content

    assert attempt(pattern, tools=(look,)).answer == "Error: it is dark"


# -- scorers --


def test_a_scorer_that_fails_says_so_and_the_others_go_on() -> None:
    def broken(task: Task, trace: Trace) -> Score:
        raise KeyError("answer")

    def bare(task: Task, trace: Trace) -> Any:
        return "0.5"

    def worthless(task: Task, trace: Trace) -> Score:
        return Score("w", None)  # type: ignore[arg-type]

    async def judge(task: Task, trace: Trace) -> Score:
        await asyncio.sleep(0)
        return Score("judge", True, {"why": {1}})

    trace = attempt(direct, broken, bare, worthless, judge)
    assert [(score.name, score.value) for score in trace.scores] == [
        ("broken", 0.0), ("bare", 0.0), ("worthless", 0.0), ("judge", 1.0),
    ]  # fmt: skip
    assert trace.scores[0].failure == "KeyError: 'answer'" and trace.scores[0].detail == {}
    assert all(score.failed and not score.unjudged for score in trace.scores[:3])
    assert trace.scores[3].detail == {"why": [1]}
    assert Trace.from_json(trace.to_json()) == trace


def test_scores_of_one_name_are_named_apart_and_none_is_lost() -> None:
    def named(value: float) -> Callable[[Task, Trace], float]:
        def exact(task: Task, trace: Trace) -> float:
            return value

        return exact

    def several(task: Task, trace: Trace) -> tuple[Score, ...]:
        return (
            Score("exact", 0.75),
            Score("step", 0.1, node=0),
            Score("step", 0.2, node=1),
            Score("step", 0.3, node=1),
        )

    trace = attempt(direct, named(1.0), named(0.0), several, lambda task, trace: 0.5, lambda task, trace: 0.25)
    assert [(score.name, score.value, score.node) for score in trace.scores] == [
        ("exact", 1.0, None), ("exact#2", 0.0, None), ("exact#3", 0.75, None),
        ("step", 0.1, 0), ("step", 0.2, 1), ("step#2", 0.3, 1), ("<lambda>", 0.5, None), ("<lambda>#2", 0.25, None),
    ]  # fmt: skip
    assert (trace.value("exact"), trace.value("exact#2"), trace.value("<lambda>#2")) == (1.0, 0.0, 0.25)
    assert len({(score.name, score.node) for score in attempt(direct, named(1.0), named(0.0), lambda *each: (
        Score("exact#2", 0.5), Score("exact", 0.5)
    )).scores}) == 4  # fmt: skip


# -- secrets, places --


def test_a_pattern_cannot_see_the_secret() -> None:
    async def peek(task: Task, ctx: Context) -> str:
        return f"{task.secret} {task!r} {ctx.messages!r}"

    seen: list[Any] = []

    def scorer(task: Task, trace: Trace) -> Score:
        seen.append(task.secret["answer"])
        return Score("s", 0.0)

    trace = attempt(peek, scorer)
    assert trace.answer is not None and "SECRET" not in trace.answer
    assert seen == ["SECRET"] and "SECRET" not in str(trace.to_json())


def test_attempts_of_one_task_share_their_randomness_across_agents_but_not_across_epochs() -> None:
    model = Scripted(lambda messages, sampling, index: str(sampling.seed))
    benchmark = Benchmark("b", lambda seed: [TASK], ())

    def answer(name: str, **rest: Any) -> str | None:
        return asyncio.run(rollout(Agent(name, model, direct), TASK, benchmark=benchmark, **rest)).answer

    assert answer("a") == answer("b") == answer("a", seed=0)
    assert len({answer("a"), answer("a", epoch=1), answer("a", seed=1)}) == 3


def test_attempts_share_a_place_and_have_ids_of_their_own_that_sort_by_time() -> None:
    benchmark = Benchmark("b", lambda seed: [TASK], ())
    traces = []
    for _ in range(3):
        traces.append(asyncio.run(rollout(agent(), TASK, benchmark=benchmark, epoch=2)))
        time.sleep(0.002)
    assert {trace.place for trace in traces} == {Place(agent(), benchmark, TASK, 2).id}
    others = {Place(agent(), benchmark, TASK, 1).id, Place(agent(), benchmark, Task("2", ""), 2).id}
    assert len({traces[0].place, *others}) == 3
    named = hashlib.sha256(b'["b","1","a",2]').hexdigest()[:16]
    assert traces[0].place == named, "the journals of earlier versions are found by it"
    ids = [trace.id for trace in traces]
    assert ids == sorted(ids) and len(set(ids)) == 3
    assert all(re.fullmatch(r"0[0-9a-hjkmnp-tv-z]{25}", id) for id in ids)


@pytest.mark.parametrize("concurrency", [1, 3, sys.maxsize])
def test_no_more_attempts_run_together_than_asked(concurrency: int) -> None:
    running, most = 0, 0

    async def busy(task: Task, ctx: Context) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return ""

    async def main() -> list[str]:
        places = [Place(agent(busy), Benchmark("b", lambda seed: [], ()), Task(str(i), "")) for i in range(7)]
        return [trace.task_id async for trace in rollouts(places, concurrency=concurrency)]

    assert sorted(asyncio.run(main())) == list("0123456")
    assert most == min(concurrency, 7)


def test_leaving_early_cancels_what_runs() -> None:
    ended: list[str] = []

    async def wait(task: Task, ctx: Context) -> str:
        try:
            await asyncio.sleep(0 if task.id == "0" else 60)
        finally:
            ended.append(task.id)
        return ""

    async def main() -> None:
        places = [Place(agent(wait), Benchmark("b", lambda seed: [], ()), Task(str(i), "")) for i in range(9)]
        traces = rollouts(places, concurrency=3)
        async for _ in traces:
            break
        await traces.aclose()

    asyncio.run(main())
    assert set(ended) == {"0", "1", "2"} or set(ended) == {"0", "1", "2", "3"}


def test_a_shared_budget_bounds_all_attempts_together() -> None:
    from firsthand.loop.budget import Budget

    async def main() -> list[Trace]:
        places = [Place(agent(), Benchmark("b", lambda seed: [], ()), Task(str(i), "q")) for i in range(5)]
        return [trace async for trace in rollouts(places, budget=Budget(Limits(calls=3)))]

    assert sorted(trace.stop_reason for trace in asyncio.run(main())) == ["calls", "calls", "done", "done", "done"]


def test_a_limit_that_a_pattern_catches_ends_nothing_and_marks_the_attempt() -> None:
    async def stubborn(task: Task, ctx: Context) -> str:
        try:
            while True:
                await ctx.say("q").generate()
        except LimitExceeded:
            return "enough"

    trace = attempt(stubborn, limits=Limits(calls=2))
    assert (trace.answer, trace.stop_reason, len(trace.calls)) == ("enough", "calls", 2)
    assert trace.error is None and [event.data["limit"] for event in trace.events] == ["calls"]


@pytest.mark.parametrize("value", [np.bool_(True), np.float32(1), np.int64(1), np.array(1.0), Decimal(1), Fraction(1)])
def test_a_scalar_of_another_library_is_a_score(value: object) -> None:
    def bare(task: Task, trace: Trace) -> Any:
        return value

    def wrapped(task: Task, trace: Trace) -> Any:
        return Score("wrapped", value)  # type: ignore[arg-type]

    trace = attempt(direct, bare, wrapped)
    assert [(each.name, each.value, type(each.value)) for each in trace.scores] == [
        ("bare", 1.0, float),
        ("wrapped", 1.0, float),
    ]
    assert not any(each.failed for each in trace.scores)


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), math.inf, -math.inf, 1.1e200])
def test_a_score_that_is_no_number_of_its_range_is_a_failure(value: Any) -> None:
    bare, wrapped = attempt(direct, lambda *_: value, lambda *_: Score("s", value)).scores
    assert bare.failure == f"ValueError: the score <lambda> is {value:g}: give -1e+200 to 1e+200"
    assert wrapped.failure and (bare.value, wrapped.value) == (0.0, 0.0)


@pytest.mark.parametrize("value", [None, "1", {"a": 1.0}, [Score("a", 1.0)], (Score("a", 1.0), 0.5), np.array([1.0])])
def test_a_scorer_that_returns_something_else_is_told_what_was_expected(value: Any) -> None:
    (score,) = attempt(direct, lambda *_: value).scores
    assert score.failure == (
        f"TypeError: the scorer returned {value!r:.80} ({type(value).__name__}): "
        "a Score, a tuple of Scores, a number or a bool was expected"
    )
    (score,) = attempt(direct, lambda *_: Score("s", "1")).scores  # type: ignore[arg-type]
    assert score.failure == "TypeError: the scorer returned '1' (str): a number as the score s was expected"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (1 + 4e-16, 1.0),
        (1 + 1e-6, 1.0),
        (1 + 2e-6, 1 + 2e-6),
        (-1e-12, 0.0),
        (-2e-12, -2e-12),
        (1 - 1e-9, 1 - 1e-9),
        (1e-13, 1e-13),
        (7.5, 7.5),
    ],
)
def test_a_score_that_rounding_puts_beyond_0_or_1_is_0_or_1(given: float, kept: float) -> None:
    assert [each.value for each in attempt(direct, lambda *_: given, lambda *_: Score("s", given)).scores] == [kept] * 2
