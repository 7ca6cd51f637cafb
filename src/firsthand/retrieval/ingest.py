"""Ingest: a folder into an index, only what has changed, in bounded memory, and nothing in silence.

Files are read one by one, chunked, and embedded in batches across documents; each document is then stored whole, so whatever
ends an ingest leaves finished documents behind, and the next one goes on from there. A file is unchanged if its bytes have
the hash under which it was read; unchanged chunks of changed documents keep their vectors.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.model import Embedder
from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunk_index import ChunkIndex, IndexedDocument, IngestReceipt, LeftoverIndex, Vectors
from firsthand.retrieval.chunk_vectors import chunk_vectors
from firsthand.retrieval.chunking.text_spans import FILE_META
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.bounded_parser import BoundedParser
from firsthand.retrieval.documents.file_content import FileContent, NoTextField, ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFile, FolderFilter, LeftOut, read_bytes, walk
from firsthand.retrieval.moved_folders import is_gone
from firsthand.retrieval.stoppable_chunks import IngestStopped, StoppableChunks
from firsthand.retrieval.stored_files import FilesRead, StoredFiles
from firsthand.system.plurals import count_of

NOT_READ = (
    "it was read before and was left out this time, so it is in the index as it was: `firsthand rag delete` removes it"
)
NONE_READ = "no document of the index is of a file that was read from there"
NOT_THERE = (
    "its file is not there and was in none of these folders: it stays, for its folder may not be mounted; "
    "`firsthand rag delete` removes it"
)
BATCH_CHUNKS = 1024
"""Chunks that are embedded and stored together."""
BATCH_CHARS = 4_000_000
MOMENT_S = 0.2
"""The longest between two looks at what was read."""


@dataclass(frozen=True)
class IngestProgress:
    """The state of an ingest, told after each batch."""

    files: int
    total_files: int
    bytes_done: int
    """Of files that are stored, unchanged or failed."""
    total_bytes: int
    documents: int
    """Documents that are in the index as their files are now."""
    chunks: int
    """Chunks that were stored."""
    name: str
    """The file at hand."""


@dataclass
class _Tally:
    """The receipt while it is written."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    embedded: int = 0
    reused: int = 0

    def receipt(self) -> IngestReceipt:
        return IngestReceipt(
            tuple(self.added), tuple(self.updated), tuple(self.unchanged), tuple(self.removed), tuple(self.failed),
            self.embedded, self.reused, tuple(self.notes),
        )  # fmt: skip


async def ingest(
    sources: str | Path | Sequence[str | Path],
    index: ChunkIndex,
    embedder: Embedder | None,
    chunker: Chunker,
    *,
    settings: ReadSettings | None = None,
    chosen: FolderFilter | None = None,
    own_files: Iterable[Path] = (),
    moved_from: Iterable[Path] = (),
    on_progress: Callable[[IngestProgress], None] = lambda progress: None,
    removes: bool = True,
) -> IngestReceipt:
    """Brings an index up to date with folders or files, and returns what was done.

    `embedder` is None in an index without vectors. `own_files` are left out, as the index's own. Documents whose files are
    gone are removed, if they were below a folder of `sources`; those whose files are there and were not read are named in
    the notes, and stay. A file's documents under another id, of an ingest with other folders, are replaced. A document of
    another folder's file is not, unless that folder moved here: the file of the same id is named as failed. `moved_from` are
    folders that are gone and are said to have moved to `sources`, however many of their files changed: what they had and
    `sources` lack is removed. A cancelled ingest leaves whole documents in the index.

    ConfigError if a folder is empty whose documents would all be removed, or one of `moved_from` is there.
    """
    settings = settings or ReadSettings()
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    former = [Path(each).expanduser().resolve() for each in moved_from]
    paths = [Path(each).expanduser() for each in given]
    work = _Ingest(paths, index, embedder, chunker, settings, on_progress, chosen, former)
    try:
        await work.run(frozenset(Path(each) for each in own_files), removes=removes)
    finally:
        work.parser.close()
    return work.tally.receipt()


class _Ingest:
    def __init__(
        self,
        sources: Sequence[Path],
        index: ChunkIndex,
        embedder: Embedder | None,
        chunker: Chunker,
        settings: ReadSettings,
        on_progress: Callable[[IngestProgress], None],
        chosen: FolderFilter | None = None,
        moved_from: Sequence[Path] = (),
    ):
        self.sources, self.index, self.embedder, self.chunker = sources, index, embedder, chunker
        self.roots = {each.resolve() for each in sources}
        self.settings, self.on_progress, self.chosen = settings, on_progress, chosen or FolderFilter()
        self.header = index.header
        self.parser = BoundedParser(settings)
        self.tally = _Tally()
        self.stored = StoredFiles(self.roots, moved_from, self.chosen.takes)
        self.read = FilesRead()
        self.texts: dict[str, str] = {}
        """The first document of each text, to name copies."""
        self.taken: dict[str, str] = {}
        """The file of each document of this ingest, by id: `facts.jsonl` may hold an item with the name of another file."""
        self.waiting: list[tuple[Document, list[Chunk]]] = []
        self.waiting_chunks = self.waiting_chars = self.waiting_bytes = 0
        self.index_folders: set[Path] = set()
        self.replaced: list[tuple[set[str], set[str]]] = []
        """For each file the ids of its documents now, and those of an ingest that gave it another name."""
        self.contested: list[tuple[str, FolderFile]] = []
        """Files with the id of a file elsewhere that is gone: they are read last, when it is known which folders moved."""
        self.stopped = False
        self.truncated = 0
        self.at = ""
        """The file at hand."""
        self.total_files = self.total_bytes = self.files = self.bytes = self.chunks = 0

    async def run(self, own: frozenset[Path], *, removes: bool) -> None:
        await in_thread(self.stored.refuse_moved_from)
        own = frozenset(each.parent.resolve() / each.name for each in own)
        self.index_folders = {each.parent for each in own}
        found = await in_thread(lambda: self._found(own))
        files = [each for each in found if isinstance(each[1], FolderFile)]
        unread = await in_thread(lambda: self.stored.read_index(self.index))
        self.tally.notes += [(str(folder), NONE_READ) for folder in unread]
        if removes and not files:
            self._refuse_empty()
        self.total_files = len(files)
        self.total_bytes = sum(each.size_bytes for _, each in files if isinstance(each, FolderFile))
        for name, each in found:
            if isinstance(each, LeftOut):
                (self.tally.failed if each.failed else self.tally.notes).append((name, each.reason))
        reading = self._reading([(name, each) for name, each in files if isinstance(each, FolderFile)])
        while await self._ended(lambda: self._read_some(reading)):
            self._tell()
            if self.waiting_chunks >= BATCH_CHUNKS or self.waiting_chars >= BATCH_CHARS or not self.waiting:
                await self._flush()
        await self._flush()
        if self.truncated:
            counted = count_of(self.truncated, "chunk")
            told = f"{counted} longer than the model reads, whose ends have no part in their vectors"
            self.tally.notes.append(
                ("vectors", f"{told}: reindex with a smaller size, such as --chunker auto:size=500")
            )
        await in_thread(self._remove_replaced)
        if removes:
            await in_thread(self._remove_gone)
        if isinstance(self.index, LeftoverIndex) and self.tally.unchanged:
            leftovers = self.index.remove_leftovers
            await in_thread(lambda: leftovers(self.tally.unchanged))
        self._tell_kept()

    # -- reading --

    def _found(self, own: frozenset[Path]) -> list[tuple[str, FolderFile | LeftOut]]:
        """All files, each with the id of its document: the path below its folder, after the folder's name if there are
        several. A file that lies in two of the folders is read once."""
        made: list[tuple[str, FolderFile | LeftOut]] = []
        for source in self.sources:
            resolved = source.resolve() if source.exists() else source
            prefix = f"{resolved.name}/" if len(self.sources) > 1 and resolved.is_dir() else ""
            made += [(f"{prefix}{each.name}", each) for each in walk(resolved, self.chosen, own)]
        seen: set[str] = set()
        for name, _ in made:
            if name in seen:
                raise ConfigError(
                    f"two files would have the id {name!r}: index their folders one by one, each in its own"
                )
            seen.add(name)
        names: dict[Path, str] = {}
        return [
            (name, each)
            if isinstance(each, LeftOut) or (first := names.setdefault(each.path, name)) == name
            else (name, LeftOut(name, f"it is read as {first}", False))
            for name, each in made
        ]

    async def _ended(self, work: Callable[[], bool]) -> bool:
        """The result of work in a thread, which is waited for when the ingest is cancelled: it uses the index."""
        running = asyncio.ensure_future(in_thread(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.stopped = True
            self.parser.close()
            await asyncio.wait([running])
            raise

    def _read_some(self, reading: Iterator[None]) -> bool:
        """Read until a batch is full or a moment has passed; False at the end."""
        until = time.monotonic() + MOMENT_S
        while self.waiting_chunks < BATCH_CHUNKS and self.waiting_chars < BATCH_CHARS and time.monotonic() < until:
            if self.stopped:
                return False
            try:
                next(reading)
            except StopIteration:
                return False
        return True

    def _reading(self, files: Sequence[tuple[str, FolderFile]]) -> Iterator[None]:
        """Read the files into `waiting`; stops after each document."""
        for name, file in files:
            self.at, self.files = name, self.files + 1
            yield from self._read_or_tell(name, file)
            self.waiting_bytes += file.size_bytes
            yield
        self.read.moved = self.stored.moved(self.roots, self.read) if self.contested else set()
        for name, file in self.contested:
            self.at = name
            yield from self._read_or_tell(name, file)

    def _read_or_tell(self, name: str, file: FolderFile) -> Iterator[None]:
        """Read a file; the receipt names one that cannot be read."""
        self.read.hashes[str(file.path)] = ""
        try:
            yield from self._read(name, file)
        except (DataError, MissingExtra) as error:
            kept = len(self.stored.by_source.get(str(file.path), ()))
            still = "; what was read from it before stays in the index" if kept else ""
            named = file.path in self.roots
            skipped = isinstance(error, NoTextField) and not kept and not named
            (self.tally.notes if skipped else self.tally.failed).append((name, f"{error}{still}"))

    def _read(self, name: str, file: FolderFile) -> Iterator[None]:
        data, _ = read_bytes(file.path, self.settings.max_file_bytes)
        source = str(file.path)
        mark: Json = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "reader": f"{file.format.name}:{file.format.version}:{self.settings.fields}",
        }
        known = self.stored.by_source.get(source, ())
        before = [id for id in known if id == name or id.startswith(f"{name}:")]
        others = {id for id in known if self.stored.documents[id].file} - {*before}
        self.read.hashes[source] = mark["sha256"]
        whole = {**mark, "documents": len(before)}  # a file of many documents may have been stored in part
        if before and all(self.stored.documents[id].file == whole for id in before):
            self._unchanged(before)
            self.read.whole.add(source)
            self.replaced.append(({*before}, others))
            return
        content = self._content(data, name, file)
        del data
        documents = [each for each in content.documents if each.text.strip()]
        if self.read.moved is None and any(self.stored.is_contested(each.id, source, self.read) for each in documents):
            self.contested.append((name, file))
            return
        self.tally.notes += [(name, note) for note in content.notes]
        self.tally.failed += content.failed
        if not documents and not content.failed:
            self.tally.notes.append((name, "it is empty: nothing to index"))
        failed = {"failed": len(content.failed)} if content.failed else {}  # it is read again, and they are named again
        for document in documents:
            meta = {**document.meta, FILE_META: {**mark, "documents": len(documents), **failed}}
            self._take(replace(document, source=source, meta=meta))
            yield
        gone = set(before) - {each.id for each in documents}
        if gone and not content.failed:
            self.tally.removed += self.index.delete(sorted(gone))
        if not content.failed:
            self.read.whole.add(source)
            self.replaced.append(({each.id for each in documents}, others))

    def _content(self, data: bytes, name: str, file: FolderFile) -> FileContent:
        if file.format.isolated(len(data)):
            return self.parser.parse(file.format.name, data, name)
        try:
            return file.format.read(data, name, self.settings)
        except FirsthandError:
            raise
        except Exception as error:  # one file of a hundred thousand does not end the ingest
            raise DataError(f"its reader failed, which is a fault of ours: {type(error).__name__}: {error}") from error

    def _take(self, document: Document) -> None:
        """Chunk a document and let it wait for its batch."""
        known = self.stored.documents.get(document.id)
        if known is not None and known.source != document.source and not is_gone(known.source):
            told = f"the index has a document of this id from {known.source}: give this folder an index of its own"
            self.tally.failed.append((document.id, told))
            return
        if known is not None and self.stored.is_contested(document.id, document.source, self.read):
            told = (
                f"the index has a document of this id from {known.source}, which is not there: if its folder was moved or "
                "made anew here, index again with --moved-from and the former folder; if the file was deleted, remove the "
                "document with `firsthand rag delete` and index this file again; if its folder is not mounted, give this "
                "folder an index of its own"
            )
            self.tally.failed.append((document.id, told))
            return
        taken = self.taken.setdefault(document.id, document.source)
        if taken != document.source:
            told = f"{taken} has a document of this id, and {document.source} was left out: rename one of the files"
            self.tally.failed.append((document.id, told))
            return
        first = self.texts.setdefault(document.sha256, document.id)
        if first != document.id:
            self.tally.notes.append((document.id, f"it has the same text as {first}"))
        chunks = self.chunker(document)
        self.waiting.append((document, chunks))
        self.waiting_chunks += len(chunks)
        self.waiting_chars += sum(len(each.text) for each in chunks)

    def _unchanged(self, ids: Sequence[str]) -> None:
        self.tally.unchanged += ids
        for id in ids:
            self.texts.setdefault(self.stored.documents[id].sha256, id)
            self.taken.setdefault(id, self.stored.documents[id].source)

    # -- embedding and storing --

    async def _flush(self) -> None:
        """Embed and store what waits."""
        batch, self.waiting = self.waiting, []
        size, self.waiting_bytes = self.waiting_bytes, 0
        self.waiting_chunks = self.waiting_chars = 0
        if batch:
            vectors = await self._vectors([chunk for _, chunks in batch for chunk in chunks])
            indexed, at = [], 0
            for document, chunks in batch:
                own = None if vectors is None else vectors[at : at + len(chunks)]
                indexed.append(IndexedDocument(document, StoppableChunks(chunks, lambda: self.stopped), own))
                at += len(chunks)
            storing = asyncio.create_task(self._put(indexed, at, size))
            try:
                await asyncio.shield(storing)
            except asyncio.CancelledError:
                self.stopped = True
                with suppress(IngestStopped):
                    await storing  # the index is not closed under a thread that writes
                raise
        else:
            self.bytes += size
            self._tell()

    async def _put(self, indexed: Sequence[IndexedDocument], chunks: int, size: int) -> None:
        put = await in_thread(lambda: self.index.put(indexed))
        self.tally.added += put.added
        self.tally.updated += put.updated
        self.tally.unchanged += put.unchanged
        self.tally.failed += put.failed
        self.tally.notes += put.notes
        self.chunks += chunks
        self.bytes += size
        self._tell()

    async def _vectors(self, chunks: Sequence[Chunk]) -> Vectors | None:
        if self.embedder is None:
            return None
        made = await chunk_vectors(chunks, self.index, self.embedder, self.header)
        self.tally.embedded += made.embedded
        self.tally.reused += made.reused
        self.truncated += made.truncated
        return made.vectors

    # -- removing --

    def _refuse_empty(self) -> None:
        if lost := self.stored.lost():
            raise ConfigError(
                f"{', '.join(map(str, self.sources))} holds no file to read, and the index has {lost} documents of it: "
                "if that is right, remove the index's file; else see that the folder is mounted"
            )

    def _remove_replaced(self) -> None:
        """Remove a file's documents under other ids, if those of its name now are stored."""
        stored = self._done()
        gone = {id for now, others in self.replaced if now <= stored for id in others} - stored
        if gone:
            self.tally.removed += self.index.delete(sorted(gone))

    def _remove_gone(self) -> None:
        """Remove the documents whose files are gone; those that failed are named, and stay."""
        gone = self.stored.gone(self.index_folders, self.read)
        gone -= {*self._done(), *self.tally.removed, *(id for id, _ in self.tally.failed)}
        if gone:
            self.tally.removed += self.index.delete(sorted(gone))

    def _tell_kept(self) -> None:
        """Name the documents that stay although their files were not read."""
        done = {*self._done(), *self.tally.removed}
        self.tally.notes += [(id, NOT_READ) for id in self.stored.not_read(self.read) if id not in done]
        done |= {id for id, _ in self.tally.failed}  # they are named already
        self.tally.notes += [(id, NOT_READ) for id in self.stored.left_out(self.read) if id not in done]
        if not self.index_folders.isdisjoint(self.roots):
            self.tally.notes += [(id, NOT_THERE) for id in self.stored.elsewhere() if id not in done]

    def _done(self) -> set[str]:
        """The documents that are in the index as their files are now."""
        return {*self.tally.added, *self.tally.updated, *self.tally.unchanged}

    def _tell(self) -> None:
        documents = len(self.tally.added) + len(self.tally.updated) + len(self.tally.unchanged)
        self.on_progress(
            IngestProgress(self.files, self.total_files, self.bytes, self.total_bytes, documents, self.chunks, self.at)
        )


def index_files(path: Path) -> list[Path]:
    """The files of an index: SQLite's, the lock, side files, those of a new one that is being made, and of its graph."""
    endings = ("", "-wal", "-shm", "-journal", ".lock", ".lock.holder", ".lock.holder.new", ".ann", ".terms")
    return [path.with_name(path.name + new + ending) for new in ("", ".new", ".graph") for ending in endings]
