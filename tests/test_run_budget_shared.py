"""A budget that the attempts of a run share: what it refuses or cuts short is not kept, and is made whole later."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, Judge
from firsthand.context import Context
from firsthand.errors import LimitExceeded
from firsthand.loop.attempt import CUT_BY_RUN, Attempt
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import Journal, MemoryJournal
from firsthand.message import assistant
from firsthand.model import Completion, Prompt, Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.run_folder import Run
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Score, Trace

TASK = Task("t", "one two three")
WORDS = 8
"""Of each answer; the prompt has three."""


def wordy() -> Scripted:
    return Scripted(lambda *_: "word " * (WORDS - 1) + "end", fingerprint="wordy")


class Priced(Scripted):
    async def complete(self, *args: Any, **rest: Any) -> list[Completion]:
        return [replace(each, usage=Usage(3, 0, 8, 0.3)) for each in await super().complete(*args, **rest)]


def whole(task: Task, trace: Trace) -> Score:
    return Score("whole", float((trace.answer or "").endswith("end")))


BENCHMARK = Benchmark("b", lambda seed: [TASK], (whole,))


def places(agent: Agent, count: int = 4, benchmark: Benchmark = BENCHMARK) -> list[Place]:
    return [Place(agent, benchmark, replace(TASK, id=str(index))) for index in range(count)]


def attempted(run: Run, made: list[Place], limits: Limits | None, *, concurrency: int = 1) -> list[tuple[str, float]]:
    budget = None if limits is None else Budget(limits)
    asyncio.run(execute(run, made, concurrency=concurrency, budget=budget))
    return [(trace.stop_reason, trace.scores[0].value) for trace in run.traces()]


OWN = [Limits(), Limits(tokens=500, calls=50, cost_usd=50.0, depth=70)]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("shared", [Limits(tokens=28), Limits(calls=2), Limits(tokens=25), Limits(cost_usd=0.6)])
@pytest.mark.parametrize("later", [Limits(tokens=10_000, cost_usd=99.0), None])
def test_what_a_shared_budget_refused_or_cut_is_not_kept_whatever_the_agents_own_limits_are(
    own: Limits, shared: Limits, later: Limits | None, tmp_path: Path
) -> None:
    def agent() -> Agent:
        model = Priced(lambda *_: "word " * (WORDS - 1) + "end", fingerprint="wordy")
        return Agent("a", model, direct, sampling=Sampling(max_tokens=WORDS), limits=own)

    with create(tmp_path, {}, "b") as run:
        with pytest.raises(LimitExceeded, match="of the whole run exhausted with 2 attempts to go"):
            attempted(run, places(agent()), shared)
        assert [trace.stop_reason for trace in run.traces()] == ["done"] * 2
        assert attempted(run, places(agent()), later) == [("done", 1.0)] * 4


def test_an_attempt_that_stops_at_its_own_limit_is_kept_beside_a_shared_one(tmp_path: Path) -> None:
    agent = Agent("a", wordy(), direct, sampling=Sampling(max_tokens=WORDS), limits=Limits(tokens=8))
    with create(tmp_path, {}, "b") as run:
        assert attempted(run, places(agent), Limits(tokens=1000)) == [("tokens", 0.0)] * 4


def test_a_depth_that_is_forbidden_is_an_attempts_own_whoever_forbids_it(tmp_path: Path) -> None:
    async def deep(task: Task, ctx: Context) -> str:
        async def inner() -> str:
            return (await ctx.say(task.prompt).generate()).text

        async def outer() -> list[str]:
            return await ctx.group([inner()])

        await ctx.say(task.prompt).generate()
        (found,) = await ctx.group([outer()])
        return found[0]

    agent = Agent("a", wordy(), deep, sampling=Sampling(max_tokens=WORDS), limits=Limits(depth=9))
    with create(tmp_path, {}, "b") as run:
        assert attempted(run, places(agent), Limits(tokens=10_000, depth=1)) == [("depth", 0.0)] * 4
    budget = Budget(Limits(depth=9), Budget(Limits(depth=1)), shares_parent=True)
    with pytest.raises(LimitExceeded):
        Budget(Limits(), budget).reserve(5, depth=2)
    assert budget.hit == "depth" and budget.parent is not None and budget.parent.hit is None


def test_a_judgement_that_the_shared_budget_cut_short_is_not_kept(tmp_path: Path) -> None:
    class Judged:
        """A judge that gives a verdict whatever its model says."""

        name, described = "whole", "a judge"

        async def __call__(self, task: Task, trace: Trace) -> Score:
            return await self.judged(task, trace, MemoryJournal())

        async def judged(self, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None) -> Score:
            judge = Agent("judge", wordy(), direct, sampling=Sampling(max_tokens=WORDS), limits=Limits(tokens=500))
            found = await rollout(judge, TASK, journal=journal, budget=budget)
            return whole(task, found)

    judge: Judge = Judged()
    benchmark = Benchmark("b", lambda seed: [TASK], (judge,))
    agent = Agent("a", wordy(), direct, sampling=Sampling(max_tokens=WORDS))
    with create(tmp_path, {}, "b") as run:
        with pytest.raises(LimitExceeded, match="with 1 attempt to go"):
            attempted(run, places(agent, 2, benchmark), Limits(tokens=3 * 11 + 5))
        assert attempted(run, places(agent, 2, benchmark), Limits(tokens=1000)) == [("done", 1.0)] * 2


def test_a_whole_answer_of_a_reduced_grant_is_found_again_and_a_cut_one_is_asked_for_anew() -> None:
    def asked(journal: MemoryJournal, words: int, left: int | None, own: Limits) -> tuple[int, Trace, Budget]:
        model = Scripted(lambda *_: "word " * words, fingerprint="wordy")
        agent = Agent("a", model, direct, sampling=Sampling(max_tokens=WORDS), limits=own)
        shared = Budget(Limits(tokens=left))
        trace = asyncio.run(rollout(agent, TASK, journal=journal, budget=shared))
        return len(model.asked), trace, shared

    for words, times in ((4, 0), (6, 1)):  # of 5 that were left
        journal = MemoryJournal()
        asked(journal, words, 8, Limits())
        again, trace, shared = asked(journal, words, 1000, Limits(tokens=14))
        assert (again, trace.stop_reason, len((trace.answer or "").split())) == (times, "done", words)
        assert shared.spent.total_tokens == (7 if times == 0 else 8 + 9), "the cut answer was paid for too"
        assert (shared.calls, shared.reserved_tokens) == (1 + times, 0)
    journal = MemoryJournal()  # what the agent's own limit cut is found again
    asked(journal, 6, 1000, Limits(tokens=8))
    again, trace, shared = asked(journal, 6, 1000, Limits(tokens=8))
    assert (again, trace.stop_reason, trace.answer) == (0, "tokens", "word word word word word")
    assert (shared.spent.total_tokens, shared.calls, shared.reserved_tokens) == (8, 1, 0)
    journal = MemoryJournal()  # and what its own max_tokens did
    asked(journal, 20, 1000, Limits())
    again, trace, shared = asked(journal, 20, 1000, Limits())
    assert (again, trace.stop_reason, shared.spent.total_tokens, shared.calls) == (0, "done", 11, 1)


def test_a_cut_answer_and_what_followed_it_count_against_the_run_and_not_against_the_agent() -> None:
    journal = MemoryJournal()
    for number, mark in enumerate(({}, {CUT_BY_RUN: True}, {})):
        answer = Completion(assistant("x"), "stop", Usage(10**number, 0, 0, 0.5)).to_json()
        journal.record(f":{number}", "r", {"completions": [answer]} | mark)
        journal.record(f":{number}", "size", {"size": 3})
    attempt = Attempt(Agent("a", wordy(), direct), [], journal, 0)
    assert attempt.paid() == (1, 1) and attempt.lost() == [Usage(10, 0, 0, 0.5), Usage(100, 0, 0, 0.5)]
    assert Attempt(Agent("a", wordy(), direct), [], MemoryJournal(), 0).lost() == []


def test_an_attempt_may_nest_deeper_than_others_within_a_shared_budget(tmp_path: Path) -> None:
    async def deep(task: Task, ctx: Context, left: int = 70) -> str:
        if not left:
            return (await ctx.say(task.prompt).generate()).text
        return (await ctx.group([deep(task, ctx, left - 1)]))[0]

    agent = Agent("a", wordy(), deep, sampling=Sampling(max_tokens=WORDS), limits=Limits(depth=None))
    with create(tmp_path, {}, "b") as run:
        assert attempted(run, places(agent, 1), Limits(tokens=10_000, depth=None)) == [("done", 1.0)]


def test_a_budget_knows_which_of_its_parents_are_shared() -> None:
    run = Budget(Limits())
    own = Budget(Limits(), Budget(Limits(), run), shares_parent=True)
    part = Budget(Limits(), own)
    assert [own.is_shared(height) for height in range(3)] == [False, True, True]
    assert [part.is_shared(height) for height in range(3)] == [False, False, True]
    assert [run.is_shared(height) for height in range(2)] == [False, True]


def test_attempts_may_have_each_a_budget_of_their_own_inside_of_a_shared_one(tmp_path: Path) -> None:
    class Slow(Scripted):
        async def count_tokens(self, prompt: Prompt, *rest: Any) -> int:
            await asyncio.sleep(0)
            return await super().count_tokens(prompt, *rest)

    model = Slow(lambda *_: assistant("word " * (WORDS - 1) + "end"), fingerprint="wordy")
    agent = Agent("a", model, direct, sampling=Sampling(max_tokens=WORDS), limits=Limits(tokens=400))
    with create(tmp_path, {}, "b") as run:
        with pytest.raises(LimitExceeded):
            attempted(run, places(agent, 12), Limits(tokens=70), concurrency=5)
        assert attempted(run, places(agent, 12), Limits(tokens=700), concurrency=5) == [("done", 1.0)] * 12


class Slow(Scripted):
    """Takes a while for each answer of WORDS tokens, so that calls are open together."""

    async def complete(self, *args: Any, **rest: Any) -> list[Completion]:
        await asyncio.sleep(0.002)
        return await super().complete(*args, **rest)


def slow(*, asks: int = 1, at_once: int = 1, max_tokens: int = 100) -> tuple[Slow, Agent]:
    """A model, and an agent that asks it so many times in each attempt, by so many calls together."""

    async def pattern(task: Task, ctx: Context) -> str:
        async def ask() -> str:
            return (await ctx.say(task.prompt).generate()).text

        found = [await ctx.group([ask() for _ in range(at_once)]) for _ in range(asks)]
        return found[-1][-1]

    model = Slow(lambda *_: "word " * (WORDS - 1) + "end", fingerprint="wordy")
    return model, Agent("a", model, pattern, sampling=Sampling(max_tokens=max_tokens))


EACH = 3 + WORDS
"""Tokens of a call."""


def test_calls_that_are_under_way_when_a_budget_is_used_up_end_and_none_is_paid_twice(tmp_path: Path) -> None:
    model, agent = slow()
    with create(tmp_path, {}, "b") as run:
        with pytest.raises(LimitExceeded, match="call budget of the whole run exhausted with 5 attempts to go"):
            attempted(run, places(agent, 16), Limits(calls=11), concurrency=8)
        assert len(run.done()) == len(model.asked) == 11
        assert attempted(run, places(agent, 16), Limits(calls=16), concurrency=8) == [("done", 1.0)] * 16
        assert len(model.asked) == 16


@pytest.mark.parametrize("asks", [1, 3])
@pytest.mark.parametrize("concurrency", [2, 16])
def test_what_open_calls_have_reserved_ends_no_run_that_fits(asks: int, concurrency: int, tmp_path: Path) -> None:
    model, agent = slow(asks=asks)
    used = 20 * asks * EACH
    budget = Budget(Limits(tokens=used))
    with create(tmp_path, {}, "b") as run:
        asyncio.run(execute(run, places(agent, 20), concurrency=concurrency, budget=budget))
        assert [(trace.stop_reason, trace.scores[0].value) for trace in run.traces()] == [("done", 1.0)] * 20
        paid = sum(trace.usage.total_tokens for trace in run.traces())
    cut = len(model.asked) - 20 * asks
    assert paid == used and cut == 0, "no call is made twice"
    assert (budget.spent.total_tokens, budget.calls, budget.reserved_tokens, budget.open_calls) == (
        used,
        20 * asks,
        0,
        0,
    )


def test_what_the_calls_of_one_attempt_reserve_is_told_as_reserved(tmp_path: Path) -> None:
    _, agent = slow(at_once=3)
    with create(tmp_path, {}, "b") as run:
        with pytest.raises(LimitExceeded) as stopped:
            attempted(run, places(agent, 2), Limits(tokens=150), concurrency=4)
        assert str(stopped.value).startswith(
            "token budget of the whole run reserved by calls that may use less, with 2 attempts to go; what is done is kept"
        )
        with pytest.raises(LimitExceeded, match="token budget of the whole run exhausted with 2 attempts to go"):
            attempted(run, places(agent, 2), Limits(tokens=2), concurrency=4)


def test_no_attempt_begins_once_a_call_was_refused(tmp_path: Path) -> None:
    _, agent = slow()
    begun: list[str] = []

    async def counted(task: Task, ctx: Context) -> str:
        begun.append(task.id)
        return str(await agent.pattern(task, ctx))

    with create(tmp_path, {}, "b") as run, pytest.raises(LimitExceeded):
        attempted(run, places(replace(agent, pattern=counted), 40), Limits(calls=6), concurrency=4)
    assert len(begun) <= 6 + 4


def test_what_earlier_tries_have_paid_stands_and_is_not_charged_again_when_it_is_replayed() -> None:
    run = Budget(Limits(tokens=100), None)
    share = Budget(Limits(depth=None), run)
    run.charge(run.reserve(10), Usage(3, 0, 2, 0.5))
    share.charge(share.reserve(20), Usage(7, 0, 4, 0.25))
    share.charge(share.reserve(20), Usage(0, 0, 2, 0.5))  # of a call that failed: no reply tells of it
    share.hold(5, 1)
    share.mark("tokens", 0)
    share.begin_again()
    assert (share.is_again, share.hit, run.calls, run.spent.total_tokens) == (False, "tokens", 4, 18)
    share.begins_again = True
    share.begin_again()
    after = (3, Usage(7, 0, 6, 0.75), 0, None, False)
    assert (share.calls, share.spent, share.reserved_tokens, share.hit, share.is_hit_for_good) == after
    assert (run.calls, run.spent, run.reserved_tokens) == (4, Usage(10, 0, 8, 1.25), 0), "never less than was paid"
    own = Budget(Limits(tokens=50), share, shares_parent=True)
    own.hold(11 + 4, 4)  # a reply of 4 tokens that the earlier try had held, and not yet replayed
    assert (own.reserved_tokens, share.reserved_tokens, run.reserved_tokens, run.calls) == (15, 2, 2, 5)
    for usage in (Usage(7, 0, 4, 0.25), Usage(0, 0, 2, 0.5), Usage(4, 0, 0, 0.5), Usage(1)):
        own.repay(usage)
        assert own.reserved_tokens >= 0 <= run.reserved_tokens
    assert (own.spent, own.calls, own.reserved_tokens) == (Usage(12, 0, 6, 1.25), 4, 0)
    assert (run.spent, run.calls, run.reserved_tokens) == (Usage(15, 0, 8, 1.75), 5, 0)
    assert (share.spent, share.calls, share.reserved_tokens) == (Usage(12, 0, 6, 1.25), 4, 0)


def test_a_call_that_fits_exactly_once_open_calls_have_ended_was_refused_for_what_they_reserve() -> None:
    budget = Budget(Limits(tokens=10))
    budget.charge(0, Usage(2, 0, 4))
    assert budget._is_only_reserved("tokens", 4) and not budget._is_only_reserved("tokens", 5)
    assert not budget._is_only_reserved("calls", 1)


class Mute(Priced):
    """Never answers a second turn, if `mute`."""

    mute = False

    async def complete(self, prompt: Any, *args: Any, **rest: Any) -> list[Completion]:
        if self.mute and len(prompt) > 1:
            await asyncio.sleep(60)
        return await super().complete(prompt, *args, **rest)


def asking_twice(*, mute: bool = False) -> tuple[Mute, list[Place]]:
    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.say(task.prompt).generate()
        return (await first.say("and?").generate()).text

    model = Mute(lambda *_: "word " * (WORDS - 1) + "end", fingerprint="wordy")
    model.mute = mute
    return model, places(Agent("a", model, pattern, sampling=Sampling(max_tokens=WORDS)))


LATER = [Limits(cost_usd=1.5), Limits(tokens=44 + 20), Limits(calls=5)]


@pytest.mark.parametrize("limits", LATER)
def test_what_interrupted_attempts_have_paid_counts_before_they_are_begun_again(limits: Limits, tmp_path: Path) -> None:
    with create(tmp_path, {}, "b") as run:
        model, made = asking_twice(mute=True)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(execute(run, made, concurrency=4, budget=Budget(Limits())), 0.5))
        assert len(model.asked) == 4 and not run.done(), "each attempt has paid for its first call"
        paid = run.interrupted()
        assert {each.id for each in made} == set(paid)
        assert {(each.usage, each.calls, each.highest_usd) for each in paid.values()} == {(Usage(3, 0, 8, 0.3), 1, 0.3)}
        for _ in range(2):  # the second time nothing is left, and what is finished counts as before
            model, made = asking_twice()
            budget = Budget(limits)
            with pytest.raises(LimitExceeded, match="of the whole run exhausted with 3 attempts to go"):
                asyncio.run(execute(run, made, concurrency=1, budget=budget))
            assert len(model.asked) <= 1 and budget.calls == 5
            assert (
                budget.highest_usd == pytest.approx(0.3)
                and budget.spent.total_tokens == 55
                and budget.spent.cost_usd == pytest.approx(1.5)
            )
        model, made = asking_twice()
        budget = Budget(Limits(tokens=999, calls=8))
        asyncio.run(execute(run, made, concurrency=4, budget=budget))
        assert len(model.asked) == 3 and (budget.calls, budget.reserved_tokens, budget.spent.total_tokens) == (8, 0, 88)
        assert run.interrupted() == {} and run.spent()[1] == 8 and budget.spent.cost_usd == pytest.approx(2.4)
