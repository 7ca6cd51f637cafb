"""A corpus in memory for tests: an index of plain lists, and an embedder whose vectors are hashed words."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, IngestReceipt
from firsthand.retrieval.corpus import Corpus, close_corpora, open_corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit
from firsthand.retrieval.store.sqlite_index import open_index

DIMENSION = 64
TEXTS = {"mill.md": "The mill was built in 1871.\nIt stands by the river.\n", "b.txt": "River.\n", "c.md": "Oslo.\n"}


@contextmanager
def wide_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder, with a home of its own there and 240 columns; open corpora are closed in the end."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(folder)
    yield
    close_corpora()


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class WordEmbedder:
    """Each word is one of 64 coordinates; texts that share words are near."""

    name = "words"
    fingerprint = "words"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [embedded(text).tolist() for text in texts]


def embedded(text: str) -> Any:
    vector = np.zeros(DIMENSION, np.float32)
    for word in words(text):
        vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSION] += 1
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


class MemoryIndex:
    """A ChunkIndex in memory; scans everything."""

    def __init__(self, documents: Iterable[Document], chunks: Iterable[Chunk], *, vectors: bool = True):
        self.documents = {document.id: document for document in documents}
        self.all = sorted(chunks, key=lambda chunk: (chunk.document, chunk.start, chunk.end))
        self.header = IndexHeader("words" if vectors else "", "words", DIMENSION, "test", query_prefix="query: ")
        self.searches: list[str] = []

    def put(self, documents: Iterable[IndexedDocument]) -> IngestReceipt:
        raise NotImplementedError

    def document(self, id: str) -> Document:
        if id not in self.documents:
            raise UnknownName(f"no document {id!r}")
        return self.documents[id]

    def chunks(self, document: str) -> list[Chunk]:
        return [chunk for chunk in self.all if chunk.document == document]

    def chunk(self, id: str) -> Chunk:
        for chunk in self.all:
            if chunk.id == id:
                return chunk
        raise UnknownName(f"no chunk {id!r}")

    def vectors(self, ids: Sequence[str]) -> Any:
        return np.stack([embedded(self.chunk(id).indexed_text) for id in ids])

    def search_vectors(self, vector: Any, k: int, where: Mapping[str, Any]) -> list[Hit]:
        self.searches.append("vectors")
        scored = [Hit(each, float(embedded(each.indexed_text) @ vector)) for each in self.found(where)]
        return sorted(scored, key=lambda hit: (-hit.score, hit.chunk.id))[:k]

    def search_terms(self, text: str, k: int, where: Mapping[str, Any]) -> list[Hit]:
        self.searches.append(text)
        asked = set(words(text))
        scored = []
        for chunk in self.found(where):
            counts = Counter(words(chunk.indexed_text))
            score = sum(math.log1p(counts[word]) for word in asked)
            if score:
                scored.append(Hit(chunk, score))
        return sorted(scored, key=lambda hit: (-hit.score, hit.chunk.id))[:k]

    def found(self, where: Mapping[str, Any]) -> list[Chunk]:
        return [
            chunk
            for chunk in self.all
            if chunk.meta.get("role") != "parent"
            and all({"document": chunk.document, **chunk.meta}.get(key) == value for key, value in where.items())
        ]

    def __len__(self) -> int:
        return len(self.all)

    def close(self) -> None:
        pass


def sentences_of(document: Document) -> list[Chunk]:
    """A chunk for each line of a document."""
    found, start = [], 0
    for line in document.text.splitlines(keepends=True):
        body = line.rstrip("\n")
        if body.strip():
            found.append(Chunk(document.id, start, start + len(body), body, meta=dict(document.meta)))
        start += len(line)
    return found


def tiny_corpus(texts: Mapping[str, str], *, vectors: bool = True, **meta: Any) -> Corpus:
    """A corpus of one document for each name, with a chunk for each line."""
    documents = [Document(id, text, source=meta.get("source", f"/data/{id}"), meta=meta) for id, text in texts.items()]
    index = MemoryIndex(documents, [chunk for each in documents for chunk in sentences_of(each)], vectors=vectors)
    return Corpus(index, WordEmbedder() if vectors else None, "notes")  # type: ignore[arg-type]


def write_index(path: Path, texts: Mapping[str, str], *, vectors: bool = True, **meta: Any) -> Path:
    """An index file of one document for each name, with a chunk for each line, open in this process with its embedder."""
    header = IndexHeader("words" if vectors else "", "words" if vectors else "", DIMENSION if vectors else 0, "lines")
    index = open_index(path, header)
    documents = [Document(id, text, source=meta.get("source", f"/data/{id}"), meta=meta) for id, text in texts.items()]
    for document in documents:
        chunks = sentences_of(document)
        rows = np.stack([embedded(chunk.indexed_text) for chunk in chunks]) if vectors and chunks else None
        receipt = index.put([IndexedDocument(document, chunks, rows)])
        assert not receipt.failed, receipt.failed
    index.close()
    open_corpus(path, embedder=WordEmbedder() if vectors else None)  # type: ignore[arg-type]
    return path
