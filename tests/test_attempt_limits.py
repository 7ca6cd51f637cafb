"""A limit holds for prompt and answer, what met it is marked, and an attempt that never asked its model is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.prompt_size import estimated_size
from firsthand.message import Json, ToolCall, ToolResult, assistant, user
from firsthand.model import Completion, Prompt, Sampling, ToolSpec, Usage
from firsthand.providers.cached import Replay
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Score, Trace

TASK = Task("1", "one two three four five six seven eight", secret={"answer": "12"})
CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)


async def direct(task: Task, ctx: Context) -> str:
    return (await ctx.say(task.prompt).generate()).text


def wordy() -> Scripted:
    return Scripted(lambda messages, sampling, index: "word " * 50)


def right(task: Task, trace: Trace) -> Score:
    return Score("right", 1.0)


def attempt(model: Any, limits: Limits, pattern: Any = direct, journal: Any = None, max_tokens: int = 16) -> Trace:
    agent = Agent("a", model, pattern, sampling=Sampling(max_tokens=max_tokens, temperature=0), limits=limits)
    benchmark = Benchmark("b", lambda seed: [TASK], (right,))
    return asyncio.run(rollout(agent, TASK, benchmark=benchmark, journal=journal))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


class Endpoint:
    """A model that nobody can count for; it reports `prompt_tokens`."""

    name = fingerprint = "scripted-endpoint"

    def __init__(self, prompt_tokens: int, cost_usd: float = 0.0):
        self.usage = Usage(prompt_tokens, 0, 3, cost_usd)

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        return [Completion(assistant("12"), "stop", self.usage) for _ in range(n)]


# -- tokens --


def test_a_prompt_that_does_not_fit_is_not_sent_and_its_attempt_is_an_error() -> None:
    trace = attempt(model := wordy(), Limits(tokens=8))
    assert model.asked == [] and trace.usage.total_tokens == 0
    assert trace.stop_reason == "tokens" and trace.scores == ()
    assert trace.error is not None and trace.error.kind == "LimitExceeded"
    assert "never asked" in trace.error.message and "needs 9 tokens" in trace.error.message


def test_an_answer_that_the_budget_cut_is_marked_and_one_that_ended_by_itself_is_not() -> None:
    cut = attempt(wordy(), Limits(tokens=12))
    assert (cut.usage.total_tokens, cut.stop_reason, cut.error) == (12, "tokens", None)
    assert cut.answer == "word word word word" and cut.scores == (Score("right", 1.0),)
    assert [event.data["limit"] for event in cut.events if event.kind == "limit"] == ["tokens"]
    short = attempt(Scripted(lambda *_: "so"), Limits(tokens=12))
    assert (short.usage.total_tokens, short.stop_reason) == (9, "done")
    own = attempt(wordy(), Limits(tokens=12), max_tokens=4)  # the agent's own max_tokens is no limit of the attempt
    assert (own.usage.total_tokens, own.stop_reason) == (12, "done")


def test_a_budget_inside_the_budget_that_cuts_an_answer_marks_no_attempt() -> None:
    async def narrow(task: Task, ctx: Context) -> str:
        return (await ctx.within(Limits(tokens=10)).say(task.prompt).generate()).text

    assert attempt(wordy(), Limits(tokens=100), narrow).stop_reason == "done"
    assert attempt(wordy(), Limits(tokens=9), narrow).stop_reason == "tokens"


def test_a_resumed_attempt_is_marked_as_the_first_one_was() -> None:
    journal = MemoryJournal()
    first = attempt(wordy(), Limits(tokens=12), journal=journal)
    again = attempt(model := wordy(), Limits(tokens=12), journal=journal)
    assert model.asked == [] and (again.stop_reason, again.answer) == (first.stop_reason, first.answer)


def test_choices_are_scored_within_the_budget() -> None:
    async def scored(task: Task, ctx: Context) -> str:
        return str(len(await ctx.say(task.prompt).score(["a b", "c d"])))

    assert attempt(Scripted(), Limits(tokens=12), scored).usage.total_tokens == 12
    trace = attempt(model := Scripted(), Limits(tokens=11), scored)
    assert model.asked == [] and trace.stop_reason == "tokens" and trace.error is not None


def test_an_endpoints_prompt_is_estimated_and_settled_after_the_call() -> None:
    size = estimated_size([user(TASK.prompt)])
    assert size == 18  # 39 bytes and control tokens for two messages
    refused = attempt(Endpoint(8), Limits(tokens=size))
    assert refused.stop_reason == "tokens" and refused.error is not None
    settled = attempt(Endpoint(8), Limits(tokens=size + 16))
    assert (settled.stop_reason, settled.usage.total_tokens) == ("done", 11)
    over = attempt(Endpoint(90), Limits(tokens=size + 16))
    assert (over.stop_reason, over.answer, over.error) == ("tokens", "12", None)
    assert "93 were used, and 34 are allowed" in str(over.events[-1].data["message"])


def test_an_estimate_counts_calls_results_and_tools_once() -> None:
    call, result = ToolCall("1", "look", {"at": "x" * 40}), ToolResult("1", "look", "y" * 40)
    bare = estimated_size([user("q"), assistant(""), user("")])
    assert estimated_size([user("q"), assistant("", call), user("")]) >= bare + 10
    assert estimated_size([user("q"), assistant(""), replace(user(""), role="tool", parts=(result,))]) == bare + 10
    assert estimated_size("q", [ToolSpec("look", "z" * 40, {})]) >= 10


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 400])
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_an_estimate_is_a_quarter_of_the_bytes_and_four_for_each_message_and_the_answer(size: int, turns: int) -> None:
    for letter, in_bytes in (("a", 1), ("é", 2), ("\U0001f600", 4)):
        texts = [letter * size, *["b" * 4] * (turns - 1)]
        quarter = -(-(size * in_bytes + 4 * (turns - 1)) // 4)
        assert estimated_size([user(text) for text in texts]) == quarter + 4 * (turns + 1)
        assert estimated_size("".join(texts)) == quarter  # a text has no messages around it
    call = ToolCall("1", "look", {"at": "x" * size})
    assert estimated_size([assistant("", call)]) == -(-(len("look") + len('{"at":""}') + size) // 4) + 8


def test_a_call_that_cost_more_money_than_was_left_is_marked() -> None:
    assert attempt(Endpoint(8, cost_usd=0.02), Limits(cost_usd=0.01)).stop_reason == "cost_usd"
    assert attempt(Endpoint(8, cost_usd=0.01), Limits(cost_usd=0.01)).stop_reason == "done"


def test_a_local_model_counts_its_prompt_exactly(folder: Path) -> None:
    model = Local(folder, name="tiny", config=CONFIG)
    try:
        prompt = len(asyncio.run(model.tokenize([user(TASK.prompt)])))
        fits, cut = (attempt(model, Limits(tokens=prompt + left)) for left in (16, 5))
        refused = attempt(model, Limits(tokens=prompt))
    finally:
        model.close()
    assert fits.stop_reason == "done" and cut.stop_reason == "tokens"
    assert (fits.usage.prompt_tokens, cut.usage.total_tokens) == (prompt, prompt + 5)
    assert refused.calls == () and refused.error is not None


def test_a_replay_is_granted_what_the_recorded_attempt_was(folder: Path) -> None:
    async def twice(task: Task, ctx: Context) -> str:
        return (await (await ctx.say(task.prompt).generate()).say("again").generate()).text

    model, journal = Local(folder, name="tiny", config=CONFIG), MemoryJournal()
    try:
        first = attempt(model, Limits(tokens=260), twice, journal, max_tokens=50)
    finally:
        model.close()

    class Recorded:
        def reply(self, request: str) -> Json | None:
            return next((reply for (_, asked), reply in journal.entries.items() if asked == request), None)

    replayed = attempt(Replay(Recorded(), name="tiny", fingerprint=model.fingerprint), Limits(tokens=260), twice,
                       max_tokens=50)  # fmt: skip
    assert first.stop_reason == "tokens" and first.usage.total_tokens == 260
    assert (replayed.stop_reason, replayed.answer, replayed.error) == (first.stop_reason, first.answer, None)


def test_branches_reserve_in_the_order_in_which_they_came_however_slow_counting_is() -> None:
    class SlowCounter(Scripted):
        async def count_tokens(self, prompt: Prompt, *rest: Any) -> int:
            first = not isinstance(prompt, str) and prompt[-1].text == "first"
            for _ in range(50 if first else 0):
                await asyncio.sleep(0)
            return await super().count_tokens(prompt, *rest)

    async def both(task: Task, ctx: Context) -> str:
        return " ".join(each.text for each in await ctx.group(ctx.say(how).generate() for how in ("first", "second")))

    model = SlowCounter(lambda messages, *_: "word", delay_s=0.01)
    trace = attempt(model, Limits(tokens=21), both)
    granted = {trace.messages(call.at)[-1].text: call.detail["sampling"]["max_tokens"] for call in trace.calls}
    assert granted == {"first": 16, "second": 3}


# -- the run's budget --


def test_an_attempt_that_the_runs_budget_cut_short_is_not_kept(tmp_path: Path) -> None:
    benchmark = Benchmark("b", lambda seed: [TASK], (right,))
    agent = Agent("a", wordy(), direct, sampling=Sampling(max_tokens=16))
    with create(tmp_path, {}, "b") as run:
        places = [Place(agent, benchmark, replace(TASK, id=str(index))) for index in range(3)]
        with pytest.raises(Exception, match="2 attempts to go"):
            asyncio.run(execute(run, places, concurrency=1, budget=Budget(Limits(tokens=24 + 12))))
        assert [trace.stop_reason for trace in run.traces()] == ["done"]


# -- loading --


def test_a_model_is_ready_before_an_attempts_clock_begins(folder: Path) -> None:
    model, seen = Local(folder, name="tiny", config=CONFIG), list[bool]()

    async def look(task: Task, ctx: Context) -> str:
        seen.append(model.is_alive)
        return await direct(task, ctx)

    async def several() -> list[Trace]:
        agent = Agent("a", model, look, sampling=Sampling(max_tokens=2))
        places = [Place(agent, Benchmark("b", lambda seed: [], ()), replace(TASK, id=str(i))) for i in range(3)]
        return [trace async for trace in rollouts(places)]

    try:
        traces = asyncio.run(several())
    finally:
        model.close()
    assert seen == [True, True, True] and [trace.error for trace in traces] == [None] * 3


def test_a_model_that_cannot_be_loaded_fails_its_attempts_with_the_reason(folder: Path) -> None:
    class Broken(Local):
        async def load(self) -> Any:
            raise ModelError("the weights are damaged")

        async def complete(self, *args: Any, **rest: Any) -> Any:
            return await self.load()

    trace = attempt(Broken(folder, name="broken", config=CONFIG), Limits(seconds=60))
    assert trace.stop_reason == "error" and trace.error is not None and trace.error.message == "the weights are damaged"


def test_time_that_was_up_before_the_model_was_asked_is_an_error_and_after_it_a_limit() -> None:
    async def idle(task: Task, ctx: Context) -> str:
        await asyncio.sleep(60)
        return ""

    trace = attempt(wordy(), Limits(seconds=0.05), idle)
    assert trace.stop_reason == "seconds" and trace.scores == ()
    assert trace.error is not None and "never asked" in trace.error.message
    asked = attempt(Scripted(lambda *_: "12", delay_s=60), Limits(seconds=0.05))
    assert (asked.stop_reason, asked.error, asked.scores) == ("seconds", None, (Score("right", 1.0),))
