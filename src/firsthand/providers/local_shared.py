"""What models that share one engine have in common: the loaded model, and the adapters beside it. No tensors here."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firsthand.errors import ConfigError
from firsthand.providers.local_completions import Loaded

if TYPE_CHECKING:
    from firsthand.engine.compute.adapter_slots import LoadedAdapter


class SavedAdapter(NamedTuple):
    """An adapter that is loaded, and the folder that it came from."""

    folder: Path
    adapter: LoadedAdapter


class SharedModel:
    """A model in memory, once it is wanted, and the adapters beside it: what a Local and those made from it share."""

    def __init__(self) -> None:
        self.adapters: dict[str, Path] = {}
        """Their folders by name."""
        self.given: tuple[str, ...] = ()
        """Those that are read with the model."""
        self.present: set[str] = set()
        """Those that were read."""
        self.loadings: Counter[str | None] = Counter()
        """How often each came in while the model was there: the same folder may hold another adapter the next time."""
        self.weights = ""
        """What stands for weights that came in while the model was there; empty for those of the file."""
        self.lock = threading.Lock()
        self.loaded: Loaded | None = None

    def folder(self, name: str) -> Path:
        """Where an adapter lies; ConfigError if it was taken away."""
        if name not in self.adapters:
            raise ConfigError(f"the adapter {name!r} was taken away: put it beside the model again")
        return self.adapters[name]

    def read(self, loaded: Loaded, name: str) -> None:
        """Read an adapter, if that was not done, and wait until the engine has it."""
        if name in self.present:
            return
        packed = loaded.worker.engine.adapters.read(self.folder(name))
        loaded.worker.add_adapter(name, packed).result()
        self.present.add(name)

    async def load_adapter(
        self, loaded: Loaded, name: str, folder: Path, *, version: int = 0, replace: bool = False
    ) -> None:
        """Put an adapter beside the weights while answers are computed."""
        await loaded.worker.load_adapter(name, folder, version=version, replace=replace)
        self._came_in(name, folder)

    async def unload_adapter(self, loaded: Loaded, name: str) -> None:
        """Take an adapter away from new requests."""
        del self.adapters[name]
        if name in self.present:
            self.present.discard(name)
            await loaded.worker.unload_adapter(name)

    async def kept_adapter(self, loaded: Loaded, name: str) -> SavedAdapter | None:
        """What is loaded under a name now; None if nothing is."""
        if name not in self.present:
            return None
        return SavedAdapter(self.adapters[name], await loaded.worker.find_adapter(name))

    async def restore_adapter(self, loaded: Loaded, name: str, kept: SavedAdapter | None) -> None:
        """Put back what was kept, or take away what has come under its name."""
        if kept is not None:
            old = kept.adapter
            added = loaded.worker.add_adapter(name, old.packed, version=old.version, replace=True)
            await asyncio.wrap_future(added)
            self._came_in(name, kept.folder)
        elif name in self.adapters:
            await self.unload_adapter(loaded, name)

    def _came_in(self, name: str, folder: Path) -> None:
        self.adapters[name] = folder
        self.loadings[name] += 1
        self.present.add(name)

    def close(self) -> None:
        """Let go of the model."""
        with self.lock:
            if self.loaded is not None:
                self.loaded.worker.close()
            self.loaded = None
            self.present.clear()
