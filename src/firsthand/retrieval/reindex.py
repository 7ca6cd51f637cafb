"""Makes an index anew from its own documents, with another model or chunker, and swaps it in when it is complete.

The sources are not read. Another model's vectors grow in a second table; processes that have the index open open it again.
With another chunker the new index grows in a file beside the old one, and nobody may have either open when it is replaced.
The old index is searched until the swap, and an interrupted run is gone on with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError, DataError, ModelError, StoreError
from firsthand.loop.concurrency import in_thread
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex, IndexedDocument, IndexHeader, Vectors
from firsthand.retrieval.chunk_vectors import blocking_embed, chunk_vectors
from firsthand.retrieval.document import Document
from firsthand.retrieval.index_settings import Prepared
from firsthand.retrieval.ingest import BATCH_CHARS, BATCH_CHUNKS
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.system.lock import claimed


@dataclass(frozen=True)
class Reindexed:
    """The cost of making an index anew."""

    documents: int
    chunks: int
    embedded: int
    reused: int


async def reindex(
    path: Path, prepared: Prepared, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Reindexed:
    """Replace the index at a path by one with the prepared header, of the same documents.

    `on_progress` is told documents done, and how many there are. StoreError if another process has the index or the new
    one open at the end; what was made is kept, and the next run goes on with it.
    """
    with closing(open_index(path, read_only=True)) as index:
        stored = index.header
    if stored.chunker == prepared.header.chunker:
        return await _reembedded(path, stored, prepared, on_progress)
    new_path = unfinished_path(path)
    with _claimed(path):
        with closing(open_index(path)) as old:
            same = old.header.fingerprint == prepared.header.fingerprint
            reusable = same and old.header.document_prefix == prepared.header.document_prefix
            new = _beside(new_path, prepared)
            with closing(new):
                embedded = reused = 0
                done, waiting = new.record_hashes(), []
                ids = old.record_hashes()
                if stale := done.keys() - ids.keys():
                    new.delete(stale)
                    new.overwrite_deleted()
                number = size = chars = 0
                for number, (id, record) in enumerate(ids.items(), 1):
                    if done.get(id) != record:
                        document = await in_thread(lambda id=id: old.document(id))  # type: ignore[misc]
                        chunks = await in_thread(lambda document=document: _chunks(document, prepared))  # type: ignore[misc]
                        waiting.append((document, chunks))
                        size, chars = size + len(chunks), chars + len(document.text)
                    if waiting and (size >= BATCH_CHUNKS or chars >= BATCH_CHARS or number == len(ids)):
                        counts = await _store(waiting, new, old if reusable else None, prepared)
                        embedded, reused = embedded + counts[0], reused + counts[1]
                        waiting, size, chars = [], 0, 0
                    on_progress(number, len(ids))
                made = Reindexed(len(new.hashes()), len(new), embedded, reused)
                if faults := await in_thread(new.verify):
                    raise StoreError(f"the new index has a fault, and the old one stays: {faults[0]}")
        _swap(path, new_path)
    return made


def unfinished_path(path: Path) -> Path:
    """The file of the new index that grows beside the one at a path, while it is made or after that was broken off."""
    return path.with_name(path.name + ".new")


def delete_unfinished(path: Path, ids: Iterable[str]) -> None:
    """Delete documents from the unfinished index beside the one at a path, if there is one, and overwrite what it held.

    StoreError if the index is being written, as by `reindex`, or if the unfinished one cannot be opened.
    """
    new_path = unfinished_path(path)
    if not new_path.exists():
        return
    with _claimed(path), closing(open_index(new_path)) as new:
        new.delete(ids)
        new.overwrite_deleted()


def _claimed(path: Path) -> AbstractContextManager[None]:
    def busy(holder: str) -> StoreError:
        return StoreError(f"{path} is being written by {holder}: wait until it has ended")

    return claimed(path.with_name(path.name + ".lock"), busy)


def _chunks(document: Document, prepared: Prepared) -> list[Chunk]:
    try:
        return prepared.chunk(document)
    except DataError as error:
        raise DataError(f"{document.id}: {error}") from None


async def _reembedded(
    path: Path, stored: IndexHeader, prepared: Prepared, on_progress: Callable[[int, int], None]
) -> Reindexed:
    """Give the index the prepared model's vectors. What is computed is kept when the work is cancelled."""
    stop = threading.Event()
    compute = None if prepared.embedder is None else blocking_embed(prepared.embedder)
    embedded = 0

    def embed(texts: Sequence[str]) -> Vectors:
        nonlocal embedded
        if stop.is_set():
            raise ModelError("making the vectors was stopped")
        assert compute is not None
        vectors = compute([prepared.header.document_prefix + text for text in texts])
        embedded += len(texts)
        on_progress(embedded, total)
        return vectors

    with closing(open_index(path)) as index:
        documents, total = len(index.hashes()), len(index)
        if stored == prepared.header:
            return Reindexed(documents, total, 0, total if prepared.embedder is not None else 0)
        running = asyncio.ensure_future(in_thread(lambda: index.reembed(prepared.header, embed)))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([running])
            raise
        return Reindexed(documents, total, embedded, 0)


async def _store(waiting: list, new: ChunkIndex, known_by: ChunkIndex | None, prepared: Prepared) -> tuple[int, int]:  # type: ignore[type-arg]
    every = [chunk for _, chunks in waiting for chunk in chunks]
    made = None
    if prepared.embedder is not None:
        made = await chunk_vectors(every, known_by, prepared.embedder, prepared.header)
    indexed, at = [], 0
    for document, chunks in waiting:
        indexed.append(IndexedDocument(document, chunks, None if made is None else made.vectors[at : at + len(chunks)]))
        at += len(chunks)
    receipt = await in_thread(lambda: new.put(indexed))
    if receipt.failed:
        raise StoreError(f"{receipt.failed[0][0]} does not fit the new index: {receipt.failed[0][1]}")
    return (0, 0) if made is None else (made.embedded, made.reused)


def _beside(path: Path, prepared: Prepared) -> SqliteIndex:
    """The unfinished index of an earlier run, if it was to be the same; else a new one."""
    try:
        return open_index(path, prepared.header)
    except (ConfigError, StoreError):
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        return open_index(path, prepared.header)


def _swap(path: Path, new_path: Path) -> None:
    """Put the new file in the old one's place, if neither has a log: SQLite leaves it where another process has the file
    open. The old one's would be read into the new file, and the new one's, with documents in it, be left behind."""
    for each in (path, new_path):
        if each.with_name(each.name + "-wal").exists():
            raise StoreError(
                f"another process has {each} open: end it, and run this again, which goes on with {new_path.name}"
            )
    new_path.replace(path)
    new_path.with_name(new_path.name + ".lock").unlink(missing_ok=True)
