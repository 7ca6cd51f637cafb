"""A stand-in for Ray's module whose actors live in this process, for runs on a cluster that take milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class Actors:
    """What Ray was asked for: `init`, the options of actors, and how often it was shut down."""

    def __init__(self, nodes: Sequence[tuple[str, int, int]], dying: Sequence[str]):
        self.nodes, self.dying = nodes, list(dying)
        self.inits: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []
        self.shutdowns = 0

    def init(self, **given: Any) -> None:
        self.inits.append(given)

    def shutdown(self) -> None:
        self.shutdowns += 1

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": name, "Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}, "NodeManagerHostname": f"host-{name}"}
            for name, cpus, gpus in self.nodes
        ]  # fmt: skip

    def remote(self, kind: type[Any]) -> Any:
        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda: self.actor(kind(), given["scheduling_strategy"]))

        return SimpleNamespace(options=options)

    def actor(self, made: Any, node: str) -> Any:
        async def exchange(messages: bytes) -> bytes:
            if node in self.dying:
                self.dying.remove(node)
                raise ActorDiedError("gone")
            return bytes(await made.exchange(messages))

        return SimpleNamespace(begin=SimpleNamespace(remote=made.begin), exchange=SimpleNamespace(remote=exchange))


def ray_in_process(
    monkeypatch: pytest.MonkeyPatch, nodes: Sequence[tuple[str, int, int]] = (("a", 1, 0),), dying: Sequence[str] = ()
) -> Actors:
    """Take Ray's place: a cluster of nodes with so many CPUs and GPUs.

    An actor on a node of `dying` dies at its first call.
    """
    actors = Actors(nodes, dying)
    ray, worker, util, strategies = (
        ModuleType(name) for name in ("ray", "ray._private.worker", "ray.util", "ray.util.scheduling_strategies")
    )
    for module in (ray, worker, util, strategies):
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "ray._private", ModuleType("ray._private"))
    with suppress(KeyError):
        monkeypatch.delenv("RAY_ADDRESS")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node  # type: ignore[attr-defined]
    util.client = SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: True))  # type: ignore[attr-defined]
    given: dict[str, Any] = {
        "init": actors.init, "shutdown": actors.shutdown, "nodes": actors.listed, "remote": actors.remote, "util": util,
        "kill": lambda actor, no_restart: None,
        "exceptions": SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {})),
    }  # fmt: skip
    for name, value in given.items():
        setattr(ray, name, value)
    return actors
