"""Replicas as actors of a Ray cluster, an existing one or one on this machine alone. Ray is the extra `cluster`.

This process owns the actors: when it ends, however it ends, Ray ends them. A Ray that is started here listens on every
interface, so it gets a token that only its own processes have. See docs/design.md for why this is not Ray Serve.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from typing import Any

from firsthand.cluster.replicas.replica_worker import Replica, open_replica
from firsthand.cluster.spread.ray_workers import (
    LOCAL_STORE_BYTES,
    Share,
    expect_cluster,
    quiet,
    reason,
    reply_of,
    shares,
)
from firsthand.cluster.spread.run_worker import pack, unpack
from firsthand.errors import ConfigError, FirsthandError, MissingExtra
from firsthand.message import Json


class ReplicaActor:
    """A Replica on the cluster, with messages as bytes."""

    def __init__(self) -> None:
        self.replica: Replica | None = None

    async def begin(self, settings: bytes) -> bytes:
        """Open the replica; its description, or the problem, and the machine it is on."""
        import socket

        try:
            self.replica = open_replica(unpack(settings))
            description = await self.replica.begin()
        except (FirsthandError, ImportError, OSError) as error:
            description = {"problem": str(error) or type(error).__name__}
        return pack(description | {"where": f"{socket.gethostname()}, process {os.getpid()}"})

    async def handle(self, messages: bytes) -> None:
        """See `Replica.handle`."""
        assert self.replica is not None
        self.replica.handle(unpack(messages))

    async def outgoing(self) -> bytes:
        """See `Replica.outgoing`."""
        assert self.replica is not None
        return pack(await self.replica.outgoing())


class RayReplica:
    """A replica in an actor."""

    def __init__(self, ray: Any, actor: Any, settings: bytes):
        self.ray, self.actor, self.settings = ray, actor, settings
        self.name = "the cluster"
        self._open = True

    async def begin(self) -> Json:
        """Wait until it has room and its model is loaded; its description."""
        description: Json = unpack(await self._result(self.actor.begin.remote(self.settings)))
        self.name = description.pop("where")
        if "problem" in description:
            raise ConfigError(f"the replica on {self.name} cannot work: {description['problem']}")
        return description

    async def send(self, messages: Sequence[Json]) -> None:
        """Send it messages."""
        await self._result(self.actor.handle.remote(pack(list(messages))))

    async def receive(self) -> list[Json]:
        """Its next messages."""
        messages: list[Json] = unpack(await self._result(self.actor.outgoing.remote()))
        return messages

    def close(self) -> None:
        """End it."""
        if self._open:
            self._open = False
            with suppress(Exception):  # it may be gone, and the cluster too
                self.ray.kill(self.actor, no_restart=True)

    async def _result(self, reference: Any) -> bytes:
        return await reply_of(self.ray, reference, f"the replica on {self.name}")


@dataclass
class RayStarter:
    """Starts actors on the cluster that this process is connected to."""

    ray: Any
    settings: bytes
    share: Share
    around: ExitStack
    """Undone when the cluster is left."""

    def start(self, number: int) -> RayReplica:
        """A new actor, wherever there is room."""
        kind = self.ray.remote(ReplicaActor).options(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        return RayReplica(self.ray, kind.remote(), self.settings)

    def close(self) -> None:
        """Leave the cluster; one that was started for this process ends."""
        with suppress(Exception):
            self.around.close()


def open_ray(settings: Json, count: int, *, address: str | None, cpus: float | None, gpus: float) -> RayStarter:
    """Starts `count` replicas on the cluster at the address, at $RAY_ADDRESS, or on a Ray of this machine alone.

    `settings` are those of `open_replica`. Without `cpus` the replicas share the CPUs of their machines.
    """
    if find_spec("ray") is None:
        raise MissingExtra("ray", "cluster", "--replicas")
    expect_cluster(address)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ray = importlib.import_module("ray")
    options: Json = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as around:
        if address == "local":
            around.enter_context(_own_ray())
            options |= {"object_store_memory": LOCAL_STORE_BYTES, "include_dashboard": False}
            options["num_cpus"] = max(os.cpu_count() or 1, ceil(count * (cpus or 1)))
        gc.collect()  # caches that earlier models reserved: a process that holds more than the memory cannot fork
        try:
            ray.init(address=address, **options)
        except Exception as error:
            where = "Ray on this machine" if address == "local" else f"the Ray cluster at {address}"
            raise ConfigError(f"{where} cannot be used: {reason(error)}") from None
        around.callback(ray.shutdown)
        nodes = ray.nodes()
        places = shares(nodes, count, gpus=gpus > 0, strict=cpus is None, what="replicas")
        share = Share(min(share.cpus for share in places.values()) if cpus is None else cpus, gpus)
        _expect_room(nodes, share)
        around.enter_context(quiet())
        engine = {"threads": max(1, int(share.cpus)), **settings["engine"]}
        if gpus:
            engine.setdefault("device", "cuda")
        neighbours = ceil(count / len({place.node for place in places}))
        packed = pack(settings | {"engine": engine, "neighbours": neighbours})
        return RayStarter(ray, packed, share, around.pop_all())


def _expect_room(nodes: Sequence[Mapping[str, Any]], share: Share) -> None:
    """ConfigError if no machine could ever hold a replica."""
    rooms = [node.get("Resources", {}) for node in nodes if node["Alive"]]
    if not any(room.get("CPU", 0) >= share.cpus and room.get("GPU", 0) >= share.gpus for room in rooms):
        most = ", ".join(f"{max(room.get(what, 0) for room in rooms):g} {what}s" for what in ("CPU", "GPU"))
        raise ConfigError(
            f"a replica takes {share.cpus:g} CPUs and {share.gpus:g} GPUs, and no machine of the cluster has both (the most "
            f"are {most}): ask for less with --replica-cpus and --replica-gpus"
        )


@contextmanager
def _own_ray() -> Iterator[None]:
    """Within it, a Ray that is started admits only holders of its token, and its actors have this process's niceness.

    Ray's default niceness is 15, behind everything else on the machine.
    """
    settings = {"RAY_worker_niceness": "0"}
    if "RAY_AUTH_MODE" not in os.environ:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    _read_environment()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _read_environment()


def _read_environment() -> None:
    """Have Ray read its environment again, which it does once when it is imported."""
    with suppress(ImportError, AttributeError):  # another version of Ray
        inner: Any = importlib.import_module("ray._raylet")
        inner.Config.initialize("")
        inner.AuthenticationTokenLoader.instance().reset_cache()
