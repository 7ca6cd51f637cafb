"""Local cross-encoders: a model folder that scores texts against a query.

The model is loaded once, in a thread, when the first score is requested. Torch is imported then, not before.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.hub import model_lookup

if TYPE_CHECKING:
    from firsthand.embed.relevance import RelevanceModel


def open_cross_encoder(text: str) -> LocalCrossEncoder:
    """Returns the cross-encoder of that path or `hf:org/name`, pulled if missing; nothing is loaded yet."""
    return LocalCrossEncoder(model_lookup.resolve(text), name=text)


class LocalCrossEncoder:
    """A cross-encoder from a Hugging Face folder. A cancelled call stops after the current pack."""

    def __init__(
        self, path: Path | str, *, name: str | None = None, compiled: bool | None = None, threads: int | None = None
    ):
        self.path = Path(path)
        self.name = name or str(path)
        self._settings = (compiled, threads)
        self._lock = threading.Lock()
        self._loaded: RelevanceModel | None = None
        self._finalizer: Callable[[], object] | None = None

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Returns the score of each text for the query; higher is better. An empty list for no texts."""
        if not isinstance(texts, str) and not len(texts):
            return []
        stop = threading.Event()

        def work() -> list[float]:
            scores: list[float] = self._ready().score(query, texts, stopped=stop.is_set).tolist()
            return scores

        try:
            return await asyncio.to_thread(work)
        finally:  # a thread cannot be cancelled: it checks the event before each pack
            stop.set()

    def close(self) -> None:
        """Unload the model; the next call loads it again."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._loaded = self._finalizer = None

    def _ready(self) -> RelevanceModel:
        from firsthand.embed.relevance import load_relevance

        with self._lock:
            if self._loaded is None:
                compiled, threads = self._settings
                self._loaded = load_relevance(self.path, compiled=compiled, threads=threads)
                self._finalizer = weakref.finalize(self, self._loaded.close)
            return self._loaded
