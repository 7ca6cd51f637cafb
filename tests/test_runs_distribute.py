"""A run on many workers: the attempts of one machine, with workers lost at any instant, and one writer that keeps them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.distribute import GIVEN_UP, SUSPECT, _Distribution, distribute
from firsthand.cluster.spread.run_worker import InProcess, Lost, Worker, about, difference, pack, unpack
from firsthand.context import Context
from firsthand.errors import ConfigError, SandboxError
from firsthand.loop.approval import Approval
from firsthand.memories.notes import notes
from firsthand.message import Json, ToolCall, canonical
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.execute import execute
from firsthand.runs.store import Run, create
from firsthand.scorers.choice import acc, acc_mutual_info
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Failure, Score, Trace

TIMES = {"started_at", "duration_s", "started_s", "at_s"}


class Stopped(Exception):
    """Somebody has had enough."""


class World:
    """What lies outside all workers: how often each thing has happened there."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def agent(self, name: str = "steps") -> Agent:
        @tool(effect="irreversible")
        async def send(text: str) -> str:
            """Send a letter.

            Args:
                text: What it says.
            """
            self.sent[text] += 1
            await asyncio.sleep(0.001)
            return f"sent {len(text)} characters"

        def reply(messages: Sequence[Any], sampling: Any, index: int) -> str:
            self.asked[canonical([message.to_json() for message in messages])] += 1
            return f"{len(messages)} of {messages[-1].text}: {sampling.seed % 1000}"

        model = Scripted(reply, delay_s=0.001, fingerprint="world")
        return Agent(name, model, steps, tools=(send,), approval=Approval({"irreversible": "allow"}))

    def worker(self) -> Worker:
        return Worker([self.agent()], [benchmark()])


async def steps(task: Task, ctx: Context) -> str:
    """Branches, turns, a scoring and a letter."""
    start = ctx.say(task.prompt)

    async def branch(number: int) -> str:
        here = start.say(f"way {number}")
        for turn in range(2):
            here = await here.say(f"turn {turn}").generate(temperature=1.0)
        return here.text

    texts = await ctx.group(branch(number) for number in range(2))
    likelihoods = await start.score(texts)
    ctx.note("seen", chances=[each.logprob for each in likelihoods])
    result = await start.call(ToolCall("1", "send", {"text": f"{task.id}: {texts[0]}"}))
    return (await start.say(result).generate()).text


def benchmark(count: int = 6) -> Benchmark:
    async def long(task: Task, trace: Trace) -> Score:
        return Score("long", float(len(trace.answer or "")) / 1000, {"of": task.secret["n"]})

    tasks = [Task(str(n), f"Question {n} \ud800", secret={"n": n}, metadata={"pair": (n, n)}) for n in range(count)]
    return Benchmark("letters", lambda seed: tasks, scorers=(long,))


def places(world: World, epochs: int = 2) -> list[Place]:
    agent, letters = world.agent(), benchmark()
    return [Place(agent, letters, task, epoch) for epoch in range(epochs) for task in letters.tasks(0)]


class Crew:
    """A Fleet of `size` workers in this process, where a lost one is replaced by what `make` gives."""

    def __init__(self, make: Any, size: int = 2):
        self.make, self.size, self.made = make, size, 0

    async def workers(self) -> AsyncGenerator[Any, None]:
        serving: list[Any] = []
        while True:
            serving = [remote for remote in serving if not remote.dead]
            while len(serving) < self.size:
                self.made += 1
                serving.append(self.make(self.made))
                yield serving[-1]
            await asyncio.sleep(0.002)


class Dying(InProcess):
    """A worker that is lost at one of its exchanges: before it has heard, or before it was heard."""

    def __init__(self, worker: Worker, at: int, *, heard: bool, name: str = "dying"):
        super().__init__(worker, name)
        self.at, self.heard = at, heard

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        self.at -= 1
        if self.at < 0:
            if self.heard:
                await self.worker.exchange(unpack(pack(list(messages))))
                await asyncio.sleep(0.003)
            await self.kill()
        return await super().exchange(messages)


def plain(trace: Trace) -> Any:
    """The trace without what time decides, also which of two branches came first."""

    def timeless(body: Any) -> Any:
        if isinstance(body, dict):
            new_each_time = TIMES | {"replayed"} | ({"id"} if "place" in body else set())
            return {key: timeless(value) for key, value in body.items() if key not in new_each_time}
        return [timeless(each) for each in body] if isinstance(body, list) else body

    body = timeless(unpack(pack(trace.to_json())))
    branches = sorted(canonical([message.to_json() for message in branch]) for branch in trace.branches())
    calls = [{key: value for key, value in call.items() if key not in ("at", "nodes")} for call in body["calls"]]
    return {**body, "nodes": branches, "calls": sorted(calls, key=lambda call: call["id"])}


def local(tmp_path: Path) -> dict[str, Any]:
    with create(tmp_path / "local", {}, "local") as run:
        asyncio.run(execute(run, places(World())))
        return {trace.place: plain(trace) for trace in run.traces()}


def rows(run: Run) -> list[tuple[Any, ...]]:
    return run.database.read("SELECT attempt, effect, request, count(*) FROM effects GROUP BY attempt, effect, request")


@pytest.mark.slow
def test_traces_are_those_of_one_machine_but_for_times(tmp_path: Path) -> None:
    world = World()
    with create(tmp_path, {}, "spread") as run:
        seen: list[str] = []
        fleet = Crew(lambda number: InProcess(world.worker(), str(number)), 3)
        work = distribute(run, places(world), fleet, concurrency=2, on_trace=lambda trace: seen.append(trace.place))
        asyncio.run(work)
        assert {trace.place: plain(trace) for trace in run.traces()} == local(tmp_path)
        assert sorted(seen) == sorted(place.id for place in places(world)) and run.status == "done"
        assert set(world.sent.values()) == {1} and len(world.sent) == 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_lost_workers_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    world, rng, lost = World(), random.Random(seed), list[str]()

    def make(number: int) -> InProcess:
        if number > 10:
            return InProcess(world.worker(), str(number))
        return Dying(world.worker(), rng.randrange(1, 7), heard=rng.random() < 0.5)

    with create(tmp_path, {}, "spread") as run:
        asyncio.run(distribute(run, places(world), Crew(make, 3), concurrency=2, on_lost=lost.append))
        found = {trace.place: plain(trace) for trace in run.traces()}
        tries = run.database.read("SELECT attempt, count(*) FROM traces GROUP BY attempt")
        assert len(tries) == 12 and all(count == 1 for _, count in tries)
        assert len(lost) >= 5
        # A letter may have been on its way when its worker was lost: then the model is told so, and it is not sent again.
        doubt = {id for id, body in found.items() if "was interrupted while it ran" in canonical(body["calls"])}
        # One that happened to be there when four workers were lost is given up, and says so.
        given_up = {id for id, body in found.items() if body["error"] and body["error"]["kind"] == "WorkerLost"}
        assert GIVEN_UP * len(given_up) <= 2 * len(lost)
        doubt |= given_up
        assert set(world.sent.values()) == {1} and len(world.sent) >= 12 - len(doubt)
        expected = local(tmp_path)
        assert [id for id in expected if id not in doubt and found[id] != expected[id]] == []
        # What had reached the run before a worker was lost is not asked again: each request has one reply on record.
        assert all(count == 1 or (effect == ":1" and count == 2) for _, effect, _, count in rows(run))


@pytest.mark.slow
def test_calls_that_a_lost_worker_had_finished_are_not_made_again(tmp_path: Path) -> None:
    world = World()

    async def then_killed(remote: InProcess, run: Run) -> None:
        while len(rows(run)) < 6:  # two branches of two turns, the scoring, and what comes after
            await asyncio.sleep(0.001)
        await remote.kill()

    async def work(run: Run) -> None:
        remotes: list[InProcess] = []

        def make(number: int) -> InProcess:
            remotes.append(InProcess(world.worker(), str(number)))
            return remotes[-1]

        one = places(world, 1)[:1]
        killing = asyncio.create_task(distribute(run, one, Crew(make, 1)))
        await asyncio.sleep(0)
        while not remotes:
            await asyncio.sleep(0)
        await asyncio.gather(killing, then_killed(remotes[0], run))

    with create(tmp_path, {}, "spread") as run:
        asyncio.run(work(run))
        (trace,) = run.traces()
        assert sum(call.replayed for call in trace.calls) >= 5
        assert trace.error is None and world.sent.total() <= 1, (
            "a letter whose worker was lost before it was sent is not sent"
        )
        assert sum(world.asked.values()) <= len([call for call in trace.calls if call.kind == "generate"]) + 1


def test_an_irreversible_call_waits_until_its_intent_is_kept(tmp_path: Path) -> None:
    world = World()

    async def silent() -> None:
        worker = world.worker()
        one = places(world)[0]
        messages: list[Json] = [
            {"kind": "attempt", "id": one.id, "agent": "steps", "benchmark": "letters", "task": one.task.to_json(),
             "epoch": 0, "seed": 0, "entries": []}
        ]  # fmt: skip
        upto = 0
        while True:
            said = await worker.exchange(unpack(pack(messages)), 0.05)
            if any(message.get("reply") == {"started": True} for message in said):
                break
            upto = max([upto, *(message["number"] for message in said if "number" in message)])
            messages = [{"kind": "kept", "upto": upto}]
        upto = max([upto, *(message["number"] for message in said if "number" in message)])
        for _ in range(500):  # nobody says that it is kept
            await asyncio.sleep(0)
        assert not world.sent
        async with asyncio.timeout(60):
            while not world.sent:  # and once somebody does, it is sent
                said = await worker.exchange(unpack(pack([{"kind": "kept", "upto": upto}])), 0.05)
                upto = max([upto, *(message["number"] for message in said if "number" in message)])
        await worker.close()

    asyncio.run(silent())


def test_what_ends_workers_is_given_up_and_its_neighbours_are_not(tmp_path: Path) -> None:
    world = World()

    class Poisoned(InProcess):
        async def exchange(self, messages: Sequence[Json]) -> list[Json]:
            if any(message.get("id") == poison for message in messages):
                await self.kill()
            return await super().exchange(messages)

    every = places(world)
    poison = every[3].id
    with create(tmp_path, {}, "spread") as run:
        fleet = Crew(lambda number: Poisoned(world.worker()), 2)
        asyncio.run(distribute(run, every, fleet, concurrency=4))
        failed = [trace for trace in run.traces() if trace.error]
        assert [trace.place for trace in failed] == [poison] and len(run.done()) == 12
        assert failed[0].error is not None and failed[0].error.kind == "WorkerLost"
        assert f"{GIVEN_UP} workers were lost" in failed[0].error.message
        assert run.done(errors=False) == {place.id for place in every} - {poison}  # which --retry-errors tries again


def test_an_attempt_that_two_lost_workers_had_is_alone_on_its_worker(tmp_path: Path) -> None:
    world, every = World(), places(World())
    suspects: list[set[str]] = []
    losses: Counter[str] = Counter()

    class Watched(InProcess):
        held: frozenset[str] = frozenset()

        async def exchange(self, messages: Sequence[Json]) -> list[Json]:
            self.held |= {message["id"] for message in messages if message["kind"] == "attempt"}
            suspects.extend([set(self.held)] if any(losses[id] >= SUSPECT for id in self.held) else [])
            if poison in self.held and losses[poison] < GIVEN_UP - 1:
                losses.update(self.held)
                await self.kill()
            said = await super().exchange(messages)
            self.held -= {message["id"] for message in said if message["kind"] == "trace"}
            return said

    poison = every[3].id
    with create(tmp_path, {}, "spread") as run:
        fleet = Crew(lambda number: Watched(world.worker()), 2)
        asyncio.run(distribute(run, every, fleet, concurrency=4))
        assert losses[poison] == GIVEN_UP - 1 and run.done(errors=False) == {place.id for place in every}
    assert {poison} in suspects and {len(held) for held in suspects} == {1}


@pytest.mark.parametrize("losses", [SUSPECT - 1, SUSPECT])
def test_nothing_joins_a_suspect_and_a_suspect_joins_nothing(tmp_path: Path, losses: int) -> None:
    every = places(World())
    suspect, others = every[0], every[1:]
    with create(tmp_path, {}, "spread") as run:
        for waits, holds, alone in (
            (others, suspect, 1),
            ([suspect, *others[1:]], others[0], 1),
            (others[1:], others[0], 4),
        ):
            work = _Distribution(run, {place.id: place for place in waits}, 0, 4, lambda trace: None, lambda text: None)
            work.losses[suspect.id] = losses
            held = {holds.id: holds}
            work._deal(held)
            assert len(held) == (alone if losses == SUSPECT else 4)


@pytest.mark.parametrize("lifetime", ["run", "agent"])
def test_a_memory_that_attempts_share_is_not_spread_over_workers(tmp_path: Path, lifetime: Any) -> None:
    agent, letters = replace(World().agent(), memory=notes(lifetime=lifetime)), benchmark(1)
    fleet = Crew(lambda number: None)
    with create(tmp_path, {}, "spread") as run, pytest.raises(ConfigError, match="the memory of steps is shared"):
        asyncio.run(distribute(run, [Place(agent, letters, task, 0) for task in letters.tasks(0)], fleet))
    assert fleet.made == 0


def test_what_ended_with_an_error_is_attempted_again_only_if_that_is_asked_for(tmp_path: Path) -> None:
    world = World()
    every = places(world, epochs=1)[:2]
    failed = Trace(
        "e" * 16, "letters", "0", every[0].agent.to_json(), 0, 0, "", 0.0, stop_reason="error",
        error=Failure("ModelError", "gone"), place=every[0].id,
    )  # fmt: skip

    def attempted(**options: Any) -> list[str]:
        seen: list[str] = []
        fleet = Crew(lambda number: InProcess(world.worker()), 1)
        asyncio.run(distribute(run, every, fleet, on_trace=lambda trace: seen.append(trace.task_id), **options))
        return sorted(seen)

    with create(tmp_path, {}, "spread") as run:
        asyncio.run(distribute(run, [every[1]], Crew(lambda number: InProcess(world.worker()), 1)))
        run.append(failed)
        assert attempted() == [] and [each.error is None for each in run.traces()] == [True, False]
        assert attempted(redo_errors=True) == ["0"] and all(each.error is None for each in run.traces())


@pytest.mark.slow
def test_a_run_goes_from_one_machine_to_many_and_back(tmp_path: Path) -> None:
    world = World()

    def stop_after(count: int) -> Any:
        def on_trace(trace: Trace) -> None:
            nonlocal count
            count -= 1
            if count == 0:
                raise Stopped

        return on_trace

    def fleet() -> Crew:
        return Crew(lambda number: InProcess(world.worker()))

    with create(tmp_path, {}, "spread") as run:
        every = places(world)
        with pytest.raises(Stopped):
            asyncio.run(execute(run, every, on_trace=stop_after(3), concurrency=2))
        assert run.status == "interrupted"
        with pytest.raises(Stopped):
            asyncio.run(distribute(run, every, fleet(), on_trace=stop_after(4), concurrency=2))
        assert run.status == "interrupted" and 7 <= len(run.done()) < 12
        asyncio.run(execute(run, every))
        assert run.status == "done"
        found = {trace.place: plain(trace) for trace in run.traces()}
        doubt = {id for id, body in found.items() if "was interrupted while it ran" in canonical(body["calls"])}
        expected = local(tmp_path)
        assert [id for id in expected if id not in doubt and found[id] != expected[id]] == []
        assert set(world.sent.values()) == {1}


def test_no_worker_holds_more_attempts_than_it_should(tmp_path: Path) -> None:
    world, held, most = World(), Counter[int](), Counter[int]()

    class Counted(InProcess):
        async def exchange(self, messages: Sequence[Json]) -> list[Json]:
            held[id(self)] += sum(message["kind"] == "attempt" for message in messages)
            most[id(self)] = max(most[id(self)], held[id(self)])
            said = await super().exchange(messages)
            held[id(self)] -= sum(message["kind"] == "trace" for message in said)
            return said

    with create(tmp_path, {}, "spread") as run:
        asyncio.run(distribute(run, places(world), Crew(lambda number: Counted(world.worker()), 2), concurrency=3))
        assert sorted(most.values()) == [3, 3]


def test_what_ends_a_run_on_one_machine_ends_it_on_many(tmp_path: Path) -> None:
    world = World()

    async def broken(task: Task, trace: Trace) -> Score:
        raise SandboxError("no sandbox can be opened here")

    shut = Benchmark("letters", benchmark().tasks, scorers=(broken,))

    async def work(run: Run) -> None:
        every = [Place(world.agent(), shut, task) for task in shut.tasks(0)]
        await distribute(run, every, Crew(lambda number: InProcess(Worker([world.agent()], [shut]))))

    with create(tmp_path, {}, "spread") as run:
        with pytest.raises(SandboxError, match="no sandbox can be opened here"):
            asyncio.run(work(run))
        assert run.status == "interrupted"


def test_a_fleet_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    class Nobody:
        async def workers(self) -> AsyncGenerator[Any, None]:
            raise ConfigError("the cluster is gone")
            yield

    with create(tmp_path, {}, "spread") as run, pytest.raises(ConfigError, match="the cluster is gone"):
        asyncio.run(distribute(run, places(World()), Nobody()))


def test_a_worker_that_is_not_the_same_is_told_apart() -> None:
    agent, letters = World().agent(), benchmark()
    here = about({"steps": agent}, {"letters": letters})
    assert difference(here, unpack(pack(here))) is None
    assert (
        difference(here, {**here, "firsthand": "0.0.1"})
        == f"it has firsthand 0.0.1, and here it is {here['firsthand']}"
    )
    assert difference(here, {**here, "agents": {}}) == "it has no agent 'steps'"
    other = {**here, "agents": {"steps": {**here["agents"]["steps"], "fingerprint": "other"}}}
    assert difference(here, other) == "its agent 'steps' has the fingerprint 'other', and here it is 'world'"
    protocol = {**here, "benchmarks": {"letters": {"protocol": "other"}}}
    assert "its benchmark 'letters' has the protocol 'other'" in str(difference(here, protocol))


def test_a_killed_worker_says_nothing_more() -> None:
    async def talk() -> None:
        remote = InProcess(World().worker())
        assert (await remote.worker.exchange([], 0.001)) == []
        await remote.kill()
        with pytest.raises(Lost, match="in-process was killed"):
            await remote.exchange([])

    asyncio.run(talk())


def test_choices_scored_by_log_prob_are_those_of_one_machine(tmp_path: Path) -> None:
    tasks = [
        Task(
            str(n),
            f"Which is {n}?",
            choices=("one", "two"),
            baseline="Answer:",
            requests=tuple((f"It is {word} of {n},", f" the end of {n}") for word in ("one", "two")),
            sampling={"stop": ("\n",)},
            secret={"gold": n % 2},
        )
        for n in range(6)
    ]
    quiz = Benchmark("quiz", lambda seed: tasks, scorers=(acc, acc_mutual_info))
    every = [Place(Agent("direct", Scripted(), direct), quiz, task) for task in tasks]
    with create(tmp_path / "a", {}, "here") as here, create(tmp_path / "b", {}, "there") as there:
        asyncio.run(execute(here, every))
        fleet = Crew(lambda number: InProcess(Worker([every[0].agent], [quiz])))
        asyncio.run(distribute(there, every, fleet, concurrency=2))
        found = {trace.place: plain(trace) for trace in there.traces()}
        assert found == {trace.place: plain(trace) for trace in here.traces()} and len(found) == 6
        assert all(len(trace.calls) == 3 and not trace.scores[1].failed for trace in there.traces())
