"""Clusters of Ray by a stand-in for its module: opening and leaving one, its head, its workers; a run's lost attempts."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.replicas import ray_replicas
from firsthand.cluster.replicas.ray_replicas import RayReplica, open_ray
from firsthand.cluster.spread import ray_workers
from firsthand.cluster.spread.distribute import _Distribution
from firsthand.cluster.spread.ray_workers import (
    LOCAL_STORE_BYTES,
    STAYS_HERE,
    RayWorker,
    Share,
    WorkerSlot,
    WorkerSpec,
    on_ray,
)
from firsthand.cluster.spread.run_worker import unpack
from firsthand.errors import ConfigError, MissingExtra, ModelError
from firsthand.message import Json
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Failure, Trace
from jumping_clock import run_by_the_clock
from ray_stand_in import Hired, build, node, ray_module, stand_in


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    return ray_module(monkeypatch, [node("a", 8, 2), node("b", 4)])


SETTINGS: Json = {"model": "m", "embedder": None, "engine": {"max_batch": 3}}


def test_replicas_on_a_ray_of_this_machine_share_its_processors(ray: Any):
    starter = open_ray(SETTINGS, 3, address=None, cpus=None, gpus=0.0)
    assert ray.asked == [{
        "address": "local", "log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False,
        "object_store_memory": LOCAL_STORE_BYTES, "num_cpus": max(os.cpu_count() or 1, 3),
    }]  # fmt: skip
    assert starter.share == Share(4, 0) and ray.printing._worker_logs_enabled is False
    assert unpack(starter.settings) == {**SETTINGS, "engine": {"threads": 4, "max_batch": 3}, "neighbours": 2}
    replica = starter.start(1)
    assert isinstance(replica, RayReplica) and (replica.actor, replica.settings) == ("ReplicaActor", starter.settings)
    assert ray.asked[1] == {"num_cpus": 4, "num_gpus": 0.0, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    assert os.environ["RAY_AUTH_MODE"] == "token"
    starter.close()
    assert ray.shut == [True] and "RAY_AUTH_MODE" not in os.environ and ray.printing._worker_logs_enabled is True


def test_replicas_on_a_cluster_reserve_what_was_asked_for(ray: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_replicas, "expect_cluster", lambda address: None)
    starter = open_ray(SETTINGS, 2, address="h:1", cpus=2.5, gpus=1.0)
    assert ray.asked == [{"address": "h:1", "log_to_driver": False, "logging_level": logging.ERROR}]
    assert starter.share == Share(2.5, 1.0)
    assert unpack(starter.settings) == {
        **SETTINGS,
        "engine": {"threads": 2, "max_batch": 3, "device": "cuda"},
        "neighbours": 2,
    }
    starter.close()
    half = open_ray(SETTINGS, 2, address="h:1", cpus=1.0, gpus=0.5)
    assert half.share == Share(1.0, 0.5) and unpack(half.settings)["neighbours"] == 2, (
        "where GPUs are, for a part of one too"
    )
    half.close()
    monkeypatch.setenv("RAY_ADDRESS", "other:1")
    own = open_ray({**SETTINGS, "engine": {"threads": 7, "device": "cpu"}}, 1, address=None, cpus=0.5, gpus=1.0)
    assert ray.asked[-1]["address"] == "other:1" and unpack(own.settings)["engine"] == {"threads": 7, "device": "cpu"}
    own.close()
    with pytest.raises(ConfigError, match=r"^a replica takes 9 CPUs and 0 GPUs, and no machine"):
        open_ray(SETTINGS, 1, address="h:1", cpus=9, gpus=0.0)
    assert len(ray.shut) == 4 and ray.printing._worker_logs_enabled is True
    ray.refuses = RuntimeError("Version mismatch: 2 and 3")
    for address, where in (("h:1", "the Ray cluster at h:1"), ("local", "Ray on this machine")):
        with pytest.raises(
            ConfigError, match=f"^{where} cannot be used: this process has another version of Ray or Python"
        ):
            open_ray(SETTINGS, 1, address=address, cpus=None, gpus=0.0)
    assert "RAY_AUTH_MODE" not in os.environ and len(ray.shut) == 4
    monkeypatch.setattr(ray_replicas, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="--replicas"):
        open_ray(SETTINGS, 1, address=None, cpus=None, gpus=0.0)


def test_a_run_s_cluster_is_left_however_it_ends(ray: Any, tmp_path: Path):
    spec, said = WorkerSpec(build, {}, {}), list[str]()
    with on_ray("h:1", spec, folder=tmp_path, home=tmp_path / "runs", say=said.append) as fleet:
        assert (fleet.spec, fleet.say, fleet.head) == (spec, said.append, "127.0.0.1:9") or fleet.spec is spec
        assert ray.printing._worker_logs_enabled is False and not ray.shut
    assert ray.asked == [{
        "address": "h:1", "log_to_driver": False, "logging_level": logging.ERROR,
        "runtime_env": {"working_dir": str(tmp_path), "excludes": [*STAYS_HERE, "/runs"]},
    }]  # fmt: skip
    assert ray.shut == [True] and ray.printing._worker_logs_enabled is True
    for folder, home in ((tmp_path, tmp_path), (tmp_path / "x", tmp_path / "y")):
        with pytest.raises(KeyError), on_ray("h:1", spec, folder=folder, home=home, say=said.append):
            raise KeyError
        assert ray.asked[-1]["runtime_env"]["excludes"] == list(STAYS_HERE)
    assert len(ray.shut) == 3
    with on_ray("h:1", spec, folder=None, home=tmp_path, say=said.append) as fleet:
        assert "runtime_env" not in ray.asked[-1]
        fleet.gone = True  # Ray would wait a minute and exit the process
    assert len(ray.shut) == 3
    ray.refuses = RuntimeError("it exceeds the maximum size")
    for address, where in (("h:1", "the Ray cluster at h:1"), (None, "a Ray cluster on this machine")):
        with pytest.raises(ConfigError) as found, on_ray(address, spec, folder=None, home=tmp_path, say=said.append):
            pass
        assert str(found.value) == (
            f"{where} cannot be used: the folder this was started in is too large to travel: start in one that holds only "
            "what the run names"
        )
    ray.refuses = ModelError("ours")
    with pytest.raises(ModelError, match=r"^ours$"), on_ray("h:1", spec, folder=None, home=tmp_path, say=said.append):
        pass


class Begun(Hired):
    """A fleet whose workers begin as `begins` says, by the name of their actor."""

    begins: Any = staticmethod(lambda actor: None)

    def _start(self, slot: WorkerSlot, share: Share, name: str) -> RayWorker:
        worker = super()._start(slot, share, name)

        async def begin(spec: WorkerSpec) -> None:
            assert spec is self.spec
            await asyncio.sleep(0)
            if (error := self.begins(worker.actor)) is not None:
                raise error

        worker.begin = begin  # type: ignore[method-assign]
        return worker


def test_workers_come_as_they_get_ready_and_lost_ones_are_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(ray_workers, "UNTIL_TOLD_S", -1.0)
    said: list[str] = []
    spec = WorkerSpec(build, {}, {})

    async def work() -> None:
        here = stand_in([node("a", 4), node("b", 2)])
        fleet = Begun(here, spec, said.append)
        fleet.head = None
        workers = fleet.workers()
        first, second = await anext(workers), await anext(workers)
        assert {first.name, second.name} == {"host-a (a)", "host-b (b)"} and not said
        await first.close()
        third = await anext(workers)
        assert third.name == first.name and third is not first
        await workers.aclose()
        assert {actor for actor, _ in here.killed} == {first.actor, second.actor} and len(here.killed) == 3
        bad = Begun(stand_in([node("a", 4)]), spec, said.append)
        bad.head, bad.begins = None, lambda actor: ConfigError("no key")
        with pytest.raises(ConfigError, match=r"^no worker can begin: no key$"):
            await anext(bad.workers())
        late = "no worker has begun yet: the cluster's CPUs or GPUs are in use, or a model is being loaded"
        assert said == ["no key", late] or said == ["no key"]
        many = Begun(stand_in([node("a", 1)]), WorkerSpec(build, {}, {}, count=2), said.append)
        with pytest.raises(ConfigError, match="workers is 2, and the cluster has room for 1"):
            await anext(many.workers())

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_cluster_whose_head_is_gone_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_workers, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(ray_workers, "UNTIL_GONE_S", 0.005)

    async def work() -> None:
        here = stand_in([node("a", 4)])
        fleet = Begun(here, WorkerSpec(build, {}, {}), lambda text: None)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        fleet.head = f"[127.0.0.1]:{server.sockets[0].getsockname()[1]}"
        workers = fleet.workers()
        worker = await anext(workers)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConfigError) as found:
            await anext(workers)
        assert str(found.value) == (
            f"the head of the Ray cluster, {fleet.head}, is gone: resume the run on another cluster, or here without --on"
        )
        assert fleet.gone and not worker.open and not here.killed

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize(
    ("answers", "returns", "seconds"),
    [
        # each look is 2 s after the one before has failed, at once or after 10 s; more than 20 s are too many
        (["refused"] * 99, False, 22.0),
        (["silent"] * 99, False, 22.0),
        (["refused"] * 10 + ["here"], True, 20.0),
        (["silent", "here"], True, 12.0),
        (["here"], True, 0.0),
    ],
)
def test_a_head_may_be_away_for_20_seconds(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], returns: bool, seconds: float
) -> None:
    told, closed = iter(answers), list[bool]()

    async def connect(host: str, port: int) -> Any:
        assert (host, port) == ("::1", 6379)
        match next(told):
            case "refused":
                raise ConnectionRefusedError
            case "silent":
                await asyncio.Event().wait()
        return None, SimpleNamespace(close=lambda: closed.append(True))

    monkeypatch.setattr(asyncio, "open_connection", connect)
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(ray_workers, "time", clock)
    fleet = Begun(stand_in([node("a", 4)]), WorkerSpec(build, {}, {}), print)
    fleet.head = "[::1]:6379"
    fleet.held = {WorkerSlot("a", at): RayWorker(fleet.ray, f"a{at}", "a") for at in range(2)}
    found, took = run_by_the_clock(fleet._expect_head())
    assert took == pytest.approx(seconds) and fleet.gone is not returns and closed == [True] * (not fleet.gone)
    assert [worker.open for worker in fleet.held.values()] == [not fleet.gone] * 2
    if fleet.gone:
        assert isinstance(found, ConfigError) and str(found) == (
            "the head of the Ray cluster, [::1]:6379, is gone: resume the run on another cluster, or here without --on"
        )
    else:
        assert found is None


# -- attempts of lost workers --


def test_attempts_of_a_lost_worker_are_put_back_or_given_up(tmp_path: Path):
    agent, benchmark = Agent("ada", Scripted(["x"]), direct), Benchmark("b", lambda seed: [], ())
    every = [Place(agent, benchmark, Task(str(number), "?"), number % 3) for number in range(5)]
    said, traced = list[str](), list[Trace]()
    remote: Any = SimpleNamespace(name="w")
    with create(tmp_path, {}, "r") as run:
        work = _Distribution(run, {place.id: place for place in every}, 7, 3, traced.append, said.append)
        held: dict[str, Place] = {}
        dealt = work._deal(held)
        assert [message["task"]["id"] for message in dealt] == ["0", "1", "2"] and list(held) == [
            place.id for place in every[:3]
        ]
        assert {message["seed"] for message in dealt} == {7} and work._deal(held) == []
        work.losses.update({every[1].id: 1, every[2].id: 3})
        work._put_back(remote, held, "w is gone")
        assert said == ["w is gone: its 3 attempts go to others"]
        assert [place.task.id for place in work.waiting] == ["0", "3", "4", "1"], "a suspect waits behind the others"
        assert work.losses == Counter({every[0].id: 1, every[1].id: 2, every[2].id: 4})
        (trace,) = traced
        assert (trace.task_id, trace.benchmark, trace.epoch, trace.seed, trace.stop_reason) == ("2", "b", 2, 7, "error")
        assert trace.error == Failure(
            "WorkerLost", "4 workers were lost while this attempt was under way, two of them with nothing beside it: see "
            "whether it runs out of memory or ends its process",
        )  # fmt: skip
        assert abs((datetime.now(UTC) - datetime.fromisoformat(trace.started_at)).total_seconds()) < 60
        assert trace.place == every[2].id not in work.missing and trace.agent["name"] == "ada" and trace.duration_s == 0
        work._put_back(remote, {}, "v is gone")
        assert said[-1] == "v is gone"
        fresh = _Distribution(run, {place.id: place for place in every}, 7, 3, traced.append, said.append)
        taken: dict[str, Place] = {}
        fresh._deal(taken)
        fresh._put_back(remote, taken, "u is gone")
        assert [place.task.id for place in fresh.waiting] == ["0", "1", "2", "3", "4"], "they go first, in their order"
        fresh.missing.clear()
        fresh._put_back(remote, {every[0].id: every[0]}, "t is gone")
        assert said[-1] == "t is gone", "nothing is left to go to others"
        one = {every[3].id: every[3]}
        record = {"kind": "record", "id": every[3].id, "number": 9, "effect": "e", "request": "r", "reply": {"a": 1}}
        assert work._take("w", record, one) == {"kind": "kept", "upto": 9}
        assert list(run.journal(every[3].id).entries()) == [("e", "r", {"a": 1})]
        failed = {"kind": "failed", "id": every[3].id, "error": "ModelError", "message": "no"}
        work.failed[every[3].id] = "v"
        with pytest.raises(ModelError, match=r"^no$"):
            work._take("w", failed, one)
        ended = Trace("t9", "b", "3", agent.to_json(), 0, 7, "", 0.0, place=every[3].id)
        assert work._take("w", {"kind": "trace", "id": every[3].id, "trace": ended.to_json()}, one) is None
        assert one == {} and traced[-1].id == "t9" and set(work.missing) == {every[place].id for place in (0, 1, 4)}
