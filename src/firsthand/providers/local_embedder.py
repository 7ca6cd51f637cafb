"""Local embedders: an encoder folder, `minilm`, or any local decoder, as an Embedder.

The model is loaded once, in a thread, when the first vector is requested. Torch is imported then, not before.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub import model_lookup
from firsthand.hub.content_hash import content_hash
from firsthand.system import request_owner

if TYPE_CHECKING:
    from firsthand.embed.embedding import Embedded, TextEmbedder
    from firsthand.embed.embedding_config import Pooling
    from firsthand.nn.encoder_arithmetic import Precision

AT_BFLOAT16 = "@bfloat16"
VECTORS_VERSION = "1"
"""Raised when the same files give other vectors: indexes made before are then refused, and made again."""


def open_embedder(text: str) -> LocalEmbedder:
    """Returns the embedder of that name or path, pulled if missing; nothing is loaded yet.

    `NAME@bfloat16` is the embedder of that name at the precision.
    """
    base = text.removesuffix(AT_BFLOAT16)
    precision: Precision = "float32" if base == text else "bfloat16"
    return LocalEmbedder(model_lookup.resolve(base), name=text, precision=precision)


class LocalEmbedder:
    """An embedder from a Hugging Face folder or a .gguf file. A cancelled call stops after the current pack."""

    def __init__(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        pooling: Pooling | None = None,
        compiled: bool | None = None,
        threads: int | None = None,
        precision: Precision = "float32",
    ):
        """`precision="bfloat16"` is faster on a CPU with matrix tiles (AMX); the fingerprint names it."""
        self.path = Path(path)
        self.name = name or str(path)
        self._settings: tuple[Pooling | None, bool | None, int | None] = (pooling, compiled, threads)
        self._precision: Precision = precision
        self._lock = threading.Lock()
        self._loaded: TextEmbedder | None = None
        self._finalizer: Callable[[], object] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines the vectors, 16 hex digits: the model's files, the pooling, and `VECTORS_VERSION`."""
        files = [self.path] if self.path.is_file() else sorted(
            file for pattern in ("*.json", "*/config.json", "*.safetensors", "*.model") for file in self.path.glob(pattern)
        )  # fmt: skip
        parts = [content_hash(file) for file in files]
        parts += [] if self._precision == "float32" else [self._precision]
        parts += ["both directions"] if _sees_both_ways(self.path) else []  # vectors were causal until 0.26.0
        parts += _stated(self.path, self._settings[0])  # passed over until 0.28.0
        digest = hashlib.sha256("|".join([*parts, *map(str, self._settings[:2]), VECTORS_VERSION]).encode())
        return f"embedder:{digest.hexdigest()[:16]}"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a vector for each text, all of one length and Euclidean length 1; an empty list for no texts."""
        if not isinstance(texts, str) and not len(texts):
            return []
        vectors: list[list[float]] = (await self.embed_counted(texts)).vectors.tolist()
        return vectors

    async def embed_counted(self, texts: Sequence[str], *, whole: bool = False) -> Embedded:
        """Returns the vectors as a float32 array, with each text's token count and whether it was truncated.

        With `whole`, raises PromptTooLong instead of truncating a text, before any vector is computed. Request owners share
        the model fairly.
        """
        model = self._loaded
        if model is None:
            model = await asyncio.to_thread(self._ready)
        owner = request_owner.current().partition("/")[0]  # a client, whatever users it names
        return await model.embed_in_turn(texts, owner=owner, whole=whole)

    async def embed_batches(self, texts: Iterable[str], *, batch_size: int = 2048) -> AsyncIterator[Embedded]:
        """Yields the vectors of any number of texts, `batch_size` at a time, in order and in constant memory."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: give 1 or more")
        stream = iter(texts)
        while batch := list(islice(stream, batch_size)):
            yield await self.embed_counted(batch)

    def close(self) -> None:
        """Unload the model; the next call loads it again."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()  # which also drops its reference to the model
            self._loaded = self._finalizer = None

    def _ready(self) -> TextEmbedder:
        from firsthand.embed.embedding import load

        with self._lock:
            if self._loaded is None:
                pooling, compiled, threads = self._settings
                self._loaded = load(
                    self.path, pooling=pooling, compiled=compiled, threads=threads, precision=self._precision
                )
                self._finalizer = weakref.finalize(self, self._loaded.close)
            return self._loaded


def _stated(path: Path, pooling: Pooling | None) -> list[str]:
    """The embedding settings of a GGUF file that are not the defaults; none for a folder or a file that cannot be read."""
    from firsthand.embed.embedding_metadata import other_than_default

    if path.suffix.lower() != ".gguf":
        return []
    try:
        return other_than_default(path, pooling)
    except ModelFileError:  # loading says why
        return []


def _sees_both_ways(path: Path) -> bool:
    """True for a decoder that attends in both directions; False for encoders, and for what cannot be read."""
    from firsthand.nn.model_config import architecture_of

    try:
        return not architecture_of(path).is_causal
    except ModelFileError:
        return False
