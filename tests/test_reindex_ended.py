"""An index that is made anew and is broken off, busy or at fault: what is kept, what stays, and what is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_tiny import DIMENSION, WordEmbedder, embedded, write_index
from firsthand.errors import DataError, StoreError
from firsthand.retrieval import reindex as reindexing
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.index_settings import Prepared
from firsthand.retrieval.reindex import Reindexed, delete_unfinished, reindex, unfinished_path
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.system.lock import claimed

TEXTS = {"a": "one\ntwo", "b": "three", "c": "four\nfive\nsix"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = write_index(tmp_path / "i", TEXTS)
    close_corpora()
    return made


def whole(document: Document) -> list[Chunk]:
    return [Chunk(document.id, 0, len(document.text), document.text)]


def prepared(embedder: Any, **changes: Any) -> Prepared:
    given: dict[str, Any] = {"embedder": "words", "fingerprint": "words", "dimension": DIMENSION, "chunker": "lines"}
    return Prepared(IndexHeader(**given | changes), embedder, whole)


def terms() -> Prepared:
    return Prepared(IndexHeader("", "", 0, "whole"), None, whole)


def facts(path: Path) -> tuple[str, str, list[str]]:
    """The fingerprint, the chunker and the texts of the chunks."""
    with closing(open_index(path, read_only=True)) as index:
        assert index.verify() == []
        texts = [chunk.text for id in index.hashes() for chunk in index.chunks(id)]
        return index.header.fingerprint, index.header.chunker, texts


LINES = ["one", "two", "three", "four", "five", "six"]


class Waiting(WordEmbedder):
    """An embedder that is asked, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.let = threading.Event(), threading.Event()

    async def embed(self, texts: Any) -> list[list[float]]:
        self.called.set()
        await asyncio.to_thread(self.let.wait, 20)
        return await super().embed(texts)


def test_new_vectors_that_are_broken_off_leave_the_old_ones_and_are_gone_on_with(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SqliteIndex.reembed
    monkeypatch.setattr(SqliteIndex, "reembed", lambda self, header, embed: plain(self, header, embed, batch_size=4))
    embedder, told = Waiting(), []

    async def broken_off() -> None:
        running = asyncio.create_task(
            reindex(path, prepared(embedder, fingerprint="newer"), lambda done, total: told.append((done, total)))
        )
        await asyncio.to_thread(embedder.called.wait, 20)
        running.cancel()
        await asyncio.sleep(0)
        embedder.let.set()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(broken_off())
    assert told == [(4, 6)] and embedder.asked == LINES[:4]  # the batch at hand is kept, and no other is begun
    assert facts(path) == ("words", "lines", LINES)
    again = WordEmbedder()
    made = asyncio.run(reindex(path, prepared(again, fingerprint="newer")))
    assert made == Reindexed(3, 6, 2, 0) and again.asked == LINES[4:] and facts(path) == ("newer", "lines", LINES)


@pytest.mark.slow
def test_an_index_that_is_written_or_read_elsewhere_is_not_replaced(path: Path) -> None:
    lock = path.with_name("i.lock")
    change = prepared(WordEmbedder(), chunker="whole")
    with (
        claimed(lock, lambda holder: AssertionError(holder)),
        pytest.raises(StoreError, match=r"i is being written by .*: wait until it has ended$"),
    ):
        asyncio.run(reindex(path, change))
    assert facts(path) == ("words", "lines", LINES)
    with closing(open_index(path)) as reader:
        assert reader.search_terms("one", 1, {})
        with pytest.raises(
            StoreError, match=r"^another process has .*i open: end it, and run this again, which goes on"
        ):
            asyncio.run(reindex(path, change))
    assert facts(path)[1] == "lines" and path.with_name("i.new").exists()
    made = asyncio.run(reindex(path, change))
    assert made == Reindexed(3, 3, 0, 0) and facts(path) == ("words", "whole", ["one\ntwo", "three", "four\nfive\nsix"])
    assert sorted(each.name for each in path.parent.iterdir() if "new" in each.name) == []


def test_a_fault_of_the_new_index_keeps_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteIndex, "verify", lambda self: ["first.", "second."])
    with pytest.raises(StoreError, match=r"^the new index has a fault, and the old one stays: first\.$"):
        asyncio.run(reindex(path, prepared(WordEmbedder(), chunker="whole")))
    monkeypatch.undo()
    assert facts(path) == ("words", "lines", LINES)


def test_a_new_index_that_is_read_elsewhere_does_not_replace_the_old_one_without_its_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, readers, plain = terms(), list[SqliteIndex](), SqliteIndex.verify

    def looked_at(self: SqliteIndex) -> list[str]:
        readers.append(open_index(path.with_name("i.new"), read_only=True))
        assert len(readers[0]) == 3
        return plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteIndex, "verify", looked_at)
        with pytest.raises(
            StoreError, match=r"^another process has .*i\.new open: end it, and run this again, which goes"
        ):
            asyncio.run(reindex(path, change))
    assert facts(path) == ("words", "lines", LINES)
    readers[0].close()
    assert asyncio.run(reindex(path, change)) == Reindexed(3, 3, 0, 0)
    assert facts(path) == ("", "whole", ["one\ntwo", "three", "four\nfive\nsix"])


def broken_off(path: Path) -> Prepared:
    """An unfinished index with all documents beside the one at a path, and what it was to be."""
    change = terms()
    with (
        closing(open_index(path, read_only=True)) as old,
        closing(open_index(unfinished_path(path), change.header)) as new,
    ):
        documents = [old.document(id) for id in old.hashes()]
        new.put([IndexedDocument(each, whole(each), None) for each in documents])
    return change


@pytest.mark.parametrize(
    "changed",
    [{"title": "T"}, {"source": "/elsewhere"}, {"meta": {"access": "private"}}, {"locations": (Location(0, "page", "7"),)},
     {"text": "another"}],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_an_index_that_is_gone_on_with_has_what_changed_meanwhile_of_each_document(
    path: Path, changed: dict[str, Any]
) -> None:
    change = broken_off(path)
    with closing(open_index(path)) as index:
        now = replace(index.document("b"), **changed)
        index.put([IndexedDocument(now, whole(now), np.array([embedded(now.text)], np.float32))])
    with closing(open_index(path.with_name("i.new"))) as new:
        unchanged = new.record_hashes()
    asyncio.run(reindex(path, change))
    with closing(open_index(path, read_only=True)) as index:
        assert index.document("b") == now and index.header == change.header and index.verify() == []
        assert {id for id, each in index.record_hashes().items() if unchanged[id] == each} == {"a", "c"}


def test_documents_that_are_there_as_they_were_are_not_made_again(path: Path) -> None:
    def refuse(document: Document) -> list[Chunk]:
        raise AssertionError(document.id)

    assert asyncio.run(reindex(path, replace(broken_off(path), chunk=refuse))) == Reindexed(3, 3, 0, 0)


def test_words_of_documents_that_are_gone_meanwhile_are_overwritten_in_the_new_index(path: Path) -> None:
    change = broken_off(path)
    with closing(open_index(path)) as index:
        index.delete(["b"])
        index.overwrite_deleted()
    assert b"three" in path.with_name("i.new").read_bytes()
    asyncio.run(reindex(path, change))
    assert b"three" not in path.read_bytes() and facts(path)[2] == ["one\ntwo", "four\nfive\nsix"]


def test_a_document_is_deleted_from_an_unfinished_index_too(
    path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    assert "unfinished" not in cli("rag", "status", str(path))[1]
    assert json.loads(cli("rag", "status", str(path), "--json")[1])["unfinished"] is None
    change, new_path = broken_off(path), path.with_name("i.new")
    assert f"unfinished {new_path} of a reindex that runs or was interrupted" in cli("rag", "status", str(path))[1]
    assert json.loads(cli("rag", "status", str(path), "--json")[1])["unfinished"] == str(new_path)
    assert b"three" in new_path.read_bytes()
    assert cli("rag", "delete", "b", "--index", str(path))[0] == 0
    for each in (path, new_path):
        assert b"three" not in each.read_bytes(), each
        with closing(open_index(each)) as index:
            assert [*index.hashes()] == ["a", "c"] and index.verify() == []
    assert asyncio.run(reindex(path, change)) == Reindexed(2, 2, 0, 0)


def test_nothing_is_deleted_if_the_unfinished_index_cannot_be_written(
    path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path.with_name("i.new").write_bytes(b"not an index")
    code, _, told = cli("rag", "delete", "b", "--index", str(path))
    assert code != 0 and "i.new" in told and "b" in facts_ids(path)
    path.with_name("i.new").unlink()
    broken_off(path)
    with (
        claimed(path.with_name("i.lock"), lambda holder: AssertionError(holder)),
        pytest.raises(StoreError, match=r"i is being written by .*: wait until it has ended$"),
    ):
        delete_unfinished(path, ["b"])
    assert "b" in facts_ids(path.with_name("i.new"))


def facts_ids(path: Path) -> list[str]:
    with closing(open_index(path, read_only=True)) as index:
        return [*index.hashes()]


@pytest.mark.slow
def test_a_document_that_does_not_fit_the_new_index_is_named(path: Path) -> None:
    class Long(WordEmbedder):
        async def embed(self, texts: Any) -> list[list[float]]:
            return [(2 * embedded(text)).tolist() for text in texts]

    class OneLong(WordEmbedder):
        async def embed(self, texts: Any) -> list[list[float]]:
            rows = await super().embed(texts)
            return [[2 * x for x in row] if text == "three" else row for text, row in zip(texts, rows, strict=True)]

    before = facts(path)
    with pytest.raises(StoreError, match=r"^b does not fit the new index: a vector of 'b' has the length 2: divide"):
        asyncio.run(reindex(path, prepared(OneLong(), chunker="whole", fingerprint="one")))
    assert facts(path) == before, "the old index stays where one of three documents does not fit"
    words = r"^a does not fit the new index: a vector of 'a' has the length 2: divide vectors"
    with pytest.raises(StoreError, match=words):
        asyncio.run(reindex(path, prepared(Long(), chunker="whole", fingerprint="long")))
    with closing(open_index(path.with_name("n"), IndexHeader("", "", 0, "whole"))) as new:
        texts = {id: Document(id, text) for id, text in TEXTS.items()}
        waiting = [(texts[id], whole(texts[id])) for id in ("b", "a")]
        terms = Prepared(new.header, None, whole)
        assert asyncio.run(reindexing._store(waiting, new, None, terms)) == (0, 0) and [*new.hashes()] == ["a", "b"]
    with closing(open_index(path, read_only=True)) as old, closing(open_index(path.with_name("m"), IndexHeader(
        "words", "words", DIMENSION, "whole"))) as new:  # fmt: skip
        made = asyncio.run(reindexing._store(waiting, new, old, prepared(WordEmbedder(), chunker="whole")))
        assert made == (1, 1)  # b is a line of the old index, and its vector known
        rows = new.vectors([whole(texts[id])[0].id for id in ("a", "b")])
        assert np.allclose(rows, [embedded(TEXTS[id]) for id in ("a", "b")], atol=1e-3)


def test_a_document_that_the_new_chunker_refuses_is_named(path: Path) -> None:
    def refuse(document: Document) -> list[Chunk]:
        raise DataError("it has too many lines")

    with pytest.raises(DataError, match=r"^b: it has too many lines$"):
        reindexing._chunks(Document("b", "x"), replace(prepared(None), chunk=refuse))
