"""The part of Ray's module that workers and replicas call, with actors of this process, and a cluster's nodes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.replicas import ray_replicas
from firsthand.cluster.spread.ray_workers import RayFleet, RayWorker, Share, WorkerSlot
from firsthand.cluster.spread.run_worker import Worker, pack
from firsthand.errors import ConfigError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class ActorDiedError(RayError):
    pass


def stand_in(nodes: Any = ()) -> Any:
    """The part of Ray's module that is used with actors of this process."""
    killed: list[Any] = []
    client = SimpleNamespace(client=SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: False)))
    return SimpleNamespace(
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError), util=client, killed=killed,
        kill=lambda actor, no_restart: killed.append((actor, no_restart)), nodes=lambda: nodes,
        get_runtime_context=lambda: SimpleNamespace(gcs_address="127.0.0.1:9"),
    )  # fmt: skip


def remote(value: Any, asked: list[Any]) -> Any:
    async def answer(*given: Any) -> Any:
        asked.append(given)
        if isinstance(value, Exception):
            raise value
        return pack(value)

    return SimpleNamespace(remote=answer)


def node(name: str, cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeID": name,
        "Alive": alive,
        "Resources": {"CPU": cpus, "GPU": gpus},
        "NodeManagerHostname": f"host-{name}",
    }


def build(settings: Any) -> Worker:
    if settings.get("wrong"):
        raise ConfigError(settings["wrong"])
    return Worker([Agent("ada", Scripted(["x"]), direct)], [Benchmark("b", lambda seed: [], (), protocol="p")])


class Hired(RayFleet):
    """A fleet whose actors are names."""

    def _start(self, slot: WorkerSlot, share: Share, name: str) -> RayWorker:
        return RayWorker(self.ray, f"{slot.node}{slot.at} {share.cpus:g} {share.gpus:g}", name)


def ray_module(monkeypatch: pytest.MonkeyPatch, nodes: Any) -> Any:
    """Ray's module, as far as it is called here; `asked` has what `init` and the actors were given."""
    made = stand_in(nodes)
    made.asked, made.shut, made.refuses, made.__spec__ = [], [], None, object()

    def init(**given: Any) -> None:
        made.asked.append(given)
        if made.refuses is not None:
            raise made.refuses

    def remote(kind: type) -> Any:
        return SimpleNamespace(
            options=lambda **given: made.asked.append(given) or SimpleNamespace(remote=lambda: kind.__name__)
        )

    made.init, made.remote, made.shutdown = init, remote, lambda: made.shut.append(True)
    printing = SimpleNamespace(_worker_logs_enabled=True)
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray._private.worker", printing)
    made.printing = printing
    monkeypatch.setattr(ray_replicas, "find_spec", lambda name: object())
    monkeypatch.setattr(ray_replicas, "_read_environment", lambda: None)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_worker_niceness"):
        monkeypatch.delenv(name, raising=False)
    return made
