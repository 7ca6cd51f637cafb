"""Jobs of a fleet: the replica that each goes to, what a lost one leaves behind, and how a new one is admitted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.cluster.replicas import fleet as fleets
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelError
from firsthand.message import Json
from fleet_in_memory import SAME, Process, Starter, says, until, with_fleet


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "RETRY_S", (0.0, 0.001))


def test_a_job_for_any_replica_is_remembered_there_and_one_for_a_given_replica_weighs_nothing() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        first, second = fleet.slots
        answers = [asyncio.create_task(fleet.call({"method": "m"}, [5, 6])),
                   asyncio.create_task(fleet.call({"method": "m"}, [8], slot=second))]  # fmt: skip
        await until(lambda: len(starter.started[0].sent) + len(starter.started[1].sent) == 2)
        assert [slot.load for slot in fleet.slots] == [1, 0] and [len(slot.jobs) for slot in fleet.slots] == [1, 1]
        assert [fleet.router.match(0, [5, 6]), fleet.router.match(1, [8])] == [2, 0]
        for process in starter.started:
            (message,) = process.sent
            says(process, message, "delta", delta={})
            says(process, message, "end", value=process.name)
        assert await asyncio.gather(*answers) == ["place 0", "place 1"] and first.load == 0 and not first.jobs
        assert [process.sent[0]["job"] for process in starter.started] in ([1, 2], [2, 1])

    with_fleet(work, [[SAME], [SAME]], lambda process, message: None)


def test_a_job_of_a_process_that_is_gone_is_not_aborted_in_the_next_one() -> None:
    def answers(process: Process, message: Json) -> None:
        if len(starters[0].started) == 1:
            says(process, message, "delta", delta={})

    starters: list[Starter] = []

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        starters.append(starter)
        await fleet.ready()
        stream = fleet.stream({"method": "x"}, [5, 6], weight=2)
        assert [(await anext(stream))["kind"] for _ in range(2)] == ["placed", "delta"]
        starter.started[0].queue.put_nowait(Lost("fell"))
        await until(lambda: len(starter.started) == 2 and fleet.is_alive)
        assert fleet.slots[0].load == 2 and fleet.router.match(0, [5]) == 0, "the new one has nothing cached"
        await stream.aclose()
        await asyncio.sleep(0.003)
        assert (starter.started[1].sent, fleet.slots[0].load, fleet.slots[0].jobs) == ([], 0, {})
        first, second = starter.started
        call = asyncio.create_task(fleet.call({"method": "y"}))
        await until(lambda: second.sent)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: len(second.sent) == 2)
        assert second.sent == [{"kind": "do", "job": 2, "method": "y"}, {"kind": "abort", "job": 2}]
        assert first.sent == [{"kind": "do", "job": 1, "method": "x"}] and fleet.slots[0].load == 0

    with_fleet(work, [[SAME]], answers)


def test_a_description_that_lacks_what_the_others_have_is_refused_and_blocks_are_one_at_least() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        await until(lambda: fleet.slots[1].problem)
        assert fleet.slots[1].problem.startswith("the replica on place 1 has the model None, and the others 'm': one ")
        assert fleet.router._room == {0: 1} and fleet.slots[0].counters == {} and fleet.slots[1].state == "failed"

    with_fleet(work, [[{"same": {"model": "m"}}], [{"same": {"other": 1}}]])


def test_a_wait_grows_with_the_losses_in_a_row_up_to_the_last_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "RETRY_S", (0.0, 0.0, 60.0))

    async def third(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"^gone$"):
            await fleet.ready()
        await asyncio.sleep(0.005)
        assert (len(starter.started), fleet.slots[0].losses_in_a_row, fleet.slots[0].restarts) == (3, 3, 2)

    with_fleet(third, [[Lost("gone")]])
    monkeypatch.setattr(fleets, "RETRY_S", (60.0, 0.0))

    async def first(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        starter.started[0].queue.put_nowait(Lost("x"))
        await until(lambda: fleet.slots[0].losses_in_a_row == 1)
        await asyncio.sleep(0.003)
        assert len(starter.started) == 1 and fleet.slots[0].state == "starting" and starter.started[0].is_closed
        fleet.slots[0].problem = ""
        assert fleet.problem == "its replicas are being started"

    with_fleet(first, [[SAME]])


def test_a_job_waits_for_a_replica_and_goes_where_less_is_under_way_unless_its_prefix_is_known() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        waiting = asyncio.create_task(fleet._choose([5, 6]))
        await asyncio.sleep(0)
        fleet.slots[0].state = "failed"
        fleet._note_change()
        await asyncio.sleep(0.001)
        assert not waiting.done(), "one may still become ready"
        fleet.slots[1].state = "ready"
        fleet.router.open(1, 9)
        fleet._note_change()
        assert (await waiting).number == 1 and fleet.router.match(1, [5, 6]) == 2
        fleet.slots[0].state = "ready"
        fleet.router.open(0, 9)
        for loads, prefix, chosen in (((0, 1), [], 0), ((3, 1), [], 1), ((0, 4), [5, 6], 1), ((0, 5), [5, 6], 0)):
            fleet.slots[0].load, fleet.slots[1].load = loads
            assert (await fleet._choose(prefix)).number == chosen, (loads, prefix)
        assert fleet.router.match(0, [5, 6]) == 2
        fleet.slots[0].state, fleet.slots[0].problem = "failed", ""
        fleet.slots[1].state, fleet.slots[1].problem = "failed", "no GPU"
        with pytest.raises(ModelError, match=r"^no replica can work: no GPU$"):
            await fleet._choose([])
        fleet.slots[0].state = "starting"
        with pytest.raises(TimeoutError):
            await fleet._change(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await fleet._choose([])

    with_fleet(work, [[None], [None]])


def test_a_replica_is_prepared_alone_before_it_takes_requests_and_left_out_if_it_cannot_be() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        seen: list[Any] = []

        async def prepare(slot: Any) -> None:
            seen.append((slot.number, slot.state, slot.is_connected, fleet.change_lock.locked()))
            await asyncio.sleep(0)
            if slot.number == 1:
                raise ConfigError("other files")

        fleet.prepare = prepare
        assert await fleet.ready() == SAME
        await until(lambda: fleet.slots[1].problem)
        assert sorted(seen) == [(0, "starting", True, True), (1, "starting", True, True)]
        one, two = fleet.slots
        assert (one.state, one.problem, two.state, two.problem) == ("ready", "", "failed", "other files")
        assert two.ready_s is None and two.counters == {} and fleet.router._room == {0: 7}
        assert [each["event"] for each in events] == ["replica_ready", "replica_lost"]
        assert events[1] == {"event": "replica_lost", "replica": 1, "reason": "other files", "jobs": 0}
        assert not fleet.change_lock.locked() and fleet.description == SAME and fleet.problem == "other files"

    with_fleet(work, [[SAME], [SAME]])


def test_messages_of_no_job_are_passed_over_and_those_of_a_job_reach_it_alone() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        assert await fleet.ready() == SAME and fleet.silent_s == 60.0
        (process,) = starter.started
        streams = [fleet.stream({"method": name}) for name in ("a", "b")]
        for stream in streams:
            assert (await anext(stream)) == {"kind": "placed", "replica": 0}
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]
        await until(lambda: len(process.sent) == 2)
        assert process.sent == [{"kind": "do", "job": 1, "method": "a"}, {"kind": "do", "job": 2, "method": "b"}]
        says(process, {"job": 99}, "delta", x=0)
        says(process, process.sent[1], "delta", x=2)
        says(process, process.sent[0], "end", value=1)
        assert await asyncio.gather(*waiting) == [
            {"kind": "end", "job": 1, "value": 1},
            {"kind": "delta", "job": 2, "x": 2},
        ]
        with pytest.raises(StopAsyncIteration):
            await anext(streams[0])
        assert list(fleet.slots[0].jobs) == [2] and fleet.slots[0].load == 1
        says(process, process.sent[1], "other")
        assert (await anext(streams[1]))["kind"] == "other"
        with pytest.raises(StopAsyncIteration):
            await anext(streams[1])
        call = asyncio.create_task(fleet.call({"method": "c"}))
        await until(lambda: len(process.sent) == 3)
        says(process, process.sent[2], "other")
        with pytest.raises(AssertionError, match=r"^a job ended without an end$"):
            await call
        assert fleet.slots[0].load == 0 and not fleet.slots[0].jobs and len(process.sent) == 3

    with_fleet(work, [[SAME]], lambda process, message: None)


def test_a_fleet_tells_the_first_problem_and_ends_what_it_started() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        fleet.close()
        assert starter.is_closed and starter.started == [], "before it has begun"
        assert [(slot.number, slot.status.state, slot.status.restarts) for slot in fleet.slots] == [
            (0, "starting", 0), (1, "starting", 0),
        ]  # fmt: skip
        fleet.slots[1].problem = "second"
        assert fleet.problem == "second"
        fleet.slots[0].problem = "first"
        assert fleet.problem == "first" and not fleet.is_alive
        fleet.slots[1].state = "ready"
        assert fleet.is_alive
        slot = fleet.slots[1]
        slot.counters, slot.ended = {"tokens": 2.0, "running": 1.0, "calls": 3.0}, {"tokens": 5.0, "old": 1.0}
        slot.is_connected = True
        fleet.router.open(1, 9)
        fleet.router.note(1, [3, 4])
        fleet._post(slot, {"kind": "abort", "job": 7})
        assert list(slot.outbox) == [{"kind": "abort", "job": 7}] and slot.has_outgoing.is_set()
        changed = fleet._changed
        fleet._lose(slot, Lost("it fell"), "starting")
        assert (slot.ended, slot.counters) == ({"tokens": 7.0, "calls": 3.0, "old": 1.0}, {})
        assert (slot.state, slot.problem, slot.is_connected, list(slot.outbox)) == ("starting", "it fell", False, [])
        assert fleet.router.num_known(1) == 0 and changed.is_set() and not fleet._changed.is_set()
        assert events == [{"event": "replica_lost", "replica": 1, "reason": "it fell", "jobs": 0}]
        assert fleet.problem == "first" and not fleet.is_alive

    with_fleet(work, [[None], [None]])


def test_the_end_of_a_long_traceback_is_told() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"met a bug of its own: ValueError$"):
            await fleet.ready()
        (bug,) = (each for each in events if each["event"] == "replica_bug")
        assert len(bug["traceback"]) == 8_000 and bug["traceback"] == "x" * 7_996 + "end\n" and bug["replica"] == 0

    with_fleet(work, [[ValueError("x" * 8_500 + "end"), None]])
