"""Workers and replicas on Ray by a stand-in for its module: places, shares, errors in words, and what is told apart."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import __version__
from firsthand.cluster.replicas.ray_replicas import RayReplica, RayStarter, ReplicaActor, _expect_room, _own_ray
from firsthand.cluster.spread import ray_workers
from firsthand.cluster.spread.ray_workers import (
    LOCAL_STORE_BYTES,
    Actor,
    RayFleet,
    RayWorker,
    Share,
    WorkerSlot,
    WorkerSpec,
    connect,
    expect_cluster,
    name_of,
    reason,
    reply_of,
    shares,
)
from firsthand.cluster.spread.run_worker import (
    Lost,
    pack,
    unpack,
)
from firsthand.errors import ConfigError
from ray_stand_in import ActorDiedError, Hired, RayError, RayTaskError, build, node, remote, stand_in

NICENESS = "RAY_worker_niceness"


# -- workers --


def test_a_worker_whose_cluster_is_gone_is_closed_all_the_same() -> None:
    def gone(actor: Any, no_restart: bool) -> None:
        raise RayError("the cluster does not answer")

    worker = RayWorker(SimpleNamespace(kill=gone), None, "host-a (a)")
    asyncio.run(worker.close())
    assert not worker.open


def test_a_worker_has_all_that_the_run_needs_and_may_have_more() -> None:
    named = {"version": "1", "agents": {"a": {"pattern": "p"}}}
    worker = RayWorker(stand_in(), SimpleNamespace(), "host-a (a)")

    def begun(found: Any) -> None:
        worker.actor.begin = remote(found, [])
        asyncio.run(worker.begin(WorkerSpec(build, {}, named)))

    begun({**named, "agents": {"a": {"pattern": "p", "tools": []}, "b": {}}, "benchmarks": {"x": {}}})
    for found, said in (
        ({**named, "agents": {}}, "it has no agent 'a'"),
        ({**named, "agents": {"a": {"pattern": "q"}}}, "its agent 'a' has the pattern 'q', and here it is 'p'"),
        ({**named, "version": "2"}, "it has version 2, and here it is 1"),
        ({**named, "problem": "no key"}, "no key"),
    ):
        with pytest.raises(ConfigError, match=rf"^the worker on host-a \(a\) cannot take part: {said}; every machine"):
            begun(found)


@pytest.mark.slow
def test_a_worker_is_told_its_settings_and_must_be_the_same():
    async def work() -> None:
        ray, asked = stand_in(), list[Any]()
        expected = build({}).about()
        spec = WorkerSpec(build, {"a": 1}, expected)
        worker = RayWorker(
            ray, SimpleNamespace(begin=remote(expected, asked), exchange=remote([{"n": 2}], asked)), "host-a (a)"
        )
        await worker.begin(spec)
        assert asked == [(build, pack({"a": 1}))]
        assert await worker.exchange(({"n": 1},)) == [{"n": 2}] and asked[-1] == (pack([{"n": 1}]),)
        for found, said in (
            ({"problem": "no key"}, "no key"),
            ({**expected, "firsthand": "0"}, f"it has firsthand 0, and here it is {__version__}"),
        ):
            worker.actor.begin = remote(found, [])
            with pytest.raises(ConfigError) as told:
                await worker.begin(spec)
            assert str(told.value) == (
                f"the worker on host-a (a) cannot take part: {said}; every machine needs the same firsthand, models "
                "under the same paths, and the keys in its environment"
            )
        worker.actor.exchange = remote(ActorDiedError("gone"), [])
        with pytest.raises(Lost, match=r"^the worker on host-a \(a\) was lost \(its process ended\)$"):
            await worker.exchange([])
        await worker.close()
        await worker.close()
        assert ray.killed == [(worker.actor, True)] and not worker.open
        actor = Actor()
        assert unpack(await actor.begin(build, pack({}))) == expected and unpack(await actor.exchange(pack([]))) == []
        assert unpack(await Actor().begin(build, pack({"wrong": "why"}))) == {"problem": "why"}

    asyncio.run(asyncio.wait_for(work(), 30))


def test_every_free_place_gets_a_worker_until_it_failed_three_times():
    nodes = [node("a", 4), node("b", 2), node("gone", 9, alive=False)]
    said: list[str] = []

    async def work() -> None:
        fleet = Hired(stand_in(nodes), WorkerSpec(build, {}, {}, count=3), said.append)
        assert fleet.head == "127.0.0.1:9"
        first = fleet._hire()
        assert first == [WorkerSlot("a", 0), WorkerSlot("a", 1), WorkerSlot("b", 0)] and fleet._hire() == []
        assert {worker.actor: worker.name for worker in fleet.held.values()} == {
            "a0 2 0": "host-a (a)", "a1 2 0": "host-a (a)", "b0 2 0": "host-b (b)",
        }  # fmt: skip
        await fleet.held[first[1]].close()
        assert fleet._hire() == [first[1]]

        async def ends(error: Exception | None) -> bool:
            async def begin() -> None:
                if error is not None:
                    raise error

            task = asyncio.create_task(begin())
            await asyncio.wait([task])
            return await fleet._ready(task, first[1])

        assert await ends(None) and fleet.false_starts[first[1]] == 0
        assert not await ends(Lost("one")) and not await ends(Lost("two")) and not said
        assert fleet.held[first[1]].open is False and fleet.problem == "two"
        assert await ends(None) and not await ends(Lost("one"))
        assert fleet.false_starts[first[1]] == 1 and fleet._hire() == [first[1]]
        assert not await ends(ConfigError("never")) and said == ["never"] and fleet._hire() == []
        with pytest.raises(ValueError):
            await ends(ValueError("a bug"))
        each = Hired(stand_in([node("a", 4, 2)]), WorkerSpec(build, {}, {}, gpus=True), said.append)
        assert [worker.actor for slot in each._hire() for worker in [each.held[slot]]] == ["a0 2 1", "a1 2 1"]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_machine_that_joins_later_gets_a_worker_only_while_fewer_than_the_count_are_held():
    async def work() -> None:
        nodes = [node("a", 2)]
        fleet = Hired(stand_in(nodes), WorkerSpec(build, {}, {}, count=2), print)
        a0, a1, b0, b1 = (WorkerSlot(name, at) for name in "ab" for at in range(2))
        assert fleet._hire() == [a0, a1] and fleet._hire() == []
        nodes.append(node("b", 2))
        assert fleet._hire() == [] and list(fleet.held) == [a0, a1]
        await fleet.held[a1].close()
        assert fleet._hire() == [b0] and list(fleet.held) == [a0, b0] and fleet._hire() == []
        nodes[0]["Alive"] = False
        assert fleet._hire() == [], "one that is held is not given up for its machine's sake alone"
        await fleet.held[a0].close()
        assert fleet._hire() == [b1] and list(fleet.held) == [b0, b1]
        few = Hired(stand_in([node("c", 1)]), WorkerSpec(build, {}, {}, count=3), print)
        assert few._hire() == [WorkerSlot("c", 0)] and few._hire() == [], "a count above the room is no error"
        many = Hired(stand_in(more := [node("d", 4)]), WorkerSpec(build, {}, {}), print)
        assert many._hire() == [WorkerSlot("d", 0)]
        more += [node("e", 4), node("f", 4)]
        assert many._hire() == [WorkerSlot("e", 0), WorkerSlot("f", 0)] and len(many.held) == 3

    asyncio.run(asyncio.wait_for(work(), 30))


def test_shares_are_whole_parts_of_a_machine():
    assert shares([node("a", 7), node("b", 1), node("c", 0.5)], 4, gpus=False) == {
        WorkerSlot("a", 0): Share(2, 0), WorkerSlot("a", 1): Share(2, 0), WorkerSlot("a", 2): Share(2, 0),
        WorkerSlot("b", 0): Share(1, 0),
    }  # fmt: skip
    assert shares([node("a", 2, 8), node("b", 9)], None, gpus=True) == {
        WorkerSlot("a", 0): Share(1, 1), WorkerSlot("a", 1): Share(1, 1),
    }  # fmt: skip
    assert shares([node("a", 3, 2)], 1, gpus=False) == {WorkerSlot("a", 0): Share(3, 0)}
    with pytest.raises(
        ConfigError, match=r"^workers is 3, and the cluster has room for 2, one for each GPU: ask for fewer$"
    ):
        shares([node("a", 3, 2)], 3, gpus=True)
    assert len(shares([node("a", 3, 2)], 2, gpus=True)) == 2
    assert name_of([node("b", 1), node("abcdefgh", 1)], "abcdefgh") == "host-abcdefgh (abcdef)"
    assert name_of([], "abcdefgh") == "an unknown machine (abcdef)"


def test_errors_of_ray_are_told_in_a_few_words():
    kinds = {
        name: type(name, (RayError,), {}) for name in ("OutOfMemoryError", "NodeDiedError", "ActorUnavailableError")
    }
    for error, said in (
        (RayError("ModuleNotFoundError:\n No module named 'firsthand.x'"),
         "firsthand is not installed there, or is another version: install the same one on every machine"),
        (RayError("Version mismatch:  Ray 2 and 3"),
         "this process has another version of Ray or Python than the cluster: Ray 2 and 3"),
        (RayError("it exceeds the maximum size"),
         "the folder this was started in is too large to travel: start in one that holds only what the run names"),
        (RayError("Version mismatch: The cluster was started with: Ray: 2.1 Python: 3.11 This process: Ray: 2.2"),
         "this process has another version of Ray or Python than the cluster: The cluster was started with: Ray: 2.1 "
         "Python: 3.11 This process: Ray: 2.2"),
        *((type("Own", (kind,), {})("x"), said) for kind, said in (
            (kinds["OutOfMemoryError"], "its machine ran out of memory"), (kinds["NodeDiedError"], "its machine is gone"),
            (kinds["ActorUnavailableError"], "it cannot be reached any more"), (ActorDiedError, "its process ended"))),
        (kinds["OutOfMemoryError"]("x"), "its machine ran out of memory"),
        (kinds["NodeDiedError"]("x"), "its machine is gone"), (RayError("The node has died"), "its machine is gone"),
        (RayError("node was terminated"), "its machine is gone"),
        (kinds["ActorUnavailableError"]("x"), "it cannot be reached any more"),
        (ActorDiedError("in the creation task " + "x" * 400), "in the creation task " + "x" * 279),
        (ActorDiedError("in __init__  of it"), "in __init__ of it"), (ActorDiedError("x"), "its process ended"),
        (RayError("y" * 400), "y" * 300), (ValueError(), "ValueError"),
    ):  # fmt: skip
        assert reason(error) == said
    ray = stand_in()

    async def raises(error: Exception) -> bytes:
        raise error

    with pytest.raises(Lost, match=r"^it was lost \(its process ended\)$"):
        asyncio.run(reply_of(ray, raises(ActorDiedError("x")), "it"))
    for other in (RayTaskError("bug"), ValueError("bug")):
        with pytest.raises(type(other)):
            asyncio.run(reply_of(ray, raises(other), "it"))


def test_a_cluster_is_the_named_one_or_this_machine_s_or_a_new_one(monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []

    def init(**given: Any) -> None:
        calls.append(given)
        if given["address"] == "auto":
            raise ConnectionError

    options = {"include_dashboard": False, "x": 1}
    connect(SimpleNamespace(init=init), None, options)
    connect(SimpleNamespace(init=init), "h:1", options)
    assert calls == [
        {"address": "auto", "x": 1}, {"address": "local", "object_store_memory": LOCAL_STORE_BYTES, **options},
        {"address": "h:1", "x": 1},
    ]  # fmt: skip
    connect(SimpleNamespace(init=lambda **given: calls.append(given)), None, options)
    assert len(calls) == 4

    def refuses(**given: Any) -> None:
        if given["address"] == "auto":
            raise RuntimeError("another version of Ray")

    with pytest.raises(RuntimeError, match=r"^another version of Ray$"):  # no cluster of one's own takes its place
        connect(SimpleNamespace(init=refuses), None, options)
    monkeypatch.setattr(ray_workers, "find_spec", lambda name: object())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for address in (None, "auto", "local", "ray://h:1"):
        expect_cluster(address)
    for wrong in ("host", ":1", "host:", "host:x", "host:65536"):
        with pytest.raises(ConfigError) as found:
            expect_cluster(wrong)
        assert (
            str(found.value)
            == f"{wrong!r} is no address of a Ray cluster: give HOST:PORT, as `ray start --head` prints it"
        )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError) as found:
            expect_cluster(None)
        assert str(found.value) == (
            f"no Ray cluster answers at {address} (Connection refused): see `ray status`, or start one with "
            "`ray start --head`"
        )
        server.listen()
        expect_cluster(address)


# -- replicas --


def test_a_replica_on_ray_begins_sends_and_is_killed_once():
    async def work() -> None:
        ray, asked = stand_in(), list[Any]()
        actor = SimpleNamespace(
            begin=remote({"same": {}, "where": "h, process 3"}, asked),
            handle=remote(None, asked),
            outgoing=remote([{"n": 1}], asked),
        )
        replica = RayReplica(ray, actor, b"settings")
        assert (
            replica.name == "the cluster" and await replica.begin() == {"same": {}} and replica.name == "h, process 3"
        )
        await replica.send(({"job": 1},))
        assert await replica.receive() == [{"n": 1}] and asked == [(b"settings",), (pack([{"job": 1}]),), ()]
        actor.outgoing = remote(ActorDiedError("x"), asked)
        with pytest.raises(Lost, match=r"^the replica on h, process 3 was lost \(its process ended\)$"):
            await replica.receive()
        replica.close()
        replica.close()
        assert ray.killed == [(actor, True)]
        actor.begin = remote({"problem": "no file", "where": "k"}, asked)
        with pytest.raises(ConfigError, match=r"^the replica on k cannot work: no file$"):
            await replica.begin()
        settings = {"model": "scripted:echo", "embedder": None, "engine": {}, "neighbours": 1}
        found = unpack(await ReplicaActor().begin(pack(settings)))
        assert set(found) == {"problem", "where"} and found["where"] == f"{socket.gethostname()}, process {os.getpid()}"
        bare = ReplicaActor()
        described = unpack(await bare.begin(pack({**settings, "model": None})))
        assert described["same"] == {"firsthand": __version__}

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_replica_and_a_cluster_that_are_gone_are_closed_without_an_error():
    tried: list[Any] = []

    def gone(actor: Any, no_restart: bool) -> None:
        tried.append((actor, no_restart))
        raise ConnectionError("the cluster is gone")

    def left(error: Exception) -> None:
        tried.append(error)
        raise error

    ray = stand_in()
    ray.kill = gone
    replica = RayReplica(ray, "actor", b"settings")
    replica.close()
    replica.close()
    assert tried == [("actor", True)]
    around = ExitStack()
    errors = [RayError("x"), ValueError("y")]
    for error in errors:
        around.callback(left, error)
    RayStarter(ray, b"settings", Share(1, 0), around).close()
    assert tried[1:] == errors[::-1]


def test_a_machine_must_have_room_for_a_replica():
    nodes = [node("a", 4, 1), node("b", 8), node("gone", 99, 99, alive=False)]
    for share in (Share(4, 1), Share(8, 0)):
        _expect_room(nodes, share)
    with pytest.raises(ConfigError) as found:
        _expect_room(nodes, Share(5, 1))
    assert str(found.value) == (
        "a replica takes 5 CPUs and 1 GPUs, and no machine of the cluster has both (the most are 8 CPUs, 1 GPUs): ask for "
        "less with --replica-cpus and --replica-gpus"
    )


def test_a_ray_of_our_own_has_a_token_for_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("firsthand.cluster.replicas.ray_replicas._read_environment", lambda: None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv(NICENESS, "7")
    with pytest.raises(KeyError), _own_ray():
        assert os.environ[NICENESS] == "0" and os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        raise KeyError
    assert os.environ[NICENESS] == "7" and not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & set(os.environ)
    monkeypatch.setenv("RAY_AUTH_MODE", "mine")
    with _own_ray():
        assert os.environ["RAY_AUTH_MODE"] == "mine" and "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "mine"


def test_the_head_is_watched_by_its_own_address_but_not_through_a_client(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "UNTIL_GONE_S", 0.0)
    monkeypatch.setattr(ray_workers, "LOOK_AGAIN_S", 0.01)

    async def work() -> None:
        far = stand_in()
        far.util.client.ray.is_connected = lambda: True
        client = RayFleet(far, WorkerSpec(build, {}, {}), print)
        assert client.head is None
        await client._expect_head()
        assert not client.gone
        listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        near = RayFleet(stand_in(), WorkerSpec(build, {}, {}), print)
        near.head = f"127.0.0.1:{port}"
        worker = RayWorker(near.ray, SimpleNamespace(), "w")
        near.held[WorkerSlot("a", 0)] = worker
        await near._expect_head()
        assert (near.gone, worker.open) == (False, True)
        listening.close()
        await listening.wait_closed()
        with pytest.raises(ConfigError) as told:
            await near._expect_head()
        assert str(told.value) == (
            f"the head of the Ray cluster, 127.0.0.1:{port}, is gone: "
            "resume the run on another cluster, or here without --on"
        )
        assert (near.gone, worker.open) == (True, False)

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("said", [b"[", b"\xff[]", b"[" * 100_000, b"[" + b"9" * 5_000 + b"]", None])
def test_bytes_that_are_no_json_make_a_worker_lost(said: Any) -> None:
    async def bytes_of(*_: Any) -> Any:
        return said

    remote = SimpleNamespace(remote=bytes_of)
    worker = RayWorker(stand_in(), SimpleNamespace(exchange=remote, begin=remote), "host-a (a)")
    spec = WorkerSpec(build, {}, {})
    for asked in (worker.exchange([]), worker.begin(spec)):
        with pytest.raises(Lost, match=r"^the worker on host-a \(a\) sent what is no JSON, or JSON nested too deep$"):
            asyncio.run(asked)


@pytest.mark.parametrize("said", [b"[]", b"5", b'{"agents": []}', b'{"agents": {"ada": 5}}'])
def test_a_worker_that_describes_itself_oddly_is_lost_before_it_begins(said: bytes) -> None:
    async def bytes_of(*_: Any) -> bytes:
        return said

    worker = RayWorker(stand_in(), SimpleNamespace(begin=SimpleNamespace(remote=bytes_of)), "w")
    spec = WorkerSpec(build, {}, {"agents": {"ada": {"pattern": "direct"}}})
    with pytest.raises(Lost, match=r"^the worker on w sent what is no description of a worker$"):
        asyncio.run(worker.begin(spec))
