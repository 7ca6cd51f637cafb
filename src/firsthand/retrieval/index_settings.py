"""Opens the index, the embedder and the chunker of an ingest: those of an index that is there, or new ones.

What is not given is taken from the index; what differs from it is refused, since vectors and chunks of two kinds in one
index would be compared as if they were of one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from firsthand.errors import ConfigError, DownloadError
from firsthand.hub import model_lookup
from firsthand.model import Embedder
from firsthand.providers.local_embedder import LocalEmbedder, open_embedder
from firsthand.retrieval.chunk import Chunker
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.chunk_vectors import blocking_embed
from firsthand.retrieval.chunking.chunkers import DEFAULT, open_chunker
from firsthand.retrieval.corpus import INDEX_NAME
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.stored_model import expect_chosen

OnProgress = Callable[[int, int | None], None]
"""Takes bytes of a download, done and in all."""
DEFAULT_MODEL = "minilm"
NONE = "none"
"""In place of a model's name: no vectors, terms alone."""
PREFIXES = {"e5": ("query: ", "passage: "), "bge": ("Represent this sentence for searching relevant passages: ", "")}
"""The query's and the document's prefix that a family of embedders was trained with, by a word of the model's name."""


@dataclass(frozen=True)
class Prepared:
    """The index, embedder and settings of an ingest."""

    header: IndexHeader
    embedder: Embedder | None
    chunk: Chunker
    note: str = ""
    """Why there are no vectors, if nobody asked for none."""

    def close(self) -> None:
        """Unload the embedder."""
        if isinstance(self.embedder, LocalEmbedder):
            self.embedder.close()


@dataclass(frozen=True)
class Asked:
    """The settings that a person gave; None is left to the index, or to the defaults of a new one."""

    model: str | None = None
    chunker: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def index_path(sources: list[Path], given: Path | None) -> Path:
    """The file of the index: the one given, or that of the folder. ConfigError if there is no telling which."""
    if given is not None:
        path = given.expanduser()
        return path / INDEX_NAME if path.is_dir() else path
    if len(sources) == 1 and sources[0].expanduser().is_dir():
        return sources[0].expanduser() / INDEX_NAME
    if len(sources) == 1 and not sources[0].expanduser().exists():
        raise ConfigError(f"no folder or file {str(sources[0])!r}: give the folder whose files are to be indexed")
    raise ConfigError("an index lies in the one folder it was made of: of files or several folders, give --index PATH")


async def prepare(path: Path, asked: Asked, on_progress: OnProgress = _silent) -> Prepared:
    """The header, embedder and chunker for the index at a path, which need not be there yet."""
    if not path.exists():
        return await fresh(asked, on_progress)
    with closing(open_index(path, read_only=True)) as index:
        stored = index.header
    if asked.model is None:
        expect_chosen(path, stored.embedder)
    model = asked.model or stored.embedder or NONE
    embedder = None if model == NONE else _opened(model, on_progress)
    chosen = open_chunker(asked.chunker or stored.chunker, None if embedder is None else blocking_embed(embedder))
    wanted = replace(
        stored,
        fingerprint="" if embedder is None else embedder.fingerprint,
        chunker=chosen.text,
        query_prefix=stored.query_prefix if asked.query_prefix is None else asked.query_prefix,
        document_prefix=stored.document_prefix if asked.document_prefix is None else asked.document_prefix,
    )
    expect_same(path, stored, wanted)
    return Prepared(stored, embedder, chosen.chunk)


async def fresh(asked: Asked, on_progress: OnProgress = _silent) -> Prepared:
    """The header, embedder and chunker of a new index.

    Without a model asked for, it is minilm; where that cannot be had, the index has terms alone, and `note` says so.
    """
    note, model, embedder = "", asked.model or DEFAULT_MODEL, None
    if model != NONE:
        try:
            embedder = _opened(model, on_progress)
        except DownloadError as error:
            if asked.model is not None:
                raise
            note = f"no embedder is at hand, so the index has terms alone ({error})"
    chosen = open_chunker(asked.chunker or DEFAULT, None if embedder is None else blocking_embed(embedder))
    if embedder is None:
        return Prepared(IndexHeader("", "", 0, chosen.text), None, chosen.chunk, note)
    dimension = len((await embedder.embed(["dimension"]))[0])
    family = next(
        (pair for word, pair in PREFIXES.items() if word in model.lower().replace("-", "/").split("/")), ("", "")
    )
    header = IndexHeader(
        model,
        embedder.fingerprint,
        dimension,
        chosen.text,
        family[0] if asked.query_prefix is None else asked.query_prefix,
        family[1] if asked.document_prefix is None else asked.document_prefix,
    )
    return Prepared(header, embedder, chosen.chunk, note)


def expect_same(path: Path, stored: IndexHeader, wanted: IndexHeader) -> None:
    """ConfigError that names what differs from the index."""
    words = {
        "fingerprint": "the embedding model", "chunker": "the chunker", "query_prefix": "the query prefix",
        "document_prefix": "the document prefix",
    }  # fmt: skip
    for name, told in words.items():
        was, now = getattr(stored, name), getattr(wanted, name)
        if was != now:
            before = f"{stored.embedder} ({was})" if name == "fingerprint" and was else was or "none"
            raise ConfigError(
                f"{told} of {path} is {before}, and {now or 'none'} was given: leave it out, or change the index by "
                f"`firsthand rag reindex {shlex.quote(str(path))}`"
            )


def _opened(model: str, on_progress: OnProgress) -> LocalEmbedder:
    path = model_lookup.resolve(model, on_progress=on_progress)  # downloads it if it is not there
    return open_embedder(model) if model in model_lookup.KNOWN else LocalEmbedder(path, name=model)
