"""Answers that were paid for and refused, or asked for again, are charged to the budget and stand in the trace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import GrammarIgnored, LimitExceeded, ModelError, TransientError
from firsthand.grammar import choice
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.call_cost import CallCost
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.message import assistant, user
from firsthand.model import Completion, Likelihood, Sampling, Scored, Usage, add_lost_usage, lost_usage
from firsthand.patterns.direct import direct
from firsthand.providers.endpoint_clients import paid, together
from firsthand.providers.output_validation import check
from firsthand.providers.reported_usage import read_usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.rag_model import body_of
from firsthand.retrieval.graph.graph_model import GraphModel
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
        self._fail()
        return [Completion(assistant("yes"), "stop", Usage(7, 0, 3, 0.25))]

    async def score(self, prompt: Any, continuations: Any) -> Scored:
        self._fail()
        return Scored(tuple(Likelihood(each, -1.0, 1, False) for each in continuations), Usage(7, 0, 3, 0.25))

    def _fail(self) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            error = self.kind("no")
            error.answers = self.answers
            add_lost_usage(error, self.lost)
            raise error


async def until_it_answers(task: Task, ctx: Context) -> str:
    while True:
        try:
            return (await ctx.say("x").generate()).text
        except ModelError:
            continue


async def by_score(task: Task, ctx: Context) -> str:
    return (await ctx.say("x").score(["a", "b"]))[0].text


class Asking:
    """A guard that asks the agent's model before its prompt goes out."""

    async def prompt(self, view: AttemptView, messages: Any) -> GuardVerdict:
        await view.ask([user("is this fine? " + "x " * 100)])
        return GuardVerdict.passed("asks", "fine")


def attempt(model: Scripted, pattern: Any = direct, journal: Any = None, guard: Any = None, **limits: Any) -> Trace:
    agent = Agent(
        "a", model, pattern, limits=Limits(**limits), retry=Retry(first_wait_s=0.001), sampling=Sampling(max_tokens=8),
        guard=guard,
    )  # fmt: skip
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


def test_tries_before_a_scoring_are_in_its_cost_also_when_it_is_replayed() -> None:
    journal = MemoryJournal()
    model = Failing(2)
    for _ in range(2):
        found = attempt(model, by_score, journal, cost_usd=5.0)
        assert found.usage == PAID + PAID + Usage(7, 0, 3, 0.25) and found.answer == "a", found.error
    assert model.asked == 3


def test_tries_before_the_answer_to_a_guard_are_in_its_cost() -> None:
    model = Failing(2)
    found = attempt(model, guard=Asking(), cost_usd=5.0)
    (asked,) = (call for call in found.calls if call.kind == "guard")
    assert asked.usage == PAID + PAID + Usage(7, 0, 3, 0.25) and model.asked == 4
    ended = attempt(Failing(20), guard=Asking(), cost_usd=1.0)
    assert (ended.stop_reason, ended.usage) == ("cost_usd", PAID + PAID)


def test_refused_answers_to_a_guard_are_estimated_with_their_prompt() -> None:
    answers = (Completion(assistant("y" * 400), "stop", Usage()),)
    found = attempt(Failing(20, Usage(), GrammarIgnored, answers), guard=Asking(), tokens=5_000)
    assert found.usage.completion_tokens == 100 and found.usage.prompt_tokens > 50


def test_stated_usage_of_refused_answers_is_charged_as_it_is() -> None:
    answers = (Completion(assistant("y" * 400), "stop", PAID),)
    found = attempt(Failing(1, PAID, GrammarIgnored, answers), tokens=5_000)
    assert found.usage == PAID
    price = Usage(cost_usd=0.5)
    assert attempt(Failing(1, price, GrammarIgnored), tokens=5_000).usage == price, "there is nothing to estimate"


def test_a_first_try_needs_no_more_than_it_was_granted() -> None:
    budget = Budget(Limits(tokens=100))
    cost = CallCost(budget, budget.reserve(40))
    budget.spend(Usage(90))  # a call beside it cost more than was known
    cost.check_another_try()
    cost.lose(ModelError("no"))
    cost.check_another_try()
    error = ModelError("no")
    add_lost_usage(error, Usage(1))
    cost.lose(error)
    with pytest.raises(LimitExceeded):
        cost.check_another_try()
    cost.answer = Usage(2)
    cost.settle()
    assert (cost.usage, budget.spent, budget.reserved_tokens) == (Usage(3), Usage(93), 0)


def test_an_attempt_over_documents_that_failed_tells_what_it_cost() -> None:
    found = attempt(Failing(1, kind=ModelError), cost_usd=5.0)
    with pytest.raises(ModelError, match="no") as error:
        body_of(found)
    assert lost_usage(error.value) == PAID


def test_tries_that_failed_count_against_the_cap_of_a_graph() -> None:
    model = Failing(20, kind=ModelError)
    graph = GraphModel(model, max_tokens=300)
    for _ in range(2):
        with pytest.raises(ModelError):
            asyncio.run(graph.ask([user("x")], Sampling()))
    with pytest.raises(LimitExceeded, match="has used 300 tokens of at most 300"):
        asyncio.run(graph.ask([user("x")], Sampling()))
    assert (graph.usage, graph.calls, model.asked) == (PAID + PAID, 0, 2)


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
        await together(lambda each: each(), requests, lambda usage: usage)  # type: ignore[arg-type, return-value]

    with pytest.raises(ModelError) as error:
        asyncio.run(ask())
    assert lost_usage(error.value) == Usage(11)


def test_reasoning_that_only_the_total_counts_is_of_the_answer() -> None:
    beside = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 500}
    assert read_usage(beside) == Usage(10, 0, 490)
    assert read_usage(beside | {"total_tokens": 15}) == read_usage(beside | {"total_tokens": 3}) == Usage(10, 0, 5)
    assert read_usage(beside | {"total_tokens": "500"}) == Usage(10, 0, 5)
    assert read_usage({"total_tokens": 500, "completion_tokens": 5}) == Usage(0, 0, 5), "the prompt is in it too"
