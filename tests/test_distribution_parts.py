"""A run over workers that say what they are told to: what each is sent, in which order, and what the run keeps of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.distribute import _Distribution, distribute
from firsthand.cluster.spread.run_worker import InProcess, Lost, RelayedJournal, Worker, attempt_message
from firsthand.context import Context
from firsthand.errors import ConfigError, SandboxError
from firsthand.loop.listener import Began
from firsthand.memories.notes import notes
from firsthand.message import Json
from firsthand.patterns.direct import direct
from firsthand.providers.cassette import Cassette
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.feed import Ended, Started
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Failure, Trace

ADA = Agent("ada", Scripted(lambda messages, sampling, index: "x"), direct)
BENCH = Benchmark("b", lambda seed: [], (), protocol="p")


def places(count: int, epoch: int = 0) -> list[Place]:
    return [Place(ADA, BENCH, Task(str(number), "?"), epoch) for number in range(count)]


def trace_of(place: Place, id: str, **more: Any) -> Trace:
    return Trace(
        id, "b", place.task.id, place.agent.to_json(), place.epoch, 7, "2026-01-02", 0.0, place=place.id, **more
    )


class Told:
    """A worker that gives the lists of messages that it is told to, one at each exchange; an error is raised."""

    def __init__(self, *said: Any, name: str = "told"):
        self.name, self.said = name, list(said)
        self.heard: list[list[Json]] = []
        self.closed = 0

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        self.heard.append(list(messages))
        found = self.said.pop(0)
        if isinstance(found, Exception):
            raise found
        return list(found)

    async def close(self) -> None:
        self.closed += 1


class Crew:
    """Gives these workers one after another, and no more."""

    def __init__(self, *remotes: Told):
        self.remotes, self.is_closed = remotes, False

    async def workers(self) -> AsyncGenerator[Any, None]:
        try:
            for remote in self.remotes:
                yield remote
            await asyncio.Event().wait()
        finally:
            self.is_closed = True


def ends(place: Place, id: str) -> Json:
    return {"kind": "trace", "id": place.id, "trace": trace_of(place, id).to_json()}


def record(place: Place, number: int) -> Json:
    return {
        "kind": "record",
        "id": place.id,
        "number": number,
        "effect": f"e{number}",
        "request": "r",
        "reply": {"a": 1},
    }


def test_a_worker_gets_a_new_attempt_for_each_that_it_ends_and_word_of_what_was_kept(tmp_path: Path) -> None:
    one, two, three = every = places(3, epoch=4)
    began = {"kind": "step", "id": two.id, "step": ["began", {"id": "e", "kind": "tool", "at": 2, "detail": {}}]}
    remote = Told(
        [record(one, 1), record(two, 2)], [ends(one, "t1"), record(two, 3)], [], [ends(three, "t3"), ends(two, "t2")]
    )
    crew, traces, lost = Crew(remote), list[Trace](), list[str]()
    with create(tmp_path, {}, "r") as run:
        run.journal(three.id).record("old", "asked", {"b": 2})
        options: Any = {"seed": 7, "concurrency": 2, "on_trace": traces.append, "on_lost": lost.append}
        asyncio.run(asyncio.wait_for(distribute(run, every, crew, **options), 30))
        assert remote.heard == [
            [attempt_message(one, 7, []), attempt_message(two, 7, [])],
            [{"kind": "kept", "upto": 1}, {"kind": "kept", "upto": 2}],
            [{"kind": "kept", "upto": 3}, attempt_message(three, 7, [("old", "asked", {"b": 2})])], [],
        ]  # fmt: skip
        assert (remote.closed, crew.is_closed, lost) == (1, True, [])
        assert [trace.id for trace in traces] == ["t1", "t3", "t2"] == [trace.id for trace in run.traces()]
        assert list(run.journal(two.id).entries()) == [("e2", "r", {"a": 1}), ("e3", "r", {"a": 1})]
        assert run.status == "done" and run.done() == {place.id for place in every}
        idle = Crew(Told(name="idle"))
        asyncio.run(distribute(run, every, idle, on_trace=traces.append))
        assert not idle.is_closed and not idle.remotes[0].heard and len(traces) == 3, "nothing was missing"
        work = _Distribution(run, {two.id: two}, 7, 1, traces.append, lost.append)
        held: dict[str, Place] = {}
        run.feed.flush()
        last = max(step.sequence for step in run.feed.after())
        work._deal(held)
        assert work._take("told", began, held) is None
        run.feed.flush()
        steps = [(step.place, step.step) for step in run.feed.after(last)]
        assert steps == [(two.id, Started("b", "1", "ada", 4)), (two.id, Began("e", "tool", 2, {}))]
        assert [type(step.step) for step in run.feed.after() if step.sequence <= last] == [Ended] * 3


def test_a_lost_worker_s_attempts_begin_again_on_the_next_with_what_it_had_recorded(tmp_path: Path) -> None:
    one, two = every = places(2)
    first = Told([record(one, 1)], Lost("first is gone"), name="first")
    second = Told([ends(two, "t2")], [ends(one, "t1")], name="second")
    lost: list[str] = []

    class Late(Crew):
        async def workers(self) -> AsyncGenerator[Any, None]:
            yield first
            while not first.closed:
                await asyncio.sleep(0)
            yield second
            await asyncio.Event().wait()

    with create(tmp_path, {}, "r") as run:
        asyncio.run(asyncio.wait_for(distribute(run, every, Late(), seed=3, on_lost=lost.append), 30))
        assert first.heard == [[attempt_message(place, 3, []) for place in every], [{"kind": "kept", "upto": 1}]]
        again = [attempt_message(one, 3, [("e1", "r", {"a": 1})]), attempt_message(two, 3, [])]
        assert second.heard == [again, []] and lost == ["first is gone: its 2 attempts go to others"]
        assert (first.closed, second.closed) == (1, 1)


def test_an_error_that_is_no_loss_ends_the_run_and_closes_its_workers(tmp_path: Path) -> None:
    (one,) = every = places(1)
    failed = {"kind": "failed", "id": one.id, "error": "SandboxError", "message": "no sandbox here"}
    again = "told could not go on with an attempt, which is tried once more (SandboxError: no sandbox here)"
    for said, told, notices in (
        ([ValueError("a bug")], "a bug", []),
        ([[failed], [failed]], "no sandbox here", [again]),
    ):
        remote, lost = Told(*said), list[str]()
        crew = Crew(remote)
        with create(tmp_path, {}, "r") as run:
            with pytest.raises((ValueError, SandboxError), match=f"^{told}$"):
                asyncio.run(asyncio.wait_for(distribute(run, every, crew, on_lost=lost.append), 5))
            assert (lost, remote.closed, crew.is_closed, list(run.traces())) == (notices, 1, True, [])
            assert run.status != "running"


def test_a_worker_without_an_attempt_waits_until_one_is_put_back(tmp_path: Path) -> None:
    (one,) = every = places(1)
    lost, idle = Told(Lost("lost"), name="lost"), Told([ends(one, "t1")], name="idle")
    with create(tmp_path, {}, "r") as run:
        asyncio.run(asyncio.wait_for(distribute(run, every, Crew(lost, idle), seed=3), 30))
        assert lost.heard == idle.heard == [[attempt_message(one, 3, [])]] and (lost.closed, idle.closed) == (1, 1)
        (two,) = more = places(1, epoch=1)
        busy, spare = Told([], [], [ends(two, "t2")], name="busy"), Told(name="spare")
        asyncio.run(asyncio.wait_for(distribute(run, more, Crew(busy, spare)), 30))
        assert busy.heard == [[attempt_message(two, 0, [])], [], []] and (spare.heard, spare.closed) == ([], 1)


def test_errors_are_attempted_again_only_where_that_is_asked(tmp_path: Path) -> None:
    one, two = every = places(2)
    failed = trace_of(one, "e1", stop_reason="error", error=Failure("ModelError", "no"))
    with create(tmp_path, {}, "r") as run:
        run.append(failed)
        remote = Told([ends(two, "t2")])
        asyncio.run(asyncio.wait_for(distribute(run, every, Crew(remote)), 30))
        assert [message["task"]["id"] for message in remote.heard[0]] == ["1"]
        assert {message["seed"] for message in remote.heard[0]} == {0}
        again, kept = Told([ends(one, "t1")]), list[bool]()
        told: Any = {
            "redo_errors": True,
            "on_trace": lambda trace: kept.append(run.done(errors=False) >= {trace.place}),
        }
        asyncio.run(asyncio.wait_for(distribute(run, every, Crew(again), **told), 30))
        assert [message["task"]["id"] for message in again.heard[0]] == ["0"] and kept == [True]
        more = places(17, epoch=1)
        many = Told([ends(place, f"m{place.task.id}") for place in more[:16]], [ends(more[16], "m16")])
        asyncio.run(asyncio.wait_for(distribute(run, more, Crew(many)), 30))
        assert [len(heard) for heard in many.heard] == [16, 1], "sixteen at a time, unless it is said otherwise"


def test_a_memory_that_attempts_share_is_refused_before_the_run_is_touched(tmp_path: Path) -> None:
    agents = [ADA, Agent("bo", ADA.model, direct, memory=notes(lifetime="attempt")),
              Agent("cy", ADA.model, direct, memory=notes(lifetime="run"))]  # fmt: skip
    every = [Place(agent, BENCH, Task("0", "?")) for agent in agents]
    with create(tmp_path, {}, "r") as run:
        with pytest.raises(ConfigError) as told:
            asyncio.run(distribute(run, every, Crew()))
        assert str(told.value) == (
            "the memory of cy is shared between attempts, and workers share none: run it in one process, or give it the "
            "lifetime attempt"
        )
        remote = Told([ends(place, f"t{place.agent.name}") for place in every[:2]])
        asyncio.run(asyncio.wait_for(distribute(run, every[:2], Crew(remote)), 30))
        assert [message["agent"] for message in remote.heard[0]] == ["ada", "bo"]


@pytest.mark.parametrize("model", [Scripted(["x", "y"]), Cassette({"?": ["x", "y"]})], ids=["script", "cassette"])
def test_replies_that_are_given_once_are_refused_for_agents_and_judges(tmp_path: Path, model: Any) -> None:
    class Asks:
        agent = Agent("judge", model, direct)

        def __call__(self, task: Task, trace: Trace) -> float:
            return 1.0

    one = Place(Agent("di", model, direct), BENCH, Task("0", "?"))
    judged: Any = replace(BENCH, scorers=(*BENCH.scorers, Asks()))
    two = Place(ADA, judged, Task("0", "?"))
    with create(tmp_path, {}, "r") as run:
        for place, whose in ((one, "di"), (two, f"a judge of {BENCH.name}")):
            with pytest.raises(
                ConfigError, match=f"each of its replies once, in order, .* first for {whose}: run it in one"
            ):
                asyncio.run(distribute(run, [place], Crew()))
        assert run.tasks() == {}
    for kind in (Scripted(), Scripted({"?": "x"})):
        remote = Told([ends(replace(one, agent=Agent("di", kind, direct)), "t")])
        with create(tmp_path, {}, f"r{id(kind)}") as run:
            asyncio.run(
                asyncio.wait_for(distribute(run, [replace(one, agent=Agent("di", kind, direct))], Crew(remote)), 30)
            )


def test_a_workers_scorers_see_a_task_as_it_was_made(tmp_path: Path) -> None:
    given, seen = (
        Task("0", "?", secret={"pairs": [(1, [2]), ()], "in": {"a": (("b",),)}}, metadata={"m": (0,)}),
        list[Task](),
    )

    def scorer(task: Task, trace: Trace) -> float:
        seen.append(task)
        return 1.0

    bench = replace(BENCH, scorers=(scorer,))
    with create(tmp_path, {}, "r") as run:
        asyncio.run(
            asyncio.wait_for(distribute(run, [Place(ADA, bench, given)], Crew(InProcess(Worker([ADA], [bench])))), 30)
        )
    assert seen == [given]


def test_a_loss_is_told_with_what_goes_to_others_and_the_last_one_with_nothing(tmp_path: Path) -> None:
    one, two, three = every = places(3)
    traces, said = list[Trace](), list[str]()
    remote: Any = Told()
    with create(tmp_path, {}, "r") as run:
        work = _Distribution(run, {place.id: place for place in every}, 5, 1, traces.append, said.append)
        assert (list(work.waiting), work.seed, work.concurrency, work.losses) == (every, 5, 1, {})
        held: dict[str, Place] = {}
        assert [message["id"] for message in work._deal(held)] == [one.id] and list(held.values()) == [one]
        news = work.news
        work._put_back(remote, held, "it fell")
        assert said == ["it fell: its 1 attempt goes to others"] and news.is_set() and not work.news.is_set()
        assert list(work.waiting) == [one, two, three] and work.losses[one.id] == 1
        held.clear()
        work._deal(held)
        work._put_back(remote, held, "it fell")
        assert list(work.waiting) == [two, three, one], "a suspect waits behind the others"
        work.losses[two.id] = 3
        work._put_back(remote, {two.id: two}, "again")
        (given_up,) = traces
        assert (given_up.task_id, given_up.place, given_up.seed) == ("1", two.id, 5) and two.id not in work.missing
        assert given_up.agent == ADA.to_json() and len(given_up.id) > 8 and given_up.id != work._given_up(two).id
        work.missing.clear()
        work._put_back(remote, {}, "at the end")
        assert said[1:] == [
            "it fell: its 1 attempt goes to others",
            "again: its 1 attempt goes to others",
            "at the end",
        ]


# -- the worker's side --


def test_an_attempt_on_a_worker_begins_where_its_journal_ended() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.say(task.prompt).generate()
        ctx.note("seen", n=3)
        return (await first.say("more").generate()).text

    def worker() -> tuple[Worker, Scripted]:
        model = Scripted(lambda messages, sampling, index: f"{len(messages)} {sampling.seed % 97}")
        return Worker([Agent("other", model, direct), Agent("ada", model, pattern)], [BENCH]), model

    async def attempt(
        entries: Sequence[Any], kept: int, patience_s: float = 5.0
    ) -> tuple[list[Json], Scripted, Worker]:
        made, model = worker()
        place = Place(made.agents["ada"], BENCH, Task("t", "go"), 2)
        found = await made.exchange([attempt_message(place, 11, entries)], patience_s)
        while not found or (found[-1]["kind"] in ("record", "step") and len(found) < 99):
            upto = max([each["number"] for each in found if each["kind"] == "record"], default=0)
            found += await made.exchange([{"kind": "kept", "upto": upto}], patience_s)
        await made.close()
        return found, model, made

    async def work() -> None:
        said, model, _ = await attempt([], 0)
        records = [each for each in said if each["kind"] == "record"]
        assert [each["number"] for each in records] == [*range(1, len(records) + 1)] and len(model.asked) == 2
        (trace,) = [each["trace"] for each in said if each["kind"] == "trace"]
        assert (trace["task_id"], trace["epoch"], trace["seed"], trace["benchmark"]) == ("t", 2, 11, "b")
        assert {each["id"] for each in said} == {trace["place"]} and trace["answer"].startswith("3 ")
        kinds = [each["step"][0] for each in said if each["kind"] == "step"]
        assert {"added", "began", "call", "event"} <= set(kinds) and "piece" not in kinds
        entries = [[each["effect"], each["request"], each["reply"]] for each in records]
        again, asked, _ = await attempt(entries[:-1], 0)
        assert len(asked.asked) < 2 and [each["kind"] for each in again].count("record") == 1
        (same,) = [each["trace"] for each in again if each["kind"] == "trace"]
        assert (same["answer"], same["place"]) == (trace["answer"], trace["place"])

    asyncio.run(asyncio.wait_for(work(), 30))


class Door:
    """A source that counts how often it was opened and closed."""

    tools = ()

    def __init__(self, *, shared: bool):
        self.shared, self.did = shared, list[str]()

    async def open(self) -> None:
        self.did.append("open")

    async def close(self) -> None:
        self.did.append("close")


def test_a_worker_opens_what_its_agents_share_once_and_closes_it_at_its_end() -> None:
    shared, own = Door(shared=True), Door(shared=False)
    agents = [Agent(name, Scripted(lambda *asked: "x"), direct, tools=(shared, own)) for name in ("ada", "bo")]

    async def work() -> None:
        worker = Worker(agents, [BENCH])
        for number, agent in enumerate((*agents, agents[0])):
            said = await worker.exchange([attempt_message(Place(agent, BENCH, Task(str(number), "?")), 0, [])], 5)
            while not any(each["kind"] in ("trace", "failed") for each in said):
                kept = max([each["number"] for each in said if each["kind"] == "record"], default=0)
                said += await worker.exchange([{"kind": "kept", "upto": kept}], 5)
            assert said[-1]["kind"] == "trace" and said[-1]["trace"]["error"] is None
        assert shared.did == ["open"] and own.did == ["open", "close"] * 3
        await worker.close()
        assert shared.did == ["open", "close"]
        assert list(worker.agents) == ["ada", "bo"] and worker.benchmarks == {"b": BENCH}

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_worker_in_this_process_takes_and_gives_bytes_and_is_silent_once_it_was_killed() -> None:
    async def forever(task: Task, ctx: Context) -> str:
        RelayedJournal(worker, "own", []).record("e", "r", {"path": Path("x")})
        await asyncio.Event().wait()
        return ""

    worker = Worker([Agent("ada", Scripted(["x"]), forever)], [BENCH])

    async def work() -> None:
        remote = InProcess(worker, "here")
        place = Place(worker.agents["ada"], BENCH, Task("t", "?"))
        (said,) = [each for each in await remote.exchange((attempt_message(place, 0, []),)) if each["kind"] == "record"]
        assert said == {
            "kind": "record",
            "number": 1,
            "id": "own",
            "effect": "e",
            "request": "r",
            "reply": {"path": "x"},
        }
        assert len(worker._running) == 1
        waiting = asyncio.create_task(remote.exchange([]))
        await asyncio.sleep(0)
        worker.record("own", "e", "r2", {})
        remote.dead = True  # while its answer is on the way
        with pytest.raises(Lost, match=r"^here was killed$"):
            await waiting
        await remote.kill()
        assert not worker._running and (remote.name, remote.worker) == ("here", worker)
        await remote.close()

    asyncio.run(asyncio.wait_for(work(), 30))
