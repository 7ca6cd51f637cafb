"""The loaded model and its adapters, shared by all Local views of it. No tensors here."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firsthand.errors import ConfigError
from firsthand.providers.local_completions import Loaded

if TYPE_CHECKING:
    from firsthand.engine.compute.adapter_slots import LoadedAdapter
    from firsthand.nn.lora import Adapter


class SavedAdapter(NamedTuple):
    """A loaded adapter, and the folder it came from."""

    folder: Path
    adapter: LoadedAdapter


class SharedModel:
    """A loaded model and the adapters beside it, shared by a Local and its views."""

    def __init__(self) -> None:
        self.adapters: dict[str, Path] = {}
        """Folders of the adapters, by name."""
        self.given: tuple[str, ...] = ()
        """Adapters to load with the model."""
        self.present: set[str] = set()
        """Adapters that are loaded."""
        self.loadings: Counter[str | None] = Counter()
        """Times each adapter was loaded while the model ran: the same folder may hold another adapter the next time."""
        self.weights = ""
        """Identifies weights that were loaded while the model ran; empty for those of the file."""
        self.from_memory: dict[str, str] = {}
        """Identifies adapters that came from memory and not from a folder, by name."""
        self.lock = threading.Lock()
        self.loaded: Loaded | None = None

    def folder(self, name: str) -> Path:
        """Returns an adapter's folder; ConfigError if it was unloaded."""
        if name not in self.adapters:
            raise ConfigError(f"the adapter {name!r} was unloaded: load it again")
        return self.adapters[name]

    def read(self, loaded: Loaded, name: str) -> None:
        """Load an adapter if it is not loaded, and wait until the engine has it."""
        if name in self.present:
            return
        packed = loaded.worker.engine.adapters.read(self.folder(name))
        loaded.worker.add_adapter(name, packed).result()
        self.present.add(name)

    async def load_adapter(
        self, loaded: Loaded, name: str, folder: Path, *, version: int = 0, replace: bool = False
    ) -> None:
        """Load an adapter beside the weights while the engine runs."""
        await loaded.worker.load_adapter(name, folder, version=version, replace=replace)
        self._came_in(name, folder)

    async def update_adapter(self, loaded: Loaded, name: str, adapter: Adapter, version: int) -> None:
        """Load an adapter from memory, in place of one of that name; running answers keep the old one to their end."""
        packed = await asyncio.to_thread(loaded.worker.engine.adapters.read, adapter)
        await asyncio.wrap_future(loaded.worker.add_adapter(name, packed, version=version, replace=True))
        self._came_in(name, adapter.path)
        self.from_memory[name] = secrets.token_hex(16)

    async def unload_adapter(self, loaded: Loaded, name: str) -> None:
        """Refuse an adapter to new requests."""
        del self.adapters[name]
        if name in self.present:
            self.present.discard(name)
            await loaded.worker.unload_adapter(name)

    async def kept_adapter(self, loaded: Loaded, name: str) -> SavedAdapter | None:
        """Returns what is loaded under a name; None if nothing is."""
        if name not in self.present:
            return None
        return SavedAdapter(self.adapters[name], await loaded.worker.find_adapter(name))

    async def restore_adapter(self, loaded: Loaded, name: str, kept: SavedAdapter | None) -> None:
        """Restore what was kept, or unload what has taken its name."""
        if kept is not None:
            old = kept.adapter
            added = loaded.worker.add_adapter(name, old.packed, version=old.version, replace=True)
            await asyncio.wrap_future(added)
            self._came_in(name, kept.folder)
        elif name in self.adapters:
            await self.unload_adapter(loaded, name)

    def _came_in(self, name: str, folder: Path) -> None:
        self.adapters[name] = folder
        self.from_memory.pop(name, None)
        self.loadings[name] += 1
        self.present.add(name)

    def close(self) -> None:
        """Unload the model."""
        with self.lock:
            if self.loaded is not None:
                self.loaded.worker.close()
            self.loaded = None
            self.present.clear()
