"""Small documents with chunks and vectors, for tests of indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, Vectors
from firsthand.retrieval.document import Document

DIMENSION = 24
HEADER = IndexHeader("tiny", "fingerprint-of-tiny", DIMENSION, "lines")
TERMS_ONLY = IndexHeader("", "", 0, "lines")


def unit(count: int, seed: int, dimension: int = DIMENSION) -> Vectors:
    """Random vectors of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def lines(
    id: str,
    texts: Sequence[str],
    *,
    meta: Mapping[str, Json] | None = None,
    seed: int = 0,
    vectors: Vectors | None = None,
    title: str = "",
    source: str = "",
    with_vectors: bool = True,
) -> IndexedDocument:
    """A document whose chunks are its lines."""
    document = Document(id, "".join(texts), title, source, meta or {})
    chunks, at = [], 0
    for text in texts:
        chunks.append(Chunk(id, at, at + len(text), text, meta=meta or {}))
        at += len(text)
    if vectors is None and with_vectors:
        vectors = unit(len(texts), seed)
    return IndexedDocument(document, chunks, vectors)
