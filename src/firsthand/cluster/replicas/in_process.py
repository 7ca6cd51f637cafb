"""Replicas in this process, for tests and trials. Messages become bytes, as they would over a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.spread.run_worker import Lost, pack, unpack
from firsthand.errors import ConfigError, FirsthandError
from firsthand.message import Json


class InProcessReplica:
    """A replica in this process."""

    def __init__(self, replica: Replica, name: str):
        self.replica, self.name = replica, name
        self._dead = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    async def begin(self) -> Json:
        """Load it; its description."""
        try:
            description: Json = unpack(pack(await self.replica.begin()))
        except FirsthandError as error:
            raise ConfigError(f"the replica on {self.name} cannot work: {error}") from None
        return description

    async def send(self, messages: Sequence[Json]) -> None:
        """Send it messages. Lost once it was killed."""
        self._check()
        self.replica.handle(unpack(pack(list(messages))))

    async def receive(self) -> list[Json]:
        """Its next messages. Lost as soon as it was killed: messages on their way are lost with it."""
        self._check()
        outgoing, dead = asyncio.ensure_future(self.replica.outgoing()), asyncio.ensure_future(self._dead.wait())
        try:
            await asyncio.wait((outgoing, dead), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            messages: list[Json] = unpack(pack(outgoing.result()))
            return messages
        finally:
            outgoing.cancel()
            dead.cancel()

    def kill(self) -> None:
        """End it at once: nothing that it does afterwards is received."""
        self._dead.set()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.replica.close())

    def close(self) -> None:
        """End it."""
        if not self._dead.is_set():
            self.kill()

    def _check(self) -> None:
        if self._dead.is_set():
            raise Lost(f"the replica on {self.name} was lost: it was killed")


class InProcessStarter:
    """Starts replicas in this process."""

    def __init__(self, make: Callable[[], Replica]):
        self.make = make
        self.started: list[InProcessReplica] = []

    def start(self, number: int) -> InProcessReplica:
        """A new replica."""
        self.started.append(InProcessReplica(self.make(), f"place {number}"))
        return self.started[-1]

    def close(self) -> None:
        """Nothing is left to close."""
