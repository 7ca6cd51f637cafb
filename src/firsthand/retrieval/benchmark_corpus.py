"""The index of a benchmark's corpus: made when a pattern first retrieves from it, and kept in our home folder.

A task names its corpus in `metadata["corpus"]`, as a benchmark with options; that benchmark's module has a function `corpus`
which returns the documents, and may have a function `corpus_files`, which returns the files that they are read from. Each
document is one chunk, title and text, as BEIR and MTEB embed them.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.errors import ConfigError, StoreError
from firsthand.loop.concurrency import in_thread
from firsthand.providers.local_embedder import open_embedder
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.chunk_vectors import chunk_vectors
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.document_rows import digest_of
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.system import lock
from firsthand.system.home import data_home
from firsthand.system.option_spec import bind_options, parse_spec
from firsthand.task import Task

CHUNKER = "whole"
AT_ONCE = 256
"""Documents that are embedded and stored together; an interrupted build goes on after the last of them."""
_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, asyncio.Lock]] = weakref.WeakKeyDictionary()
WAIT_S = 0.2
"""Between two looks at whether another process has made the index."""
_Stamp = tuple[tuple[str, int, int, int], ...]
"""The path, inode, size and time of change of each file."""
_ready: dict[Path, _Stamp] = {}


def corpus_spec(task: Task) -> str:
    """Returns the corpus that a task names. ConfigError if it names none."""
    spec = task.metadata.get("corpus")
    if not spec:
        raise ConfigError(
            f"task {task.id} names no corpus: give an index, as in index=PATH, or a benchmark of retrieval such as scifact"
        )
    return str(spec)


async def task_index(task: Task, index: str, *, embedder: str) -> str:
    """Returns the given index, or that of the corpus that the task names, which is made if it is not there."""
    return index or str(await corpus_index(corpus_spec(task), embedder=embedder))


def corpus_documents(spec: str) -> list[Document]:
    """Returns the documents of a benchmark's corpus. ConfigError if the benchmark has none."""
    found: list[Document] = _read(spec, "corpus")
    return found


def corpus_stamp(spec: str) -> _Stamp:
    """Returns what the files of a benchmark's corpus look like, which is another after a change; () if it names none."""
    if not catalog.has_module_attribute("benchmark", _name(spec), "corpus_files"):
        return ()
    stats = [(str(path), path.stat()) for path in _read(spec, "corpus_files")]
    return tuple((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def _read(spec: str, function_name: str) -> Any:
    function = catalog.module_attribute("benchmark", _name(spec), function_name)
    return function(**bind_options(parse_spec(spec), function))


def _name(spec: str) -> str:
    return parse_spec(spec).name.partition("@")[0]


def corpus_path(spec: str, embedder: str) -> Path:
    """Returns the file that the corpus's index has, or will have."""
    name = "".join(each if each.isalnum() else "-" for each in parse_spec(spec).name)
    digest = hashlib.sha256(f"{spec}\0{embedder}".encode()).hexdigest()[:8]
    return data_home() / "indexes" / f"{name}-{digest}.sqlite"


async def corpus_index(spec: str, *, embedder: str = "minilm") -> Path:
    """Returns the index of a benchmark's corpus, made, or brought up to date where its files have changed.

    Without `corpus_files` that is done once in a process. Where another process makes the index, that is waited for.

    `embedder` is the name of a local embedder; empty makes an index of terms alone.
    """
    path = corpus_path(spec, embedder)
    locks = _locks.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(path, asyncio.Lock()):
        stamp = await in_thread(lambda: corpus_stamp(spec))
        if _ready.get(path) != stamp or not path.is_file():
            async with _alone(path):
                await build_index(path, await in_thread(lambda: corpus_documents(spec)), embedder=embedder)
            _ready[path] = stamp
    return path


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold the right to make an index, after waiting for another process that makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f"{path.name}.making")
    while True:
        try:
            held = lock.taken(making, lambda: _IsMade(f"{path} is being made by another process"))
            break
        except _IsMade:
            await asyncio.sleep(WAIT_S)
    with held:
        yield


class _IsMade(StoreError):
    """Another process makes the index."""


async def build_index(path: Path, documents: Sequence[Document], *, embedder: str = "minilm") -> None:
    """Brings the index at a path to exactly these documents, a chunk each; what is embedded already is not again."""
    opened = open_embedder(embedder) if embedder else None
    dimension = len((await opened.embed(["dimension"]))[0]) if opened else 0
    header = IndexHeader(embedder, opened.fingerprint if opened else "", dimension, CHUNKER)
    path.parent.mkdir(parents=True, exist_ok=True)
    index = await in_thread(lambda: open_index(path, header))
    try:
        known = await in_thread(index.digests)
        missing = [each for each in documents if known.get(each.id) != digest_of(each, [_whole(each)], [True])]
        for first in range(0, len(missing), AT_ONCE):
            some = [(each, _whole(each)) for each in missing[first : first + AT_ONCE]]
            vectors = None
            if opened is not None:
                vectors = (await chunk_vectors([chunk for _, chunk in some], index, opened, header)).vectors
            indexed = [
                IndexedDocument(document, [chunk], None if vectors is None else vectors[at : at + 1])
                for at, (document, chunk) in enumerate(some)
            ]
            await in_thread(lambda indexed=indexed: _put(index, indexed))  # type: ignore[misc]
        gone = known.keys() - {each.id for each in documents}
        if gone:
            await in_thread(lambda: index.delete(gone))
    finally:
        index.close()
        if opened is not None:
            opened.close()


def _put(index: SqliteIndex, indexed: Sequence[IndexedDocument]) -> None:
    receipt = index.put(indexed)
    if receipt.failed:
        id, why = receipt.failed[0]
        raise ConfigError(f"document {id!r} could not be stored: {why}")


def _whole(document: Document) -> Chunk:
    meta: Mapping[str, Any] = {"source": document.source, **document.meta} if document.source else document.meta
    return Chunk(document.id, 0, len(document.text), document.text, heading=document.title, meta=meta)
