"""What goes through replicas unchanged: texts, tools, vectors and calls, twice and empty too; problems, shares, the end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.cluster.replicas import ray_replicas
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.ray_replicas import RayReplica, RayStarter, ReplicaActor
from firsthand.cluster.replicas.replica_messages import delta_json, prompt_json, prompt_of, text_prompt_of, tool_of
from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.replicas.replicated_model import EmbeddedTexts, ReplicatedEmbedder, ReplicatedModel
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.cluster.spread.ray_workers import Actor, RayWorker, Share, WorkerSpec, quiet
from firsthand.cluster.spread.run_worker import pack, unpack
from firsthand.errors import ConfigError, ModelError
from firsthand.message import Json, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.system import request_owner
from fleet_in_memory import SAME, Process, Starter, says, with_fleet
from fleet_in_memory import until as fact
from ray_stand_in import ray_module, remote, stand_in
from replica_scripted import Echo

ADD = ToolSpec("add", "Adds.", {"type": "object"})
SUB = ToolSpec("sub", "Subtracts.", {"type": "object", "properties": {"a": {"type": "integer"}}})
MUL = ToolSpec("mul", "Multiplies.", {})


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


async def said(replica: Replica, count: int) -> list[Json]:
    found: list[Json] = []
    while len(found) < count:
        found += await replica.outgoing(5)
    return found


def do(job: int, method: str, **body: Any) -> Json:
    return {"kind": "do", "job": job, "method": method, **body}


# -- the fleet --


def test_closing_a_fleet_ends_replicas_that_are_starting_ready_or_tried_again_after_a_failure() -> None:
    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        waiting = asyncio.create_task(fleet.ready())
        await fact(lambda: [slot.state for slot in fleet.slots] == ["starting", "ready", "failed"])
        await fact(lambda: len(starter.started) == 4)
        now = [slot.process for slot in fleet.slots]
        assert None not in now and [process.is_closed for process in starter.started] == [
            each not in now for each in starter.started
        ], "the first try of the one that failed has ended"
        assert not starter.is_closed
        fleet.close()
        assert [process.is_closed for process in starter.started] == [True] * 4 and starter.is_closed
        fleet.close()
        waiting.cancel()

    with_fleet(work, [[None], [SAME], [ConfigError("no such model"), None]])


def test_an_embedder_asks_for_every_text_it_is_given_also_for_the_same_one_twice() -> None:
    def answer(process: Process, message: Json) -> None:
        texts = message["texts"]
        vectors = [[number + 0.125, float(len(text))] for number, text in enumerate(texts)]
        says(process, message, "end", value={
            "vectors": vectors, "num_tokens": [len(text) for text in texts], "truncated": [not text for text in texts],
        })  # fmt: skip

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        embedder = ReplicatedEmbedder(fleet, "e")
        assert embedder.name == "e" and await embedder.embed([]) == []
        assert await embedder.embed(("b", "", "b")) == [[0.125, 1.0], [1.125, 0.0], [2.125, 1.0]]
        with request_owner.set_owner("ann/x"):
            assert await embedder.embed_counted(("aa", "aa"), whole=True) == EmbeddedTexts(
                [[0.125, 2.0], [1.125, 2.0]], [2, 2], [False, False]
            )
        assert await embedder.embed_counted([""]) == EmbeddedTexts([[0.125, 0.0]], [0], [True])
        (process,) = starter.started
        assert process.sent == [
            {"kind": "do", "job": 1, "method": "embed", "texts": ["b", "", "b"], "whole": False, "owner": ""},
            {"kind": "do", "job": 2, "method": "embed", "texts": ["aa", "aa"], "whole": True, "owner": "ann/x"},
            {"kind": "do", "job": 3, "method": "embed", "texts": [""], "whole": False, "owner": ""},
        ]
        embedder.close()
        assert process.is_closed and starter.is_closed

    with_fleet(work, [[SAME]], answer)


def test_all_tools_and_an_empty_prompt_reach_a_replica_of_a_fleet() -> None:
    done = Completion(assistant(""), "stop", Usage())

    def answer(process: Process, message: Json) -> None:
        if message["method"] == "stream_many":
            for index in range(message["options"]["n"]):
                says(process, message, "delta", delta=delta_json(Delta("", done, index=index)))
            says(process, message, "end", value=None)
        else:
            says(process, message, "end", value=[4])

    async def work(fleet: Fleet, starter: Starter, events: list[Any]) -> None:
        await fleet.ready()
        model = ReplicatedModel(fleet, "m")
        assert await model.complete("", Sampling(seed=5), tools=(ADD, SUB, MUL), n=2) == [done, done]
        assert await model.tokenize("", [SUB, ADD]) == [4]
        assert [delta async for delta in model.stream((), Sampling(seed=5))] == [Delta("", done)]
        sampling = Sampling(seed=5).to_json()
        assert starter.started[0].sent == [
            {"kind": "do", "job": 1, "method": "stream_many", "prompt": "", "sampling": sampling, "adapter": None,
             "tools": [ADD.to_json(), SUB.to_json(), MUL.to_json()], "options": {"n": 2}},
            {"kind": "do", "job": 2, "method": "tokenize", "prompt": "", "tools": [SUB.to_json(), ADD.to_json()],
             "template": None},
            {"kind": "do", "job": 3, "method": "stream_many", "prompt": {"ids": []}, "sampling": sampling,
             "adapter": None, "tools": [], "options": {"n": 1}},
        ]  # fmt: skip

    with_fleet(work, [[SAME]], answer)


# -- what travels --


def test_an_empty_text_is_a_text_and_no_tokens_are_no_text() -> None:
    told = (user(""), assistant("so"))
    for prompt, body, read in (
        ("", "", ""), ("q", "q", "q"), ((), {"ids": []}, ()), ([], {"ids": []}, ()), ([0], {"ids": [0]}, (0,)),
        (range(3, 5), {"ids": [3, 4]}, (3, 4)), (told, {"messages": [each.to_json() for each in told]}, list(told)),
    ):  # fmt: skip
        assert prompt_json(prompt) == body and prompt_of(body) == read, prompt
        assert type(prompt_json(prompt)) is type(body) and type(prompt_of(body)) is type(read)
    assert text_prompt_of("") == "" and text_prompt_of({"messages": []}) == []
    assert text_prompt_of({"messages": [user("").to_json()]}) == [user("")]
    assert [tool_of(each.to_json()) for each in (ADD, SUB, MUL)] == [ADD, SUB, MUL]


def test_pieces_of_several_calls_are_counted_for_each_call_when_an_answer_begins_again() -> None:
    def call(index: int, id: str = "", name: str | None = None, arguments: str = "") -> Delta:
        return Delta("", call=CallDelta(index, id, name, arguments))

    first = [
        call(0, "c", "add"), call(1, "d", "sub", '{"'), call(0, arguments='{"a"'), call(1, arguments='b": 2}'),
        call(2, "e", "add"),
    ]  # fmt: skip
    answer = ShownAnswer()
    assert [answer.rest(piece) for piece in first] == first
    for _ in range(2):
        answer.restart()
        assert [answer.rest(piece) for piece in first] == [None] * 5
    answer.restart()
    again = [  # cut elsewhere, and in another order of the calls
        call(1, "x", "sub", '{"b": '), call(1, arguments="2}"), call(0, "y", "add", '{"a": 1'), call(0, arguments="}"),
        call(2, "z", "add", "{}"), call(3, "w", "sub"),
    ]  # fmt: skip
    assert [answer.rest(piece) for piece in again] == [
        None, None, call(0, arguments=": 1"), call(0, arguments="}"), call(2, arguments="{}"), call(3, "w", "sub"),
    ]  # fmt: skip
    for wrong in (call(0, "c", "sub"), call(1, "d", "sub", '{"c'), call(2, "e", "add", "[")):
        answer.restart()
        with pytest.raises(ModelError) as found:
            answer.rest(wrong)
        assert str(found.value) == (
            "the replica was lost, and the one that took over gave another answer: send the request again"
        )


# -- one replica --


def test_an_abort_of_no_job_is_passed_over_whether_others_run_or_not() -> None:
    class Waits(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.go = asyncio.Event()

        async def detokenize(self, ids: Sequence[int]) -> str:
            await self.go.wait()
            return await super().detokenize(ids)

    async def work() -> None:
        model = Waits()
        replica = Replica(model)
        replica.handle([])
        replica.handle([{"kind": "abort", "job": 1}])
        assert replica._running == {} and await replica.outgoing(0.001) == []
        replica.handle([do(1, "detokenize", ids=[1]), do(2, "detokenize", ids=[2]), {"kind": "abort", "job": 3}])
        assert sorted(replica._running) == [1, 2]
        await asyncio.sleep(0)
        replica.handle([{"kind": "abort", "job": 1}])
        await fact(lambda: sorted(replica._running) == [2])
        replica.handle([{"kind": "abort", "job": 1}])
        model.go.set()
        assert await said(replica, 1) == [{"kind": "end", "job": 2, "value": "b"}]
        replica.handle([{"kind": "abort", "job": 2}])
        assert replica._running == {} and await replica.outgoing(0.001) == []
        replica.handle([do(2, "detokenize", ids=[3])])
        assert await said(replica, 1) == [{"kind": "end", "job": 2, "value": "c"}], "a number may come again"
        await replica.close()

    run(work())


def test_a_replica_tells_its_model_of_all_tools() -> None:
    async def work() -> None:
        model = Echo()
        replica = Replica(model)
        sampling = Sampling(seed=1).to_json()
        for tools in ([], [ADD], [ADD, SUB], [MUL, SUB, ADD]):
            told = [tool.to_json() for tool in tools]
            replica.handle([do(1, "stream_many", prompt="", sampling=sampling, tools=told, options={"n": 1})])
            assert len(await said(replica, 4)) == 4
            replica.handle([do(2, "tokenize", prompt="", tools=told, template=None)])
            assert await said(replica, 1) == [{"kind": "end", "job": 2, "value": [1, 2, 3]}]
            assert model.asked == [
                ("stream_many", "", Sampling(seed=1), {"tools": tools, "n": 1}), ("tokenize", "", tools, None),
            ]  # fmt: skip
            model.asked.clear()

    run(work())


def test_vectors_leave_a_replica_with_all_their_digits_as_plain_numbers() -> None:
    numbers = [0.1234567890123, -1e-9, 3.0]
    rows = np.array([numbers, numbers[::-1]])
    asked: list[tuple[bool, str]] = []

    class Plain:
        name = "plain"

        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return [numbers] * len(texts)

    class Counts(Plain):
        async def embed_counted(self, texts: Sequence[str], *, whole: bool = False) -> Any:
            asked.append((whole, request_owner.current()))
            return EmbeddedTexts(rows[: len(texts)], np.array([3, 4])[: len(texts)], np.array([0, 1])[: len(texts)] > 0)  # type: ignore[arg-type]

    async def work() -> None:
        replica = Replica(None, Counts())
        replica.handle(
            [do(1, "embed", texts=["a", "a"], whole=True, owner="ann"), do(2, "embed", texts=[], whole=False, owner="")]
        )
        two, none = sorted(await said(replica, 2), key=lambda message: message["job"])
        assert two == {"kind": "end", "job": 1, "value": {
            "vectors": [numbers, numbers[::-1]], "num_tokens": [3, 4], "truncated": [False, True],
        }}  # fmt: skip
        assert none == {"kind": "end", "job": 2, "value": {"vectors": [], "num_tokens": [], "truncated": []}}
        assert asked == [(True, "ann"), (False, "")]
        assert unpack(pack(two)) == two, "as it goes over the wire"
        plain = Replica(None, Plain())
        plain.handle([do(1, "embed", texts=["a", "a"], whole=True, owner="ann")])
        assert await said(plain, 1) == [{"kind": "end", "job": 1, "value": {"vectors": [numbers, numbers]}}]

    run(work())


# -- on Ray --


def test_whatever_keeps_a_replica_from_its_machine_is_told_as_its_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Echo):
        def __init__(self, error: Exception):
            super().__init__()
            self.error = error

        async def load(self) -> Any:
            raise self.error

    def opening(error: Exception) -> Any:
        def open_replica(settings: Json) -> Replica:
            assert settings == {"a": 1}
            raise error

        return open_replica

    where = f"{socket.gethostname()}, process {os.getpid()}"
    for error, told in (
        (ModelError("no file"), "no file"), (ImportError("no torch"), "no torch"), (OSError("full"), "full"),
        (ModuleNotFoundError("No module named 'x'"), "No module named 'x'"), (OSError(), "OSError"),
        (ConnectionResetError(), "ConnectionResetError"),
        (FileNotFoundError(2, "No such file"), "[Errno 2] No such file"),
    ):  # fmt: skip
        for opened in (opening(error), lambda settings, error=error: Replica(Broken(error))):
            monkeypatch.setattr(ray_replicas, "open_replica", opened)
            assert unpack(run(ReplicaActor().begin(pack({"a": 1})))) == {"problem": told, "where": where}
    monkeypatch.setattr(ray_replicas, "open_replica", opening(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(ReplicaActor().begin(pack({"a": 1})))


def test_whatever_keeps_a_worker_from_its_machine_is_told_as_its_problem() -> None:
    for error, told in (
        (ModelError("no file"), "no file"), (ImportError("no torch"), "no torch"), (OSError("full"), "full"),
        (AttributeError("no such agent"), "no such agent"), (OSError(), "OSError"), (ImportError(), "ImportError"),
    ):  # fmt: skip

        def opened(settings: Json, error: Exception = error) -> Any:
            assert settings == {"a": 1}
            raise error

        actor = Actor()
        assert unpack(run(actor.begin(opened, pack({"a": 1})))) == {"problem": told} and actor.worker is None
        worker = RayWorker(stand_in(), SimpleNamespace(begin=remote({"problem": told}, [])), "w")
        with pytest.raises(ConfigError) as found:
            run(worker.begin(WorkerSpec(opened, {"a": 1}, {"firsthand": "9"})))
        assert str(found.value) == (
            f"the worker on w cannot take part: {told}; every machine needs the same firsthand, models under the same "
            "paths, and the keys in its environment"
        )


def test_a_problem_without_a_text_is_a_problem() -> None:
    for problem in ("", "no file"):
        actor = SimpleNamespace(begin=remote({"problem": problem, "where": "h, process 3"}, []))
        replica = RayReplica(stand_in(), actor, b"settings")
        with pytest.raises(ConfigError) as found:
            run(replica.begin())
        assert str(found.value) == f"the replica on h, process 3 cannot work: {problem}"
        assert replica.name == "h, process 3"


def test_an_actor_of_a_replica_reserves_parts_of_cpus_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_module(monkeypatch, [])
    for cpus, gpus in ((0.5, 0.25), (2, 0), (0.0, 0.5), (1.5, 1.75)):
        ray.asked.clear()
        replica = RayStarter(ray, b"settings", Share(cpus, gpus), ExitStack()).start(3)
        assert ray.asked == [{"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}]
        assert (replica.ray, replica.actor, replica.settings) == (ray, "ReplicaActor", b"settings")


def test_log_lines_of_ray_are_afterwards_as_they_were_before(monkeypatch: pytest.MonkeyPatch) -> None:
    printing = ray_module(monkeypatch, []).printing
    for before in (True, False):
        printing._worker_logs_enabled = before
        with quiet():
            assert printing._worker_logs_enabled is False
            with quiet():
                assert printing._worker_logs_enabled is False
            assert printing._worker_logs_enabled is False
        assert printing._worker_logs_enabled is before
        for error in (KeyError("x"), KeyboardInterrupt()):
            with pytest.raises(type(error)), quiet():
                raise error
            assert printing._worker_logs_enabled is before
    del printing._worker_logs_enabled
    with quiet():
        assert printing._worker_logs_enabled is False
    assert printing._worker_logs_enabled is True, "another version of Ray prints them"
