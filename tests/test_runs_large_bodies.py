"""Attempts whose reply or trace is larger than a run's file may hold: they end in an error, and the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.distribute import _Distribution
from firsthand.context import Context
from firsthand.errors import BodyTooLarge, StoreError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, assistant, user
from firsthand.model import Completion, Delta, Likelihood, Scored, Usage
from firsthand.patterns.direct import direct
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, score_trace
from firsthand.runs import database, store
from firsthand.runs.execute import execute
from firsthand.scorers.match import exact
from firsthand.task import Task
from firsthand.trace import Trace
from made_traces import trace

MOST = 6_000
TASKS = [Task(f"t{n}", f"say {n}", secret={"answer": str(n)}) for n in range(3)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "made", command=["run"]) as made:
        monkeypatch.setattr(database, "MAX_BODY_BYTES", MOST)
        yield made


def places(model: Any, pattern: Any = direct, **options: Any) -> list[Place]:
    agent = Agent("a", model, pattern, options=options)
    bench = Benchmark("digits", lambda seed: TASKS, (exact,))
    return [Place(agent, bench, task) for task in TASKS]


class Answering(Scripted):
    """Answers task t1 with so many letters, and the others rightly; each answer costs 15 tokens and half a dollar."""

    def __init__(self, size: int):
        super().__init__(["unused"])
        self.size = size

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        told = "".join(message.text for message in prompt)
        number = told.partition("say ")[2][:1]
        said = assistant("x" * self.size if number == "1" else f"Answer: {number}" if "step" in told else number)
        return [Completion(said, "stop", Usage(10, 0, 5, 0.5))] * n

    async def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> AsyncGenerator[Delta, None]:
        yield Delta("", (await self.complete(prompt, sampling))[0])


async def asks_twice(task: Task, ctx: Context) -> str:
    first = await ctx.say(task.question).generate()
    return (await first.generate()).text


@pytest.mark.parametrize(
    ("size", "pattern", "options", "paid"),
    [(MOST, direct, {}, 15), (MOST // 2, asks_twice, {}, 30), (MOST // 2, self_consistency, {"samples": 3}, 45)],
    ids=["a reply", "a trace", "several answers"],
)
def test_what_is_too_large_ends_its_attempt_and_the_run_goes_on(
    run: store.Run, size: int, pattern: Any, options: dict[str, Any], paid: int
) -> None:
    told: list[Trace] = []
    made = places(Answering(size), pattern, **options)
    asyncio.run(execute(run, made, concurrency=1, on_trace=told.append))
    assert [each.task_id for each in told] == ["t0", "t1", "t2"] and run.status == "done"
    kept = list(run.traces())
    assert [each.error and each.error.kind for each in kept] == [None, "BodyTooLarge", None]
    assert [each.value() for each in kept] == [each.value() for each in told] == [1.0, None, 1.0]
    large = kept[1]
    assert large == told[1] and large.stop_reason == "error" and large.usage.total_tokens == paid
    assert large.error is not None and "too large to be stored" in large.error.message
    asyncio.run(execute(run, made, on_trace=told.append))
    assert len(told) == 3, "it is an attempt that was made, and is made again where errors are"


def test_a_trace_that_is_too_large_is_kept_with_its_cost_and_without_its_content(run: store.Run) -> None:
    asyncio.run(execute(run, places(Answering(MOST // 2), asks_twice), concurrency=1))
    large = run.tries(places(Answering(1))[1].id)[0]
    assert (large.nodes, large.events, large.tools, large.answer, large.final_state, large.scores) == (
        (), (), (), None, {}, ()
    )  # fmt: skip
    assert [(call.usage.cost_usd, call.nodes, call.detail, call.at) for call in large.calls] == [
        (0.5, (), {}, None)
    ] * 2
    assert run.spent()[0].cost_usd == 3.0 and run.spent()[1] == 6
    assert large.error is not None
    assert large.error.message.startswith("the attempt is too large to be kept whole: a body of ")


class Wordy(Answering):
    """Scores with log-probs of texts that are too large to keep."""

    async def score(self, prompt: Any, continuations: Any) -> Scored:
        return Scored((Likelihood("x" * MOST, -1.0, 1, True),), Usage(10, 0, 0, 0.5))

    def end_ids(self) -> None: ...  # these four make it a model for decoders, which is all that is asked of them here

    token_id = tokenize_marked = next_logprobs = end_ids


class AsksFirst:
    async def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        await view.ask([user("say 1: is this fine?")])
        return GuardVerdict.passed("asks", "fine")


async def decodes(task: Task, ctx: Context) -> str:
    async def decoding(model: Any, prompts: Any) -> Completion:
        return (await model.complete(prompts[0], None))[0]

    return (await ctx.decode(decoding, [ctx.say("say 1")], {}, max_tokens=5)).text


async def scores(task: Task, ctx: Context) -> str:
    return str(await ctx.score(["x"], prompt="p"))


@pytest.mark.parametrize("pattern", [direct, scores, decodes, AsksFirst])
def test_a_reply_that_is_too_large_is_charged_to_the_budget_and_the_run(run: store.Run, pattern: Any) -> None:
    guard = pattern() if pattern is AsksFirst else None
    agent = Agent("a", Wordy(MOST), direct if guard else pattern, guard=guard)
    place = Place(agent, Benchmark("digits", lambda seed: TASKS, (exact,)), TASKS[1])
    budget = Budget(Limits(cost_usd=100.0))
    asyncio.run(execute(run, [place], budget=budget))
    (kept,) = run.traces()
    assert kept.error is not None and kept.error.kind == "BodyTooLarge"
    assert budget.spent.cost_usd == kept.usage.cost_usd == run.spent()[0].cost_usd == 0.5


def test_a_pattern_that_caught_it_goes_on(run: store.Run) -> None:
    async def careful(task: Task, ctx: Context) -> str:
        try:
            return (await ctx.say(task.question).generate()).text
        except BodyTooLarge:
            return "1"

    asyncio.run(execute(run, places(Answering(MOST), careful), concurrency=1))
    assert [each.value() for each in run.traces()] == [1.0, 1.0, 1.0]


def test_a_judge_whose_reply_is_too_large_has_no_verdict() -> None:
    def judge(task: Task, trace: Trace) -> float:
        raise BodyTooLarge("a body cannot be stored")

    def full(task: Task, trace: Trace) -> float:
        raise StoreError("the disk is full")

    made = trace("id", task="t0")
    bench = Benchmark("b", lambda seed: TASKS, (judge,))
    (score,) = asyncio.run(score_trace(bench, TASKS[0], made, MemoryJournal())).scores
    assert (score.name, score.failure) == ("judge", "BodyTooLarge: a body cannot be stored")
    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(score_trace(Benchmark("b", lambda seed: TASKS, (full,)), TASKS[0], made, MemoryJournal()))


def test_a_workers_reply_and_trace_that_are_too_large_leave_the_run_going(run: store.Run) -> None:
    made = places(Answering(1))
    told: list[Trace] = []
    missing = {place.id: place for place in made}
    driver = _Distribution(run, missing, 7, 1, told.append, lambda said: None)
    held = dict(missing)
    place = made[0]
    record = {
        "kind": "record",
        "id": place.id,
        "effect": "0:1",
        "request": "r",
        "reply": {"a": "x" * MOST},
        "number": 4,
    }
    assert (
        driver._take("worker", record, held) == {"kind": "kept", "upto": 4}
        and run.journal(place.id).find("0:1", "r") is None
    )
    whole = Trace(
        "id", "digits", "t0", place.agent.to_json(), 0, 7, "2026-01-02", 0.0, answer="x" * MOST, place=place.id
    )
    assert driver._take("worker", {"kind": "trace", "id": place.id, "trace": whole.to_json()}, held) is None
    assert [each.error and each.error.kind for each in (*told, *run.traces())] == ["BodyTooLarge"] * 2
    assert place.id not in held and place.id not in missing
