"""Index, graph and search files that are read, refused or broken off leave no log, no open transaction and no half of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus_tiny import WordEmbedder
from firsthand.errors import ConfigError, FirsthandError, StoreError
from firsthand.retrieval import benchmark_corpus
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import check_index, expect_vectors, open_corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.folder_files import FolderFilter, expect_files
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.index_settings import Asked, prepare
from firsthand.retrieval.ingest import ingest
from firsthand.retrieval.store import sqlite_index
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.tools.search import SearchIndex
from index_tiny import HEADER, TERMS_ONLY, lines


def beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if not each.name.startswith(f"{path.name}.lock"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open descriptors in /proc")
def test_an_index_whose_header_cannot_be_read_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.index"
    open_index(path, HEADER).close()

    def failing(*_: object) -> IndexHeader:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite_index, "agreed_header", failing)
        with pytest.raises(StoreError, match="the disk is gone") as kept:
            open_index(path, HEADER)
    left = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert kept.value and [each for each in left if each.startswith(str(path))] == []


def test_an_index_that_is_read_or_refused_has_no_log_beside_it_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    with open_index(path, HEADER) as index:
        index.put([lines("d", ["fox\n", "hen\n"])])
    assert beside(path) == ["x.index"]
    check_index(path, opens=True)
    assert beside(path) == ["x.index"]
    expect_vectors(path)
    assert beside(path) == ["x.index"]
    kept = []  # errors whose frames hold what was opened
    for refused in (
        lambda: open_corpus(path, embedder=WordEmbedder()),
        lambda: open_index(path, TERMS_ONLY),
        lambda: asyncio.run(prepare(path, Asked(model="none", chunker="no-such"))),
    ):
        with pytest.raises(FirsthandError) as raised:
            refused()
        kept.append(raised)
        assert beside(path) == ["x.index"], str(raised.value)
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 5")
    base.close()
    with pytest.raises(StoreError, match=r"has schema version 5, and this firsthand knows 4") as newer:
        open_index(path, HEADER)
    assert beside(path) == ["x.index"] and newer.value.args


def test_a_graph_that_is_refused_has_no_log_beside_it_and_keeps_all_when_a_removal_is_broken_off(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.graph"
    file = GraphFile(path, create=True)
    chunks = [Chunk("d", n, n + 1, "x") for n in range(3)]
    for chunk in chunks:
        file.keep(chunk, FailedChunk(chunk.id, chunk.document, "why"))

    def broken() -> Iterator[str]:
        yield chunks[0].id
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file.forget(broken())
    assert not file._connection.in_transaction and len(file.states()) == 3
    with pytest.raises(ValueError, match=r"^its own$"), file._transaction():
        file._execute("ROLLBACK")  # as a full disk ends one
        raise ValueError("its own")
    file.forget([chunks[1].id])
    assert {*file.states()} == {chunks[0].id, chunks[2].id}
    file.close()
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 3")
    base.close()
    with pytest.raises(StoreError, match=r"has schema version 3") as refused:
        GraphFile(path)
    assert beside(path) == ["x.graph"] and refused.value.args


def test_a_transaction_that_the_disk_has_ended_tells_its_own_error_and_the_next_one_works(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    open_index(path, HEADER).close()
    file = IndexFile(path, create=False, read_only=False)
    with file.writing():
        for error in (ValueError("its own"), KeyboardInterrupt("mine")):
            for ended in (True, False):
                with pytest.raises(type(error)) as raised, file.transaction() as connection:
                    connection.execute("UPDATE header SET removals = 7")
                    if ended:
                        connection.execute("ROLLBACK")
                    raise error
                assert raised.value is error and not file._connection.in_transaction
        with file.transaction() as connection:
            assert connection.execute("SELECT removals FROM header").fetchone() == (0,)
    with file.reading() as connection:
        connection.execute("ROLLBACK")
    with file.reading() as connection, file.reading() as same:
        assert same is connection and connection.in_transaction
    assert not file._connection.in_transaction
    file.close()
    assert beside(path) == ["x.index"]


def test_a_kept_index_of_documents_that_cannot_be_indexed_is_closed_and_the_next_search_makes_it(
    tmp_path: Path,
) -> None:
    root, kept = tmp_path / "docs", tmp_path / "kept" / "k"
    root.mkdir()
    (root / "a.jsonl").write_text('{"id": "1", "text": "red"}\n{"id": "1", "text": "blue"}\n')
    with pytest.raises(ConfigError) as twice:
        SearchIndex(root, kept)
    assert str(twice.value) == "two documents have the id 'a.jsonl:1': give each its own" and beside(kept) == ["k"]
    (root / "a.jsonl").write_text('{"id": "1", "text": "red"}\n{"id": "2", "text": "blue"}\n')
    made = SearchIndex(root, kept)
    assert sorted(made.index.hashes()) == ["a.jsonl:1", "a.jsonl:2"]
    made.index.close()


def test_a_benchmarks_index_and_its_embedder_are_closed_when_a_document_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Opened(WordEmbedder):
        def close(self) -> None:
            closed.append(self.name)

    monkeypatch.setattr(benchmark_corpus, "open_embedder", lambda name: Opened())
    path = tmp_path / "new" / "deep" / "i"
    wrong = Document("b", "y", meta={"n": float("nan")})
    with pytest.raises(ConfigError, match=r"^document 'b' could not be stored: the meta of 'b': ") as raised:
        asyncio.run(benchmark_corpus.build_index(path, [Document("a", "x"), wrong], embedder="words"))
    assert closed == ["words"] and beside(path) == ["i"] and raised.value.args
    with open_index(path) as index:
        assert [*index.hashes()] == ["a"], "what fits is kept"


def test_a_folder_below_the_home_may_be_given_with_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("fox")
    expect_files([Path("~/docs")], FolderFilter())

    def whole(document: Document) -> list[Chunk]:
        return [Chunk(document.id, 0, len(document.text), document.text)]

    with open_index(":memory:", IndexHeader("", "", 0, "whole")) as index:
        receipt = asyncio.run(ingest("~/docs", index, None, whole))
        assert receipt.added == ("a.txt",) and index.document("a.txt").source == str(tmp_path / "docs" / "a.txt")
        assert asyncio.run(ingest([Path("~/docs")], index, None, whole)).unchanged == ("a.txt",)


def test_a_stored_vector_with_bytes_too_many_or_too_few_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    for count in (46, 50, 96):
        with open_index(path, HEADER) as index:
            index.put([lines("d", ["fox\n"])])
            [chunk] = index.chunks("d")
            index._file._connection.execute("UPDATE vectors_0 SET vector = ?", (os.urandom(count),))
            with pytest.raises(StoreError, match=rf"is damaged: a vector has {count} bytes instead of 48\."):
                index.vectors([chunk.id])
            with pytest.raises(StoreError, match=rf"is damaged: a vector has {count} bytes instead of 48\."):
                index.known_vectors([chunk.indexed_text])
            assert index.delete(["d"]) == ("d",)


def test_an_index_document_is_kept_whole_with_its_header(tmp_path: Path) -> None:
    with open_index(tmp_path / "a" / "b" / "x.index", TERMS_ONLY) as index:
        assert index.put([IndexedDocument(Document("e", ""), [], None)]).added == ("e",)
        assert index.header == TERMS_ONLY and index.document("e").text == "" and index.chunks("e") == []
