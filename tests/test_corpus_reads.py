"""A corpus and its index: where it lies, how it is read, embedded, made anew and brought up to date."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corpus_tiny import DIMENSION, WordEmbedder, embedded, sentences_of, tiny_corpus, write_index
from firsthand.errors import ConfigError, ModelError, StoreError
from firsthand.retrieval import benchmark_corpus, reindex
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, IngestReceipt
from firsthand.retrieval.chunk_vectors import blocking_embed, chunk_vectors
from firsthand.retrieval.corpus import (
    INDEX_NAME,
    Corpus,
    arguments_of,
    as_one,
    check_index,
    close_corpora,
    expect_vectors,
    index_file,
    nearby_index,
    open_corpus,
)
from firsthand.retrieval.document import Document
from firsthand.retrieval.index_settings import Prepared
from firsthand.retrieval.reindex import Reindexed
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.task import Task

TEXTS = {"a.md": "one two\nthree\n", "b.md": "four\n"}


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    close_corpora()


# -- where it lies --


def test_a_path_names_the_file_of_an_index_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert index_file("~") == tmp_path / INDEX_NAME and index_file("~/x.sqlite") == tmp_path / "x.sqlite"
    monkeypatch.chdir(tmp_path)
    assert nearby_index(Path()) == Path() and nearby_index(tmp_path) == tmp_path
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / INDEX_NAME).write_text("")
    assert nearby_index(Path()) == Path("b") and nearby_index(Path("a")) == Path("a")
    (tmp_path / "a" / INDEX_NAME).write_text("")
    with pytest.raises(ConfigError, match=r"^2 folders here have an index \(a, b\): choose one with --index$"):
        nearby_index(Path())
    (tmp_path / INDEX_NAME).write_text("")
    assert nearby_index(Path()) == Path()
    for path in ("", "none", tmp_path / "a" / "none"):
        with pytest.raises(
            ConfigError, match=r"no index at .*: make one with `firsthand rag index DIR`, and give its path"
        ):
            check_index(path)
    check_index("a")
    with pytest.raises(StoreError):
        check_index("a", opens=True)


def test_an_index_is_opened_once_and_named_for_its_folder_or_file(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    inner = write_index(tmp_path / "notes" / INDEX_NAME, TEXTS)
    words = write_index(tmp_path / "words.sqlite", TEXTS, vectors=False)
    one = open_corpus(inner)
    assert one is open_corpus(tmp_path / "notes") is open_corpus(tmp_path / "notes" / ".." / "notes")
    assert (one.name, one.fingerprint, one.effect) == ("notes", "words", None) and one.embedder is not None
    other = open_corpus(words)
    assert (other.name, other.embedder, other.fingerprint) == ("words", None, "")
    expect_vectors(inner)
    with pytest.raises(ConfigError, match=r"the index of .*words\.sqlite has no vectors: search its terms"):
        expect_vectors(words)
    close_corpora()

    class Another(WordEmbedder):
        fingerprint = "newer"

    with pytest.raises(
        ConfigError, match=r"was made with another version of words \(words, here newer\): make its vec"
    ):
        open_corpus(inner, embedder=Another())
    again = open_corpus(inner, embedder=WordEmbedder())
    assert again is not one and again is open_corpus(inner, embedder=Another())


# -- how it is read --


def test_texts_are_embedded_under_the_prefix_of_their_kind():
    corpus = tiny_corpus(TEXTS)
    corpus.index.header = IndexHeader("words", "words", DIMENSION, "lines", "query: ", "passage: ")  # type: ignore[misc]
    made = asyncio.run(corpus.embed(["x", "y"]))
    assert made.dtype == np.float32 and made.tolist() == [embedded(f"query: {each}").tolist() for each in "xy"]
    asyncio.run(corpus.embed(["z"], documents=True))
    assert corpus.embedder.asked == ["query: x", "query: y", "passage: z"]  # type: ignore[union-attr]
    stale = Corpus(corpus.index, corpus.embedder, "notes", fingerprint="older")
    with pytest.raises(StoreError, match="the index of notes was embedded again by another process: start again"):
        asyncio.run(stale.embed(["x"]))
    with pytest.raises(ConfigError, match="the index of notes has no vectors"):
        asyncio.run(tiny_corpus(TEXTS, vectors=False).embed(["x"]))


def test_reads_within_a_read_are_part_of_it_and_the_next_is_not():
    told: list[Any] = []

    async def effect(name: str, arguments: Any, act: Any) -> Any:
        told.append((name, arguments))
        return await act({**arguments, "query": arguments["query"].upper()})

    corpus = tiny_corpus(TEXTS).through(effect)
    hit = Hit(Chunk("a", 0, 1, "x"), 0.5)

    async def inner(query: Query, k: int) -> Sequence[Hit]:
        async def act(passed: Any) -> Sequence[Hit]:
            told.append(("inner", passed, k))
            return [hit]

        return await corpus.read("inside", arguments_of(query, k), act)

    query = Query("q", {"n": 1}, ((1.0,), (2.0,)))
    assert asyncio.run(as_one(corpus, "whole", inner)(query, 3)) == [hit]  # type: ignore[arg-type]
    body = {"query": "q", "k": 3, "where": {"n": 1}, "vectors": 2}
    assert told == [("whole", body), ("inner", {**body, "query": "Q"}, 3)]
    told.clear()
    assert asyncio.run(inner(Query("q"), 2)) == [hit]  # type: ignore[arg-type]
    assert told == [("inside", {"query": "q", "k": 2}), ("inner", {"query": "Q", "k": 2}, 2)]
    assert arguments_of(Query("q"), 2, hits=["h"]) == {"query": "q", "k": 2, "hits": ["h"]}


def test_vectors_are_computed_for_each_text_once_and_none_that_is_known():
    parent = Chunk("d", 0, 20, "whole text")
    small = [Chunk("d", 0, 5, "new", "H", parent=parent.id), Chunk("d", 5, 9, "old", parent=parent.id)]
    chunks = [parent, *small, Chunk("d", 9, 12, "new", "H"), Chunk("e", 0, 3, "last")]
    header = IndexHeader("n", "f", 2, "lines", document_prefix="passage: ")
    asked: list[list[str]] = []
    rows = {"passage: H\nnew": [1.0, 2.0], "passage: last": [3.0, 4.0], "passage: old": [7.0, 8.0]}

    class Counted:
        name = "words"

        async def embed_counted(self, texts: Sequence[str]) -> Any:
            asked.append(list(texts))
            return SimpleNamespace(
                vectors=[rows[text] for text in texts], truncated=[text.endswith("t") for text in texts]
            )

    known: Any = SimpleNamespace(
        known_vectors=lambda texts: {"old": np.array([5, 6], np.float32)} if "old" in texts else {}
    )
    made = asyncio.run(chunk_vectors(chunks, known, Counted(), header))  # type: ignore[arg-type]
    assert made.vectors.tolist() == [[0, 0], [1, 2], [5, 6], [1, 2], [3, 4]] and made.vectors.dtype == np.float32
    assert (made.embedded, made.reused, made.truncated) == (2, 1, 1)
    assert asked == [["passage: H\nnew", "passage: last"]]
    alone = asyncio.run(chunk_vectors(chunks, None, Counted(), header))  # type: ignore[arg-type]
    assert (alone.embedded, alone.reused) == (3, 0) and alone.vectors[2].tolist() == [7, 8]
    none = asyncio.run(chunk_vectors([], known, Counted(), header))  # type: ignore[arg-type]
    assert none.vectors.shape == (0, 2) and none[1:] == (0, 0, 0) and len(asked) == 2
    for size in (1, 3):
        with pytest.raises(
            ModelError, match=rf"^words gave vectors of shape \(2, 2\), and \(2, {size}\) was expected$"
        ):
            other = IndexHeader("n", "f", size, "lines", document_prefix="passage: ")
            asyncio.run(chunk_vectors(chunks, known, Counted(), other))  # type: ignore[arg-type]
    assert blocking_embed(WordEmbedder())(["x"]).tolist() == [embedded("x").tolist()]  # type: ignore[arg-type]


# -- made anew --


def halves(document: Document) -> list[Chunk]:
    """Two chunks of a document, whatever its lines."""
    cut = len(document.text) // 2
    return [
        Chunk(document.id, 0, cut, document.text[:cut]),
        Chunk(document.id, cut, len(document.text), document.text[cut:]),
    ]


def whole(document: Document) -> list[Chunk]:
    return [Chunk(document.id, 0, len(document.text), document.text)]


def remade(
    path: Path, opened: WordEmbedder | None, chunk: Any, **changes: Any
) -> tuple[Reindexed, list[tuple[int, int]]]:
    given: dict[str, Any] = dict(embedder="words", fingerprint="words", dimension=DIMENSION, chunker="lines")
    told: list[tuple[int, int]] = []
    prepared = Prepared(IndexHeader(**{**given, **changes}), opened, chunk)  # type: ignore[arg-type]
    made = asyncio.run(reindex.reindex(path, prepared, lambda done, total: told.append((done, total))))
    return made, told


def facts(path: Path) -> tuple[IndexHeader, dict[str, list[str]]]:
    with closing(open_index(path, read_only=True)) as index:
        return index.header, {id: [each.text for each in index.chunks(id)] for id in index.hashes()}


@pytest.mark.slow
def test_another_chunker_makes_the_index_beside_the_old_one_and_reuses_vectors(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "one two", "b": "four\nfive", "c": "six"})
    close_corpora()
    embedder = WordEmbedder()
    made, told = remade(path, embedder, whole, chunker="whole")
    # the lines of a and c are their whole texts, whose vectors are there
    assert made == Reindexed(3, 3, 1, 2) and told == [(1, 3), (2, 3), (3, 3)] and embedder.asked == ["four\nfive"]
    header, chunks = facts(path)
    assert header.chunker == "whole" and chunks == {"a": ["one two"], "b": ["four\nfive"], "c": ["six"]}
    assert sorted(each.name for each in tmp_path.iterdir() if ".new" in each.name) == []
    with closing(open_index(path, read_only=True)) as index:
        assert index.verify() == []
        ids = [whole(Document("b", "four\nfive"))[0].id]
        assert index.vectors(ids)[0] == pytest.approx(embedded("four\nfive"), abs=0.01)
    for number, (changes, sizes) in enumerate((
        ({"document_prefix": "p: "}, (6, 0)), ({"fingerprint": "newer"}, (6, 0)), ({}, (6, 0)), ({}, (0, 6)),
    )):  # fmt: skip
        embedder = WordEmbedder()
        made, _ = remade(path, embedder, halves, chunker=f"halves{number}", **changes)
        assert (made.documents, made.chunks, made.embedded, made.reused) == (3, 6, *sizes)
        assert {each.startswith("p: ") for each in embedder.asked} == (
            {"document_prefix" in changes} if sizes[0] else set()
        )
    terms, _ = remade(path, None, whole, embedder="", fingerprint="", dimension=0, chunker="whole")
    assert terms == Reindexed(3, 3, 0, 0) and not facts(path)[0].embedder


@pytest.mark.slow
def test_an_index_that_was_begun_beside_is_gone_on_with_and_what_is_stale_in_it_goes(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "one", "b": "two", "c": "three"})
    close_corpora()
    header = IndexHeader("words", "words", DIMENSION, "whole")
    with closing(open_index(tmp_path / "i.new", header)) as begun:
        for id, text in (("a", "one"), ("b", "other"), ("gone", "four")):
            document = Document(id, text, source=f"/data/{id}")
            begun.put([IndexedDocument(document, whole(document), embedded(text)[None])])
    made, told = remade(path, WordEmbedder(), whole, chunker="whole")
    assert made == Reindexed(3, 3, 0, 2) and told == [(1, 3), (2, 3), (3, 3)]
    assert facts(path)[1] == {"a": ["one"], "b": ["two"], "c": ["three"]}
    with closing(open_index(tmp_path / "i.new", IndexHeader("words", "words", DIMENSION, "other"))):
        pass  # one of other settings is thrown away
    made, _ = remade(path, WordEmbedder(), halves, chunker="halves")
    assert made.chunks == 6 and facts(path)[0].chunker == "halves"


def test_batches_end_at_their_chunks_or_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_index(tmp_path / "i", {name: name * 4 for name in "abcde"})
    close_corpora()
    sizes: list[int] = []
    store = reindex._store

    async def counted(waiting: Any, *rest: Any) -> Any:
        sizes.append(len(waiting))
        return await store(waiting, *rest)

    monkeypatch.setattr(reindex, "_store", counted)
    monkeypatch.setattr(reindex, "BATCH_CHUNKS", 4)
    made, _ = remade(path, WordEmbedder(), halves, chunker="h1")
    assert sizes == [2, 2, 1] and made.chunks == 10
    sizes.clear()
    monkeypatch.setattr(reindex, "BATCH_CHUNKS", 99)
    monkeypatch.setattr(reindex, "BATCH_CHARS", 12)
    assert remade(path, WordEmbedder(), halves, chunker="h2")[0].embedded == 0 and sizes == [3, 2]


def test_the_same_chunks_get_other_vectors_in_place(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "one\ntwo", "b": "three"})
    close_corpora()
    assert remade(path, WordEmbedder(), sentences_of) == (Reindexed(2, 3, 0, 3), [])
    embedder = WordEmbedder()
    made, told = remade(path, embedder, sentences_of, fingerprint="newer", document_prefix="p: ")
    assert (
        made == Reindexed(2, 3, 3, 0)
        and told == [(3, 3)]
        and sorted(embedder.asked) == ["p: one", "p: three", "p: two"]
    )
    assert facts(path)[0].fingerprint == "newer"
    made, _ = remade(path, None, sentences_of, embedder="", fingerprint="", dimension=0)
    assert made == Reindexed(2, 3, 0, 0) and remade(path, None, sentences_of, embedder="", fingerprint="", dimension=0) == (
        Reindexed(2, 3, 0, 0), []
    )  # fmt: skip


def test_an_index_made_anew_with_a_fault_leaves_the_old_one(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "one", "b": "two"})
    close_corpora()
    with closing(open_index(tmp_path / "i.new", IndexHeader("words", "words", DIMENSION, "whole"))) as begun:
        document = Document("a", "one", source="/data/a")
        begun.put([IndexedDocument(document, whole(document), embedded("one")[None])])
        begun._file._connection.execute("UPDATE chunks SET text_hash = x'00'")
    with pytest.raises(StoreError) as fault:
        remade(path, WordEmbedder(), whole, chunker="whole")
    assert str(fault.value) == (
        "the new index has a fault, and the old one stays: The chunk 0..3 of 'a' has the hash of another text."
    )
    assert facts(path)[0].chunker == "lines" and [*facts(tmp_path / "i.new")[1]] == ["a", "b"]


def test_progress_of_new_vectors_counts_those_of_all_batches(tmp_path: Path):
    path = write_index(tmp_path / "i", {"a": "\n".join(f"word{n}" for n in range(257))})
    close_corpora()
    made, told = remade(path, WordEmbedder(), sentences_of, fingerprint="newer")
    assert made == Reindexed(1, 257, 257, 0) and told == [(256, 257), (257, 257)]


def test_a_swap_waits_for_other_processes_and_clears_up(tmp_path: Path):
    old, new = tmp_path / "i", tmp_path / "i.new"
    for path, text in ((old, "old"), (new, "new"), (tmp_path / "i.new.lock", "")):
        path.write_text(text)
    (tmp_path / "i-wal").write_text("")
    with pytest.raises(StoreError, match=r"another process has .*i open: end it, and run this again, .* with i\.new$"):
        reindex._swap(old, new)
    assert old.read_text() == "old" and new.exists()
    (tmp_path / "i-wal").unlink()
    reindex._swap(old, new)
    assert old.read_text() == "new" and [each.name for each in tmp_path.iterdir()] == ["i"]

    class Refuses:
        def put(self, documents: Any) -> IngestReceipt:
            return IngestReceipt(failed=(("b", "too long"), ("c", "why")))

    waiting = [(Document("b", "x"), whole(Document("b", "x")))]
    prepared = Prepared(IndexHeader("", "", 0, "whole"), None, whole)
    with pytest.raises(StoreError, match=r"^b does not fit the new index: too long$"):
        asyncio.run(reindex._store(waiting, Refuses(), None, prepared))  # type: ignore[arg-type]


# -- of benchmarks --


def test_a_benchmark_s_corpus_has_a_file_of_its_own_for_each_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    digest = hashlib.sha256(b"mteb_x@2:n=3\0minilm").hexdigest()[:8]
    path = benchmark_corpus.corpus_path("mteb_x@2:n=3", "minilm")
    assert path.name == f"mteb-x-2-{digest}.sqlite" and path.parent.name == "indexes" and tmp_path in path.parents
    assert len({path, *(benchmark_corpus.corpus_path("mteb_x@2:n=4", "minilm") for _ in "a"),
                benchmark_corpus.corpus_path("mteb_x@2:n=3", "")}) == 3  # fmt: skip
    task = Task("t9", "q", metadata={"corpus": "scifact"})
    assert benchmark_corpus.corpus_spec(task) == "scifact"
    assert asyncio.run(benchmark_corpus.task_index(task, "own", embedder="minilm")) == "own"
    for named in ({}, {"corpus": None}, {"corpus": ""}):
        with pytest.raises(ConfigError) as refused:
            benchmark_corpus.corpus_spec(Task("t9", "q", metadata=named))
        assert str(refused.value) == (
            "task t9 names no corpus: give an index, as in index=PATH, or a benchmark of retrieval such as scifact"
        )
        with pytest.raises(ConfigError, match="task t9 names no corpus"):
            asyncio.run(benchmark_corpus.task_index(Task("t9", "q", metadata=named), "", embedder="minilm"))


def test_each_document_of_a_benchmark_is_one_chunk_stored_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    documents = [Document("a", "x y", "Title", "src", {"n": 1}), Document("b", "z"), Document("c", "w")]
    assert benchmark_corpus._whole(documents[0]) == Chunk("a", 0, 3, "x y", "Title", None, {"source": "src", "n": 1})
    assert benchmark_corpus._whole(documents[1]) == Chunk("b", 0, 1, "z")
    sizes: list[list[str]] = []
    put = benchmark_corpus._put

    def counted(index: Any, indexed: Any) -> None:
        sizes.append([each.document.id for each in indexed])
        put(index, indexed)

    closed: list[bool] = []

    class Opened(WordEmbedder):
        def close(self) -> None:
            closed.append(True)

    made = Opened()
    monkeypatch.setattr(benchmark_corpus, "_put", counted)
    monkeypatch.setattr(benchmark_corpus, "AT_ONCE", 2)
    monkeypatch.setattr(benchmark_corpus, "open_embedder", lambda name: made)
    path = tmp_path / "new" / "i"
    asyncio.run(benchmark_corpus.build_index(path, documents, embedder="words"))
    assert sizes == [["a", "b"], ["c"]] and made.asked == ["dimension", "Title\nx y", "z", "w"] and closed == [True]
    with closing(open_index(path, read_only=True)) as index:
        assert index.header == IndexHeader("words", "words", DIMENSION, "whole")
        for text, chunk in (("Title\nx y", documents[0]), ("w", documents[2])):
            assert index.vectors([benchmark_corpus._whole(chunk).id])[0] == pytest.approx(embedded(text), abs=0.01)
    changed = [documents[0], Document("c", "changed"), Document("d", "v")]
    asyncio.run(benchmark_corpus.build_index(path, changed, embedder="words"))
    assert sizes[2:] == [["c", "d"]] and sorted(facts(path)[1]) == ["a", "c", "d"]
    refuses: Any = SimpleNamespace(put=lambda indexed: IngestReceipt(failed=(("x", "why"), ("y", "not"))))
    with pytest.raises(ConfigError, match=r"^document 'x' could not be stored: why$"):
        put(refuses, [])


def test_the_index_of_a_corpus_is_made_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setattr(benchmark_corpus, "_ready", {})
    read: list[str] = []

    def documents(spec: str) -> list[Document]:
        read.append(spec)
        return [Document("a", spec)]

    monkeypatch.setattr(benchmark_corpus, "corpus_documents", documents)

    specs = ("gsm8k", "gsm8k", "mmlu")  # benchmarks that name no files of a corpus

    async def both() -> list[Path]:
        return [*await asyncio.gather(*(benchmark_corpus.corpus_index(spec, embedder="") for spec in specs))]

    one, two, other = asyncio.run(both())
    assert one == two != other and sorted(read) == ["gsm8k", "mmlu"] and facts(other)[1] == {"a": ["mmlu"]}
    asyncio.run(both())
    assert len(read) == 2
    one.unlink()
    asyncio.run(both())
    assert sorted(read) == ["gsm8k", "gsm8k", "mmlu"] and facts(one)[1] == {"a": ["gsm8k"]}
