"""The LoRA adapters of a fleet: every replica that takes requests has all of them.

A change is made in all replicas or in none. Each keeps what it had until all have said that they could; if one cannot, the
others put back what they kept, and one that cannot even do that is ended and started again. A replica that is started,
or started again, is given what the others have before it takes requests. Folders are read by the replicas, so each of their
machines must have them; what they read must be the same bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_slots import Slot
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, TransientError
from firsthand.message import Json


class Shared(NamedTuple):
    """An adapter that every replica has."""

    folder: Path
    fingerprint: str = ""
    """Of the model with it, the same in all replicas; empty until the first has read it."""
    version: int = 0


class SharedAdapters:
    """The adapters of one fleet. For its event loop."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.known: dict[str, Shared] = {}
        self.loadings: Counter[str] = Counter()
        """How often something was loaded under each name: what was computed with one adapter is nothing to the next."""
        self._changes: set[asyncio.Task[None]] = set()
        fleet.prepare = self._prepare

    def get(self, name: str) -> Shared:
        """The adapter of that name; ConfigError if there is none."""
        found = self.known.get(name)
        if found is None:
            raise ConfigError(
                f"no adapter {name[:80]!r} is beside the model: there are {', '.join(self.known) or 'none'}"
            )
        return found

    async def load(self, name: str, folder: Path, *, version: int = 0, replace: bool = False) -> None:
        """Load an adapter in every replica, or in none. Raises what the first one that refused it raised."""
        await self._to_its_end(self._load(name, folder, version, replace))

    async def unload(self, name: str) -> None:
        """Take an adapter away from new requests in every replica, or in none."""
        await self._to_its_end(self._unload(name))

    async def _to_its_end(self, change: Any) -> None:
        """Wait for a change, which is not left half done if the caller is cancelled."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, folder: Path, version: int, replace: bool) -> None:
        body: Json = {"name": name, "folder": str(folder), "version": version, "replace": replace}
        async with self.fleet.changing:
            found = await self._everywhere({"method": "load_adapter", **body}, f"load the adapter {name!r}")
            self.known[name] = Shared(folder, found, version)
            self.loadings[name] += 1

    async def _unload(self, name: str) -> None:
        async with self.fleet.changing:
            known = self.get(name)
            del self.known[name]  # at once, so that no new request asks for it
            try:
                await self._everywhere({"method": "unload_adapter", "name": name}, f"unload the adapter {name!r}")
            except BaseException:
                self.known[name] = known
                raise

    async def _everywhere(self, body: Json, what: str) -> str:
        """What the replicas say to a change, all the same. Undone, with its error raised, if one says otherwise.

        One that is lost meanwhile does not count: it is prepared when it is back.
        """
        asked = [slot for slot in self.fleet.slots if slot.state == "ready"]
        said = dict(zip(asked, await self._ask(asked, body), strict=True))
        done = [slot for slot, answer in said.items() if isinstance(answer, str)]
        refused = [answer for answer in said.values() if isinstance(answer, Exception) and not isinstance(answer, Lost)]
        answers = {str(said[slot]) for slot in done}
        if len(answers) == 1 and not refused:
            await self._ask(done, {"method": "settle_adapters"})
            return answers.pop()
        there = [slot for slot, answer in said.items() if not isinstance(answer, Lost)]
        for slot, undone in zip(there, await self._ask(there, {"method": "undo_adapters"}), strict=True):
            if isinstance(undone, Exception) and not isinstance(undone, Lost) and slot.carrier is not None:
                slot.carrier.close()
        if refused:
            raise refused[0]
        if not answers:
            raise TransientError(f"no replica is there to {what}: try again")
        raise ConfigError(f"the replicas cannot {what}: its files are not the same on all of their machines")

    async def _ask(self, slots: Sequence[Slot], body: Json) -> list[Any]:
        """What each of these replicas gives, or the error in its place."""
        return await asyncio.gather(*(self.fleet.ask(body, slot=slot) for slot in slots), return_exceptions=True)

    async def _prepare(self, slot: Slot) -> None:
        """Give a replica all adapters. ConfigError if what it reads is not what the others have."""
        for name, shared in self.known.items():
            body = {"name": name, "folder": str(shared.folder), "version": shared.version, "replace": False}
            found = await self.fleet.ask({"method": "load_adapter", **body}, slot=slot)
            if shared.fingerprint and found != shared.fingerprint:
                raise ConfigError(
                    f"the files of the adapter {name!r} are not those that the other replicas read: load it again"
                )
            self.known[name] = shared._replace(fingerprint=found)
        if self.known:
            await self.fleet.ask({"method": "settle_adapters"}, slot=slot)
