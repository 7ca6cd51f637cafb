"""A budget of tokens over endpoints that report no usage: it is charged an estimate, which the trace marks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, Sampled, Text, ToolCall, assistant, user
from firsthand.model import Completion, Delta, Likelihood, Sampling, Scored, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.anthropic_wire import read_usage as anthropic_usage
from firsthand.providers.reported_usage import count, read_usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Call, Trace


class Silent(Scripted):
    """Answers `said`, and reports the usage that it is told to."""

    def __init__(self, said: Message, usage: Usage):
        super().__init__(["unused"])
        self.said, self.reported = said, usage

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        return [Completion(self.said, "stop", self.reported)] * n

    async def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> AsyncGenerator[Delta, None]:
        yield Delta("", (await self.complete(prompt, sampling))[0])


async def without_end(task: Task, ctx: Context) -> str:
    while True:
        await ctx.say("x " * 100).generate()


async def twice_at_once(task: Task, ctx: Context) -> str:
    return (await ctx.say("x " * 100).sample(2))[0].text


def attempt(said: Message, usage: Usage, tokens: int | None, pattern: Any = without_end, journal: Any = None) -> Trace:
    limits = Limits(tokens=tokens, calls=40)
    agent = Agent("a", Silent(said, usage), pattern, limits=limits, sampling=Sampling(max_tokens=50))
    return asyncio.run(rollout(agent, Task("t", "?"), journal=journal))


def test_a_budget_ends_an_attempt_whose_endpoint_reports_no_usage() -> None:
    found = attempt(assistant("y" * 100), Usage(cost_usd=0.5), 1_000)
    assert found.stop_reason == "tokens" and len(found.calls) < 10
    each = found.calls[0].usage
    assert each.completion_tokens == 25 and each.prompt_tokens >= 100 and each.cost_usd == 0.5
    assert all(call.detail["usage_estimated"] is True for call in found.calls)
    assert 700 < found.usage.total_tokens <= 1_000


def test_reported_usage_is_charged_as_it_is_and_without_a_limit_nothing_is_estimated() -> None:
    found = attempt(assistant("y"), Usage(0, 0, 7), 1_000)
    assert {call.usage for call in found.calls} == {Usage(0, 0, 7)} and "usage_estimated" not in found.calls[0].detail
    free = attempt(assistant("y"), Usage(), None)
    assert len(free.calls) == 40 and free.usage == Usage() and "usage_estimated" not in free.calls[0].detail


def test_the_prompt_of_several_answers_is_charged_once_and_calls_and_token_ids_count() -> None:
    called = assistant("", ToolCall("c", "f" * 20, {"a": "b" * 51}))
    found = attempt(called, Usage(), 1_000, twice_at_once)
    (call,) = found.calls
    assert call.usage.completion_tokens == 40 and 100 <= call.usage.prompt_tokens < 150
    sampled = Message("assistant", (Text("y" * 100),), Sampled((1, 2, 3), (-1.0, -1.0, -1.0)))
    assert attempt(sampled, Usage(), 1_000, twice_at_once).calls[0].usage.completion_tokens == 6


def test_a_replayed_call_is_charged_and_marked_as_it_was() -> None:
    journal = MemoryJournal()
    first = attempt(assistant("y" * 100), Usage(), 1_000, twice_at_once, journal)
    again = attempt(assistant("other"), Usage(9, 0, 9), 1_000, twice_at_once, journal)
    assert again.calls[0].replayed and again.usage == first.usage
    assert again.calls[0].detail["usage_estimated"] is True


class Asks:
    async def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        await view.ask([user("is this fine? " + "x " * 100)])
        return GuardVerdict.passed("asks", "fine")


def guarded(usage: Usage, tokens: int | None, journal: MemoryJournal | None = None) -> Trace:
    agent = Agent(
        "a", Silent(assistant("y" * 100), usage), direct, guard=Asks(), limits=Limits(tokens=tokens),
        sampling=Sampling(max_tokens=50),
    )  # fmt: skip
    return asyncio.run(rollout(agent, Task("t", "?"), journal=journal))


def test_what_a_guard_asks_is_estimated_too() -> None:
    journal = MemoryJournal()
    for found in (guarded(Usage(cost_usd=0.5), 5_000, journal), guarded(Usage(9), 5_000, journal)):
        asked = found.calls[0]
        assert asked.kind == "guard" and asked.detail["usage_estimated"] is True
        assert asked.usage.completion_tokens == 25 and asked.usage.prompt_tokens == 103
        assert asked.usage.cost_usd == 0.5
    for reported, tokens in ((Usage(7), 5_000), (Usage(), None)):
        asked = guarded(reported, tokens).calls[0]
        assert asked.usage == reported and "usage_estimated" not in asked.detail


class Scoring(Silent):
    async def score(self, prompt: Any, continuations: Any) -> Scored:
        return Scored(tuple(Likelihood(each, -1.0, 1, True) for each in continuations), self.reported)


async def compares(task: Task, ctx: Context) -> str:
    return str(len(await ctx.score(["yes", "no"], prompt="x " * 200)))


def test_log_probs_are_estimated_too() -> None:
    def scored(usage: Usage, tokens: int | None, journal: MemoryJournal | None = None) -> Call:
        agent = Agent("a", Scoring(assistant(""), usage), compares, limits=Limits(tokens=tokens))
        (call,) = asyncio.run(rollout(agent, Task("t", "?"), journal=journal)).calls
        return call

    journal = MemoryJournal()
    for call in (scored(Usage(cost_usd=0.5), 5_000, journal), scored(Usage(9), 5_000, journal)):
        assert call.usage == Usage(202, cost_usd=0.5), "of the prompt and of both texts"
        assert call.detail["usage_estimated"] is True
    for reported, tokens in ((Usage(7), 5_000), (Usage(), None)):
        call = scored(reported, tokens)
        assert call.usage == reported and "usage_estimated" not in call.detail


@pytest.mark.parametrize("usage", [{"prompt_tokens": 400.0, "completion_tokens": 50.0}])
def test_whole_numbers_with_a_point_are_counts(usage: Any) -> None:
    assert read_usage(usage) == Usage(400, 0, 50)
    assert anthropic_usage({"input_tokens": 3.0}) == Usage(3)
    assert [count(each) for each in (2.0, 0.0, 2.5, -1.0, float("nan"), float("inf"), 2.0**40, True, "2")] == [
        2, 0, 0, 0, 0, 0, 0, 0, 0
    ]  # fmt: skip
    assert type(count(2.0)) is int
