"""The LoRA adapters loaded beside the model, by name, with limits on their number, rank and memory.

A request keeps its adapter to its end. An adapter that is unloaded or replaced is refused to new requests at once, and
its memory is freed with the last request that uses it. Ids are never reused: cached prefixes are kept apart by adapter
id, so an adapter never reads the KV blocks of a predecessor of the same name.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.nn.batched_lora import PackedAdapter, pack_adapter
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, read_adapter
from firsthand.nn.quant import Mode
from firsthand.system.field_types import shown

MAX_NAME = 256
_NAME = re.compile(r"[A-Za-z0-9._@:/+-]+")


@dataclass(eq=False)
class LoadedAdapter:
    """A LoRA adapter in memory."""

    id: int
    name: str
    version: int
    packed: PackedAdapter
    num_live: int = 0
    """Sequences that use it."""
    is_leaving: bool = False
    """True if it is freed with its last sequence."""


class AdapterSlots:
    """The adapters of an engine. `read` may run in any thread, everything else in the engine's."""

    def __init__(self, model: Decoder, config: EngineConfig, *, tiles_of: Mode | None):
        self._model = model
        self._config = config
        self._tiles_of: Mode | None = tiles_of
        self._loaded: dict[str, LoadedAdapter] = {}
        self._leaving: list[LoadedAdapter] = []
        self._next_id = 1
        self._read_lock = threading.Lock()

    def __len__(self) -> int:
        """Returns how many are in memory, leaving ones included."""
        return len(self._loaded) + len(self._leaving)

    @property
    def versions(self) -> dict[str, int]:
        """The version of each adapter that new requests can name."""
        return {name: adapter.version for name, adapter in self._loaded.items()}

    @property
    def size_bytes(self) -> int:
        """Memory of all adapters, leaving ones included."""
        return sum(each.packed.size_bytes for each in (*self._loaded.values(), *self._leaving))

    def read(self, source: Path | str | Adapter) -> PackedAdapter:
        """Returns the adapter of a folder, packed and ready for `add`; the engine is not touched.

        Raises ModelFileError if it is invalid or does not fit the model, ConfigError if it exceeds a limit.
        """
        most = self._config.adapter_memory_bytes
        with self._read_lock:  # one at a time, which bounds the memory
            if not isinstance(source, Adapter):
                source = read_adapter(source, self._model, max_bytes=most, max_rank=self._config.max_adapter_rank)
            packed = pack_adapter(source, self._model, tiles_of=self._tiles_of)
        if packed.size_bytes > most:
            raise ConfigError(
                f"the adapter takes {packed.size_bytes} bytes and all together may take {most}: raise adapter_memory_bytes"
            )
        return packed

    def add(self, name: str, packed: PackedAdapter, version: int, *, replace: bool = False) -> LoadedAdapter | None:
        """Add an adapter under a name; returns the adapter it replaced if no sequence uses that one.

        Raises ConfigError, and changes nothing, if the name is invalid or taken and `replace` is off, or if there is no
        room.
        """
        check_adapter_name(name)
        old = self._loaded.get(name)
        if old is not None and not replace:
            raise ConfigError(f"an adapter {name!r} is loaded already: unload it first, or ask for it to be replaced")
        stays = old is None or old.num_live > 0
        room = self._config.max_adapters - len(self) + (not stays)
        memory = (
            self._config.adapter_memory_bytes - self.size_bytes + (0 if stays or old is None else old.packed.size_bytes)
        )
        if room < 1 or packed.size_bytes > memory:
            leaving = f", {len(self._leaving)} of them unloaded but in use by requests" if self._leaving else ""
            raise ConfigError(
                f"no room for the adapter {name!r} of {packed.size_bytes} bytes: {len(self)} take {self.size_bytes} bytes"
                f"{leaving}; unload one, or raise max_adapters ({self._config.max_adapters}) or adapter_memory_bytes "
                f"({self._config.adapter_memory_bytes})"
            )
        gone = self._retire(old) if old is not None else None
        self._loaded[name] = LoadedAdapter(self._next_id, name, version, packed)
        self._next_id += 1
        return gone

    def get(self, name: str) -> LoadedAdapter:
        """Returns the adapter for new requests of that name; ConfigError if there is none."""
        found = self._loaded.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self._loaded) or "none"
            raise ConfigError(f"no adapter {shown(name)} is loaded: there are {known}")
        return found

    def remove(self, name: str) -> LoadedAdapter | None:
        """Refuse an adapter to new requests; returns it if no sequence uses it, so that it is freed."""
        found = self.get(name)
        del self._loaded[name]
        return self._retire(found)

    def enter(self, adapter: LoadedAdapter, num_sequences: int) -> None:
        """Record that this many sequences now use it."""
        adapter.num_live += num_sequences

    def leave(self, adapter: LoadedAdapter) -> LoadedAdapter | None:
        """Record that a sequence which used it has ended; returns it if it is freed now."""
        adapter.num_live -= 1
        if adapter.num_live or not adapter.is_leaving:
            return None
        self._leaving.remove(adapter)
        return adapter

    def _retire(self, adapter: LoadedAdapter) -> LoadedAdapter | None:
        adapter.is_leaving = True
        if adapter.num_live:
            self._leaving.append(adapter)
            return None
        return adapter


def check_adapter_name(name: object) -> None:
    """Raise ConfigError unless the name is valid for an adapter."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ConfigError(f"an adapter's name is {shown(name)}: give 1 to {MAX_NAME} letters, digits and . _ @ : / + -")
