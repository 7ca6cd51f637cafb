"""Replicas as actors of a Ray cluster: of this machine alone, or of one that is there. Ray is the extra `cluster`.

The actors are owned by this process: when it ends, however it ends, Ray ends them. Ray that is started here listens on every
interface, so it is given a token that only its own processes have. See docs/design.md for why this is not Ray Serve.
"""

from __future__ import annotations

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


class Actor:
    """What runs on the cluster: a Replica behind bytes."""

    def __init__(self) -> None:
        self.replica: Replica | None = None

    async def begin(self, settings: bytes) -> bytes:
        """Open the replica; says what it is, or why it cannot be, and on which machine."""
        import socket

        try:
            self.replica = open_replica(unpack(settings))
            told = await self.replica.begin()
        except (FirsthandError, ImportError, OSError) as error:
            told = {"problem": str(error)}
        return pack(told | {"where": f"{socket.gethostname()}, process {os.getpid()}"})

    async def take(self, messages: bytes) -> None:
        """See `Replica.take`."""
        assert self.replica is not None
        self.replica.take(unpack(messages))

    async def said(self) -> bytes:
        """See `Replica.said`."""
        assert self.replica is not None
        return pack(await self.replica.said())


class RayCarrier:
    """One actor."""

    def __init__(self, ray: Any, actor: Any, settings: bytes):
        self.ray, self.actor, self.settings = ray, actor, settings
        self.name = "the cluster"
        self._open = True

    async def begin(self) -> Json:
        """Wait until there is room for it and its model is loaded."""
        told: Json = unpack(await self._ask(self.actor.begin.remote(self.settings)))
        self.name = told.pop("where")
        if "problem" in told:
            raise ConfigError(f"the replica on {self.name} cannot work: {told['problem']}")
        return told

    async def send(self, messages: Sequence[Json]) -> None:
        """Hand over messages."""
        await self._ask(self.actor.take.remote(pack(list(messages))))

    async def receive(self) -> list[Json]:
        """What it says next."""
        said: list[Json] = unpack(await self._ask(self.actor.said.remote()))
        return said

    def close(self) -> None:
        """End it."""
        if self._open:
            self._open = False
            with suppress(Exception):  # it may be gone, and the cluster too
                self.ray.kill(self.actor, no_restart=True)

    async def _ask(self, reference: Any) -> bytes:
        return await reply_of(self.ray, reference, f"the replica on {self.name}")


@dataclass
class RayStarter:
    """Starts actors on the cluster that this process is connected to."""

    ray: Any
    settings: bytes
    share: Share
    around: ExitStack
    """What is undone when the cluster is left."""

    def start(self, number: int) -> RayCarrier:
        """A new actor, wherever there is room."""
        kind = self.ray.remote(Actor).options(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        return RayCarrier(self.ray, kind.remote(), self.settings)

    def close(self) -> None:
        """Leave the cluster; one that was started for this process ends."""
        with suppress(Exception):
            self.around.close()


def open_ray(settings: Json, count: int, *, address: str | None, cpus: float | None, gpus: float) -> RayStarter:
    """What starts `count` replicas on the cluster at the address, on $RAY_ADDRESS, or on Ray started on this machine alone.

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
        try:
            ray.init(address=address, **options)
        except Exception as error:
            where = "Ray on this machine" if address == "local" else f"the Ray cluster at {address}"
            raise ConfigError(f"{where} cannot be used: {reason(error)}") from None
        around.callback(ray.shutdown)
        nodes = ray.nodes()
        places = shares(nodes, count, gpus=gpus > 0, strict=cpus is None)
        share = Share(min(share.cpus for share in places.values()) if cpus is None else cpus, gpus)
        _expect_room(nodes, share)
        around.enter_context(quiet())
        engine = {"threads": max(1, int(share.cpus)), **settings["engine"]}
        if gpus:
            engine.setdefault("device", "cuda")
        neighbours = ceil(count / len({place.node for place in places}))
        told = pack(settings | {"engine": engine, "neighbours": neighbours})
        return RayStarter(ray, told, share, around.pop_all())


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
    """A Ray that is started meanwhile lets nobody in who has not its token, and its actors are no nicer than this process.

    Ray itself would run them at niceness 15, behind everything else on the machine.
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
    """Ray reads its environment when it is imported, and again when it is told to."""
    with suppress(ImportError, AttributeError):  # another version of Ray
        inner: Any = importlib.import_module("ray._raylet")
        inner.Config.initialize("")
        inner.AuthenticationTokenLoader.instance().reset_cache()
