"""Actors of workers and replicas on Ray, by a stand-in for its module: how each is started, told, heard and left."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.cluster.replicas import ray_replicas
from firsthand.cluster.replicas.ray_replicas import RayStarter, ReplicaActor, _read_environment, open_ray
from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.spread import ray_workers
from firsthand.cluster.spread.ray_workers import (
    LOCAL_STORE_BYTES,
    STAYS_HERE,
    Actor,
    RayFleet,
    RayWorker,
    Share,
    WorkerSlot,
    WorkerSpec,
    expect_cluster,
    on_ray,
)
from firsthand.cluster.spread.run_worker import Lost, Worker, pack, unpack
from firsthand.errors import ConfigError, MissingExtra, ModelError
from firsthand.message import Json
from ray_stand_in import Hired, build, node, ray_module, stand_in
from replica_scripted import Echo


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    return ray_module(monkeypatch, [node("a", 8, 4), node("b", 3, 4)])


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


# -- workers --


def test_a_worker_is_an_actor_on_its_own_machine_with_its_share(monkeypatch: pytest.MonkeyPatch):
    class Affinity:
        def __init__(self, node: str, soft: bool):
            self.given = node, soft

    monkeypatch.setitem(
        sys.modules, "ray.util.scheduling_strategies", SimpleNamespace(NodeAffinitySchedulingStrategy=Affinity)
    )
    here, asked = stand_in([node("abcdefgh", 4)]), list[Any]()

    def remote(kind: type) -> Any:
        return SimpleNamespace(
            options=lambda **given: asked.append((kind, given)) or SimpleNamespace(remote=lambda: "actor")
        )

    here.remote = remote
    fleet = RayFleet(here, WorkerSpec(build, {}, {}), lambda text: None)
    worker = fleet._start(WorkerSlot("abcdefgh", 1), Share(2, 1), "host")
    ((kind, given),) = asked
    assert kind is Actor and given.pop("scheduling_strategy").given == ("abcdefgh", False)
    assert given == {"num_cpus": 2, "num_gpus": 1, "max_restarts": 0}
    assert (worker.ray, worker.actor, worker.name, worker.open) == (here, "actor", "host", True)
    assert (fleet.held, fleet.gone, fleet.problem, fleet.head) == ({}, False, "", "127.0.0.1:9")
    (slot,) = fleet._hire()
    assert slot == WorkerSlot("abcdefgh", 0) and fleet.held[slot].name == "host-abcdefgh (abcdef)"
    assert asked[1][1].pop("scheduling_strategy").given == ("abcdefgh", False) and asked[1][1]["num_cpus"] == 4


def test_an_actor_tells_why_its_worker_cannot_be_built_and_leaves_bugs_to_ray():
    def make(error: Exception | None) -> Any:
        def made(settings: Json) -> Worker:
            if error is not None:
                raise error
            return build(settings)

        return made

    for error, said in ((ModelError("no key"), "no key"), (ImportError("no torch"), "no torch"),
                        (AttributeError("no such agent"), "no such agent"), (OSError("full"), "full")):  # fmt: skip
        actor = Actor()
        assert unpack(run(actor.begin(make(error), pack({})))) == {"problem": said} and actor.worker is None
    with pytest.raises(ZeroDivisionError):
        run(Actor().begin(make(ZeroDivisionError()), pack({})))
    with pytest.raises(AssertionError):
        run(Actor().exchange(pack([])))

    async def work() -> None:
        actor = Actor()
        assert unpack(await actor.begin(make(None), pack({"a": 1}))) == build({}).about()
        assert actor.worker is not None
        actor.worker.record("i", "e", "r", {"x": 1})
        assert unpack(await actor.exchange(pack([{"kind": "kept", "upto": 4}]))) == [
            {"kind": "record", "number": 1, "id": "i", "effect": "e", "request": "r", "reply": {"x": 1}},
        ]  # fmt: skip
        assert actor.worker.kept == 4

    run(work())


def test_a_worker_is_killed_once_even_where_the_cluster_is_gone():
    here = stand_in()
    calls: list[Any] = []

    def kill(actor: Any, *, no_restart: bool) -> None:
        calls.append((actor, no_restart))
        raise ConnectionError

    here.kill = kill
    worker = RayWorker(here, "actor", "w")
    assert worker.open
    run(worker.close())
    run(worker.close())
    assert not worker.open and calls == [("actor", True)]
    starter = RayStarter(here, b"settings", Share(1, 0), ExitStack())
    starter.around.callback(lambda: kill("cluster", no_restart=False))
    starter.close()
    assert calls[1:] == [("cluster", False)]


class Waiting(Hired):
    """A fleet whose workers begin when `go` is set, or fail with `error`."""

    go: asyncio.Event
    error: Exception | None = None
    begun = 0

    def _start(self, slot: WorkerSlot, share: Share, name: str) -> RayWorker:
        worker = super()._start(slot, share, name)

        async def begin(spec: WorkerSpec) -> None:
            await self.go.wait()
            self.begun += 1
            if self.error is not None:
                raise self.error

        worker.begin = begin  # type: ignore[method-assign]
        return worker


def test_the_user_is_told_once_that_no_worker_has_begun(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "LOOK_AGAIN_S", 0.001)
    late = "no worker has begun yet: the cluster's CPUs or GPUs are in use, or a model is being loaded"

    async def waiting(
        until_told_s: float, error: Exception | None = None, ready: bool = False
    ) -> tuple[list[str], Any]:
        monkeypatch.setattr(ray_workers, "UNTIL_TOLD_S", until_told_s)
        said: list[str] = []
        fleet = Waiting(stand_in([node("a", 2)]), WorkerSpec(build, {}, {}), said.append)
        fleet.head, fleet.go, fleet.error = None, asyncio.Event(), error
        if ready:
            fleet.go.set()
        workers = fleet.workers()
        first = asyncio.create_task(anext(workers))
        while until_told_s < 0 and not ready and not said:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        assert ready or not first.done()
        fleet.go.set()
        worker = await first
        assert worker.name == "host-a (a)" and list(fleet.held.values()) == [worker] and fleet.begun == 1
        second = asyncio.create_task(anext(workers))
        await asyncio.sleep(0.005)
        assert not second.done()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await workers.aclose()
        return said, fleet

    said, fleet = run(waiting(-1.0))
    assert said == [late] and fleet.ray.killed == [("a0 2 0", True)]
    assert run(waiting(60.0))[0] == [] and run(waiting(-1.0, ready=True))[0] == [], "not where one has begun"

    async def broken_off() -> Any:
        fleet = Waiting(stand_in([node("a", 2), node("b", 1)]), WorkerSpec(build, {}, {}), print)
        fleet.head, fleet.go = None, asyncio.Event()
        workers = fleet.workers()
        first = asyncio.create_task(anext(workers))
        await asyncio.sleep(0.003)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        fleet.go.set()
        await asyncio.sleep(0)
        return fleet

    fleet = run(broken_off())
    assert fleet.begun == 0 and fleet.ray.killed == [("a0 2 0", True), ("b0 1 0", True)]


def test_a_worker_that_is_lost_before_it_is_ready_is_tried_three_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "LOOK_AGAIN_S", 0.001)

    async def work() -> tuple[list[str], Any]:
        said: list[str] = []
        fleet = Waiting(stand_in([node("a", 2)]), WorkerSpec(build, {}, {}), said.append)
        fleet.head, fleet.go, fleet.error = None, asyncio.Event(), Lost("out of memory")
        fleet.go.set()
        with pytest.raises(ConfigError, match=r"^no worker can begin: out of memory$"):
            await anext(fleet.workers())
        return said, fleet

    said, fleet = run(work())
    assert said == ["out of memory"] and fleet.begun == 3 and len(fleet.ray.killed) == 3 and fleet.held == {}

    async def too_many() -> Any:
        fleet = Waiting(stand_in([node("a", 2)]), WorkerSpec(build, {}, {}, count=3), print)
        fleet.head = None
        with pytest.raises(ConfigError, match=r"^workers is 3, and the cluster has room for 2, one for each CPU"):
            await anext(fleet.workers())
        return fleet

    assert run(too_many()).held == {}


def test_a_run_without_an_address_joins_this_machine_s_cluster_or_starts_one(ray: Any, tmp_path: Path):
    spec = WorkerSpec(build, {}, {})
    quiet: Json = {"log_to_driver": False, "logging_level": logging.ERROR}
    with on_ray(None, spec, folder=None, home=tmp_path, say=print) as fleet:
        assert fleet.ray is ray and fleet.spec is spec and fleet.say is print
    assert ray.asked == [{"address": "auto", **quiet}]
    asked: list[Any] = []

    def init(**given: Any) -> None:
        asked.append(given)
        if given["address"] == "auto":
            raise ConnectionError

    ray.init = init
    with on_ray(None, spec, folder=tmp_path, home=tmp_path / "a" / "runs", say=print):
        assert len(ray.shut) == 1
    folder = {"working_dir": str(tmp_path), "excludes": [*STAYS_HERE, "/a/runs"]}
    assert asked[1:] == [{"address": "local", "object_store_memory": LOCAL_STORE_BYTES, **quiet,
                          "include_dashboard": False, "runtime_env": folder}]  # fmt: skip
    assert asked[0] == {"address": "auto", **quiet, "runtime_env": folder} and len(ray.shut) == 2


def test_an_address_is_a_host_and_a_port_and_ray_must_be_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(MissingExtra, match="--on ray"):
        expect_cluster("auto")
    monkeypatch.setattr(ray_workers, "find_spec", lambda name: object())
    monkeypatch.setenv("RAY_ADDRESS", "local")
    expect_cluster(None)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(ConfigError, match="'nowhere' is no address of a Ray cluster"):
        expect_cluster(None)
    with pytest.raises(ConfigError, match="'nowhere' is no address"):
        expect_cluster("")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        expect_cluster(f"[127.0.0.1]:{server.getsockname()[1]}")
    with pytest.raises(ConfigError, match=r"^no Ray cluster answers at 127\.0\.0\.1:65535 \("):
        expect_cluster("127.0.0.1:65535")


# -- replicas --


def test_an_actor_of_a_replica_gives_its_messages_as_bytes():
    async def work() -> None:
        bare = ReplicaActor()
        for early in (bare.handle(pack([])), bare.outgoing()):
            with pytest.raises(AssertionError):
                await early
        bare.replica = Replica(Echo())
        await bare.handle(pack([{"kind": "do", "job": 2, "method": "detokenize", "ids": [1, 2]}]))
        assert unpack(await bare.outgoing()) == [{"kind": "end", "job": 2, "value": "ab"}]

    run(work())


def test_ray_reads_its_environment_again_where_it_can(monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []
    tokens = SimpleNamespace(reset_cache=lambda: calls.append("reset"))
    inner = SimpleNamespace(
        Config=SimpleNamespace(initialize=calls.append),
        AuthenticationTokenLoader=SimpleNamespace(instance=lambda: tokens),
    )
    monkeypatch.setitem(sys.modules, "ray._raylet", inner)
    _read_environment()
    assert calls == ["", "reset"]
    for other in (SimpleNamespace(), None):  # another version of Ray, and none
        monkeypatch.setitem(sys.modules, "ray._raylet", other)
        _read_environment()
    assert len(calls) == 2


def test_replicas_are_not_started_on_an_address_that_is_none(ray: Any):
    with pytest.raises(ConfigError, match="'nowhere' is no address of a Ray cluster"):
        open_ray({"engine": {}}, 1, address="nowhere", cpus=None, gpus=0.0)
    assert ray.asked == [] and ray.shut == [] and os.environ.get("RAY_AUTH_MODE") is None


def test_replicas_take_the_smallest_share_and_as_many_neighbours_as_there_are(
    ray: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_replicas, "expect_cluster", lambda address: None)
    settings: Json = {"model": "m", "embedder": "e", "engine": {"max_waiting": 3}}

    def opened(count: int, **more: Any) -> tuple[Share, Json]:
        starter = open_ray(settings, count, **{"address": None, "cpus": None, "gpus": 0.0, **more})
        starter.close()
        return starter.share, unpack(starter.settings)

    share, given = opened(2)
    assert share == Share(3, 0) and given == {
        "model": "m", "embedder": "e", "engine": {"threads": 3, "max_waiting": 3}, "neighbours": 1,
    }  # fmt: skip
    share, given = opened(5, address="h:1")  # three on the machine of 8 and two on that of 3
    assert share == Share(1, 0) and (given["engine"]["threads"], given["neighbours"]) == (1, 3)
    share, given = opened(100, cpus=2.5)
    assert ray.asked[-1]["num_cpus"] == max(os.cpu_count() or 1, 250) and share == Share(2.5, 0)
    assert given["neighbours"] == 50 and given["engine"]["threads"] == 2
    share, given = opened(2, cpus=0.5, gpus=0.25)
    assert share == Share(0.5, 0.25) and given["engine"] == {"threads": 1, "max_waiting": 3, "device": "cuda"}
    share, given = opened(12, cpus=0.0)  # nothing is reserved, so there is room for any number
    assert share == Share(0.0, 0) and given["engine"]["threads"] == 1
    assert settings["engine"] == {"max_waiting": 3}
    with pytest.raises(ConfigError, match=r"^replicas is 12, and the cluster has room for 11, one for each CPU"):
        opened(12)
    assert len(ray.shut) == 6 and ray.printing._worker_logs_enabled is True
