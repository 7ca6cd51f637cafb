"""New weights for a fleet: every replica that takes requests has the same ones.

The replicas read them from a safetensors file, which each machine needs under the same path, and swap them in between two
steps of their engines (`Engine.load`). A replica that cannot is replaced; a new one is given the weights of the others, then
their adapters, before it takes requests.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_slots import Slot
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, TransientError
from firsthand.message import Json


class LoadedWeights(NamedTuple):
    """Weights that every replica has."""

    file: Path
    version: int
    digest: str
    """SHA-256 of the file."""


class SharedWeights:
    """The weights of one fleet, in place of those of the model's own files. For its event loop."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.loaded: LoadedWeights | None = None
        self._then = fleet.prepare
        fleet.prepare = self._prepare

    async def load(self, file: Path, version: int) -> None:
        """Have all replicas load a file of weights, which stays where it is until the next one is loaded.

        Raises what the first replica that refused it raised, if none took it; replicas that refuse what others took are
        replaced. ConfigError if the file is not the same on all machines.
        """
        async with self.fleet.change_lock:
            body = _request(file, version)
            slots = [slot for slot in self.fleet.slots if slot.state == "ready"]
            calls = (self.fleet.call(body, slot=slot) for slot in slots)
            found = dict(zip(slots, await asyncio.gather(*calls, return_exceptions=True), strict=True))
            digests = [each for each in found.values() if isinstance(each, str)]
            if not digests:
                refusals = [
                    each for each in found.values() if isinstance(each, Exception) and not isinstance(each, Lost)
                ]
                raise refusals[0] if refusals else TransientError("no replica is there to load the weights: try again")
            self.loaded = LoadedWeights(file, version, digests[0])
            for slot, result in found.items():
                if result != digests[0] and not isinstance(result, Lost) and slot.process is not None:
                    slot.process.close()
            if len(set(digests)) > 1:
                raise ConfigError(
                    f"the weights in {file} are not the same on all machines: give replicas one file system"
                )

    async def _prepare(self, slot: Slot) -> None:
        """Load the weights into a new replica, then what else it is given."""
        if self.loaded is not None:
            found = await self.fleet.call(_request(self.loaded.file, self.loaded.version), slot=slot)
            if found != self.loaded.digest:
                raise ConfigError(f"the weights in {self.loaded.file} are not those that the other replicas read")
        if self._then is not None:
            await self._then(slot)


def _request(file: Path, version: int) -> Json:
    return {"method": "load_weights", "file": str(file), "version": version}
