"""What models that share one engine have in common: the loaded model, and the adapters beside it. No tensors here."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.providers.local_answers import Loaded


class Memory:
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

    def close(self) -> None:
        """Let go of the model."""
        with self.lock:
            if self.loaded is not None:
                self.loaded.worker.close()
            self.loaded = None
            self.present.clear()
