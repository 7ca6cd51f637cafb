"""ChunkIndex: what every store of chunks offers, whether one SQLite file or a server.

A document is visible whole, with all its chunks, terms and vectors, or not at all. Methods block; async callers run them in
a thread. Vectors are float32 of Euclidean length 1, so the dot product is the cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Filter, Hit

Vectors = NDArray[np.float32]
"""Shape (chunks, dimension), each row of Euclidean length 1."""


@dataclass(frozen=True)
class IndexHeader:
    """The settings that determine the vectors and chunks of an index; another header is refused."""

    embedder: str
    """The name the embedder was opened by, such as "minilm"; empty: no vectors, terms alone."""
    fingerprint: str
    """The embedder's `fingerprint`: a hash of weights, pooling and settings."""
    dimension: int
    chunker: str
    """The chunker with its settings, such as "recursive(size=800,overlap=100)"."""
    query_prefix: str = ""
    """Put before a query when it is embedded, as E5 and BGE models want."""
    document_prefix: str = ""


@dataclass(frozen=True)
class IndexedDocument:
    """A document with its chunks and their vectors, ready to be stored."""

    document: Document
    chunks: Sequence[Chunk]
    vectors: Vectors | None
    """A row for each chunk; None in an index without vectors. Parents that are not searched have rows of zeros."""


@dataclass(frozen=True)
class IngestReceipt:
    """The outcome of an ingest, by document id."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """(id or path, reason) of each file that could not be read or stored."""
    embedded: int = 0
    """Chunks whose vectors were computed."""
    reused: int = 0
    """Chunks whose vectors were there already."""
    notes: tuple[tuple[str, str], ...] = field(default=())
    """(id or path, remark) of each file that was read with a remark, such as the encoding that was guessed."""


class ChunkIndex(Protocol):
    """A store of documents and their chunks that is searched by vector and by terms."""

    @property
    def header(self) -> IndexHeader:
        """The header it was created with."""

    def put(self, documents: Iterable[IndexedDocument]) -> IngestReceipt:
        """Adds or replaces documents, each in one transaction; those that are stored just so are left as they are.

        A document that does not fit the index is reported as failed, and the others go on.
        """

    def delete(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Removes documents with all that belongs to them, and returns the ids that were there."""

    def hashes(self) -> dict[str, str]:
        """The text's SHA-256 of each document, by id."""

    def document(self, id: str) -> Document:
        """The document. UnknownName if it is not there."""

    def chunks(self, document: str) -> list[Chunk]:
        """The chunks of a document in order of start."""

    def chunk(self, id: str) -> Chunk:
        """The chunk. UnknownName if it is not there."""

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors of chunks, a row each in the order of `ids`."""

    def known_vectors(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are the `indexed_text` of a stored chunk, so that none is computed twice."""

    def search_vectors(self, vector: Vectors, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest cosine with a vector of shape (dimension,), of any length; ties by chunk id."""

    def search_terms(self, text: str, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest BM25, best first, ties by chunk id; none if no word of the text is indexed."""

    def __len__(self) -> int:
        """The number of searchable chunks."""

    def verify(self) -> list[str]:
        """Faults found by recounting everything, a sentence each; empty if there are none."""

    def close(self) -> None:
        """Releases files and connections."""


@dataclass(frozen=True)
class DocumentOutline:
    """A stored document without its text."""

    id: str
    sha256: str
    title: str
    source: str
    meta: Mapping[str, Any]


def outlines(index: ChunkIndex) -> Iterator[DocumentOutline]:
    """Yields every document without its text, by id; an index that cannot read them so is asked for one at a time."""
    if isinstance(index, OutlinedIndex):
        yield from index.outlines()
        return
    for id, sha256 in index.hashes().items():
        document = index.document(id)
        yield DocumentOutline(id, sha256, document.title, document.source, document.meta)


@runtime_checkable
class OutlinedIndex(Protocol):
    """An index that reads documents without their texts."""

    def outlines(self) -> Iterator[DocumentOutline]:
        """Yields every document without its text, by id, in constant memory."""


@runtime_checkable
class LeftoverIndex(Protocol):
    """An index in which an update that was stopped can leave chunks that no search shows."""

    def remove_leftovers(self, documents: Iterable[str] | None = None) -> int:
        """Removes what stopped updates of these documents, or of all, have left, and returns the number of chunks."""


@runtime_checkable
class HybridSearch(Protocol):
    """An index that fuses both searches itself, and reads only the chunks that come out."""

    def search_hybrid(
        self,
        vector: Vectors,
        text: str,
        k: int,
        where: Filter,
        *,
        pool: int = 100,
        constant: float = 60.0,
        weights: Sequence[float] = (1.0, 1.0),
    ) -> list[Hit]:
        """The k best of both searches, `pool` hits each, by reciprocal rank fusion; trails say rank and score in each."""


def of_length_one(query: Vectors) -> Vectors:
    """A query's vector at length 1, so that its products are cosines; one of all zeros as it is."""
    wide = query.astype(np.float64)
    length = float(np.linalg.norm(wide))
    if abs(length - 1) <= 1e-3 or not length:
        return query
    scaled: Vectors = (wide / length).astype(np.float32)
    return scaled
