"""A run carried out in small: what each setting of `execute` does to the attempts, the record and the budget."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import LimitExceeded, ModelError, StoreError, TooManyFailures, Unreachable
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Added, Step
from firsthand.memories.notes import Notes
from firsthand.message import Json
from firsthand.model import Completion, Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs import store
from firsthand.runs.execute import _FailuresInARow, _stopped, _Watched, begin, execute
from firsthand.runs.feed import Started
from firsthand.scorers.match import exact
from firsthand.system import request_owner
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace
from made_traces import trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "made", command=["run"]) as made:
        yield made


TASKS = [Task(f"t{n}", f"say {n}", secret={"answer": str(n)}) for n in range(4)]


def places(model: Any, count: int = 3, *, name: str = "a", pattern: Any = direct, **more: Any) -> list[Place]:
    """So many places of one agent, each at a task of its own."""
    agent = Agent(name, model, pattern, **more)
    bench = Benchmark("digits", lambda seed: TASKS, (exact,))
    return [Place(agent, bench, task) for task in TASKS[:count]]


def echo(messages: Any, sampling: Any, index: int) -> str:
    return str(messages[-1].text).split()[1]


def test_places_are_attempted_once_with_the_runs_seed_and_told_when_they_are_stored(run: store.Run) -> None:
    made, told = places(Scripted(echo)), list[tuple[str, set[str], float | None, int]]()
    heard: list[tuple[str, str]] = []

    def on_trace(trace: Trace) -> None:
        told.append((trace.task_id, run.done(), trace.value(), trace.seed))

    def listener(place: Place) -> Any:
        if place.task.id == "t1":
            return None
        return lambda step: heard.append((place.task.id, type(step).__name__))

    asyncio.run(execute(run, made, seed=7, concurrency=1, on_trace=on_trace, listener=listener))
    ids = [place.id for place in made]
    assert told == [(f"t{n}", set(ids[: n + 1]), 1.0, 7) for n in range(3)]
    assert {task for task, _ in heard} == {"t0", "t2"}
    assert [kind for task, kind in heard if task == "t2"] == ["Added", "Began", "Piece", "Added", "Call"]
    assert run.info.num_planned == run.info.num_traces == 3
    assert (run.status, list(run.agents()), [id for _, id in run.tasks()]) == ("done", ["a"], ["t0", "t1", "t2"])
    again = list[str]()
    asyncio.run(execute(run, [*made, *places(Scripted(echo), 4)[3:]], on_trace=lambda each: again.append(each.task_id)))
    assert again == ["t3"]
    assert run.info.num_planned == 4


def test_what_is_missing_is_told_by_place_and_counts_with_what_is_done(run: store.Run) -> None:
    made = places(Scripted(echo), 4)
    for place, error in ((made[0], None), (made[2], Failure("E", "gone"))):
        run.append(trace(f"x{place.task.id}", place.task.id, agent="a", place=place.id, error=error))
    run.append(trace("other", "t9", place="elsewhere"))
    assert begin(run, made, False) == {made[1].id: made[1], made[3].id: made[3]}
    assert run.info.num_planned == 5
    assert list(begin(run, made, True)) == [made[1].id, made[2].id, made[3].id]
    assert begin(run, made[:1], True) == {}
    other = Task("t0", "say a letter")
    letters = Place(Agent("b", Scripted(echo), direct), Benchmark("letters", lambda seed: [other], ()), other)
    assert begin(run, [made[0], letters], True) == {letters.id: letters}
    assert (run.info.num_planned, list(run.agents())) == (3, ["a", "b"])
    assert begin(run, made[:1], True) == {}
    assert run.info.num_planned == 2, "the two that are done without an error"
    assert run.agents() == {"a": made[0].agent.to_json(), "b": letters.agent.to_json()}
    assert {key: task.prompt for key, task in run.tasks().items()} == {
        **{("digits", f"t{n}"): f"say {n}" for n in range(4)}, ("letters", "t0"): "say a letter",
    }  # fmt: skip
    assert run.tasks()["digits", "t3"].secret == {"answer": "3"}


def test_errors_are_made_again_only_when_asked(run: store.Run) -> None:
    model, tried = Scripted({"say 1": "1", "": "7"}, failures=0), list[str]()
    bad = places(Scripted(error=ModelError("gone")), 2)
    asyncio.run(execute(run, bad, concurrency=1, fail_fast=0))
    assert [each.error for each in run.rows()] == ["ModelError: gone"] * 2
    good = [Place(Agent("a", model, direct), place.benchmark, place.task) for place in bad]
    with pytest.raises(StoreError, match="agent 'a' is not the one"):  # another model under one name
        asyncio.run(execute(run, good, redo_errors=True))
    asyncio.run(execute(run, bad, on_trace=lambda each: tried.append(each.task_id)))
    assert tried == []
    asyncio.run(execute(run, bad, redo_errors=True, fail_fast=0, on_trace=lambda each: tried.append(each.task_id)))
    assert sorted(tried) == ["t0", "t1"]
    assert [len(run.tries(place.id)) for place in bad] == [2, 2]


def test_no_more_attempts_than_asked_are_made_at_once(run: store.Run) -> None:
    now, most, owners = [0], [0], set[str]()

    async def slow(task: Task, ctx: Context) -> str:
        owners.add(request_owner.current())
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now[0] -= 1
        return "0"

    asyncio.run(execute(run, places(Scripted(echo), 4, pattern=slow), concurrency=2))
    assert most == [2]
    assert owners == {f"{run.id}/a"}


def test_a_fresh_budget_is_charged_what_the_run_has_spent_and_a_used_one_is_not(run: store.Run) -> None:
    made = places(Scripted(echo), 4)
    asyncio.run(execute(run, made[:1]))
    spent, calls = run.spent()
    assert (calls, spent.total_tokens > 0) == (1, True)
    fresh = Budget(Limits(calls=2))
    with pytest.raises(LimitExceeded) as stopped:
        asyncio.run(execute(run, made, concurrency=1, budget=fresh))
    assert stopped.value.limit == "calls"
    assert str(stopped.value) == (
        "call budget of the whole run exhausted with 2 attempts to go; what is done is kept: "
        f"resume run {run.id} with a larger limit to finish them"
    )
    assert (run.status, len(run.done()), fresh.calls) == ("interrupted", 2, 2)
    assert fresh.spent.total_tokens == 2 * spent.total_tokens
    used = Budget(Limits(calls=3))
    used.calls = 1
    with pytest.raises(LimitExceeded, match="exhausted with 1 attempt to go;"):
        asyncio.run(execute(run, [*made, *places(Scripted(echo), 1, name="b")], concurrency=1, budget=used))
    assert (used.calls, len(run.done()), used.spent.total_tokens) == (3, 4, 2 * spent.total_tokens)
    tokens = Budget(Limits(tokens=1000))
    tokens.spent = Usage(1)
    asyncio.run(execute(run, made, budget=tokens))
    assert (tokens.spent, tokens.calls) == (Usage(1), 0)


def test_the_time_of_a_run_ends_it_and_a_timeout_from_within_passes(run: store.Run) -> None:
    made = places(Scripted(echo, delay_s=5), 2)
    with pytest.raises(LimitExceeded) as stopped:
        asyncio.run(execute(run, made, budget=Budget(Limits(seconds=0.02))))
    assert stopped.value.limit == "seconds"
    assert str(stopped.value).startswith("time budget of the whole run exhausted with 2 attempts to go; what is done")

    def late(trace: Trace) -> None:
        raise TimeoutError("of the caller")

    with pytest.raises(TimeoutError, match="of the caller"):
        asyncio.run(execute(run, places(Scripted(echo), 1, name="b"), on_trace=late, budget=Budget(Limits(seconds=60))))
    assert run.status == "interrupted"
    asyncio.run(execute(run, places(Scripted(echo), 1, name="b"), on_trace=late))
    assert run.status == "done"


def test_failures_in_a_row_end_a_run_and_those_that_reached_no_server_are_not_kept(run: store.Run) -> None:
    broken = places(Scripted(error=ModelError("no answer")), 4)
    with pytest.raises(TooManyFailures) as ended:
        asyncio.run(execute(run, broken, concurrency=1, fail_fast=3))
    assert str(ended.value) == (
        "3 attempts in a row failed, the last with: no answer; what is done is kept, and 1 attempt to go: mend it, then "
        f"`firsthand run --resume {run.id}` finishes them (--fail-fast 0 never stops)"
    )
    assert len(run.done()) == 3
    gone = places(Scripted(error=Unreachable("no server")), 4, name="b", retry=Retry(attempts=1))
    told: list[str] = []
    asyncio.run(execute(run, gone, concurrency=1, on_trace=lambda each: told.append(each.task_id)))
    assert told == ["t0", "t1", "t2", "t3"], "four are fewer than five, so they are kept at the end"
    other = places(Scripted(error=Unreachable("no server")), 2, name="c", retry=Retry(attempts=1))
    with pytest.raises(TooManyFailures, match=r"2 attempts in a row failed, .* and 2 attempts to go"):
        asyncio.run(execute(run, other, concurrency=1, fail_fast=2))
    assert len(run.done()) == 7


def test_the_feed_hears_an_attempt_and_its_pieces_only_when_asked(run: store.Run) -> None:
    async def steps(name: str, **more: Any) -> list[str]:
        kinds: list[str] = []

        async def slow(task: Task, ctx: Context) -> str:
            answer = (await ctx.say("say 5").generate()).text
            run.feed.flush()
            kinds.extend(type(each.step).__name__ for each in run.feed.under_way())
            return answer

        await execute(run, places(Scripted(echo), 1, name=name, pattern=slow), **more)
        return kinds

    assert asyncio.run(steps("plain")) == ["Started", "Added", "Began", "Added", "Call"]
    streamed = asyncio.run(steps("streamed", pieces=True))
    assert streamed == ["Started", "Added", "Began", "Piece", "Added", "Call"]
    mine: list[Step] = []
    asyncio.run(steps("both", listener=lambda place: mine.append))
    assert [type(each) for each in mine[:1]] == [Added]
    assert Started("digits", "t0", "both", 0) not in mine


class Full(MemoryJournal):
    """A journal whose disk is full."""

    def find(self, effect: str, request: str) -> Json | None:
        raise StoreError(f"find {effect} {request}")

    def record(self, effect: str, request: str, reply: Json) -> None:
        raise StoreError(f"record {effect} {request} {reply}")

    async def settled(self) -> None:
        raise StoreError("settled")

    def replies(self, part: str = "") -> list[Json]:
        raise StoreError(f"replies {part}")


def test_a_watched_journal_passes_all_on_and_remembers_what_failed() -> None:
    failures: list[StoreError] = []
    sound = _Watched(MemoryJournal(), failures)
    sound.record("0:1", "r", {"a": 1})
    sound.record("judge|0:1", "r", {"a": 2})
    asyncio.run(sound.settled())
    assert (sound.find("0:1", "r"), sound.find("r", "0:1")) == ({"a": 1}, None)
    assert (sound.replies(), sound.replies("judge"), failures) == ([{"a": 1}], [{"a": 2}], [])
    full = _Watched(Full(), failures)
    for use in (
        lambda: full.find("e", "r"),
        lambda: full.record("e", "r", {}),
        lambda: asyncio.run(full.settled()),
        lambda: full.replies("p"),
    ):
        with pytest.raises(StoreError):
            use()
    assert list(map(str, failures)) == ["find e r", "record e r {}", "settled", "replies p"]


def test_a_failure_of_the_store_ends_the_run_although_the_pattern_caught_it(run: store.Run) -> None:
    async def careless(task: Task, ctx: Context) -> str:
        try:
            ctx.attempt.journal.record("0:9", "r", {"not": {1, 2}})
        except StoreError:
            return "caught"
        return "kept"

    told: list[str] = []
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        asyncio.run(
            execute(run, places(Scripted(echo), 1, pattern=careless), on_trace=lambda each: told.append(each.id))
        )
    assert (told, run.done(), run.status) == ([], set(), "interrupted")


def test_a_memory_of_the_run_holds_what_attempts_wrote_before_it_went_on(run: store.Run) -> None:
    async def diary(task: Task, ctx: Context) -> str:
        found = await ctx.recall("day", k=9)
        await ctx.remember(f"day {len(found)}")
        return " ".join(sorted(item.text for item in found))

    def epochs(count: int, lifetime: Any) -> list[Place]:
        (first,) = places(Scripted(echo), 1, pattern=diary, memory=Notes(lifetime=lifetime), name=lifetime)
        (plain,) = places(Scripted(echo), 1, name="without a memory")
        return [plain, *(Place(first.agent, first.benchmark, first.task, epoch) for epoch in range(count))]

    for lifetime in ("run", "agent"):
        asyncio.run(execute(run, epochs(1, lifetime)))
        answers: list[str | None] = []
        asyncio.run(
            execute(run, epochs(3, lifetime), on_trace=lambda each, answers=answers: answers.append(each.answer))
        )
        assert answers == ["day 0", "day 0 day 1"], "each time its notes were gone with the agent"


def test_with_a_memory_of_the_run_a_failed_attempt_is_made_again_and_the_others_are_kept(run: store.Run) -> None:
    numbers = itertools.count()

    async def diary(task: Task, ctx: Context) -> str:
        if (number := next(numbers)) == 1:
            raise ModelError("gone")
        found = await ctx.recall("day", k=9)
        await ctx.remember(f"day {number}")
        return " ".join(sorted(item.text for item in found))

    (first,) = places(Scripted(echo), 1, pattern=diary, memory=Notes(lifetime="run"))
    made = [Place(first.agent, first.benchmark, first.task, epoch) for epoch in range(3)]
    asyncio.run(execute(run, made, fail_fast=0))
    told: list[tuple[int, str | None]] = []
    for redo in (False, True, True):
        asyncio.run(execute(run, made, redo_errors=redo, on_trace=lambda each: told.append((each.epoch, each.answer))))
    assert told == [(1, "day 0")], "the fourth attempt is the second epoch's: day 2 was written after it"
    assert [[each.error is None for each in run.tries(place.id)] for place in made] == [[True], [False, True], [True]]


class Priced(Scripted):
    """Each answer to a task of this file has three tokens and costs half a dollar."""

    async def complete(self, *args: Any, **options: Any) -> list[Completion]:
        return [replace(each, usage=Usage(2, 0, 1, 0.5)) for each in await super().complete(*args, **options)]


async def calling(task: Task, ctx: Context) -> str:
    """Asks until a limit ends it."""
    while True:
        await ctx.say(task.prompt).generate()


CALLS = {
    "tokens": lambda calls: Limits(tokens=3 * calls),
    "calls": lambda calls: Limits(calls=calls),
    "cost_usd": lambda calls: Limits(cost_usd=0.5 * calls),
}  # fmt: skip
"""By their name, limits that so many calls use up."""


def ended(folder: Path, own: Limits, shared: Limits, pattern: Any = calling, judge: Any = exact) -> tuple[str, int]:
    """How the first attempt of a run with this budget was kept, and its calls; the limit and -1 if the run was cut short."""
    agent = Agent("a", Priced(echo), pattern, sampling=Sampling(max_tokens=1), limits=own)
    with store.create(folder, {}, "made") as run:
        try:
            made = [Place(agent, Benchmark("digits", lambda seed: TASKS, (judge,)), TASKS[0])]
            asyncio.run(execute(run, made, budget=Budget(shared)))
        except LimitExceeded as error:
            assert "of the whole run exhausted with 1 attempt to go" in str(error) and not list(run.traces())
            return error.limit, -1
        (kept,) = run.traces()
        return kept.stop_reason, sum(call.kind == "generate" and call.error is None for call in kept.calls)


@pytest.mark.parametrize("name", CALLS)
def test_a_run_was_cut_short_if_its_own_budget_was_used_up_and_not_the_attempts(name: str, tmp_path: Path) -> None:
    limits = CALLS[name]
    assert [ended(tmp_path, limits(own), limits(4)) for own in (3, 4, 5)] == [(name, 3), (name, 4), (name, -1)]
    assert ended(tmp_path, Limits(), limits(4)) == (name, -1)
    assert ended(tmp_path, limits(4), Limits()) == (name, 4), "a shared budget without limits cuts nothing"
    for other in CALLS.keys() - {name}:
        assert ended(tmp_path, CALLS[other](9), limits(4)) == (name, -1)
        assert ended(tmp_path, CALLS[other](4), limits(9)) == (other, 4)
    assert ended(tmp_path, Limits(), limits(4), direct) == ("done", 1)

    async def slow(task: Task, ctx: Context) -> None:
        await asyncio.sleep(60)

    assert ended(tmp_path, Limits(seconds=0.01), limits(4), slow) == ("seconds", 0)

    async def inner(task: Task, ctx: Context) -> list[str]:
        return await ctx.group([calling(task, ctx)])

    async def nested(task: Task, ctx: Context) -> list[list[str]]:
        return await ctx.group([inner(task, ctx)])

    assert ended(tmp_path, Limits(depth=1), limits(4), nested) == ("depth", 0)


def test_a_run_was_cut_short_if_its_budget_ended_a_judgement_and_not_if_the_judges_own_limit_did(
    tmp_path: Path,
) -> None:
    class Judged:
        name, described = "judge", "a judge that asks until a limit ends it"

        def __init__(self, limits: Limits) -> None:
            self.limits = limits

        async def __call__(self, task: Task, trace: Trace) -> Score:
            raise AssertionError("a judge is given a journal")

        async def judged(self, task: Task, trace: Trace, journal: Any, budget: Budget | None = None) -> Score:
            judge = Agent("judge", Priced(echo), calling, sampling=Sampling(max_tokens=1), limits=self.limits)
            made = await rollout(judge, task, journal=journal, budget=budget)
            return Score("judge", 0.0, {"trace": made.to_json()}, failure="E", unjudged=True)

    for name, limits in CALLS.items():
        found = [ended(tmp_path, Limits(), limits(4), direct, Judged(limits(own))) for own in (2, 3, 4)]
        assert found == [("done", 1), ("done", 1), (name, -1)], "one call is the attempt's"
    assert ended(tmp_path, Limits(), Limits(tokens=12), direct, Judged(Limits(calls=9))) == ("tokens", -1)


def test_a_run_that_ends_before_its_last_attempt_says_why_and_how_to_go_on(run: store.Run) -> None:
    one = dict.fromkeys("a", places(Scripted(echo), 1)[0])
    for limit, name in (("tokens", "token"), ("calls", "call"), ("cost_usd", "cost"), ("seconds", "time")):
        error = _stopped(limit, run, one)
        assert (error.limit, str(error)) == (
            limit,
            f"{name} budget of the whole run exhausted with 1 attempt to go; what is done is kept: resume run {run.id} with "
            "a larger limit to finish them",
        )
    row = _FailuresInARow(4)
    row.count, row.last = 4, "it"
    assert (row.is_full, str(row.ends(run, {}))) == (
        True,
        "4 attempts in a row failed, the last with: it; what is done is kept, and 0 attempts to go: mend it, then "
        f"`firsthand run --resume {run.id}` finishes them (--fail-fast 0 never stops)",
    )


def test_a_run_ends_by_itself_after_five_attempts_in_a_row_that_reached_no_server(run: store.Run) -> None:
    gone = [Place(each.agent, each.benchmark, each.task, epoch) for epoch in (0, 1) for each in places(
        Scripted(error=Unreachable("no server")), 3, retry=Retry(attempts=1))]  # fmt: skip
    with pytest.raises(
        TooManyFailures, match=r"^5 attempts in a row failed, the last with: no server; .* 6 attempts to go"
    ):
        asyncio.run(execute(run, gone, concurrency=1))
    assert run.done() == set(), "so that a later call makes them again"
    told: list[str | None] = []
    asyncio.run(execute(run, gone, concurrency=1, fail_fast=0, on_trace=lambda each: told.append(each.stop_reason)))
    assert told == ["error"] * 6
