"""Chunks and orders at their edges: symbols within symbols, strings with braces, sizes reached exactly, odd windows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corpus_tiny import tiny_corpus
from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.chunking import semantic_chunks
from firsthand.retrieval.chunking.code_chunks import Symbol, _by_lines, _joined, _python, code
from firsthand.retrieval.chunking.parent_chunks import parent_ids, parents
from firsthand.retrieval.chunking.semantic_chunks import _distances, _groups, semantic
from firsthand.retrieval.chunking.sentence_chunks import by_sentences
from firsthand.retrieval.chunking.text_spans import sentences
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit, Query, TrailStep
from firsthand.retrieval.retrievers.best_sentence import best_cosines, scaled
from firsthand.retrieval.retrievers.context_windows import _widened
from firsthand.retrieval.retrievers.fusion import fuse
from firsthand.retrieval.retrievers.listwise import by_listwise
from firsthand.retrieval.retrievers.rewriting import hyde
from firsthand.retrieval.retrievers.score_fusion import fuse_scores
from firsthand.retrieval.retrievers.searches import dense, hybrid
from firsthand.retrieval.retrievers.selection import mmr
from firsthand.retrieval.store.sqlite_index import open_index


def shown(text: str, symbols: Sequence[Symbol]) -> list[tuple[str, str]]:
    return [(" > ".join(each.path), text[each.start : each.end]) for each in symbols]


def test_symbols_of_other_languages_are_found_by_braces_or_indentation() -> None:
    java = (
        "package p;\n"
        "// about A\n@Deprecated\npublic class A {\n"
        '    void f(int x) {\n        String s = "}}}";  // }\n        if (x) { g(); }\n    }\n'
        "    int g() { return 1; }\n}\n"
        "\nfunction h() {}\n"
    )
    assert shown(java, list(_by_lines(java))) == [
        ("p", "package p;\n"),
        ("A", "// about A\n@Deprecated\npublic class A {\n"),
        ("A > f", '    void f(int x) {\n        String s = "}}}";  // }\n        if (x) { g(); }\n    }\n'),
        ("A > g", "    int g() { return 1; }\n}\n\n"),
        ("h", "function h() {}\n"),
    ]
    ruby = "module M\n  class C\n    def a\n      def deep\n      end\n    end\n    # of b\n    def b\n  x\ndef top\n"
    assert shown(ruby, list(_by_lines(ruby))) == [
        ("M", "module M\n"),
        ("M > C", "  class C\n"),
        ("M > C > a", "    def a\n      def deep\n      end\n    end\n"),
        ("M > C > b", "    # of b\n    def b\n  x\n"),
        ("top", "def top\n"),
    ]
    spaced = "# far\n\nfn a() {}\n"
    assert shown(spaced, list(_by_lines(spaced))) == [("", "# far\n\n"), ("a", "fn a() {}\n")]


def test_python_is_divided_by_its_tree_with_the_text_between() -> None:
    text = (
        "import x\n\n@one\n@two\ndef f():\n    def g(): pass\n    return 1\n\nx = 1\n"
        "class C:\n    a = 1\n    def m(self):\n        return 2\n    b = 3\n\n\ny = 2\n"
    )
    found = _python(text)
    assert found is not None and shown(text, found) == [
        ("", "import x\n\n"),
        ("f", "@one\n@two\ndef f():\n    def g(): pass\n    return 1\n\n"),
        ("", "x = 1\n"),
        ("C", "class C:\n    a = 1\n"),
        ("C > m", "    def m(self):\n        return 2\n"),
        ("C", "    b = 3\n\n\n"),
        ("", "y = 2\n"),
    ]
    assert _python("def f(:") is None and _python("") == []


def test_names_in_headings_of_python_are_at_most_eighty_characters_as_in_other_languages() -> None:
    functions = "".join(f"    def f{n}{'g' * 1_000}():\n        return {n}\n" for n in range(3))
    text = f"class {'B' * 5_000}:\n    a = 1\n{functions}"
    headings = [each.heading for each in code(size=1_200)(Document("d", text, meta={"language": "python"}))]
    assert headings[-2:] == [f"{'B' * 80} > f{n}{'g' * 78}" for n in (1, 2)]
    assert {len(each) for each in headings} == {80, 163}
    found = _python(f"class {'C' * 81}:\n    def f(self):\n        return 1\n    b = 2\n    c = 3\n")
    assert found is not None and [each.path for each in found] == [("C" * 80,), ("C" * 80, "f"), ("C" * 80,)]


def test_small_neighbours_share_a_chunk_up_to_its_very_size() -> None:
    first, second = "def a():\n    return 1\n", "def b():\n    return 22\n"
    document = Document("d", first + second, meta={"language": "python"})
    size = len(first + second)
    assert [(each.heading, each.text) for each in code(size=size)(document)] == [("a, b", (first + second).strip())]
    assert [each.heading for each in code(size=size - 1)(document)] == ["a", "b"]
    kept = Document("d", "x" * 40)

    def heading(*paths: tuple[str, ...]) -> str:
        (made,) = _joined(kept, [Symbol(n, n + 1, path) for n, path in enumerate(paths)])
        return made.heading

    assert heading(("A", "f"), ("A", "g"), (), ("A", "f")) == "A > f, g" and heading(("A",), ("A", "f")) == "A > f"
    assert heading(*((name,) for name in "abcdef")) == "a, b, c, d, e, f"
    assert heading(*((name,) for name in "abcdefg")) == "a, b, c, d, e, f, ..." and heading(()) == ""
    assert _joined(kept, []) == []


def test_meaning_breaks_where_sentences_differ_most_across_batches(monkeypatch: Any) -> None:
    text = "Aa. Bb. Cc. Dd. Ee."
    seen: list[list[str]] = []
    angles = {"Aa. Bb.": 0.0, "Aa. Bb. Cc.": 0.1, "Bb. Cc. Dd.": 0.4, "Cc. Dd. Ee.": 1.4, "Dd. Ee.": 1.6}

    def embed(windows: Sequence[str]) -> Any:
        seen.append(list(windows))
        return np.array([[np.cos(angles[each]), np.sin(angles[each])] for each in windows], np.float32)

    parts = [(at, at + 3) for at in range(0, 20, 4)]
    whole = 1 - np.cos([0.1, 0.3, 1.0, 0.2])
    for batch in (1024, 2, 1):
        monkeypatch.setattr(semantic_chunks, "BATCH", batch)
        assert np.allclose(_distances(text, parts, embed), whole, atol=1e-6)
    assert seen[0] == list(angles) and seen[1:4] == [list(angles)[:2], list(angles)[2:4], list(angles)[4:]]
    chunk = semantic(size=100, percentile=70.0, embed=embed)
    assert [each.text for each in chunk(Document("d", text))] == ["Aa. Bb. Cc.", "Dd. Ee."]
    assert [each.text for each in semantic(size=7, percentile=70.0, embed=embed)(Document("d", text))] == [
        "Aa. Bb.", "Cc.", "Dd. Ee.",
    ]  # fmt: skip
    assert _groups(parts, np.array([1.0, 1.0, 1.0, 1.0]), 50.0) == [parts] and _groups([], np.zeros(0), 50.0) == [[]]
    assert semantic(embed=embed)(Document("d", " ")) == []


def test_sentences_overlap_by_whole_ones_and_never_swallow_the_chunk_before() -> None:
    text = "Aaaa. Bb. Cc. Dddd."

    def spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
        return [(each.start, each.end) for each in by_sentences(size=size, overlap=overlap)(Document("d", text))]

    assert spans(text, 14, 4) == [(0, 9), (6, 19)] and spans(text, 14, 3) == [(0, 9), (10, 19)]
    assert spans(text, 9, 0) == [(0, 9), (10, 19)] and spans(text, 8, 0) == [(0, 5), (6, 13), (14, 19)]
    assert spans("Aa. Bbbbbbbbb.", 20, 10) == [(0, 3), (4, 14)], "the overlap would be the whole chunk before"
    assert spans("", 9, 0) == [] and spans("x" * 21, 10, 0) == [(0, 10), (10, 20), (20, 21)]


def test_a_parent_of_one_child_is_a_chunk_of_its_own() -> None:
    document = Document("d", "# One\n" + "a " * 30 + "\n# Two\nshort.", meta={"language": ""})
    made = parents(size=40, overlap=0, parent_size=80)(Document("d.md", document.text, meta={"kind": "markdown"}))
    whole = [each for each in made if each.parent is None]
    ids = parent_ids(made)
    assert [each.id in ids for each in whole] == [True, False] and whole[1].text.endswith("short.")
    children = [each for each in made if each.parent is not None]
    assert children and {each.parent for each in children} == {whole[0].id}
    for each in children:
        assert document.text[each.start : each.end] == each.text and each.heading == whole[0].heading
        assert whole[0].start <= each.start and each.end <= whole[0].end
    assert made.index(whole[0]) == 0 and made[-1] == whole[1] and isinstance(made[0], Chunk)


def test_abbreviations_of_any_length_end_no_sentence() -> None:
    for text in ("It has approx. Five mills.", "Seen in Sept. Ann left.", "By J. Doe. ", "So, e.g. Ann."):
        assert [*sentences(text, 0, len(text))] == [(0, len(text))], text
    assert [*sentences("It was nice. Ann left.", 0, 22)] == [(0, 13), (13, 22)]
    assert [*sentences("Is it? yes! no. and", 0, 19)] == [(0, 7), (7, 12), (12, 19)]


def test_windows_of_a_list_move_by_half_and_the_middle_of_an_odd_one_is_read_twice() -> None:
    seen: list[list[str]] = []

    class Writer:
        async def write(self, prompt: str, **options: Any) -> list[str]:
            seen.append(re.findall(r"<passage \d \w+>\n(.*)\n", prompt))
            assert options == {"temperature": 0.0, "max_tokens": 18}
            return ["[3] > [1]"]

    score = by_listwise(Writer(), window=3, characters=2)  # type: ignore[arg-type]
    scores = asyncio.run(score("q", ["aaa", "bb", "cc", "dd", "ee"]))  # type: ignore[arg-type]
    # cc dd ee becomes ee cc dd; then bb ee cc becomes cc bb ee; then aa cc bb becomes bb aa cc
    assert seen == [["cc", "dd", "ee"], ["bb", "ee", "cc"], ["aa", "cc", "bb"]]
    assert scores == [4.0, 5.0, 3.0, 1.0, 2.0]
    assert asyncio.run(score("q", ["x"])) == [1.0] and len(seen) == 3  # type: ignore[arg-type]
    for bad in ({"window": 1}, {"characters": 0}):
        with pytest.raises(ConfigError, match=r": give 2 passages or more, and 1 character$"):
            by_listwise(Writer(), **bad)  # type: ignore[arg-type]


def test_a_blank_text_is_as_far_as_can_be_and_equal_scores_are_whole() -> None:
    corpus = tiny_corpus({"d": "x"})
    found = asyncio.run(best_cosines(corpus, "query: fox", ["fox. hen owl.", " \n", "hen owl. fox hen."]))
    assert found[1] == -1.0 and found[0] > found[2] > 0
    assert asyncio.run(best_cosines(corpus, "fox", ["", "  "])) == [-1.0, -1.0]
    many = " ".join(f"Hen {n}." for n in range(100)) + " Fox fox."
    assert (
        asyncio.run(best_cosines(corpus, "fox", [many]))[0]
        < 0.6
        < asyncio.run(best_cosines(corpus, "fox", ["Fox."]))[0]
    )
    assert scaled([3.0, 1.0, 2.0]) == [1.0, 0.0, 0.5] and scaled([2.0, 2.0]) == [1.0, 1.0]
    assert scaled([1.0, float("inf")]) == [1.0, 1.0]


def test_made_up_passages_that_cancel_the_question_leave_its_own_vector() -> None:
    asked: list[Query] = []

    class Writer:
        async def write(self, prompt: str, **options: Any) -> list[str]:
            assert prompt == "Write a short passage that answers the question.\n\nQuestion: q\n\nPassage:"
            assert options == {"n": 1, "temperature": 0.7, "max_tokens": 512, "stop": ("\n\n\n",)}
            return ["away"]

    class Embedder:
        name = "two"

        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return [[-0.6, -0.8] if text == "away" else [0.6, 0.8] for text in texts]

    async def retriever(query: Query, k: int) -> list[Any]:
        asked.append(query)
        return []

    corpus = replace(tiny_corpus({"d": "x"}), embedder=Embedder())  # type: ignore[arg-type]
    asyncio.run(hyde(retriever, corpus, Writer(), n=1)(Query("q", {"a": 1}), 3))  # type: ignore[arg-type]
    assert asked[0].text == "q" and asked[0].where == {"a": 1}
    assert asked[0].vectors == (pytest.approx((0.6, 0.8)),)


def test_windows_that_touch_are_one_hit_with_the_score_and_place_of_the_better() -> None:
    text = "aabbccddeeffgg"
    chunks = [Chunk("d", at, at + 2, text[at : at + 2]) for at in range(0, 14, 2)]
    index: Any = SimpleNamespace(chunks=lambda document: chunks, document=lambda document: Document("d", text))

    def widened(*places: int, around: int = 1) -> list[tuple[int, int, str, float]]:
        hits = [Hit(chunks[place], 9.0 - rank) for rank, place in enumerate(places)]
        found = _widened(index, hits, around, {})
        assert [each.trail for each in found] == [
            (TrailStep("neighbours", rank, each.score),) for rank, each in enumerate(found, 1)
        ]
        return [(each.chunk.start, each.chunk.end, each.chunk.text, each.score) for each in found]

    assert widened(4, 1) == [(0, 12, text[:12], 9.0)] and widened(1, 4) == [(0, 12, text[:12], 9.0)]
    assert widened(5, 1) == [(8, 14, "eeffgg", 9.0), (0, 6, "aabbcc", 8.0)]
    assert widened(0, 6, 3) == [(0, 14, text, 9.0)]
    assert widened(6, around=2) == [(8, 14, "eeffgg", 9.0)] and widened(0, around=99) == [(0, 14, text, 9.0)]
    between = Hit(Chunk("d", 3, 7, text[3:7]), 1.0)  # no chunk of the index: those that it overlaps are its middle
    assert [(each.chunk.start, each.chunk.end) for each in _widened(index, [between], 1, {})] == [(0, 10)]


def test_a_hit_is_as_relevant_as_the_nearest_of_several_query_vectors_makes_it() -> None:
    index: Any = SimpleNamespace(vectors=lambda ids: np.array([rows[id] for id in ids], np.float32))
    chunks = {name: Chunk(name, 0, 1, name) for name in "abc"}
    rows = {chunks["a"].id: [0.6, 0.8], chunks["b"].id: [0.0, 1.0], chunks["c"].id: [0.8, 0.6]}
    wanted: list[int] = []

    async def retriever(query: Query, k: int) -> list[Hit]:
        wanted.append(k)
        return [Hit(each, 1.0) for each in chunks.values()]

    query = Query("q", {}, ((1.0, 0.0), (0.0, 1.0)))
    found = asyncio.run(mmr(retriever, Corpus(index), balance=1.0, pool=4)(query, 2))  # type: ignore[arg-type]
    assert [(hit.chunk.document, hit.score) for hit in found] == [("b", 1.0), ("a", pytest.approx(0.8))]
    assert found[0].trail == (TrailStep("mmr", 1, 1.0),)
    # then .5 * .8 - .5 * cos(hit, b): a has .8 and c has .6
    found = asyncio.run(mmr(retriever, Corpus(index), balance=0.5, pool=1)(query, 3))  # type: ignore[arg-type]
    assert [(hit.chunk.document, pytest.approx(hit.score)) for hit in found] == [("b", 0.5), ("c", 0.1), ("a", -0.08)]
    assert wanted == [4, 3]


def test_each_search_of_a_fusion_is_asked_for_the_pool_or_for_more() -> None:
    for make in (fuse, fuse_scores):
        wanted: list[int] = []

        async def retriever(query: Query, k: int, wanted: list[int] = wanted) -> list[Hit]:
            wanted.append(k)
            return [Hit(Chunk(str(n), 0, 1, "x"), 9.0 - n) for n in range(k)]

        found = make(retriever, retriever, weights=(1.0, 2.0), pool=3)
        assert [len(asyncio.run(found(Query("q"), k))) for k in (2, 5)] == [2, 5] and wanted == [3, 3, 5, 5]  # type: ignore[arg-type]


def test_a_hybrid_search_by_several_vectors_takes_each_chunks_best_cosine() -> None:
    with open_index(":memory:", IndexHeader("two", "f", 2, "whole")) as index:
        rows = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [-1.0, 0.0]}
        for id, row in rows.items():
            index.put([IndexedDocument(Document(id, id), [Chunk(id, 0, 1, id)], np.array([row], np.float32))])
        corpus = Corpus(index, SimpleNamespace(name="two"))  # type: ignore[arg-type]
        query = Query("c", {}, ((0.0, 1.0), (-1.0, 0.0)))
        found = asyncio.run(hybrid(corpus)(query, 2))  # type: ignore[arg-type]
        # by the best cosine c has 1, b .8, a 0; c is the only one of the word
        assert [(hit.chunk.document, hit.score) for hit in found] == [("c", 2 / 61), ("b", 1 / 62)]
        best = asyncio.run(dense(corpus)(query, 2))  # type: ignore[arg-type]
        assert [(hit.chunk.document, pytest.approx(hit.score, abs=1e-3)) for hit in best] == [("c", 1.0), ("b", 0.8)]
        assert best[1].trail == (TrailStep("dense", 2, best[1].score),)
