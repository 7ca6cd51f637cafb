"""The LoRA adapters of a fleet: every replica that takes requests has all of them.

A change is made in all replicas or in none. Each replica keeps what it had until all have made the change; if one cannot,
the others roll back, and a replica that cannot roll back is replaced. A new replica is given the adapters of the others
before it takes requests. The replicas read the folders themselves, so each machine needs them, with the same bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_slots import Slot
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, TransientError
from firsthand.message import Json


class SharedAdapter(NamedTuple):
    """An adapter that every replica has."""

    folder: Path
    fingerprint: str = ""
    """Of the model with it, the same in all replicas; empty until the first has read it."""
    version: int = 0


class SharedAdapters:
    """The adapters of one fleet. For its event loop."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.known: dict[str, SharedAdapter] = {}
        self.loadings: Counter[str] = Counter()
        """The number of loads under each name: what was computed with one adapter is not valid for the next."""
        self._changes: set[asyncio.Task[None]] = set()
        fleet.prepare = self._prepare

    def get(self, name: str) -> SharedAdapter:
        """The adapter of that name; ConfigError if there is none."""
        found = self.known.get(name)
        if found is None:
            raise ConfigError(
                f"no adapter {name[:80]!r} is beside the model: there are {', '.join(self.known) or 'none'}"
            )
        return found

    async def load(self, name: str, folder: Path, *, version: int = 0, replace: bool = False) -> None:
        """Load an adapter in every replica, or in none. Raises what the first one that refused it raised."""
        await self._to_the_end(self._load(name, folder, version, replace))

    async def unload(self, name: str) -> None:
        """Unload an adapter for new requests in every replica, or in none."""
        await self._to_the_end(self._unload(name))

    async def _to_the_end(self, change: Coroutine[Any, Any, None]) -> None:
        """Wait for a change, which goes on if the caller is cancelled."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, folder: Path, version: int, replace: bool) -> None:
        body: Json = {"name": name, "folder": str(folder), "version": version, "replace": replace}
        async with self.fleet.change_lock:
            fingerprint = await self._everywhere({"method": "load_adapter", **body}, f"load the adapter {name!r}")
            self.known[name] = SharedAdapter(folder, fingerprint, version)
            self.loadings[name] += 1

    async def _unload(self, name: str) -> None:
        async with self.fleet.change_lock:
            known = self.get(name)
            del self.known[name]  # at once, so that no new request names it
            try:
                await self._everywhere({"method": "unload_adapter", "name": name}, f"unload the adapter {name!r}")
            except BaseException:
                self.known[name] = known
                raise

    async def _everywhere(self, body: Json, what: str) -> str:
        """Make a change in all replicas; what they all return. If they do not agree, it is rolled back and an error raised.

        A replica that is lost meanwhile does not count: it is prepared when it is back.
        """
        slots = [slot for slot in self.fleet.slots if slot.state == "ready"]
        results = dict(zip(slots, await self._call(slots, body), strict=True))
        done = [slot for slot, result in results.items() if isinstance(result, str)]
        errors = [
            result for result in results.values() if isinstance(result, Exception) and not isinstance(result, Lost)
        ]
        values = {str(results[slot]) for slot in done}
        if len(values) == 1 and not errors:
            await self._call(done, {"method": "settle_adapters"})
            return values.pop()
        there = [slot for slot, result in results.items() if not isinstance(result, Lost)]
        for slot, undone in zip(there, await self._call(there, {"method": "undo_adapters"}), strict=True):
            if isinstance(undone, Exception) and not isinstance(undone, Lost) and slot.process is not None:
                slot.process.close()
        if errors:
            raise errors[0]
        if not values:
            raise TransientError(f"no replica is there to {what}: try again")
        raise ConfigError(f"the replicas cannot {what}: its files are not the same on all of their machines")

    async def _call(self, slots: Sequence[Slot], body: Json) -> list[Any]:
        """The result of each replica, or the error in its place."""
        return await asyncio.gather(*(self.fleet.call(body, slot=slot) for slot in slots), return_exceptions=True)

    async def _prepare(self, slot: Slot) -> None:
        """Load all adapters into a replica. ConfigError if it reads other files than the others."""
        for name, shared in self.known.items():
            body = {"name": name, "folder": str(shared.folder), "version": shared.version, "replace": False}
            found = await self.fleet.call({"method": "load_adapter", **body}, slot=slot)
            if shared.fingerprint and found != shared.fingerprint:
                raise ConfigError(
                    f"the files of the adapter {name!r} are not those that the other replicas read: load it again"
                )
            self.known[name] = shared._replace(fingerprint=found)
        if self.known:
            await self.fleet.call({"method": "settle_adapters"}, slot=slot)
