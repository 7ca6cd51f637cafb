"""Attempts on workers: what a worker is described by, its records and their acknowledgement, and messages as bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsthand import __version__
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.spread.run_worker import (
    InProcess,
    Lost,
    RelayedJournal,
    Worker,
    about,
    attempt_message,
    difference,
    error_of,
    pack,
    unpack,
)
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.feed import step_to_json
from firsthand.task import Task
from firsthand.trace import Event


def build(settings: Any) -> Worker:
    if settings.get("wrong"):
        raise ConfigError(settings["wrong"])
    return Worker([Agent("ada", Scripted(["x"]), direct)], [Benchmark("b", lambda seed: [], (), protocol="p")])


def test_workers_are_described_and_told_apart():
    agents = {"ada": Agent("ada", Scripted(["x"]), direct)}
    benchmarks = {"b": Benchmark("b", lambda seed: [], (), protocol="p")}
    here = about(agents, benchmarks)
    assert here == {
        "firsthand": __version__,
        "agents": {"ada": agents["ada"].to_json()},
        "benchmarks": {"b": {"protocol": "p"}},
    }
    assert build({}).about() == here and difference(here, here) is None
    assert difference(here, {**here, "firsthand": "0.1"}) == f"it has firsthand 0.1, and here it is {__version__}"
    assert difference(here, {**here, "agents": {}}) == "it has no agent 'ada'"
    assert difference(here, {**here, "benchmarks": {"b": {"protocol": "q"}}}) == (
        "its benchmark 'b' has the protocol 'q', and here it is 'p'"
    )
    assert difference(here, {**here, "benchmarks": {"b": {"protocol": "q" * 99}}}) == (
        f"its benchmark 'b' has the protocol '{'q' * 79}, and here it is 'p'"
    )
    assert difference(here, {**here, "benchmarks": {"b": {}}}) == (
        "its benchmark 'b' has the protocol None, and here it is 'p'"
    ), "a field that is not there is another one"
    lacking = {key: value for key, value in here.items() if key != "firsthand"}
    assert difference(here, lacking) == f"it has firsthand None, and here it is {__version__}"
    assert difference(here, {}) == f"it has firsthand None, and here it is {__version__}"
    assert difference(here, {"firsthand": __version__}) == "it has no agent 'ada'"
    assert difference({"agents": {"a": {"x": None}}}, {"agents": {"a": {}}}) is None
    second = {"agents": {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}}
    for other, told in (
        ({"a": {"x": 1, "y": 2}, "b": {"x": 1}}, "its agent 'b' has the y None, and here it is 2"),
        ({"a": {"x": 1, "y": 2}}, "it has no agent 'b'"),
        ({"a": {"x": 3, "y": 3}, "b": {}}, "its agent 'a' has the x 3, and here it is 1"),
    ):
        assert difference(second, {"agents": other}) == told
    assert difference(here, {**here, "more": 1}) is None
    odd = {"tags": (1, "x"), "agents": {"a": {"stop": ("x", "y"), "at": Path("p"), "by": {3: (4,)}}}}
    assert difference(odd, odd) is None and difference(odd, unpack(pack(odd))) is None, (
        "as they are when they travelled"
    )
    assert difference(unpack(pack(odd)), odd) is None
    assert difference(odd, {**odd, "agents": {"a": {**odd["agents"]["a"], "stop": ("x",)}}}) == (
        "its agent 'a' has the stop ['x'], and here it is ['x', 'y']"
    )
    assert difference({"agents": {"a": {}}}, {"agents": {"a": {}}}) is None, "nothing to compare is not nothing there"
    place = Place(agents["ada"], benchmarks["b"], Task("t", "?"), 3)
    assert attempt_message(place, 7, [("e", "r", {"a": 1})]) == {
        "kind": "attempt", "id": place.id, "agent": "ada", "benchmark": "b", "task": Task("t", "?").to_json(), "epoch": 3,
        "seed": 7, "entries": [("e", "r", {"a": 1})],
    }  # fmt: skip
    assert pack({"a": Path("x"), "b": "é"}) == b'{"a":"x","b":"\\u00e9"}' and unpack(pack([1])) == [1]
    told = error_of("TransientError", "wait")
    assert isinstance(told, TransientError) and str(told) == "wait" and type(error_of("ModelError", "m")) is ModelError
    for name in ("KeyError", "annotations", "Any"):
        assert type(error_of(name, "m")) is RuntimeError and str(error_of(name, "m")) == f"{name}: m"


def test_steps_made_while_a_worker_waits_go_before_the_message_that_ends_the_wait():
    async def work() -> None:
        worker, body = build({}), {"id": "i", "effect": "e", "request": "r", "reply": {"a": 1}, "kind": "record"}
        waiting = asyncio.create_task(worker.exchange([], 20))
        await asyncio.sleep(0)
        worker.tell("i", Event("note", 1.5, {"n": 1}))
        assert worker.record("i", "e", "r", {"a": 1}) == 1
        worker.tell("j", Event("note", 2.5, {"n": 2}))
        assert await waiting == [
            {"kind": "step", "id": "i", "step": step_to_json(Event("note", 1.5, {"n": 1}))},
            {"kind": "step", "id": "j", "step": step_to_json(Event("note", 2.5, {"n": 2}))},
            {"number": 1, **body},
        ]
        assert worker.record("i", "e", "r", {"a": 1}) == 2
        assert await worker.exchange([]) == [{"number": 2, **body}] and await worker.exchange([], 0) == []
        worker.tell("i", Event("note", 3.5, {}))
        assert [each["kind"] for each in await worker.exchange([], 0)] == ["step"]
        assert await worker.exchange([], 0) == []

    asyncio.run(asyncio.wait_for(work(), 30))


def test_every_attempt_that_runs_is_cancelled_with_its_worker():
    calls: list[str] = []

    class Shared:
        tools, shared = (), True

        async def open(self) -> None:
            calls.append("open")

        async def close(self) -> None:
            calls.append("close")

    async def work() -> None:
        agent = Agent("ada", Scripted(["x"], delay_s=60), direct, {}, (Shared(),))
        benchmark = Benchmark("b", lambda seed: [], ())
        worker = Worker([agent], [benchmark])
        places = [Place(agent, benchmark, Task(id, "?"), 0) for id in "tuv"]
        wrong = {**attempt_message(places[0], 5, []), "agent": "bob", "id": "w"}
        (failed,) = await worker.exchange([wrong, *(attempt_message(place, 5, []) for place in places)], 20)
        await asyncio.sleep(0.01)
        running = list(worker._running)
        assert failed["id"] == "w" and len(running) == 3, "the one that failed has gone"
        assert calls == ["open"]
        await worker.close()
        assert all(each.cancelled() for each in running) and not worker._running and calls == ["open", "close"]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_records_of_a_worker_are_numbered_and_waited_for():
    async def work() -> None:
        worker = build({})
        journal = RelayedJournal(worker, "i", [("old", "r0", {"o": 1})])
        assert journal.entries == {("old", "r0"): {"o": 1}}
        await journal.settled()
        journal.record("e", "r1", {"a": 1})
        journal.record("e", "r2", {"a": 2})
        assert journal.find("e", "r1") == {"a": 1} and journal.find("old", "r0") == {"o": 1} and journal.last == 2
        worker._steps.append({"kind": "step", "id": "i", "step": ["s", {}]})
        said = await worker.exchange([], 0.01)
        assert said == [{"kind": "step", "id": "i", "step": ["s", {}]}] + [
            {"number": n, "id": "i", "effect": "e", "request": f"r{n}", "reply": {"a": n}, "kind": "record"} for n in (1, 2)
        ]  # fmt: skip
        waiting = asyncio.create_task(journal.settled())
        for upto, is_done in ((1, False), (0, False), (2, True)):
            await worker.exchange([{"kind": "kept", "upto": upto}], 0.01)
            assert (worker.kept, waiting.done()) == (max(upto, 1), is_done)
        place = Place(worker.agents["ada"], worker.benchmarks["b"], Task("t", "?"), 1)
        other = InProcess(worker)
        found: list[Any] = []
        wrong = {**attempt_message(place, 5, []), "agent": "bob", "id": "w"}
        messages: list[Any] = [attempt_message(place, 5, []), wrong]
        while not {"trace", "failed"} <= {each["kind"] for each in found}:
            found += await other.exchange(messages)
            messages = [{"kind": "kept", "upto": each["number"]} for each in found if each["kind"] == "record"]
        (trace,) = [each["trace"] for each in found if each["kind"] == "trace"]
        assert (trace["task_id"], trace["epoch"], trace["seed"], trace["answer"]) == ("t", 1, 5, "x")
        (failed,) = [each for each in found if each["kind"] == "failed"]
        assert failed == {"kind": "failed", "id": "w", "error": "KeyError", "message": "'bob'"}
        await other.kill()
        with pytest.raises(Lost, match=r"^in-process was killed$"):
            await other.exchange([])

    asyncio.run(asyncio.wait_for(work(), 30))
