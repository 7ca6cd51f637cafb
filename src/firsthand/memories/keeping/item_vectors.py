"""ItemVectors: searches a memory by meaning, with an embedding of each item beside it in the memory's file.

Items are embedded when a search first meets them, so that a write stays as fast as it was. A search compares the query with
all vectors of its scope (cosine); its ranking is fused with that of the words by reciprocal ranks (Cormack et al., 2009).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firsthand.loop.concurrency import in_thread
from firsthand.memories.keeping.item_file import ItemFile

CANDIDATES = 200
"""The items of each of its two rankings, by words and by meaning, that a search fuses."""
LEAST_COSINE = 0.2
"""Items further from the query than this are not found by their meaning: what is unrelated lies near 0."""
RRF_K = 60
HELD_BYTES = 64 << 20
"""Size limit of the vectors that are held for items that no file has: 43,000 of MiniLM's."""
_AT_ONCE = 128
Matrix = NDArray[np.float32]


class TextEmbedder(Protocol):
    """An embedding model; `fingerprint` tells its vectors from those of others."""

    @property
    def fingerprint(self) -> str: ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


@dataclass
class _Loaded:
    """The vectors of a scope that are in memory."""

    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    matrix: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def last(self) -> int:
        return int(self.numbers[-1]) if len(self.numbers) else 0


class ItemVectors:
    """The vectors of one embedding model, for all scopes of the files that memories share it in."""

    def __init__(self, embedder: TextEmbedder):
        self._embedder = embedder
        self._loaded: dict[tuple[Any, int], _Loaded] = {}
        self._by_text: dict[bytes, Matrix] = {}
        """Vectors of items that no file has, by a hash of their text, those last used behind; at most HELD_BYTES of them."""
        self._lock = threading.Lock()

    async def nearest(
        self, query: str, file: ItemFile | None, scope: int, last: int, own: Mapping[int, str]
    ) -> list[int]:
        """Numbers of the items within LEAST_COSINE of the query, the nearest first, ties by number.

        Args:
            file: The memory's file, whose items of `scope` up to number `last` are searched.
            own: Texts of further items, by number.
        """
        (asked,) = await self._embed([query])
        numbers, matrix = np.empty(0, np.int64), np.empty((0, len(asked)), np.float32)
        if file is not None and scope:
            await self._embed_missing(file, scope)
            loaded = await in_thread(lambda: self._load(file, scope))
            seen = loaded.numbers <= last
            numbers, matrix = loaded.numbers[seen], loaded.matrix[seen]
        if own:
            rows = await self._of_texts(list(dict.fromkeys(own.values())))
            numbers = np.concatenate([numbers, np.fromiter(own, np.int64, len(own))])
            matrix = np.concatenate([matrix.reshape(-1, len(asked)), np.stack([rows[t] for t in own.values()])])
        if not len(numbers):
            return []
        cosines = matrix @ asked
        numbers, cosines = numbers[cosines >= LEAST_COSINE], cosines[cosines >= LEAST_COSINE]
        nearest: list[int] = numbers[np.lexsort((numbers, -cosines))].tolist()
        return nearest

    async def _of_texts(self, texts: Sequence[str]) -> dict[str, Matrix]:
        """The vectors of texts that no file has, of which the latest are held."""
        keys = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts}
        with self._lock:
            rows = {text: self._by_text[key] for text, key in keys.items() if key in self._by_text}
        missing = [text for text in texts if text not in rows]
        rows |= {text: row.copy() for text, row in zip(missing, await self._embed(missing), strict=True)}
        with self._lock:
            for text, key in keys.items():
                self._by_text.pop(key, None)
                self._by_text[key] = rows[text]
            size = sum(row.nbytes for row in self._by_text.values())
            while size > HELD_BYTES:
                size -= self._by_text.pop(next(iter(self._by_text))).nbytes
        return rows

    async def _embed(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors, a row for each text."""
        found: list[Matrix] = []
        for start in range(0, len(texts), _AT_ONCE):
            found.append(np.asarray(await self._embedder.embed(texts[start : start + _AT_ONCE]), np.float32))
        made = np.concatenate(found) if found else np.empty((0, 0), np.float32)
        unit: Matrix = made / np.maximum(np.linalg.norm(made, axis=-1, keepdims=True), 1e-12)
        return unit

    async def _embed_missing(self, file: ItemFile, scope: int) -> None:
        model = self._embedder.fingerprint
        while rows := await in_thread(lambda: file.without_vector(scope, model, _AT_ONCE)):
            made = await self._embed([text for _, text in rows])
            halves = {number: row.astype("<f2").tobytes() for (number, _), row in zip(rows, made, strict=True)}
            await in_thread(partial(file.put_vectors, scope, model, halves))

    def _load(self, file: ItemFile, scope: int) -> _Loaded:
        """The scope's vectors, those that were added since the last search read now; all, if items were deleted since."""
        with self._lock:
            known = self._loaded.setdefault((file, scope), _Loaded())
            if len(known.numbers) > file.count_of(scope):
                known = self._loaded[file, scope] = _Loaded()
            rows = file.vectors(scope, self._embedder.fingerprint, known.last)
            if rows:
                added = np.stack([np.frombuffer(body, "<f2") for _, body in rows]).astype(np.float32)
                before = known.matrix if len(known.numbers) else added[:0]
                known.matrix = np.concatenate([before, added])
                known.numbers = np.concatenate([known.numbers, [number for number, _ in rows]])
            return _Loaded(known.numbers, known.matrix)


def fused(words: Sequence[int], meaning: Sequence[int]) -> dict[int, float]:
    """Reciprocal rank fusion of two rankings: the score of each number in them."""
    scores: dict[int, float] = {}
    for ranking in (words, meaning):
        for rank, number in enumerate(ranking, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RRF_K + rank)
    return scores
