"""Corpus: an open index with the embedder of its vectors, the one thing that retrievers read.

Every read of a corpus goes through its `effect`. Inside an attempt that is `rag_effect.effect_of(ctx)`, so that searches are
journalled, budgeted and guarded without a retriever knowing of it.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from firsthand.errors import ConfigError, StoreError
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.model import Embedder
from firsthand.providers.local_embedder import LocalEmbedder, open_embedder
from firsthand.retrieval.chunk_index import ChunkIndex, Vectors
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.stored_model import expect_chosen

T = TypeVar("T")
INDEX_NAME = ".firsthand-index"
"""The file name of the index of a folder."""
NO_VECTORS = (
    "the index of {name} has no vectors: search its terms, as with search=lexical, or index it with an embedder"
)
NO_COSINES = (
    "the index of {name} has no vectors to take cosines from: leave the floor out, or index it with an embedder"
)
Act = Callable[[Json], Awaitable[Sequence[Json]]]
"""Reads the index for the arguments of a read, which a guard may have changed."""
Effect = Callable[[str, Json, Act], Awaitable[Sequence[Json]]]
"""Runs one read: its name, its arguments and the act. The text to search for is the argument "query"; each item of the
result has a "text"."""

_reading: ContextVar[bool] = ContextVar("firsthand_reading", default=False)


@dataclass(frozen=True)
class Corpus:
    """An open index, the embedder of its vectors, and the effect that its reads are."""

    index: ChunkIndex
    embedder: Embedder | None = None
    """None: the index has no vectors, or none are to be searched."""
    name: str = "documents"
    """Told as the source of what is found, such as the name of the index's folder."""
    effect: Effect | None = field(default=None, repr=False)
    """None: the index is read directly."""
    fingerprint: str = ""
    """The embedder's; an index that has another one by now is not searched. Empty: not checked."""

    def through(self, effect: Effect | None) -> Corpus:
        """The same corpus, read through another effect."""
        return replace(self, effect=effect)

    async def read(self, name: str, arguments: Json, act: Callable[[Json], Awaitable[Sequence[Hit]]]) -> list[Hit]:
        """The hits of one read. Reads within it are part of it."""
        if self.effect is None or _reading.get():
            return list(await act(arguments))

        async def items(passed: Json) -> Sequence[Json]:
            return [hit_to_json(hit) for hit in await act(passed)]

        return [hit_from_json(item) for item in await self.items(name, arguments, items)]

    async def items(self, name: str, arguments: Json, act: Act) -> Sequence[Json]:
        """The JSON objects of one read, each with a "text" that guards judge. Reads within it are part of it."""
        if self.effect is None or _reading.get():
            return await act(arguments)

        async def within(passed: Json) -> Sequence[Json]:
            with _read():
                return await act(passed)

        return await self.effect(name, arguments, within)

    async def embed(self, texts: Sequence[str], *, documents: bool = False) -> Vectors:
        """The vectors of queries, or of texts like `documents`, a row each, with the index's prefix for them."""
        if self.embedder is None:
            raise ConfigError(NO_VECTORS.format(name=self.name))
        header = await self.ask(lambda index: index.header)
        if self.fingerprint and header.fingerprint != self.fingerprint:
            raise StoreError(
                f"the index of {self.name} was embedded again by another process: start again to search it"
            )
        texts = [(header.document_prefix if documents else header.query_prefix) + text for text in texts]
        return np.asarray(await self.embedder.embed(texts), dtype=np.float32)

    async def ask(self, question: Callable[[ChunkIndex], T]) -> T:
        """The reply of the index, which is asked in a thread."""
        return await in_thread(lambda: question(self.index))


def as_one(corpus: Corpus, name: str, retriever: Retriever) -> Retriever:
    """The retriever with all its reads of the corpus as one effect, which journals only the hits that come out.

    It must not ask a model: what is asked within a read is not found again when the attempt is resumed.
    """

    async def found(query: Query, k: int) -> Sequence[Hit]:
        async def act(passed: Json) -> Sequence[Hit]:
            return await retriever(replace(query, text=str(passed["query"])), k)

        return await corpus.read(name, arguments_of(query, k), act)

    return found


def arguments_of(query: Query, k: int, **more: object) -> Json:
    """The arguments of a read that a query makes."""
    body: Json = {"query": query.text, "k": k}
    body |= {"where": dict(query.where)} if query.where else {}
    body |= {"vectors": len(query.vectors)} if query.vectors else {}
    return body | more


def refuse_within_read() -> None:
    """AssertionError where a model is asked within a read of a corpus."""
    assert not _reading.get(), "a model is asked within as_one(...): put as_one around the retrievers inside"


@contextmanager
def _read() -> Iterator[None]:
    mark = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(mark)


_corpora: dict[str, Corpus] = {}
_embedders: dict[str, LocalEmbedder] = {}
_lock = threading.Lock()


def index_file(path: str | Path) -> Path:
    """The file of the index that a path names: the file itself, or that of an indexed folder."""
    given = Path(path).expanduser()
    return given / INDEX_NAME if given.is_dir() else given


def nearby_index(path: Path) -> Path:
    """The path; for the working folder without an index of its own, the one folder in it that was indexed.

    ConfigError if there are several.
    """
    if path != Path() or index_file(path).is_file():
        return path
    found = sorted(each.parent for each in path.glob(f"*/{INDEX_NAME}"))
    if len(found) > 1:
        named = ", ".join(map(str, found[:5]))
        raise ConfigError(f"{len(found)} folders here have an index ({named}): choose one with --index")
    return found[0] if found else path


def check_index(path: str | Path, *, opens: bool = False) -> None:
    """ConfigError if there is no index at a path; with `opens`, StoreError if the file there is none."""
    if not str(path) or not index_file(path).is_file():
        raise ConfigError(f"no index at {str(path)!r}: make one with `firsthand rag index DIR`, and give its path")
    if opens:
        from firsthand.retrieval.store.sqlite_index import open_index

        open_index(index_file(path), read_only=True).close()


def expect_vectors(path: str | Path, otherwise: str = NO_VECTORS) -> None:
    """ConfigError, with the sentence `otherwise`, if the index at a path has no vectors."""
    from firsthand.retrieval.store.sqlite_index import open_index

    index = open_index(index_file(path), read_only=True)
    has_vectors = bool(index.header.fingerprint)
    index.close()
    if not has_vectors:
        raise ConfigError(otherwise.format(name=path))


def expect_documents(path: str | Path) -> None:
    """ConfigError if the index at a path holds nothing."""
    from firsthand.retrieval.store.sqlite_index import open_index

    with open_index(index_file(path), read_only=True) as index:
        if not len(index):
            raise ConfigError(
                f"the index {str(path)!r} holds no documents: put some in with "
                f"`firsthand rag index DIR --index {shlex.quote(str(path))}`"
            )


def open_corpus(path: str | Path, *, embedder: Embedder | None = None) -> Corpus:
    """The corpus at a path: one open index and one loaded embedder for a path in a process.

    The first call may give an embedder that is no local model. ConfigError if there is no index, or if the embedder is
    another one than the index was made with.
    """
    check_index(path)
    file = index_file(path).resolve()
    with _lock:
        if (found := _corpora.get(str(file))) is None:
            found = _corpora[str(file)] = _opened(file, embedder)
        return found


def close_corpora() -> None:
    """Closes every index that `open_corpus` opened, and unloads their embedders."""
    with _lock:
        for corpus in _corpora.values():
            corpus.index.close()
        for embedder in _embedders.values():
            embedder.close()
        _corpora.clear()
        _embedders.clear()


def _opened(file: Path, given: Embedder | None) -> Corpus:
    from firsthand.retrieval.store.sqlite_index import open_index

    index = open_index(file, read_only=True)
    header = index.header
    name = file.parent.name if file.name == INDEX_NAME else file.stem
    if not header.embedder:
        return Corpus(index, None, name)
    if given is None:
        try:
            expect_chosen(file, header.embedder)
        except ConfigError:
            index.close()
            raise
    embedder = given or _embedders.get(header.embedder) or open_embedder(header.embedder)
    found = getattr(embedder, "fingerprint", header.fingerprint)
    if found != header.fingerprint:
        index.close()
        raise ConfigError(
            f"the index {str(file)!r} was made with another version of {header.embedder} ({header.fingerprint}, here "
            f"{found}): make its vectors again with `firsthand rag reindex`"
        )
    if isinstance(embedder, LocalEmbedder):
        _embedders[header.embedder] = embedder
    return Corpus(index, embedder, name, fingerprint=header.fingerprint)
