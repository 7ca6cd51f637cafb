"""Replicas at their edges: twins among alternatives, processes that are gone, jobs after an abort, undoing, memory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest

from firsthand.cluster.replicas import replica_worker
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_messages import delta_json, delta_of
from firsthand.cluster.replicas.replica_slots import Slot, total_counters
from firsthand.cluster.replicas.replica_weights import LoadedWeights, SharedWeights
from firsthand.cluster.replicas.replica_worker import Replica, open_replica
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.cluster.replicas.router import prefix_hashes
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ModelFileError, TransientError
from firsthand.message import Json, assistant
from firsthand.model import CallDelta, Completion, Delta, ToolSpec, Usage
from firsthand.providers.local import Local
from fleet_in_memory import SAME, Process, Starter, says, with_fleet
from replica_scripted import Adaptable, Echo
from tiny import write_model


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def test_alternatives_of_equal_text_stay_two_after_the_way_through_json() -> None:
    twins = (("\ufffd", -0.5), ("\ufffd", -1.5), ("a", -2.5))
    delta = Delta("\ufffd", token_ids=(5, 0), logprobs=(-0.5, 0.0), top_logprobs=(twins, (), (("b", 0.0),)))
    assert delta_of(json.loads(json.dumps(delta_json(delta)))) == delta
    done = Delta(
        "", Completion(assistant("x"), "length", Usage(3, 1, 2), prompt_ids=(0,)), CallDelta(1, "c", None, ""), 1
    )
    assert delta_of(json.loads(json.dumps(delta_json(done)))) == done


def test_numbers_of_processes_that_are_gone_count_before_their_successor_sends_any() -> None:
    gone = Slot(0, ended={"prompt_tokens": 7.0, "steps": 2.0})
    assert total_counters([gone]) == {"prompt_tokens": 7.0, "steps": 2.0}
    begun = Slot(1, counters={"prompt_tokens": 1.0, "oldest_wait_s": 4.0})
    other = Slot(2, counters={"oldest_wait_s": 3.0}, ended={"steps": 5.0})
    assert total_counters([gone, begun, other]) == {"prompt_tokens": 8.0, "oldest_wait_s": 4.0, "steps": 7.0}
    assert total_counters([Slot(0), Slot(1)]) == {}


def test_weights_that_no_replica_lived_to_load_may_be_loaded_again() -> None:
    ends: dict[str, Any] = {}

    def answers(process: Process, message: Json) -> None:
        end = ends.get(process.name)
        if end is Lost:
            process.queue.put_nowait(Lost(f"the replica on {process.name} was lost"))
        elif isinstance(end, Exception):
            says(process, message, "failed", error=type(end).__name__, message=str(end))
        else:
            says(process, message, "end", value=end)

    def loading(first: Any, second: Any) -> Any:
        """What comes of a load that ends so in each of two replicas, the weights, and which of the two were closed."""
        found: list[Any] = []

        async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
            await fleet.ready()
            ends.clear()
            ends.update({"place 0": first, "place 1": second})
            weights = SharedWeights(fleet)
            try:
                await weights.load(Path("/w"), 3)
            except Exception as error:
                found.append((type(error).__name__, str(error)))
            by_name = {each.name: each for each in reversed(starter.started)}
            found.extend([weights.loaded, [by_name[f"place {n}"].is_closed for n in (0, 1)]])

        with_fleet(work, [[SAME], [SAME]], answers)
        return found

    new = LoadedWeights(Path("/w"), 3, "d")
    again = ("TransientError", "no replica is there to load the weights: try again")
    assert loading(Lost, Lost)[:2] == [again, None]
    refused = ModelFileError("no file")
    assert loading(Lost, refused)[:2] == [("ModelFileError", "no file"), None]
    assert loading(refused, TransientError("busy")) == [("ModelFileError", "no file"), None, [False, False]]
    assert loading(refused, "d") == [new, [True, False]]
    assert loading("d", "d") == [new, [False, False]]
    assert loading(Lost, "d")[0] == new


def test_weights_are_loaded_one_after_the_other_and_by_the_replicas_that_are_ready() -> None:
    order: list[str] = []

    def answers(process: Process, message: Json) -> None:
        order.append(f"{process.name} {message['file']} {message['version']}")
        says(process, message, "end", value=f"of {message['file']}")

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        weights = SharedWeights(fleet)
        async with fleet.change_lock:
            loads = [asyncio.create_task(weights.load(Path(name), version)) for name, version in (("/a", 0), ("/b", 7))]
            for _ in range(9):
                await asyncio.sleep(0)
            assert order == [] and weights.loaded is None
        await asyncio.gather(*loads)
        assert [sorted(order[:2]), sorted(order[2:])] == [
            ["place 0 /a 0", "place 1 /a 0"],
            ["place 0 /b 7", "place 1 /b 7"],
        ]
        assert weights.loaded == LoadedWeights(Path("/b"), 7, "of /b")
        order.clear()
        fleet.slots[0].state = "starting"
        await weights.load(Path("/c"), 8)
        assert order == ["place 1 /c 8"] and weights.loaded == LoadedWeights(Path("/c"), 8, "of /c")
        assert not any(each.is_closed for each in starter.started)

    with_fleet(work, [[SAME], [SAME]], answers)


def test_what_follows_an_abort_in_the_same_messages_is_done() -> None:
    class Waits(Echo):
        async def detokenize(self, ids: Any) -> str:
            if not ids:
                await asyncio.Event().wait()
            return await super().detokenize(ids)

    async def work() -> None:
        replica = Replica(Waits())

        def do(job: int, *ids: int) -> Json:
            return {"kind": "do", "job": job, "method": "detokenize", "ids": list(ids)}

        replica.handle([do(1), do(2)])
        await asyncio.sleep(0)
        replica.handle([{"kind": "abort", "job": 1}, {"kind": "abort", "job": 9}, do(3, 1), {"kind": "abort", "job": 2},
                        do(4, 2)])  # fmt: skip
        told: list[Json] = []
        while len(told) < 2:
            told += await replica.outgoing(5)
        assert told == [{"kind": "end", "job": 3, "value": "a"}, {"kind": "end", "job": 4, "value": "b"}]
        assert replica._running == {}, "neither of the two that were aborted runs on"
        await replica.close()

    run(work())


def test_a_load_that_fails_leaves_nothing_of_the_load_before_it_to_undo() -> None:
    async def work() -> None:
        model = Adaptable()
        replica = Replica(model)

        async def ask(method: str, **body: Any) -> Any:
            return await replica_worker._METHODS[method](replica, body)

        red = {"name": "red", "folder": "/a", "version": 1, "replace": False}
        await ask("load_adapter", **red)
        with pytest.raises(ModelFileError, match=r"^the adapter 'blue' cannot be read: No such file or directory$"):
            await ask("load_adapter", **{**red, "name": "blue", "folder": "gone"})
        await ask("undo_adapters")
        assert model.beside == {"red": "/a"}, "the load that succeeded stays"
        await ask("load_adapter", **{**red, "folder": "/b"})
        with pytest.raises(KeyError):
            await ask("unload_adapter", name="green")
        await ask("undo_adapters")
        assert model.beside == {"red": "/b"}
        await ask("load_adapter", **{**red, "folder": "/c"})
        await ask("unload_adapter", name="red")
        await ask("undo_adapters")
        assert model.beside == {"red": "/c"}, "the last change alone"

    run(work())


def test_replicas_of_one_machine_share_the_memory_of_one_unless_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_worker, "default_kv_bytes", lambda: 1001)
    model = str(write_model(tmp_path / "m"))

    def kept(neighbours: int, device: str = "cpu", **engine: Any) -> int | None:
        settings = {"model": model, "embedder": None, "engine": engine, "neighbours": neighbours, "device": device}
        return cast(Local, open_replica(settings).model).config.kv_memory_bytes

    assert [kept(n) for n in (0, 1, 2, 4)] == [1001, 1001, 500, 250]
    assert kept(4, kv_memory_bytes=None) == 250 and kept(4, kv_memory_bytes=77) == 77
    settings: Json = {"model": model, "embedder": None, "engine": {"kv_memory_bytes": None}, "neighbours": 2}
    open_replica(settings)
    assert settings["engine"] == {"kv_memory_bytes": None}, "the caller's settings stay as they are"
    on_gpu = {**settings, "engine": {"device": "cuda", "kv_memory_bytes": None}}
    assert cast(Local, open_replica(on_gpu).model).config.kv_memory_bytes is None, (
        "each takes its share of what is free"
    )


def test_pieces_of_calls_that_were_shown_are_not_sent_again_even_empty() -> None:
    def call(index: int, id: str = "", name: str | None = None, arguments: str = "") -> Delta:
        return Delta("", call=CallDelta(index, id, name, arguments))

    pieces = [call(0, "c", "pay"), call(0, arguments='{"a"'), call(0, arguments=": 1}"), call(1, "d", "go", "{}")]
    shown = ShownAnswer()
    assert [shown.rest(each) for each in pieces] == pieces
    shown.restart()
    assert [shown.rest(each) for each in pieces] == [None] * 4
    assert shown.rest(call(1, arguments=" ")) == call(1, arguments=" ")
    shown.restart()
    whole = [call(0, "e", "pay", '{"a": 1}'), call(1, "f", "go", "{} !")]
    assert [shown.rest(each) for each in whole] == [None, call(1, arguments="!")]
    assert shown.rest(call(2, "g", "stop", "")) == call(2, "g", "stop", ""), "a call without arguments is new"
    shown.restart()
    assert shown.rest(call(2, "h", "stop", "{")) == call(2, arguments="{")


def test_prefixes_differ_with_every_part_of_a_tool() -> None:
    def hashes(*tools: ToolSpec) -> list[int]:
        return prefix_hashes("q", tools)

    add = ToolSpec("add", "Adds.", {"type": "object"})
    others = [ToolSpec("sum", "Adds.", {"type": "object"}), ToolSpec("add", "Sums.", {"type": "object"}),
              ToolSpec("add", "Adds.", {"type": "array"})]  # fmt: skip
    assert hashes(add) == hashes(ToolSpec("add", "Adds.", {"type": "object"}))
    found = [hashes(), hashes(add), *(hashes(each) for each in others), hashes(add, others[0]), hashes(others[0], add)]
    assert len({each[-1] for each in found}) == 7
    assert prefix_hashes([], [add]) == hashes(add)[:-1] == prefix_hashes("", [add])
