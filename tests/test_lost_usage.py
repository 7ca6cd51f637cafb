"""Answers that were paid for and refused, or asked for again, are charged to the budget and stand in the trace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import GrammarIgnored, LimitExceeded, ModelError, TransientError
from firsthand.grammar import choice
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.message import assistant
from firsthand.model import Completion, Sampling, Usage, add_lost_usage, lost_usage
from firsthand.patterns.direct import direct
from firsthand.providers import openai_wire as wire
from firsthand.providers.endpoint_clients import paid, together
from firsthand.providers.output_validation import check
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

PAID = Usage(100, 0, 50, 0.5)


class Failing(Scripted):
    """Fails `failures` times with an error that was paid for, then answers."""

    def __init__(self, failures: int, usage: Usage = PAID, kind: type[ModelError] = TransientError, answers: Any = ()):
        super().__init__(["unused"])
        self.failures, self.lost, self.kind, self.answers, self.asked = failures, usage, kind, answers, 0

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked += 1
        if self.asked <= self.failures:
            error = self.kind("no")
            error.answers = self.answers
            add_lost_usage(error, self.lost)
            raise error
        return [Completion(assistant("yes"), "stop", Usage(7, 0, 3, 0.25))]


async def until_it_answers(task: Task, ctx: Context) -> str:
    while True:
        try:
            return (await ctx.say("x").generate()).text
        except ModelError:
            continue


def attempt(model: Scripted, pattern: Any = direct, journal: Any = None, **limits: Any) -> Trace:
    agent = Agent(
        "a", model, pattern, limits=Limits(**limits), retry=Retry(first_wait_s=0.001), sampling=Sampling(max_tokens=8)
    )
    return asyncio.run(rollout(agent, Task("t", "?"), journal=journal))


@pytest.mark.parametrize(("limits", "reason"), [({"cost_usd": 1.0}, "cost_usd"), ({"tokens": 300}, "tokens")])
@pytest.mark.parametrize("kind", [GrammarIgnored, TransientError])
def test_answers_that_are_refused_use_up_the_budget(limits: Any, reason: str, kind: type[ModelError]) -> None:
    model = Failing(20, kind=kind)
    found = attempt(model, until_it_answers, **limits)
    assert (found.stop_reason, model.asked) == (reason, 2)
    assert found.usage == PAID + PAID


def test_tries_before_an_answer_are_in_its_cost_also_when_it_is_replayed() -> None:
    journal = MemoryJournal()
    model = Failing(2)
    found = attempt(model, journal=journal, cost_usd=5.0)
    assert found.usage == PAID + PAID + Usage(7, 0, 3, 0.25) and found.answer == "yes"
    again = attempt(model, journal=journal, cost_usd=5.0)
    assert again.usage == found.usage and model.asked == 3


def test_refused_answers_without_usage_are_charged_an_estimate_under_a_limit_of_tokens() -> None:
    answers = (Completion(assistant("y" * 400), "stop", Usage()),)
    found = attempt(Failing(20, Usage(), GrammarIgnored, answers), until_it_answers, tokens=500, calls=30)
    assert found.stop_reason == "tokens" and 100 < found.usage.completion_tokens <= 500 and found.usage.prompt_tokens
    free = attempt(Failing(2, Usage(), GrammarIgnored, answers), until_it_answers, calls=30)
    assert free.usage == Usage(7, 0, 3, 0.25)


def test_another_try_needs_what_was_reserved_and_leaves_the_reservation() -> None:
    parent = Budget(Limits(tokens=100))
    budget = Budget(Limits(cost_usd=1.0), parent)
    granted = budget.reserve(40)
    budget.spend(Usage(60))
    budget.check_rest(granted)
    budget.spend(Usage(1))
    with pytest.raises(LimitExceeded, match="39 of 100 are left") as error:
        budget.check_rest(granted)
    assert error.value.limit == parent.hit == "tokens"
    assert (budget.reserved_tokens, parent.reserved_tokens, budget.open_calls, parent.open_calls) == (40, 40, 1, 1)


def test_an_own_open_call_is_no_reason_against_another_try() -> None:
    budget = Budget(Limits(cost_usd=1.0, calls=1))
    granted = budget.reserve(40)
    budget.spend(Usage(cost_usd=0.6))
    budget.check_rest(granted)
    budget.spend(Usage(cost_usd=0.4))
    with pytest.raises(LimitExceeded):
        budget.check_rest(granted)


def test_a_check_of_a_grammar_tells_the_answers_and_their_cost() -> None:
    answers = [Completion(assistant("c"), "stop", PAID), Completion(assistant("a"), "stop", Usage(0, 0, 5))]
    with pytest.raises(GrammarIgnored) as error:
        asyncio.run(check("m", answers, Sampling(grammar=choice(["a", "b"]))))
    assert lost_usage(error.value) == PAID + Usage(0, 0, 5) and error.value.answers == tuple(answers)


def test_requests_that_had_ended_beside_one_that_fails_are_in_its_cost() -> None:
    def request(after_s: float, error: ModelError | None = None) -> Callable[[], Awaitable[Usage]]:
        async def run() -> Usage:
            await asyncio.sleep(after_s)
            if error is None:
                return Usage(10)
            with paid(lambda: Usage(1)):
                raise error

        return run

    async def ask() -> None:
        requests = [request(0), request(0.02, ModelError("no")), request(30)]
        await together([each() for each in requests], lambda usage: usage)  # type: ignore[arg-type]

    with pytest.raises(ModelError) as error:
        asyncio.run(ask())
    assert lost_usage(error.value) == Usage(11)


def test_reasoning_that_only_the_total_counts_is_of_the_answer() -> None:
    beside = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 500}
    assert wire.read_usage(beside) == Usage(10, 0, 490)
    assert (
        wire.read_usage(beside | {"total_tokens": 15})
        == wire.read_usage(beside | {"total_tokens": 3})
        == Usage(10, 0, 5)
    )
    assert wire.read_usage(beside | {"total_tokens": "500"}) == Usage(10, 0, 5)
    assert wire.read_usage({"total_tokens": 500, "completion_tokens": 5}) == Usage(0, 0, 5), "the prompt is in it too"
