"""Every engine behind ChunkIndex holds to the same protocol: the same documents, filters, ranks and refusals."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, FirsthandError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex, HybridSearch, IndexedDocument, IndexHeader, outlines
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.retrievers.searches import traced
from firsthand.retrieval.store.filter_conditions import MAX_CONDITIONS, MAX_LISTED, check_filter, matches
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.records import Match, Not
from firsthand.retrieval.store.sqlite_index import open_index
from index_postgres import postgres  # noqa: F401
from index_tiny import HEADER, TERMS_ONLY, lines, unit
from listed_records import ListedRecords
from pinecone_wire import pinecone_server
from thorough import part, repetitions
from weaviate_wire import weaviate_server

Make = Callable[[IndexHeader], ChunkIndex]
SERVERS = ["postgres", "qdrant", "chroma", "lance", "pinecone", "weaviate"]
ENGINES = ["sqlite", "memory", "records", *(pytest.param(name, marks=pytest.mark.slow) for name in SERVERS)]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens the one index of the test, again with each call."""
    made: list[ChunkIndex] = []
    opens = OPENERS[request.param](request, tmp_path)

    def opened(header: IndexHeader = HEADER) -> ChunkIndex:
        made.append(opens(header))
        return made[-1]

    yield opened
    for each in made:
        each.close()


def _sqlite(request: pytest.FixtureRequest, folder: Path) -> Make:
    return lambda header: open_index(folder / "x.index", header)


def _memory(request: pytest.FixtureRequest, folder: Path) -> Make:
    return lambda header: open_index(":memory:", header)


def _records(request: pytest.FixtureRequest, folder: Path) -> Make:
    """RecordIndex over a list, so that what all engines share is tested where none is installed."""
    store = ListedRecords()
    return lambda header: RecordIndex(store, "listed", header)


def _qdrant(request: pytest.FixtureRequest, folder: Path) -> Make:
    if find_spec("qdrant_client") is None:
        pytest.skip("qdrant-client is not installed")
    from qdrant_client import QdrantClient

    from firsthand.retrieval.store.qdrant_index import open_qdrant_index

    client = QdrantClient(":memory:")
    return lambda header: open_qdrant_index(client, "chunks", header)


def _chroma(request: pytest.FixtureRequest, folder: Path) -> Make:
    if find_spec("chromadb") is None:
        pytest.skip("chromadb is not installed")
    from firsthand.retrieval.store.chroma_index import open_chroma_index

    return lambda header: open_chroma_index(folder / "chroma", "chunks", header)


def _lance(request: pytest.FixtureRequest, folder: Path) -> Make:
    if find_spec("lancedb") is None:
        pytest.skip("lancedb is not installed")
    from firsthand.retrieval.store.lance_index import open_lance_index

    return lambda header: open_lance_index(folder / "lance", "chunks", header)


def _postgres(request: pytest.FixtureRequest, folder: Path) -> Make:
    from firsthand.retrieval.store.postgres_index import open_postgres_index

    address = request.getfixturevalue("postgres")
    name = f"test_{uuid4().hex}"
    return lambda header: open_postgres_index(address, name, header)


def _pinecone(request: pytest.FixtureRequest, folder: Path) -> Make:
    """Through Pinecone's client and wire, to a server of our own: the service itself is not tested."""
    if find_spec("pinecone") is None:
        pytest.skip("this engine has no client here")
    from pinecone import Pinecone

    from firsthand.retrieval.store.pinecone_index import open_pinecone_index

    running = pinecone_server()
    client = Pinecone(api_key="none").Index(host=running.__enter__())
    request.addfinalizer(lambda: running.__exit__(None, None, None))
    return lambda header: open_pinecone_index(client, "chunks", header)


def _weaviate(request: pytest.FixtureRequest, folder: Path) -> Make:
    """Over Weaviate's wire, to a server of our own: the service itself is not tested."""
    if find_spec("graphql") is None:
        pytest.skip("this engine has no client here")
    from firsthand.retrieval.store.weaviate_index import open_weaviate_index

    running = weaviate_server()
    address, _ = running.__enter__()
    request.addfinalizer(lambda: running.__exit__(None, None, None))
    return lambda header: open_weaviate_index(address, "Chunks", header)


OPENERS = {
    "weaviate": _weaviate,
    "pinecone": _pinecone,
    "sqlite": _sqlite,
    "memory": _memory,
    "records": _records,
    "postgres": _postgres,
    "qdrant": _qdrant,
    "chroma": _chroma,
    "lance": _lance,
}


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    """Documents of a test about many: fewer for the engines that are asked one by one."""
    return 60 if request.node.callspec.params["make"] in [*SERVERS, "records"] else repetitions(600, 200)


@pytest.fixture
def index(make: Make) -> ChunkIndex:
    return make(HEADER)


def ids(hits: Any) -> list[str]:
    return [hit.chunk.document for hit in hits]


# -- documents --


def test_a_document_comes_back_as_it_was_put(index: ChunkIndex) -> None:
    text = "# Lions\nThey roar. \U0001f981 é\nThey\tsleep.\n"
    document = Document(
        "a/b.md", text, "Lions", "/docs/a/b.md", {"year": 2020, "tags": ["x", None], "deep": {"a": 1.5}},
        (Location(0, "heading", "Lions"), Location(8, "page", "2")),
    )  # fmt: skip
    whole = Chunk(document.id, 0, len(text), text)
    first = Chunk(document.id, 8, 19, text[8:19], "Lions", whole.id, {"n": 1})
    last = Chunk(document.id, 19, len(text), text[19:], "Lions > Sleep", whole.id)
    vectors = unit(3, 1)
    vectors[0] = 0
    receipt = index.put([IndexedDocument(document, [whole, first, last], vectors)])
    assert receipt.added == ("a/b.md",) and not receipt.failed
    assert index.document("a/b.md") == document and index.hashes() == {"a/b.md": document.sha256}
    assert index.chunks("a/b.md") == [whole, first, last] and index.chunk(first.id) == first
    assert len(index) == 2, "a parent with zeros is not searched"
    assert index.vectors([last.id, whole.id]) == pytest.approx(vectors[[2, 0]], abs=1e-3)
    assert {hit.chunk.id for hit in index.search_vectors(vectors[1], 9, {})} == {first.id, last.id}
    assert [hit.chunk for hit in index.search_terms("roar", 9, {})] == [first]
    assert {hit.chunk.id for hit in index.search_terms("lions", 9, {})} == {first.id, last.id}
    assert index.verify() == []


def test_putting_again_changes_nothing_and_a_changed_document_replaces_the_old(index: ChunkIndex) -> None:
    old, other = lines("a", ["red fox\n", "blue whale\n"]), lines("b", ["grey goose\n"], seed=5)
    assert index.put([old, other]).added == ("a", "b")
    assert index.put([old, other]).unchanged == ("a", "b")
    new = lines("a", ["red fox\n", "white owl\n"], vectors=np.vstack([old.vectors[0], unit(1, 9)[0]]))
    receipt = index.put([new, other])
    assert (receipt.added, receipt.updated, receipt.unchanged) == ((), ("a",), ("b",))
    assert ids(index.search_terms("whale", 5, {})) == [] and ids(index.search_terms("owl", 5, {})) == ["a"]
    assert len(index) == 3 and index.document("a").text == "red fox\nwhite owl\n"
    with pytest.raises(UnknownName):
        index.chunk(old.chunks[1].id)
    assert index.verify() == []


def test_a_changed_meta_or_title_is_a_change(index: ChunkIndex) -> None:
    index.put([lines("a", ["red fox\n"], meta={"year": 1})])
    assert index.put([lines("a", ["red fox\n"], meta={"year": 2})]).updated == ("a",)
    assert ids(index.search_terms("fox", 5, {"year": 2})) == ["a"] and not index.search_terms("fox", 5, {"year": 1})
    assert index.put([lines("a", ["red fox\n"], meta={"year": 2}, title="T")]).updated == ("a",)
    assert ids(index.search_terms("fox", 5, {"title": "T"})) == ["a"]


def test_deleting_takes_all_that_belongs_to_a_document(index: ChunkIndex) -> None:
    documents = [lines(id, [f"word{id} shared\n"], seed=n, meta={"n": n}) for n, id in enumerate("abc")]
    index.put(documents)
    assert index.delete(["b", "missing", "b"]) == ("b",)
    assert [*index.hashes()] == ["a", "c"] and len(index) == 2
    assert "b" not in ids(index.search_vectors(documents[1].vectors[0], 9, {})) and index.chunks("b") == []
    assert not index.search_terms("wordb", 9, {}) and not index.search_terms("shared", 9, {"n": 1})
    with pytest.raises(UnknownName):
        index.document("b")
    assert not index.known_vectors(["wordb shared\n"])
    assert index.verify() == []
    assert index.put([documents[1]]).added == ("b",) and len(index) == 3


def test_an_unchanged_texts_vector_is_known(index: ChunkIndex) -> None:
    document = Document("a", "one\ntwo\n")
    chunks = [Chunk("a", 0, 4, "one\n", "Head"), Chunk("a", 4, 8, "two\n")]
    vectors = unit(2, 3)
    index.put([IndexedDocument(document, chunks, vectors)])
    known = index.known_vectors(["Head\none\n", "two\n", "one\n", "three", "two\n"])
    assert set(known) == {"Head\none\n", "two\n"}
    assert known["two\n"] == pytest.approx(vectors[1], abs=1e-3) and known["two\n"].dtype == np.float32


def test_documents_that_do_not_fit_are_named_and_the_others_stored(index: ChunkIndex) -> None:
    good = lines("good", ["fine\n"])
    wrong_span = IndexedDocument(Document("span", "abc"), [Chunk("span", 0, 2, "bc")], unit(1, 0))
    foreign = IndexedDocument(Document("foreign", "abc"), [Chunk("other", 0, 3, "abc")], unit(1, 0))
    twice = IndexedDocument(Document("twice", "abc"), [Chunk("twice", 0, 3, "abc")] * 2, unit(2, 0))
    orphan = IndexedDocument(Document("orphan", "abc"), [Chunk("orphan", 0, 3, "abc", parent="nobody")], unit(1, 0))
    documents = [
        wrong_span, foreign, twice, orphan,
        replace(lines("few", ["a\n", "b\n"]), vectors=unit(1, 0)),
        replace(lines("none", ["a\n"]), vectors=None),
        lines("long", ["a\n"], vectors=unit(1, 0) * 2),
        lines("nan", ["a\n"], vectors=unit(1, 0) * np.float32("nan")),
        lines("meta", ["a\n"], meta={"x": float("inf")}),
        good,
    ]  # fmt: skip
    receipt = index.put(documents)
    assert receipt.added == ("good",)
    assert [id for id, _ in receipt.failed] == [each.document.id for each in documents[:-1]]
    assert all(len(reason) > 20 for _, reason in receipt.failed)
    assert [*index.hashes()] == ["good"] and index.verify() == []


@pytest.mark.slow
def test_empty_documents_and_many_chunks_are_documents_too(index: ChunkIndex) -> None:
    empty = IndexedDocument(Document("empty", ""), [], np.empty((0, HEADER.dimension), np.float32))
    many = lines("many", [f"line {n}\n" for n in range(700)])
    assert index.put([empty, many]).added == ("empty", "many")
    assert index.document("empty").text == "" and len(index) == 700
    known = index.known_vectors([chunk.text for chunk in many.chunks])
    assert len(known) == 700 and index.vectors([each.id for each in many.chunks]).shape == (700, HEADER.dimension)
    assert index.search_terms("line", 700, {})[0].score == index.search_terms("line", 700, {})[-1].score


# -- searching --


@pytest.mark.slow
def test_vectors_are_ranked_by_cosine_and_equal_ones_by_id(index: ChunkIndex, many: int) -> None:
    count, tied = many // 2, slice(many // 6, many // 6 + many // 15)
    vectors = unit(count, 7)
    vectors[tied] = vectors[tied.start]
    index.put([lines(f"d{n}", [f"text {n}\n"], vectors=vectors[n : n + 1]) for n in range(count)])
    stored = vectors.astype(np.float16).astype(np.float64)
    chunks = {n: lines(f"d{n}", [f"text {n}\n"]).chunks[0].id for n in range(count)}
    for query in (vectors[tied.start], *part(unit(5, 8), 3)):
        scores = stored @ query.astype(np.float64)
        expected = sorted(range(count), key=lambda n: (-round(float(scores[n]), 12), chunks[n]))
        for k in (1, 7, 20, 1000):
            found = index.search_vectors(query, k, {})
            assert [hit.chunk.document for hit in found] == [f"d{n}" for n in expected[:k]]
            assert [hit.score for hit in found] == pytest.approx([scores[n] for n in expected[:k]], abs=1e-5)


def bm25(texts: list[str], query: str) -> list[float]:
    """BM25 with Lucene's idf, k1 = 1.2, b = 0.75, from its formula."""
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for words in documents:
        counts, score = Counter(words), 0.0
        for word in re.findall(r"\w+", query.lower()):
            n = sum(word in each for each in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * counts[word] / (counts[word] + 1.2 * (1 - 0.75 + 0.75 * len(words) / mean))
        scores.append(score)
    return scores


@pytest.mark.slow
def test_terms_are_ranked_by_bm25_and_equal_ones_by_id(index: ChunkIndex, request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in rng.zipf(1.6, size=rng.integers(1, 40)) if n < 99) + "\n" for _ in range(120)]
    texts[50:60] = ["W1 w2 w1\n"] * 10
    index.put([lines(f"d{n}", [text], seed=n) for n, text in enumerate(texts)])
    chunks = [lines(f"d{n}", [text]).chunks[0].id for n, text in enumerate(texts)]
    for query in part(("w3 w17 w1 w3", "w1", "w98 nothing", "w2 w1"), 2):
        scores = bm25(texts, query)
        expected = sorted((n for n in range(120) if scores[n] > 0), key=lambda n: (-round(scores[n], 9), chunks[n]))
        for k in (1, 10, 500):
            found = index.search_terms(query, k, {})
            assert [hit.chunk.document for hit in found] == [f"d{n}" for n in expected[:k]]
            assert [hit.score for hit in found] == pytest.approx([scores[n] for n in expected[:k]], rel=1e-5)
    assert index.search_terms("nothing at all", 5, {}) == [] and index.search_terms("", 5, {}) == []


def test_stems_and_marks_and_headings_are_indexed(index: ChunkIndex) -> None:
    document = Document("a", "Café owners were running.")
    index.put([IndexedDocument(document, [Chunk("a", 0, 25, document.text, "Zebras > Stripes")], unit(1, 0))])
    for query in ("cafe", "RUN", "owner", "zebra", "stripe"):
        assert ids(index.search_terms(query, 3, {})) == ["a"], query


def test_bm25_counts_the_chunks_that_are_there(index: ChunkIndex) -> None:
    texts = ["fox fox hen\n", "fox\n", "hen owl\n", "fox owl goose whale\n"]
    index.put([lines(f"d{n}", [text], seed=n) for n, text in enumerate(texts)])
    assert index.search_terms("fox", 9, {})
    index.delete(["d1"])
    index.put([lines("d4", ["owl fox\n"], seed=9)])
    left = [texts[0], texts[2], texts[3], "owl fox\n"]
    found = {hit.chunk.document: hit.score for hit in index.search_terms("fox owl", 9, {})}
    assert found == pytest.approx(dict(zip(("d0", "d2", "d3", "d4"), bm25(left, "fox owl"), strict=True)))


@pytest.mark.parametrize("k", [0, -3])
def test_no_hits_are_wanted(index: ChunkIndex, k: int) -> None:
    index.put([lines("a", ["fox\n"])])
    assert index.search_terms("fox", k, {}) == [] and index.search_vectors(unit(1, 0)[0], k, {}) == []


def test_a_query_may_be_of_any_length_and_hold_anything(index: ChunkIndex) -> None:
    index.put([lines("a", ["fox hen\n"]), lines("b", ["owl\n"], seed=1)])
    hostile = [
        '"',
        "'",
        "*",
        "NEAR(a b)",
        "text:x",
        "a OR",
        "NOT",
        "(",
        "x'; DROP TABLE chunks; --",
        "\0",
        "\ud800",
        "%",
        "",
    ]
    for query in hostile:
        assert index.search_terms(query, 3, {}) == []
        assert ids(index.search_terms(query + " fox", 3, {}))[:1] == ["a"], query
    assert ids(index.search_terms("fox " * 25_000, 3, {})) == ["a"]
    assert ids(index.search_terms("q" * 100_000 + " owl", 3, {})) == ["b"]
    assert ids(index.search_terms(" ".join(f"n{n}" for n in range(15_000)) + " owl", 3, {})) == ["b"]
    with pytest.raises(ConfigError, match="shape"):
        index.search_vectors(unit(1, 0, 7)[0], 3, {})
    with pytest.raises(ConfigError, match="finite"):
        index.search_vectors(unit(1, 0)[0] * np.float32("nan"), 3, {})


def test_both_searches_fused_are_the_fusion_of_both(index: ChunkIndex) -> None:
    if not isinstance(index, HybridSearch):
        pytest.skip("this engine has no fused search")
    rng = np.random.default_rng(5)
    texts = [" ".join(f"w{n}" for n in rng.integers(1, 12, size=6)) + "\n" for _ in range(150)]
    index.put([lines(f"d{n}", [text], seed=n % 120, meta={"even": n % 2 == 0}) for n, text in enumerate(texts)])
    for where in ({}, {"even": True}, {"even": 5}):
        for k, pool, weights, constant in (
            (10, 30, (1.0, 1.0), 60.0),
            (50, 20, (0.5, 2.0), 1.0),
            (0, 20, (1.0, 1.0), 60.0),
        ):
            query, text = unit(1, 77)[0], "w3 w5 w5"
            dense, terms = (
                index.search_vectors(query, max(pool, k), where),
                index.search_terms(text, max(pool, k), where),
            )
            expected = reciprocal_rank_fusion(
                [traced(dense, "dense"), traced(terms, "lexical")], constant=constant, weights=weights
            )[:k]
            found = index.search_hybrid(query, text, k, where, pool=pool, constant=constant, weights=weights)
            assert [(hit.chunk, hit.trail) for hit in found] == [(hit.chunk, hit.trail) for hit in expected]


# -- filters --

FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcd"),
    ({"year": 2020}, "a"),
    ({"year": 2020.0}, "a"),
    ({"year": [2020, 2022]}, "ac"),
    ({"year": []}, ""),
    ({"year": {"min": 2021}}, "bc"),
    ({"year": {"max": 2021}}, "ab"),
    ({"year": {"min": 2021, "max": 2021}}, "b"),
    ({"year": {"not": 2020}}, "bcd"),
    ({"year": {"not": [2020, 2021]}}, "cd"),
    ({"year": {"not": {"min": 2021}}}, "ad"),
    ({"name": {"min": "b", "max": "c"}}, "bc"),
    ({"name": {"min": 1}}, ""),
    ({"flag": True}, "a"),
    ({"flag": 1}, "b"),
    ({"flag": None}, "c"),
    ({"flag": {"not": None}}, "abd"),
    ({"list": ["x"]}, ""),
    ({"list": [["x", 1]]}, "a"),
    ({"missing": 1}, ""),
    ({"missing": {"not": 1}}, "abcd"),
    ({"document": "b"}, "b"),
    ({"document": ["b", "d", "zz"]}, "bd"),
    ({"document": {"not": "b"}}, "acd"),
    ({"document": {"min": "c"}}, "cd"),
    ({"title": "Tb"}, "b"),
    ({"source": {"min": "/c"}}, "cd"),
    ({"source": 5}, ""),
    ({"year": {"min": 2021}, "flag": 1}, "b"),
    ({"k\"'$.[*]": "v"}, "d"),
    ({"": "empty"}, "d"),
    ({"\ud800": "\ud801"}, "d"),
    ({"x' OR 1=1 --": 1}, ""),
]


METAS: dict[str, dict[str, Any]] = {
    "a": {"year": 2020, "name": "a", "flag": True, "list": ["x", 1]},
    "b": {"year": 2021, "name": "b", "flag": 1},
    "c": {"year": 2022, "name": "c", "flag": None},
    "d": {"name": "ca", "k\"'$.[*]": "v", "": "empty", "\ud800": "\ud801", "document": "b"},
}


@pytest.fixture
def filtered(index: ChunkIndex) -> ChunkIndex:
    index.put(
        [
            lines(id, [f"fox {id}\n"], meta=meta, seed=ord(id), title=f"T{id}", source=f"/{id}")
            for id, meta in METAS.items()
        ]
    )
    return index


@pytest.mark.slow
def test_filters_are_exact(filtered: ChunkIndex) -> None:
    for where, expected in FILTERS:
        found = filtered.search_vectors(unit(1, 1)[0], 9, where), filtered.search_terms("fox", 9, where)
        assert [sorted(ids(hits)) for hits in found] == [list(expected)] * 2, where
        held = [
            id for id in METAS if matches(where, METAS[id], {"document": id, "title": f"T{id}", "source": f"/{id}"})
        ]
        assert held == list(expected), "the predicate that defines filters"


def test_any_number_of_nots_is_one_or_none(filtered: ChunkIndex) -> None:
    for inner in (2021, [2021, 2022], {"min": 2021, "max": 2022}):
        deep: Any = inner
        for depth in range(5):
            plain = {"not": inner} if depth % 2 else inner
            expected = filtered.search_terms("fox", 9, {"year": plain})
            assert ids(filtered.search_terms("fox", 9, {"year": deep})) == ids(expected), depth
            deep = {"not": deep}


@pytest.mark.parametrize("field", ["year", "document"])
def test_a_list_may_have_thousands_of_values(filtered: ChunkIndex, field: str, many: int) -> None:
    values = [2021, 2022] if field == "year" else ["b", "c"]
    where = {field: [values[0], *(each for n in range(10 * many) for each in (f"v{n}", -n)), values[1]]}
    assert sorted(ids(filtered.search_terms("fox", 9, where))) == ["b", "c"]
    assert sorted(ids(filtered.search_terms("fox", 9, {field: {"not": where[field]}}))) == ["a", "d"]


def test_a_filter_has_no_more_values_and_conditions_than_an_engine_can_take() -> None:
    check_filter({"year": [0] * MAX_LISTED})
    check_filter({"year": [0] * (MAX_LISTED - 1), "size": [0], "name": "a text"})
    for wrong in (
        {"year": [0] * (MAX_LISTED + 1)},
        {"year": {"not": (0,) * (MAX_LISTED + 1)}},
        {"size": [0], "year": [0] * MAX_LISTED},
    ):
        with pytest.raises(
            ConfigError,
            match=r"^the filter lists 200,001 values, the last of them of 'year', and 200,000 are the most: give a field",
        ):
            check_filter(wrong)

    def within(depth: int) -> Any:
        return {"not": within(depth - 1)} if depth else 1

    check_filter({str(n): n for n in range(MAX_CONDITIONS)})
    check_filter({"a": within(MAX_CONDITIONS - 3), "b": within(1)})
    deep: Any = 1
    for _ in range(100_000):
        deep = {"not": deep}
    many = {str(n): n for n in range(MAX_CONDITIONS + 1)}
    for where in (many, {"a": within(MAX_CONDITIONS - 3), "b": within(2)}, {"a": deep}):
        with pytest.raises(
            ConfigError, match=r"^the filter has more than 100 conditions: give fewer, or one with a list"
        ):
            check_filter(where)


@pytest.mark.parametrize(
    "where",
    [
        {"year": {}},
        {"year": {"above": 3}},
        {"year": {"min": 1, "max": "a"}},
        {"year": {"min": None}},
        {"year": {"min": True}},
        {"year": {"not": 1, "min": 2}},
        {"year": float("nan")},
        {"year": {1, 2}},
        {3: 4},
    ],
    ids=range(9),
)
def test_a_filter_that_cannot_be_understood_is_refused(filtered: ChunkIndex, where: Any) -> None:
    for search in (
        lambda: filtered.search_vectors(unit(1, 1)[0], 3, where),
        lambda: filtered.search_terms("fox", 3, where),
    ):
        with pytest.raises(ConfigError):
            search()


@pytest.mark.slow
def test_a_filter_with_a_few_of_many_rows_finds_the_best_of_those(index: ChunkIndex, many: int) -> None:
    vectors = unit(many, 4)
    index.put([
        lines(f"d{n}", [f"common {n}\n"], vectors=vectors[n : n + 1], meta={"n": n, "half": n % 2}) for n in range(many)
    ])  # fmt: skip
    query = unit(1, 5)[0].astype(np.float64)
    scores = vectors.astype(np.float16).astype(np.float64) @ query
    for where, passing in (
        ({"half": 1}, [n for n in range(many) if n % 2]),
        ({"n": {"min": 30, "max": 49}}, [*range(30, 50)]),
        ({"n": [3, many - 1]}, [3, many - 1]),
    ):
        found = index.search_vectors(query.astype(np.float32), 10, where)
        assert ids(found) == [f"d{n}" for n in sorted(passing, key=lambda n: -scores[n])[:10]]
        assert set(ids(index.search_terms("common", 700, where))) == {f"d{n}" for n in passing}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64, -(2**70), 0.5, -0.0, 1.0, 1e300]),
    st.sampled_from(["", "a", "A", "ab", "é", "\ud83d", "😀", "a\0b", "1"]),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2))
KEYS = st.sampled_from(["x", "y", "title", "document", ""])
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2**53 + 1, 2**64]))
TEXTS = st.sampled_from(["", "a", "ab", "é", "\ud83d"])
CONDITIONS = st.recursive(
    st.one_of(
        SCALARS,
        st.lists(VALUES, max_size=3),
        st.fixed_dictionaries({"min": NUMBERS}, optional={"max": NUMBERS}),
        st.fixed_dictionaries({"max": TEXTS}, optional={"min": TEXTS}),
    ),
    lambda inner: st.fixed_dictionaries({"not": inner}),
    max_leaves=2,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metas=st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=1, max_size=5),
    wheres=st.lists(st.dictionaries(KEYS, CONDITIONS, max_size=2), min_size=1, max_size=6),
)
def test_sql_agrees_with_the_predicate_that_defines_filters(metas: Any, wheres: Any) -> None:
    index = open_index(":memory:", HEADER)
    documents = [lines(f"a{n}", ["fox\n"], meta=meta, seed=n, title="ab"[n % 2]) for n, meta in enumerate(metas)]
    assert not index.put(documents).failed
    for where in wheres:
        expected = {
            each.document.id
            for each in documents
            if matches(
                where, each.chunks[0].meta, {"document": each.document.id, "title": each.document.title, "source": ""}
            )
        }
        assert set(ids(index.search_terms("fox", 99, where))) == expected, where
    index.close()


def test_a_writer_that_ends_between_records_leaves_the_old_document_whole() -> None:
    """On an engine without transactions."""
    if find_spec("qdrant_client") is None:
        pytest.skip("this engine has no client here")
    from qdrant_client import QdrantClient

    from firsthand.retrieval.store.qdrant_index import QdrantRecords

    class Ends(QdrantRecords):
        at: int | None = None

        def upsert(self, records: Any) -> None:
            super().upsert(records[: self.at])
            if self.at is not None:
                raise KeyboardInterrupt

    records = Ends(QdrantClient(":memory:"), "chunks", HEADER)
    index = RecordIndex(records, "chunks", HEADER)
    index.put([lines("a", ["fox one\n", "hen\n"])])
    for at in (1, 2, 3):
        records.at = at
        with pytest.raises(KeyboardInterrupt):
            index.put([lines("a", ["fox one\n", "fox owl\n", "goose\n"], seed=3)])
        for found in (index.search_terms("fox hen owl goose", 9, {}), index.search_vectors(unit(1, 0)[0], 9, {})):
            assert sorted(hit.chunk.text for hit in found) == ["fox one\n", "hen\n"]
    assert len(index.verify()) == 3, "what is left over is named"
    records.at = None
    assert index.put([lines("a", ["fox one\n", "fox owl\n", "goose\n"], seed=3)]).updated == ("a",)
    assert index.verify() == [] and len(index.search_terms("fox owl goose", 9, {})) == 3


@pytest.mark.slow
def test_chroma_finds_every_chunk_after_many_updates(tmp_path: Path) -> None:
    """Records that are not searched had one vector: its graph fell apart, and a search found two of ten."""
    pytest.importorskip("chromadb")
    from firsthand.retrieval.store.chroma_index import open_chroma_index

    index = open_chroma_index(tmp_path / "folder", "chunks", IndexHeader("small", "print", 16, "lines"))
    rng = np.random.default_rng(0)
    for version in range(9):
        rows = of_length_one_each(rng.normal(size=(100, 16)))
        index.put([lines(f"d{n}", [f"line {n} of {version}\n"], vectors=rows[n : n + 1]) for n in range(100)])
    found = 0
    for query in of_length_one_each(rng.normal(size=(50, 16))):
        best = {f"d{n}" for n in np.argsort(-(rows @ query))[:10]}
        found += len(best & set(ids(index.search_vectors(query, 10, {}))))
    assert found >= 490 and index.verify() == []


@pytest.mark.slow
def test_chroma_is_searched_without_its_graph_where_that_finds_too_few(tmp_path: Path) -> None:
    pytest.importorskip("chromadb")
    from firsthand.retrieval.store.chroma_index import open_chroma_index

    index = open_chroma_index(tmp_path / "folder", "chunks", IndexHeader("small", "print", 16, "lines"))
    rows = of_length_one_each(np.random.default_rng(0).normal(size=(30, 16)))
    index.put([lines(f"d{n}", [f"line {n}\n"], vectors=rows[n : n + 1]) for n in range(30)])
    store: Any = index._store
    called = store._called

    def worn(method: str, **options: Any) -> Any:
        found = called(method, **options)
        if method == "query":
            found = {name: [each[0][:2]] for name, each in found.items() if name in ("ids", "distances")}
        return found

    store._called = worn
    best = [f"d{n}" for n in np.argsort(-(rows @ rows[7]))[:10]]
    assert ids(index.search_vectors(rows[7], 10, {})) == best
    assert len(index.search_vectors(rows[7], 99, {})) == 30
    (id, score), *_ = [*store.nearest(rows[7], 5, Match("searchable", ("1",)))]
    assert id == index.chunks("d7")[0].id and score == pytest.approx(1, abs=0.01), "the best come first"


def of_length_one_each(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# -- headers and terms alone --


def test_engines_are_asked_without_a_not_within_a_not() -> None:
    index = RecordIndex(ListedRecords(), "listed", HEADER)
    plain, condition = index._one("a", 1), 1
    for depth in range(MAX_CONDITIONS):
        assert index._one("a", condition) == (Not(plain) if depth % 2 else plain), depth
        condition = {"not": condition}  # type: ignore[assignment]


def test_an_index_of_terms_alone_has_no_vectors(make: Make) -> None:
    index = make(TERMS_ONLY)
    parent = Chunk("p", 0, 8, "fox\nhen\n")
    family = [parent, Chunk("p", 0, 4, "fox\n", parent=parent.id), Chunk("p", 4, 8, "hen\n", parent=parent.id)]
    receipt = index.put([
        lines("a", ["fox\n"], with_vectors=False),
        IndexedDocument(Document("p", "fox\nhen\n"), family, None),
        lines("v", ["owl\n"], vectors=unit(1, 0)),
    ])  # fmt: skip
    assert receipt.added == ("a", "p") and "terms alone" in receipt.failed[0][1]
    assert [hit.chunk.text for hit in index.search_terms("fox", 5, {})] == ["fox\n", "fox\n"], (
        "parents are not searched"
    )
    assert index.known_vectors(["fox\n"]) == {} and len(index) == 3 and index.verify() == []
    with pytest.raises(ConfigError, match="terms alone"):
        index.search_vectors(unit(1, 0)[0], 3, {})


def test_unknown_ids_are_errors_with_the_nearest(index: ChunkIndex) -> None:
    index.put([lines("guide.md", ["fox\n"])])
    with pytest.raises(UnknownName, match=r"guide\.md"):
        index.document("guide.mb")
    for ask in (lambda: index.chunk("nope"), lambda: index.vectors(["nope"])):
        with pytest.raises(FirsthandError):
            ask()
    assert index.chunks("nope") == [] and index.vectors([]).shape[0] == 0


@pytest.mark.slow
def test_threads_search_while_one_writes(index: ChunkIndex) -> None:
    index.put([lines("first", ["fox 0\n"])])
    faults: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                assert "first" in ids(index.search_terms("fox", 500, {})) and index.search_vectors(unit(1, 0)[0], 5, {})
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        index.put([lines(f"d{n}", [f"fox {n}\n"], seed=n)])
    done.set()
    for thread in threads:
        thread.join()
    assert faults == [] and len(index) == 21


@pytest.mark.slow
def test_outlines_name_every_document_in_order_without_its_text(index: ChunkIndex, many: int) -> None:
    index.put([lines(f"d{n:04}", [f"word{n}\n"], meta={"n": n}, title=f"T{n}") for n in reversed(range(many))])
    found = list(outlines(index))
    assert [each.id for each in found] == [f"d{n:04}" for n in range(many)] == [*index.hashes()]
    assert [(each.title, each.meta["n"]) for each in found] == [(f"T{n}", n) for n in range(many)]
    assert {each.id: each.sha256 for each in found} == index.hashes() and not hasattr(found[0], "text")
