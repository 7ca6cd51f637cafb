"""A fleet whose processes are scripted: starts, losses, silence, bugs, jobs that move, and weights that all must have."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.replicas import fleet as fleets
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_messages import delta_json
from firsthand.cluster.replicas.replica_weights import LoadedWeights, SharedWeights
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelError, ModelFileError, TransientError
from firsthand.message import Json, assistant
from firsthand.model import Completion, Delta, Sampling, ToolSpec, Usage
from fleet_in_memory import SAME, Process, Starter, says, until, with_fleet


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (fleets.RETRY_S, fleets.STEADY_S) == ((0.0, 1.0, 2.0, 5.0, 10.0, 30.0), 60.0)
    assert (fleets.COUNTERS_S, fleets.OTHERS_S) == (2.0, 30.0)
    monkeypatch.setattr(fleets, "RETRY_S", (0.0, 0.001, 0.002))


def test_a_replica_is_admitted_and_answers_until_the_fleet_is_closed():
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        before = time.monotonic()
        assert await fleet.ready() == SAME and await fleet.ready() == SAME and len(starter.started) == 1
        (slot,) = fleet.slots
        assert (slot.state, slot.problem, slot.counters, slot.load) == ("ready", "", SAME["counters"], 0)
        assert slot.ready_s is not None and before <= slot.ready_s <= time.monotonic()
        assert events == [{"event": "replica_ready", "replica": 0, "where": "place 0"}] and fleet.router._room == {0: 7}
        messages = [each async for each in fleet.stream({"method": "x"}, [1, 2], weight=3)]
        assert messages == [{"kind": "placed", "replica": 0}, {"kind": "end", "job": 1, "value": "x"}]
        assert (
            starter.started[0].sent == [{"kind": "do", "job": 1, "method": "x"}] and fleet.router.match(0, [1, 2]) == 2
        )
        assert await fleet.call({"method": "y"}, slot=slot) == "y" and not slot.jobs
        fleet.close()
        assert starter.started[0].is_closed and starter.is_closed

    with_fleet(work, [[SAME]])


def test_a_job_moves_to_another_replica_and_is_given_up_after_three():
    def dies(process: Process, message: Json) -> None:
        says(process, message, "delta", delta={})
        process.queue.put_nowait(Lost(f"{process.name} fell"))

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        found = []
        with pytest.raises(TransientError) as told:
            async for message in fleet.stream({"method": "x"}):
                found.append((message["kind"], message.get("replica")))
        assert str(told.value).endswith("fell), so that it is not tried again by itself")
        assert str(told.value).startswith("its replica was lost 3 times (place ")
        places = [place for kind, place in found if kind == "placed"]
        assert [kind for kind, _ in found] == ["placed", "delta", "restarted"] * 2 + ["placed", "delta"] and len(
            places
        ) == 3
        moved = [each for each in events if each["event"] == "job_moved"]
        assert [each["losses"] for each in moved] == [1, 2, 3] and [each["replica"] for each in moved] == places
        lost = [each for each in events if each["event"] == "replica_lost"]
        assert {each["jobs"] for each in lost} == {1} and lost[0]["reason"] == f"place {places[0]} fell"
        assert sum(slot.ended.get("prompt_tokens", 0) for slot in fleet.slots) == 9
        assert all(slot.load == 0 for slot in fleet.slots)

    with_fleet(work, [[SAME], [SAME]], dies)


def test_a_job_s_own_errors_and_its_end_are_passed_on():
    def answers(process: Process, message: Json) -> None:
        if message.get("method") == "fails":
            says(process, message, "failed", error="ModelError", message="no")
        elif message["kind"] == "do":
            says(process, message, "delta", delta={"text": "a"})

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        with pytest.raises(ModelError, match=r"^no$"):
            await fleet.call({"method": "fails"})
        assert [each["kind"] for each in starter.started[0].sent] == ["do"], "a job that ended is not aborted"
        stream = fleet.stream({"method": "long"}, weight=2)
        assert [(await anext(stream))["kind"] for _ in range(2)] == ["placed", "delta"] and fleet.slots[0].load == 2
        await stream.aclose()
        await until(lambda: len(starter.started[0].sent) == 3)
        assert starter.started[0].sent[-1] == {"kind": "abort", "job": 2} and fleet.slots[0].load == 0

    with_fleet(work, [[SAME]], answers)


def test_a_replica_that_is_not_like_the_first_is_left_out_with_the_reason():
    other = {"same": {"model": "n"}}

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        fleet.slots[1].state = "failed"  # so that `ready` waits for the first alone
        await fleet.ready()
        await until(lambda: "has the model" in fleet.slots[1].problem)
        assert fleet.slots[1].problem == (
            "the replica on place 1 has the model 'n', and the others 'm': one request would have two answers, so give "
            "every machine the same files and the same kind of CPU or GPU"
        )
        assert fleet.slots[1].state == "failed" and fleet.problem == fleet.slots[1].problem and fleet.is_alive
        assert (fleet.description or {})["same"] == {"model": "m"}

    with_fleet(work, [[SAME], [other]])


def test_a_fleet_is_described_by_its_first_replica_though_that_begins_again():
    again = {**SAME, "counters": {"num_blocks": 9.0}, "more": 1}
    third = {"same": {"model": "m", "further": "x"}, "counters": {}}

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        assert await fleet.ready() == SAME == fleet.description
        for times, counters in ((1, {"num_blocks": 9.0}), (2, {})):
            fleet.slots[0].process.close()
            await until(lambda times=times: fleet.slots[0].restarts == times and fleet.slots[0].state == "ready")
            assert fleet.description == SAME and await fleet.ready() == SAME and fleet.slots[0].counters == counters
            fleet.slots[0].losses_in_a_row = 0  # no wait before the next

    with_fleet(work, [[SAME, again, third]])


def test_false_starts_bugs_and_silence_are_told():
    async def lost(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"^gone$"):
            await fleet.ready()
        assert fleet.slots[0].state == "failed" and len(starter.started) == 3 and fleet.slots[0].restarts == 2
        assert [each["reason"] for each in events] == ["gone"] * 3 and all(each.is_closed for each in starter.started)

    with_fleet(lost, [[Lost("gone")]])

    async def wrong(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"^no file$"):
            await fleet.ready()
        assert len(starter.started) == 1
        with pytest.raises(ModelError, match=r"^no replica can work: no file$"):
            await fleet.call({})

    with_fleet(wrong, [[ConfigError("no file")]])

    async def bug(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"^the replica on place 0 met a bug of its own: ZeroDivisionError$"):
            await fleet.ready()
        assert events[0]["event"] == "replica_bug" and events[0]["traceback"].endswith("ZeroDivisionError: oh\n")

    with_fleet(bug, [[ZeroDivisionError("oh")]])

    async def silent(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        await until(lambda: len(events) > 1)
        assert events[1]["reason"] == "the replica on place 0 gave no sign of life for 0.01 s"
        await until(lambda: fleet.slots[0].restarts == 1 and fleet.is_alive)
        assert fleet.slots[0].losses_in_a_row >= 1 and fleet.slots[0].ended == {"prompt_tokens": 3.0}

    with_fleet(silent, [[SAME]], silent_s=0.01)


@pytest.mark.parametrize(("steady_s", "row"), [(60.0, 2), (-1.0, 1)])
def test_a_replica_that_ran_for_long_starts_a_new_row_of_losses(
    steady_s: float, row: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fleets, "STEADY_S", steady_s)

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        (slot,) = fleet.slots
        for count in (1, 2):
            await until(lambda: fleet._tasks and fleet.is_alive) if count > 1 else await fleet.ready()
            starter.started[-1].queue.put_nowait(Lost("x"))
            await until(lambda count=count: slot.restarts == count)
        assert slot.losses_in_a_row == row

    with_fleet(work, [[SAME]])


def test_the_first_replica_waits_a_while_for_the_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleets, "OTHERS_S", 0.01)

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        assert await fleet.ready() == SAME and fleet.slots[1].state == "starting"
        assert fleet.problem == "its replicas are being started"

    with_fleet(work, [[SAME], [None]])


def test_the_wait_for_the_others_does_not_begin_before_one_is_ready(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleets, "OTHERS_S", 0.01)
    monkeypatch.setattr(fleets, "RETRY_S", (0.05,))

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        assert await fleet.ready() == SAME
        assert [slot.state for slot in fleet.slots] == ["ready", "starting"] and len(starter.started) == 3

    with_fleet(work, [[Lost("x"), SAME], [None]])


def test_the_wait_for_the_others_begins_once_and_not_at_each_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleets, "OTHERS_S", 0.05)

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        ready = asyncio.create_task(fleet.ready())
        until_s = time.monotonic() + 2
        while not ready.done() and time.monotonic() < until_s:
            fleet._note_change()  # as a third replica does that comes and goes
            await asyncio.sleep(0.005)
        assert ready.done() and ready.result() == SAME
        assert [slot.state for slot in fleet.slots] == ["ready", "starting"]

    with_fleet(work, [[SAME], [None]])


def test_counters_of_a_replica_that_does_not_answer_are_the_last_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleets, "COUNTERS_S", 0.4)

    def answers(process: Process, message: Json) -> None:
        if message.get("method") == "counters" and process.name == "place 1":
            says(process, message, "end", value={"prompt_tokens": 50.0})

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        fleet.slots[0].ended = {"prompt_tokens": 100.0}
        assert await fleet.counters() == {"num_blocks": 7.0, "prompt_tokens": 153.0}
        assert [status.counters for status in fleet.statuses()] == [SAME["counters"], {"prompt_tokens": 50.0}]

    with_fleet(work, [[SAME], [SAME]], answers)


def test_counters_of_lost_replicas_stay_in_the_sums_of_all() -> None:
    def answers(process: Process, message: Json) -> None:
        if process.name == "place 1":
            says(process, message, "end", value={"prompt_tokens": 10.0, "oldest_wait_s": 2.0, "running": 1.0})
        elif process.name == "place 2":
            says(process, message, "failed", error="ModelError", message="no numbers")

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        await until(lambda: [slot.state for slot in fleet.slots] == ["ready"] * 3)
        lost = next(each for each in starter.started if each.name == "place 0")
        lost.queue.put_nowait(Lost("place 0 fell"))
        await until(lambda: fleet.slots[0].ended)
        assert await fleet.counters() == {
            "num_blocks": 7.0, "prompt_tokens": 3.0 + 10.0 + 3.0, "oldest_wait_s": 2.0, "running": 1.0,
        }  # fmt: skip
        assert [each.counters for each in fleet.statuses()] == [
            {}, {"prompt_tokens": 10.0, "oldest_wait_s": 2.0, "running": 1.0}, SAME["counters"],
        ]  # fmt: skip
        assert [len(each.sent) for each in starter.started[:3]] == [
            int(each is not lost) for each in starter.started[:3]
        ]
        for each in starter.started[:3]:
            each.queue.put_nowait(Lost("fell"))
        await until(lambda: all(slot.ended for slot in fleet.slots))
        assert await fleet.counters() == {"prompt_tokens": 16.0}, "none is ready, and only what goes up is left"
        assert [(each.state, each.counters) for each in fleet.statuses()] == [("starting", {})] * 3

    with_fleet(work, [[SAME, None]] * 3, answers)


# -- weights --


def test_weights_are_loaded_by_all_replicas_or_those_that_differ_are_replaced():
    values: dict[str, Any] = {}

    def answers(process: Process, message: Json) -> None:
        value = values.get(process.name, "d1")
        if message["kind"] == "do" and isinstance(value, str):
            says(process, message, "end", value=value)
        elif message["kind"] == "do":
            says(process, message, "failed", error=type(value).__name__, message=str(value))

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        prepared: list[int] = []

        async def first(slot: Any) -> None:
            prepared.append(slot.number)

        fleet.prepare = first
        weights = SharedWeights(fleet)
        with pytest.raises(TransientError, match=r"^no replica is there to load the weights: try again$"):
            await weights.load(Path("/w"), 1)
        await fleet.ready()
        assert sorted(prepared) == [0, 1] and all(not each.sent for each in starter.started)
        await weights.load(Path("/w"), 4)
        assert weights.loaded == LoadedWeights(Path("/w"), 4, "d1")
        sent = {"kind": "do", "method": "load_weights", "file": "/w", "version": 4}
        assert [{**each.sent[-1], "job": 0} for each in starter.started] == [{**sent, "job": 0}] * 2
        values.update({"place 0": ModelFileError("no"), "place 1": ModelFileError("no")})
        with pytest.raises(ModelFileError, match=r"^no$"):
            await weights.load(Path("/x"), 5)
        assert weights.loaded.version == 4 and not any(each.is_closed for each in starter.started)
        values.update({"place 0": "d2"})
        second = next(each for each in starter.started if each.name == "place 1")
        values["place 1"] = ModelFileError("no")
        await weights.load(Path("/y"), 6)
        assert weights.loaded == LoadedWeights(Path("/y"), 6, "d2") and second.is_closed
        values["place 1"] = "d3"
        await until(lambda: "are not those that the other replicas read" in fleet.slots[1].problem)
        assert fleet.slots[1].problem == "the weights in /y are not those that the other replicas read"
        assert {**starter.started[-1].sent[-1], "job": 0} == {**sent, "file": "/y", "version": 6, "job": 0}

    with_fleet(work, [[SAME], [SAME]], answers)

    async def differing(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        values.update({"place 0": "d1", "place 1": "d2"})
        with pytest.raises(ConfigError) as told:
            await SharedWeights(fleet).load(Path("/w"), 1)
        assert str(told.value) == "the weights in /w are not the same on all machines: give replicas one file system"
        assert [each.is_closed for each in starter.started[:2]] == [False, True]

    with_fleet(differing, [[SAME], [SAME]], answers)


def test_a_model_s_new_weights_are_in_its_fingerprint_and_a_stream_sends_its_tools():
    tool = ToolSpec("add", "Adds.", {"type": "object"})
    done = Completion(assistant("ab"), "stop", Usage(1, 0, 2))

    def answers(process: Process, message: Json) -> None:
        if message["method"] == "stream_many":
            for piece in (Delta("a"), Delta("b", done)):
                says(process, message, "delta", delta=delta_json(piece))
        says(process, message, "end", value="digest of 16 and more")

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        await fleet.ready()
        assert model.fingerprint == "m"
        await model.load_weights(Path("/w"), 4)
        assert model.weights.loaded == LoadedWeights(Path("/w"), 4, "digest of 16 and more")
        assert model.fingerprint == "m, weights digest of 16 and"
        found = [delta async for delta in model.stream("q", Sampling(seed=3), tools=[tool])]
        assert "".join(delta.text for delta in found) == "ab" and found[-1].completion == done
        load, stream = starter.started[0].sent
        assert load == {"kind": "do", "job": 1, "method": "load_weights", "file": "/w", "version": 4}
        assert (stream["tools"], stream["options"], stream["sampling"]["seed"]) == ([tool.to_json()], {"n": 1}, 3)

    with_fleet(work, [[SAME]], answers)
