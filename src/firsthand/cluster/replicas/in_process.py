"""Replicas in this very process, for tests and to try things out: messages go through bytes as over a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from firsthand.cluster.replicas.replica_worker import Replica
from firsthand.cluster.spread.run_worker import Lost, pack, unpack
from firsthand.errors import ConfigError, FirsthandError
from firsthand.message import Json


class Beside:
    """A replica in a task of this process."""

    def __init__(self, replica: Replica, name: str):
        self.replica, self.name = replica, name
        self._dead = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    async def begin(self) -> Json:
        """Load it."""
        try:
            told: Json = unpack(pack(await self.replica.begin()))
        except FirsthandError as error:
            raise ConfigError(f"the replica on {self.name} cannot work: {error}") from None
        return told

    async def send(self, messages: Sequence[Json]) -> None:
        """Hand over messages. Lost once it was killed."""
        self._check()
        self.replica.take(unpack(pack(list(messages))))

    async def receive(self) -> list[Json]:
        """What it says next. Lost as soon as it was killed: what it was about to say is lost with it."""
        self._check()
        said, dead = asyncio.ensure_future(self.replica.said()), asyncio.ensure_future(self._dead.wait())
        try:
            await asyncio.wait((said, dead), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            found: list[Json] = unpack(pack(said.result()))
            return found
        finally:
            said.cancel()
            dead.cancel()

    def kill(self) -> None:
        """End it at once: nothing that it does afterwards reaches anybody."""
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


class BesideStarter:
    """Starts replicas in this process."""

    def __init__(self, make: Callable[[], Replica]):
        self.make = make
        self.started: list[Beside] = []

    def start(self, number: int) -> Beside:
        """A new replica."""
        self.started.append(Beside(self.make(), f"place {number}"))
        return self.started[-1]

    def close(self) -> None:
        """Nothing is left to end."""
