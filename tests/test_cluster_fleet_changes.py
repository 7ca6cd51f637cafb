"""A fleet over processes that answer by a table: jobs, losses, adapters and weights in all replicas or in none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.outbox import Outbox
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_adapters import SharedAdapter, SharedAdapters
from firsthand.cluster.replicas.replica_slots import ReplicaProcess
from firsthand.cluster.replicas.replica_weights import LoadedWeights, SharedWeights
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.cluster.replicas.router import Router, max_load, next_turn_hashes, prefix_hashes
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.message import Json, ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, ToolSpec, Usage

Answer = Callable[[int, Json], Any]


class Process:
    """A replica that answers each job by a function: a value ends it, an exception fails it, a list is its messages."""

    def __init__(self, number: int, answer: Answer, description: Any):
        self.name, self.number, self.answer, self.description = f"host{number}", number, answer, description
        self.asked: list[Json] = []
        self.is_closed = False
        self._gone = asyncio.Event()
        self._outbox = Outbox()

    async def begin(self) -> Json:
        if isinstance(self.description, Exception):
            raise self.description
        return dict(self.description)

    async def send(self, messages: Sequence[Json]) -> None:
        for message in messages:
            self.asked.append(message)
            if message["kind"] == "abort":
                continue
            found = self.answer(self.number, message)
            if found is Lost:
                self.close()
                return
            if isinstance(found, Exception):
                found = [{"kind": "failed", "error": type(found).__name__, "message": str(found)}]
            for each in found if isinstance(found, list) else [{"kind": "end", "value": found}]:
                self._outbox.put({**each, "job": message["job"]})

    async def receive(self) -> list[Json]:
        if self._gone.is_set():
            raise Lost(f"{self.name} is gone")
        return await self._outbox.take(0.005)

    def close(self) -> None:
        self.is_closed = True
        self._gone.set()


class Starter:
    """Starts them, and keeps all that were started."""

    def __init__(self, answer: Answer, descriptions: Sequence[Any]):
        self.answer, self.descriptions = answer, list(descriptions)
        self.made: list[Process] = []

    def start(self, number: int) -> ReplicaProcess:
        self.made.append(Process(number, self.answer, self.descriptions[number]))
        return self.made[-1]

    def close(self) -> None: ...


SAME = {"same": {"model": "m"}, "counters": {"num_blocks": 4, "requests": 2, "running": 1}}


def with_fleet(
    answer: Answer, test: Callable[[Fleet, Starter, list[Any]], Coroutine[Any, Any, None]], *descriptions: Any
) -> None:
    async def main() -> None:
        starter, events = Starter(answer, descriptions or (SAME, SAME)), list[Any]()
        fleet = Fleet(starter, len(starter.descriptions))
        fleet.on_event = lambda event, **fields: events.append((event, fields))
        try:
            await test(fleet, starter, events)
        finally:
            fleet.close()
            for task in fleet._tasks:
                task.cancel()
            await asyncio.gather(*fleet._tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_job_goes_to_a_replica_with_its_messages_and_its_own_error() -> None:
    def answer(number: int, message: Json) -> Any:
        return {
            "sum": lambda: message["a"] + 1, "stream": lambda: [{"kind": "delta", "x": 1}, {"kind": "end", "value": None}],
            "fail": lambda: ConfigError("no such thing"), "bug": lambda: KeyError("k"),
            "counters": lambda: {"requests": 10 + number, "oldest_wait_s": 1.0 + number},
        }[message["method"]]()  # fmt: skip

    async def test(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        assert not fleet.is_alive and fleet.problem == "its replicas are being started"
        assert await fleet.ready() == SAME and fleet.is_alive
        assert await fleet.call({"method": "sum", "a": 4}) == 5
        found = [message async for message in fleet.stream({"method": "stream"}, weight=3)]
        assert [each["kind"] for each in found] == ["placed", "delta", "end"] and found[1]["x"] == 1
        with pytest.raises(ConfigError, match=r"^no such thing$"):
            await fleet.call({"method": "fail"})
        with pytest.raises(RuntimeError, match="in a replica: KeyError: 'k'"):
            await fleet.call({"method": "bug"}, slot=fleet.slots[1])
        assert [each.asked[-1]["method"] for each in starter.made if each.number == 1] == ["bug"]
        assert all(slot.load == 0 and not slot.jobs for slot in fleet.slots)
        assert await fleet.counters() == {"requests": 21, "oldest_wait_s": 2.0}
        assert sorted(events, key=str) == [
            ("replica_ready", {"replica": number, "where": f"host{number}"}) for number in (0, 1)
        ]
        stream = fleet.stream({"method": "stream"}, weight=2)
        placed = (await anext(stream))["replica"]
        await anext(stream)
        assert [fleet.slots[placed].load, fleet.slots[1 - placed].load] == [2, 0]
        await stream.aclose()
        await asyncio.sleep(0.02)
        assert starter.made[placed].asked[-1]["kind"] == "abort" and fleet.slots[placed].load == 0

    with_fleet(answer, test)


def test_a_lost_replicas_job_moves_and_is_given_up_after_three() -> None:
    lost: list[int] = []

    def answer(number: int, message: Json) -> Any:
        if message["method"] == "kill" or len(lost) < message.get("times", 0):
            lost.append(number)
            return Lost
        return number

    async def test(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        kinds = [message["kind"] async for message in fleet.stream({"method": "ask", "times": 1})]
        assert kinds == ["placed", "restarted", "placed", "end"] and len(lost) == 1
        moved = [fields for event, fields in events if event == "job_moved"]
        assert moved == [{"replica": lost[0], "reason": f"host{lost[0]} is gone", "losses": 1}]
        gone = [fields for event, fields in events if event == "replica_lost"]
        assert gone == [{"replica": lost[0], "reason": f"host{lost[0]} is gone", "jobs": 1}]
        slot = fleet.slots[lost[0]]
        assert slot.ended == {"requests": 2}, "no gauges"
        while slot.state != "ready":
            await asyncio.sleep(0.005)
        assert (slot.restarts, slot.problem, slot.losses_in_a_row) == (1, "", 1)
        with pytest.raises(Lost):
            await fleet.call({"method": "kill"}, slot=fleet.slots[0])

    with_fleet(answer, test)


def test_a_replica_unlike_the_others_is_left_out_and_none_at_all_is_told() -> None:
    other = {"same": {"model": "n"}, "counters": {}}

    async def unlike(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        states = sorted((slot.state, slot.problem) for slot in fleet.slots)
        first = fleet.description
        assert first is not None
        mine, theirs = first["same"]["model"], {"m": "n", "n": "m"}[first["same"]["model"]]
        (place,) = (slot.number for slot in fleet.slots if slot.state == "failed")
        assert states[1] == ("ready", "") and states[0][1] == (
            f"the replica on host{place} has the model {theirs!r}, and the others {mine!r}: one request would have two "
            "answers, so give every machine the same files and the same kind of CPU or GPU"
        )
        assert fleet.problem == states[0][1]

    with_fleet(lambda number, message: None, unlike, SAME, other)

    async def none(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        with pytest.raises(ModelError, match=r"^no GPU$"):
            await fleet.ready()
        with pytest.raises(ModelError, match=r"^no replica can work: no GPU$"):
            await fleet.call({"method": "x"})

    with_fleet(lambda number, message: None, none, ConfigError("no GPU"))


def test_an_adapter_is_loaded_in_all_replicas_or_undone_in_all(tmp_path: Path) -> None:
    replies: dict[tuple[int, str], Any] = {}

    def answer(number: int, message: Json) -> Any:
        return replies.get((number, message["method"]), "print")

    async def test(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        shared = SharedAdapters(fleet)
        with pytest.raises(ConfigError, match="no adapter 'a' is beside the model: there are none"):
            shared.get("a")
        await fleet.ready()
        await shared.load("a", tmp_path, version=3, replace=True)
        assert shared.known == {"a": SharedAdapter(tmp_path, "print", 3)} and shared.loadings == {"a": 1}
        for process in starter.made:
            assert [{k: v for k, v in each.items() if k not in ("job", "kind")} for each in process.asked] == [
                {"method": "load_adapter", "name": "a", "folder": str(tmp_path), "version": 3, "replace": True},
                {"method": "settle_adapters"},
            ]
        replies[1, "load_adapter"] = ConfigError("bad rank")
        with pytest.raises(ConfigError, match=r"^bad rank$"):
            await shared.load("b", tmp_path)
        assert [process.asked[-1]["method"] for process in starter.made] == ["undo_adapters"] * 2
        replies[1, "load_adapter"] = "another"
        with pytest.raises(
            ConfigError, match="cannot load the adapter 'b': its files are not the same on all of their"
        ):
            await shared.load("b", tmp_path)
        assert (
            list(shared.known) == ["a"] and shared.loadings == {"a": 1} and not any(p.is_closed for p in starter.made)
        )
        replies[1, "unload_adapter"] = ConfigError("in use")
        with pytest.raises(ConfigError, match="in use"):
            await shared.unload("a")
        assert list(shared.known) == ["a"], "it stays known"
        del replies[1, "unload_adapter"], replies[1, "load_adapter"]
        await shared.unload("a")
        assert shared.known == {}
        replies[0, "load_adapter"], replies[1, "undo_adapters"] = ConfigError("no"), ConfigError("cannot")
        with pytest.raises(ConfigError, match=r"^no$"):
            await shared.load("c", tmp_path)
        assert [process.is_closed for process in starter.made[:2]] == [
            process.number == 1 for process in starter.made[:2]
        ]

    with_fleet(answer, test)


def test_weights_are_those_of_the_first_replica_and_a_new_one_gets_them(tmp_path: Path) -> None:
    replies: dict[int, Any] = {}

    def answer(number: int, message: Json) -> Any:
        return replies.get(number, "digest")

    async def test(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        then: list[int] = []

        async def prepare(slot: Any) -> None:
            then.append(slot.number)

        fleet.prepare = prepare
        shared = SharedWeights(fleet)
        with pytest.raises(TransientError, match="no replica is there to load the weights: try again"):
            await shared.load(tmp_path / "w", 1)
        await fleet.ready()
        assert sorted(then) == [0, 1] and not any(process.asked for process in starter.made)
        replies[0] = replies[1] = ConfigError("bad file")
        with pytest.raises(ConfigError, match="bad file"):
            await shared.load(tmp_path / "w", 1)
        assert shared.loaded is None and not any(process.is_closed for process in starter.made)
        replies.clear()
        await shared.load(tmp_path / "w", 7)
        assert shared.loaded == LoadedWeights(tmp_path / "w", 7, "digest")
        body = {key: value for key, value in starter.made[0].asked[-1].items() if key not in ("job", "kind")}
        assert body == {"method": "load_weights", "file": str(tmp_path / "w"), "version": 7}
        replies[1] = "another"
        with pytest.raises(ConfigError, match=r"the weights in .*v are not the same on all machines"):
            await shared.load(tmp_path / "v", 8)
        assert shared.loaded == LoadedWeights(tmp_path / "v", 8, "digest")
        assert [process.is_closed for process in starter.made[:2]] == [
            process.number == 1 for process in starter.made[:2]
        ]
        replies.clear()
        while fleet.slots[1].state != "ready" or len(then) < 3:
            await asyncio.sleep(0.005)
        assert (
            starter.made[-1].number == 1 and starter.made[-1].asked[0]["file"] == str(tmp_path / "v") and then[2] == 1
        )

    with_fleet(answer, test)


def test_prefixes_are_cut_by_message_and_routed_by_cache_load_and_turn() -> None:
    talk = [user("x" * 130), assistant("y")]
    hashes = prefix_hashes(talk)
    assert len(hashes) == 4, "5 + 130 characters are three pieces, 11 are one"
    assert prefix_hashes(talk[:1]) == hashes[:3] and next_turn_hashes(hashes[:3], talk[1]) == hashes
    assert prefix_hashes(talk, space="a") != hashes and prefix_hashes(list(range(40))) == prefix_hashes(list(range(32)))
    assert (
        len(prefix_hashes(list(range(15)))) == 0
        and len(prefix_hashes("x" * 64)) == 1
        and len(prefix_hashes("x" * 65)) == 2
    )
    tool = ToolSpec("f", "d", {})
    assert prefix_hashes(talk, [tool])[0] != hashes[0]
    one, two = (assistant("", ToolCall(id, "f", {"a": a})) for id, a in (("1", 1), ("2", 1)))
    assert prefix_hashes([one]) == prefix_hashes([two]) != prefix_hashes([assistant("", ToolCall("1", "f", {"a": 2}))])
    assert [max_load({0: least, 1: 99}) for least in (0, 2, 10)] == [4, 7, 19]
    router = Router()
    for replica in (0, 1):
        router.open(replica, 3)
    router.note(1, hashes)
    assert [router.match(replica, hashes) for replica in (0, 1)] == [0, 3] and router.num_known(1) == 3
    assert router.choose(hashes, {0: 0, 1: 4}) == 1 and router.choose(hashes, {0: 0, 1: 5}) == 0
    assert router.choose([], {0: 1, 1: 1}) == 1, "that was chosen longer ago"
    assert router.choose([], {0: 1, 1: 0}) == 1
    router.note(1, [7])
    assert router.match(1, hashes) == 2 and router.match(1, [7]) == 1, "the longest prefix is forgotten first"
    router.close(1)
    router.note(1, hashes)
    assert router.num_known(1) == 0
    router.open(2, 0)
    router.note(2, hashes)
    assert router.num_known(2) == 1


def test_an_answer_that_is_repeated_shows_only_what_is_new() -> None:
    shown = ShownAnswer()
    first = Delta("ab", token_ids=(1, 2), logprobs=(-1.0, -2.0), top_logprobs=((("a", -1.0),), (("b", -2.0),)))
    assert shown.rest(first) == first
    assert shown.rest(Delta("", call=CallDelta(0, "c1", "pay"))) == Delta("", call=CallDelta(0, "c1", "pay"))
    assert shown.rest(Delta("", call=CallDelta(0, arguments='{"a"'))) == Delta("", call=CallDelta(0, arguments='{"a"'))
    shown.restart()
    assert shown.rest(Delta("a", token_ids=(1,), logprobs=(-1.0,))) is None
    again = Delta("bc", token_ids=(2, 3), logprobs=(-2.0, -3.0), top_logprobs=((("b", -2.0),), (("c", -3.0),)))
    assert shown.rest(again) == Delta("c", token_ids=(3,), logprobs=(-3.0,), top_logprobs=((("c", -3.0),),))
    assert shown.rest(Delta("", call=CallDelta(0, "c2", "pay"))) is None
    fresh = shown.rest(Delta("", call=CallDelta(0, "c2", arguments='{"a": 1}')))
    assert fresh == Delta("", call=CallDelta(0, "", None, ": 1}"))
    done = Completion(assistant("abc"), "stop", Usage(1, 2, 3))
    assert shown.rest(Delta("", completion=done)) == Delta("", completion=done)
    shown.restart()
    assert shown.rest(Delta("abc", done)) is None, "its end was shown"
    shown.restart()
    with pytest.raises(ModelError, match="the one that took over gave another answer: send the request again"):
        shown.rest(Delta("ax"))
