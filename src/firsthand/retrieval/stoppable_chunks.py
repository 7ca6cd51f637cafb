"""The chunks of a document while an index stores it, which end the storing when its ingest is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from firsthand.retrieval.chunk import Chunk


class IngestStopped(Exception):
    """The ingest was cancelled while a document was being stored, which the index takes back."""


class StoppableChunks(Sequence[Chunk]):
    """Chunks that raise IngestStopped, instead of giving the next one, once `stopped` tells so."""

    def __init__(self, chunks: Sequence[Chunk], stopped: Callable[[], bool]):
        self._chunks, self._stopped = chunks, stopped

    @overload
    def __getitem__(self, index: int) -> Chunk: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Chunk]: ...

    def __getitem__(self, index: int | slice) -> Chunk | Sequence[Chunk]:
        if self._stopped():
            raise IngestStopped
        return self._chunks[index]

    def __len__(self) -> int:
        return len(self._chunks)
