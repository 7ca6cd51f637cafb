"""A model behind replicas: the jobs it sends, answers that go on after a loss, adapters given to all replicas or to none."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.replicas import fleet as fleets
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_adapters import SharedAdapter
from firsthand.cluster.replicas.replica_messages import delta_json
from firsthand.cluster.replicas.replica_weights import LoadedWeights
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.cluster.replicas.router import next_turn_hashes, prefix_hashes
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, ModelFileError, TransientError
from firsthand.message import Json, assistant, user
from firsthand.model import Completion, Delta, Likelihood, ModelFacts, Sampling, Scored, TokenRating, ToolSpec, Usage
from fleet_in_memory import SAME, Process, Starter, says, until, with_fleet

TALK = [user("Hi"), assistant("so"), user("And?")]
ADD = ToolSpec("add", "Adds.", {"type": "object"})


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "RETRY_S", (0.0, 0.001))


def ended(text: str, *ids: int) -> Completion:
    return Completion(assistant(text), "stop", Usage(2, 0, 1), prompt_ids=ids or None)


def body_of(message: Json) -> Json:
    """What a replica was sent, without the job's number."""
    return {key: value for key, value in message.items() if key not in ("kind", "job")}


def test_an_answer_goes_on_in_another_replica_where_it_was_and_its_next_turn_is_known_there() -> None:
    pieces = [
        [Delta("ab", index=0), Delta("x", index=1), Lost("the first fell")],
        [Delta("a", index=0), Delta("x", index=1), Delta("bc", index=0), Delta("", ended("abc", 7, 8), index=0),
         Delta("y", ended("xy"), index=1)],
    ]  # fmt: skip

    def answers(process: Process, message: Json) -> None:
        if message["kind"] != "do":
            return
        for piece in pieces.pop(0):
            if isinstance(piece, Lost):
                process.queue.put_nowait(piece)
                return
            says(process, message, "delta", delta=delta_json(piece))
        says(process, message, "end", value=None)

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        await fleet.ready()
        given = {"n": 2, "run": "r", "cache_salt": "s"}
        stream = model.stream_many(TALK, Sampling(max_tokens=9), tools=[ADD], **given)
        found = [await anext(stream)]
        assert sorted(slot.load for slot in fleet.slots) == [0, 2]
        found += [delta async for delta in stream]
        assert found == [
            Delta("ab", index=0), Delta("x", index=1), Delta("c", index=0), Delta("", ended("abc", 7, 8), index=0),
            Delta("y", ended("xy", 7, 8), index=1),
        ]  # fmt: skip
        first, second = (message for process in starter.started for message in process.sent)
        seed = first["sampling"]["seed"]
        assert isinstance(seed, int) and body_of(first) == body_of(second) == {
            "method": "stream_many", "prompt": {"messages": [message.to_json() for message in TALK]},
            "sampling": Sampling(max_tokens=9, seed=seed).to_json(), "tools": [ADD.to_json()], "adapter": None,
            "options": given,
        }  # fmt: skip
        (lost,) = (each["replica"] for each in events if each["event"] == "job_moved")
        prefix = prefix_hashes(TALK, [ADD], space=(None, None, "s"))
        for text, count in (("abc", 1), ("xy", 1), ("ab", 0)):
            turn = next_turn_hashes(prefix, assistant(text), space=(None, None, "s"))
            assert fleet.router.match(1 - lost, turn) == len(prefix) + count
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    with_fleet(work, [[SAME], [SAME]], answers)


def test_answers_of_one_request_come_in_the_order_of_their_numbers() -> None:
    def answers(process: Process, message: Json) -> None:
        for index in (2, 0, 1):
            says(process, message, "delta", delta=delta_json(Delta("", ended(f"answer {index}"), index=index)))
        says(process, message, "end", value=None)

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        await fleet.ready()
        found = await model.expect_adapter("red").complete("q", Sampling(seed=0), tools=[ADD], n=3)
        assert [each.message.text for each in found] == ["answer 0", "answer 1", "answer 2"]
        (sent,) = starter.started[0].sent
        assert (sent["sampling"]["seed"], sent["options"], sent["tools"]) == (0, {"n": 3}, [ADD.to_json()])
        assert found[0].prompt_ids is None and (sent["adapter"], model.chosen, model.name) == ("red", None, "team")
        space = (("red", 0), None, "")
        turn = next_turn_hashes(prefix_hashes("q", [ADD], space=space), assistant("answer 1"), space=space)
        assert fleet.router.match(0, turn) == len(turn)

    with_fleet(work, [[SAME]], answers)


def test_each_method_sends_its_arguments_and_the_chosen_adapter() -> None:
    scored = Scored((Likelihood("a", -1.5, 1, True),), Usage(3, 0, 1))
    values = {
        "vocabulary": ["a", "\xff"], "score": scored.to_json(), "rate": [[5, -0.5, [["x", -1.0]]], [6, -2.0, []]],
        "tokenize": [4, 2], "detokenize": "text",
    }  # fmt: skip

    def answers(process: Process, message: Json) -> None:
        says(process, message, "end", value=values[message["method"]])

    facts = ModelFacts(64, 2, None, False)
    about = {**SAME, "facts": asdict(facts)}

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        model.put_adapter("red", "/r")
        fleet.prepare = None
        assert await model.load() == await model.load() == facts
        assert model.spell([1, 0, 1]) == [b"\xff", b"a", b"\xff"]
        red = model.with_adapter("red")
        model.shared.loadings["red"] = 3
        model.weights.loaded = LoadedWeights(Path("/w"), 2, "digest")
        assert await red.score(TALK, ("a",)) == scored
        assert await red.rate((4, *range(20)), 1, cache_salt="s", priority=2) == [
            TokenRating(5, -0.5, (("x", -1.0),)), TokenRating(6, -2.0, ()),
        ]  # fmt: skip
        assert await model.tokenize(TALK[:1], [ADD]) == [4, 2] and await model.tokenize("p", template={}) == [4, 2]
        assert await model.detokenize((4, 2)) == "text"
        talk = {"messages": [message.to_json() for message in TALK]}
        assert [body_of(each) for each in starter.started[0].sent] == [
            {"method": "vocabulary"},
            {"method": "score", "prompt": talk, "continuations": ["a"], "adapter": "red"},
            {"method": "rate", "ids": [4, *range(20)], "top": 1, "adapter": "red",
             "options": {"cache_salt": "s", "priority": 2}},
            {"method": "tokenize", "prompt": {"messages": talk["messages"][:1]}, "tools": [ADD.to_json()], "template": None},
            {"method": "tokenize", "prompt": "p", "tools": [], "template": {}},
            {"method": "detokenize", "ids": [4, 2]},
        ]  # fmt: skip
        loading = ("red", 3)
        for prompt, space, count in ((TALK, (loading, "digest", ""), 3), (TALK, (loading, None, ""), 0),
                                     ((4, *range(20)), (loading, "digest", "s"), 1),
                                     ((4, *range(20)), (None, "digest", "s"), 0)):  # fmt: skip
            assert fleet.router.match(0, prefix_hashes(prompt, space=space)) == count, (prompt, space)
        model.close()
        assert starter.is_closed and starter.started[0].is_closed

    with_fleet(work, [[about]], answers)


# -- adapters --


class Table:
    """Replies by place and method: a value, an error, or None for no reply yet."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], Any] = {}

    def __call__(self, process: Process, message: Json) -> None:
        found = self.replies.get((process.name, message["method"]), "print")
        if isinstance(found, Lost):
            process.queue.put_nowait(found)
        elif isinstance(found, Exception):
            says(process, message, "failed", error=type(found).__name__, message=str(found))
        elif found is not None:
            says(process, message, "end", value=found)


def methods(process: Process) -> list[str]:
    return [message["method"] for message in process.sent]


def test_a_change_of_adapters_holds_for_the_replicas_that_are_left() -> None:
    table = Table()

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        shared = ReplicatedModel(fleet, "team").shared
        with pytest.raises(TransientError, match=r"^no replica is there to load the adapter 'a': try again$"):
            await shared.load("a", Path("/a"))
        assert shared.known == {} and shared.loadings == {}
        await fleet.ready()
        one, two, three = starter.started
        fleet.prepare = None
        table.replies["place 1", "load_adapter"] = Lost("two fell")
        await shared.load("a", Path("/a"), version=2)
        assert shared.known == {"a": SharedAdapter(Path("/a"), "print", 2)} and shared.loadings == {"a": 1}
        assert [methods(each) for each in (one, two, three)] == [
            ["load_adapter", "settle_adapters"], ["load_adapter"], ["load_adapter", "settle_adapters"],
        ]  # fmt: skip
        await until(lambda: len(starter.started) == 4 and all(slot.state == "ready" for slot in fleet.slots))
        again = starter.started[3]
        table.replies |= {("place 1", "load_adapter"): Lost("again"), ("place 2", "load_adapter"): ModelFileError("bad"),
                          ("place 0", "undo_adapters"): ConfigError("cannot"),
                          ("place 2", "undo_adapters"): Lost("while undone")}  # fmt: skip
        with pytest.raises(ModelFileError, match=r"^bad$"):
            await shared.load("b", Path("/b"))
        assert list(shared.known) == ["a"] and methods(again) == ["load_adapter"]
        assert methods(one)[2:] == methods(three)[2:] == ["load_adapter", "undo_adapters"] and one.is_closed

    with_fleet(work, [[SAME], [SAME], [SAME]], table)


def test_the_first_refusal_is_told_and_loads_of_one_name_are_counted() -> None:
    table = Table()

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        shared = ReplicatedModel(fleet, "team").shared
        await fleet.ready()
        for _ in range(3):
            await shared.load("a", Path("/a"), version=5, replace=True)
        assert (shared.loadings["a"], shared.loadings["b"]) == (3, 0) and shared.known["a"].version == 5
        table.replies |= {
            ("place 1", "load_adapter"): ModelFileError("one"),
            ("place 2", "load_adapter"): ConfigError("two"),
        }
        with pytest.raises(ModelFileError, match=r"^one$"):
            await shared.load("b", Path("/b"))
        table.replies |= {("place 1", "load_adapter"): "other", ("place 2", "load_adapter"): "print"}
        with pytest.raises(ConfigError) as told:
            await shared.load("b", Path("/b"))
        assert str(told.value) == (
            "the replicas cannot load the adapter 'b': its files are not the same on all of their machines"
        )
        assert [methods(each)[6:] for each in starter.started] == [["load_adapter", "undo_adapters"] * 2] * 3
        assert list(shared.known) == ["a"] and shared.loadings["b"] == 0
        assert not any(each.is_closed for each in starter.started)

    with_fleet(work, [[SAME], [SAME], [SAME]], table)


def test_a_replica_that_is_lost_while_it_undoes_a_change_is_not_closed_when_it_is_back() -> None:
    table = Table()

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        shared = ReplicatedModel(fleet, "team").shared
        await fleet.ready()
        table.replies |= {("place 1", "load_adapter"): "other", ("place 0", "undo_adapters"): None,
                          ("place 1", "undo_adapters"): Lost("while undone")}  # fmt: skip
        fleet.prepare = None
        loading = asyncio.create_task(shared.load("b", Path("/b")))
        await until(lambda: len(starter.started) == 3 and methods(starter.started[0])[-1] == "undo_adapters")
        says(starter.started[0], starter.started[0].sent[-1], "end", value=None)
        with pytest.raises(ConfigError, match="its files are not the same"):
            await loading
        assert [each.is_closed for each in starter.started] == [False, True, False] and shared.known == {}

    with_fleet(work, [[SAME], [SAME]], table)


def test_a_new_replica_is_given_every_adapter_and_must_read_the_same_files() -> None:
    table = Table()

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        shared = model.shared
        await fleet.ready()
        (slot,), (process,) = fleet.slots, starter.started
        await shared._prepare(slot)
        assert process.sent == []
        shared.known = {"a": SharedAdapter(Path("/a"), "", 4), "b": SharedAdapter(Path("/b"), "print", 5)}
        await shared._prepare(slot)
        assert shared.known == {"a": SharedAdapter(Path("/a"), "print", 4), "b": SharedAdapter(Path("/b"), "print", 5)}
        load = {"method": "load_adapter", "replace": False}
        assert [body_of(each) for each in process.sent] == [
            {**load, "name": "a", "folder": "/a", "version": 4}, {**load, "name": "b", "folder": "/b", "version": 5},
            {"method": "settle_adapters"},
        ]  # fmt: skip
        table.replies["place 0", "load_adapter"] = "another"
        with pytest.raises(ConfigError) as told:
            await shared._prepare(slot)
        assert str(told.value) == (
            "the files of the adapter 'a' are not those that the other replicas read: load it again"
        )
        assert shared.known["a"].fingerprint == "print" and methods(process)[3:] == ["load_adapter"]
        assert shared.loadings == {} and model.adapters == {"a": Path("/a"), "b": Path("/b")}

    with_fleet(work, [[SAME]], table)


def test_an_adapter_is_unknown_while_it_is_unloaded_and_known_again_if_that_fails() -> None:
    table = Table()

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        model = ReplicatedModel(fleet, "team")
        await fleet.ready()
        model.shared.known["red"] = known = SharedAdapter(Path("/r"), "print", 1)
        with pytest.raises(ConfigError, match=r"^no adapter 'x{80}' is beside the model: there are red$"):
            await model.unload_adapter("x" * 81)
        table.replies["place 0", "unload_adapter"] = None
        leaving = asyncio.create_task(model.unload_adapter("red"))
        (process,) = starter.started
        await until(lambda: process.sent)
        assert body_of(process.sent[0]) == {"method": "unload_adapter", "name": "red"} and model.adapters == {}
        leaving.cancel()  # the change goes on
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert len(model.shared._changes) == 1 and fleet.change_lock.locked()
        says(process, process.sent[0], "failed", error="ConfigError", message="in use")
        await until(lambda: not model.shared._changes)
        assert model.shared.known == {"red": known} and not fleet.change_lock.locked()
        table.replies.clear()
        await model.unload_adapter("red")
        assert model.shared.known == {} and methods(process)[-2:] == ["unload_adapter", "settle_adapters"]

    with_fleet(work, [[SAME]], table)
