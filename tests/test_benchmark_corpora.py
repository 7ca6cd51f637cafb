"""The index of a benchmark's corpus: every document has its own vector, and its documents are read with their options."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_tiny import DIMENSION, WordEmbedder, embedded
from firsthand.errors import ConfigError
from firsthand.retrieval import benchmark_corpus
from firsthand.retrieval.benchmark_corpus import _whole, build_index, corpus_documents, corpus_index, task_index
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.task import Task


def test_each_document_has_its_own_vector_and_a_source_of_its_own_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_corpus, "AT_ONCE", 3)
    closed: list[str] = []

    class Opened(WordEmbedder):
        def close(self) -> None:
            closed.append(self.name)

    opened: list[tuple[str, Opened]] = []

    def opener(name: str) -> Opened:
        opened.append((name, Opened()))
        return opened[-1][1]

    monkeypatch.setattr(benchmark_corpus, "open_embedder", opener)
    documents = [
        Document("a", "one", "T", "file", {"source": "its own", "n": 1}), Document("b", "two", "", "file"),
        Document("c", "three"), Document("d", "four", meta={"k": []}),
    ]  # fmt: skip
    path = tmp_path / "deep" / "x.sqlite"
    asyncio.run(build_index(path, documents, embedder="words"))
    chunks = [
        Chunk("a", 0, 3, "one", "T", None, {"source": "its own", "n": 1}), Chunk("b", 0, 3, "two", meta={"source": "file"}),
        Chunk("c", 0, 5, "three"), Chunk("d", 0, 4, "four", meta={"k": []}),
    ]  # fmt: skip
    assert [_whole(each) for each in documents] == chunks
    with closing(open_index(path, read_only=True)) as index:
        assert index.header == IndexHeader("words", "words", DIMENSION, "whole")
        expected = [embedded(each.indexed_text) for each in chunks]
        assert np.allclose(index.vectors([each.id for each in chunks]), expected, atol=1e-3)
        assert [index.chunks(id) for id in "abcd"] == [[each] for each in chunks]
        assert [index.document(each.id) for each in documents] == documents
    assert [name for name, _ in opened] == ["words"] == closed
    asyncio.run(build_index(path, [documents[3], Document("b", "two!"), documents[0]], embedder="words"))
    assert opened[1][1].asked == ["dimension", "two!"] and closed == ["words"] * 2
    with closing(open_index(path, read_only=True)) as index:
        assert [*index.hashes()] == ["a", "b", "d"] and index.document("b").text == "two!"
    with pytest.raises(ConfigError, match=r"^document 'e' could not be stored: the meta of 'e': "):
        asyncio.run(build_index(path, [Document("e", "x", meta={"n": float("nan")})], embedder="words"))
    assert closed == ["words"] * 3
    asyncio.run(build_index(tmp_path / "terms", documents, embedder=""))
    with closing(open_index(tmp_path / "terms", read_only=True)) as index:
        assert index.header == IndexHeader("", "", 0, "whole") and len(index) == 4 and len(opened) == 3


def test_documents_are_asked_of_the_benchmarks_module_with_the_options_of_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def corpus(*, n: int = 1, name: str = "x") -> list[Document]:
        asked.append((n, name))
        return [Document(f"{name}{at}", "text") for at in range(n)]

    def found(*given: str) -> Any:
        asked.append(given)
        return corpus

    monkeypatch.setattr(benchmark_corpus.catalog, "module_attribute", found)
    monkeypatch.setattr(benchmark_corpus.catalog, "has_module_attribute", lambda *given: False)
    assert [each.id for each in corpus_documents("mteb_set@2:n=3:name=d")] == ["d0", "d1", "d2"]
    assert [each.id for each in corpus_documents("plain")] == ["x0"]
    assert asked == [("benchmark", "mteb_set", "corpus"), (3, "d"), ("benchmark", "plain", "corpus"), (1, "x")]
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    task = Task("t", "q", metadata={"corpus": "plain:n=2"})
    path = asyncio.run(task_index(task, "", embedder=""))
    assert path == str(benchmark_corpus.corpus_path("plain:n=2", ""))
    assert path == str(asyncio.run(corpus_index("plain:n=2", embedder=""))) and asked[4:] == [
        ("benchmark", "plain", "corpus"), (2, "x")
    ]  # fmt: skip
    with closing(open_index(path, read_only=True)) as index:
        assert [*index.hashes()] == ["x0", "x1"]
    benchmark_corpus._ready.pop(Path(path))
