"""The tools search and lookup on small folders, call by call, and the corpus that they read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_tiny import DIMENSION, WordEmbedder, embedded, write_index
from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.corpus import (
    INDEX_NAME,
    Corpus,
    _opened,
    arguments_of,
    as_one,
    close_corpora,
    expect_vectors,
    nearby_index,
    open_corpus,
    refuse_within_read,
)
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.tools.search import (
    MAX_K,
    PASSAGE_CHARS,
    PassageHit,
    SearchIndex,
    _indexed,
    _lines,
    _texts,
    search,
    spans,
)


def folder(root: Path, **texts: str | bytes) -> Path:
    """A folder of files; `a_md` is a.md, and two underscores are a folder."""
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


BEASTS = {
    "fox_md": "# The Fox\nA fox is red. It sleeps by day.\n\nA FOX   eats\nhens! No more.",
    "sub__hen_txt": "A hen lays eggs. The fox likes a hen.",
    "owl_html": "<p>An owl &amp; a mouse.</p>",
    "odd_bin": "fox fox fox",
}


def test_a_title_comes_first_and_passages_tell_their_document(tmp_path: Path) -> None:
    made = SearchIndex(folder(tmp_path, **BEASTS))
    fox, hen = "A fox is red", "A hen lays eggs. The fox likes a hen."
    found = made.find("the   fox", 5)
    assert [(each.id, each.title) for each in found] == [("fox.md", "The Fox"), ("sub/hen.txt", "hen")]
    scores = {hit.chunk.document: hit.score for hit in made.index.search_terms("the fox", 5, {})}
    assert [each.score for each in found] == [scores[each.id] for each in found] and fox in found[0].text
    assert found[1] == PassageHit("sub/hen.txt", "hen", hen, scores["sub/hen.txt"]) and min(scores.values()) > 0
    assert made.find("the fox", 1) == found[:1]
    assert [each.id for each in made.find("hen")] == ["sub/hen.txt", "fox.md"]
    assert made.find("OWL", 1)[0] == PassageHit("owl.html", "owl", "An owl & a mouse.", made.find("owl")[0].score)
    eggs = made.find("fox, hens; eggs?", 2)
    assert [each.id for each in eggs] == ["sub/hen.txt", "fox.md"] and eggs[0].score > eggs[1].score > 0
    assert made.search("eggs") == f"[sub/hen.txt] hen\n  {hen}"
    assert (
        made.search("fox", k=2).split("\n\n")[0].startswith("[")
        and made.search("mouse") == "[owl.html] owl\n  An owl & a mouse."
    )
    assert made.search("zebra " * 60, 3) == f"(nothing was found for {('zebra ' * 60)[:200]!r}: try other words)"
    for k in (0, MAX_K + 1):
        with pytest.raises(ToolError, match=rf"^k is {k}: give 1 to 20$"):
            made.find("fox", k)
    assert len(made.find("fox", MAX_K)) == 2
    with pytest.raises(ToolError, match=r"^the query '\?! ' holds no words: give some$"):
        made.find("?! ")
    cows = SearchIndex(folder(tmp_path / "cows", c_md="# cow\n" + "grass " * 90, d_txt="cow cow cow"))
    assert [each.id for each in cows.find("cow", 2)] == ["c.md", "d.txt"]
    assert [(each.id, each.score) for each in cows.find("Cow", 1)] == [("c.md", 0.0)], (
        "its terms are not among the best"
    )
    far = " ".join(f"w{n}" for n in range(63))
    assert made.find(f"{far} eggs") and not made.find(f"{far} w63 eggs"), "64 words of a query are searched"


def test_lookup_goes_from_sentence_to_sentence_in_one_document_or_in_all(tmp_path: Path) -> None:
    made = SearchIndex(folder(tmp_path, **BEASTS))
    assert made.lookup(" a  Fox ", "fox.md") == "(result 1 of 2) [fox.md] The Fox\n  # The Fox\n  A fox is red."
    assert made.lookup("a fox", "THE FOX", 1) == "(result 2 of 2) [fox.md] The Fox\n  A FOX   eats\n  hens!"
    assert made.lookup("a fox", "the fox", 2) == "(no more results: 2 sentences hold 'a fox')"
    assert made.lookup("the fox likes", "hen") == "(result 1 of 1) [sub/hen.txt] hen\n  The fox likes a hen."
    told = {made.lookup("hen", after=place) for place in range(3)}
    assert told == {
        "(result 1 of 3) [fox.md] The Fox\n  A FOX   eats\n  hens!",
        "(result 2 of 3) [sub/hen.txt] hen\n  A hen lays eggs.",
        "(result 3 of 3) [sub/hen.txt] hen\n  The fox likes a hen.",
    }
    assert made.lookup("hen", after=3) == "(no more results: 3 sentences hold 'hen')"
    assert made.lookup("!", "hen") == "(no more results: 0 sentences hold '!')" == made.lookup("!")
    for text, after in ((" ", 0), ("fox", -1)):
        with pytest.raises(
            ToolError, match=rf"^text is '{text}' and after is {after}: give words to look for, and 0 or"
        ):
            made.lookup(text, after=after)
    with pytest.raises(ToolError, match=r"^no document has the id or title 'yak': search for it first$"):
        made.lookup("fox", "yak")


def test_files_become_documents_by_their_kind(tmp_path: Path) -> None:
    root = folder(
        tmp_path, a_md=b"\n # One\x00two  \nx", b_md="no # heading", c_HTM="<h1>H</h1><p>p", d_txt=b"\xff\xc3\xa9",
        e_jsonl='{"id": 7, "text": "seven", "title": "T"}\n\n{"contents": "c"}\n{"body": "b", "text": "t"}\n',
    )  # fmt: skip

    def read(name: str, source: Path = root) -> list[tuple[str, str, str]]:
        return [*_texts(source, root / name)]

    assert read("a.md") == [("a.md", "One two", "\n # One two  \nx")] and read("b.md") == [
        ("b.md", "b", "no # heading")
    ]
    assert read("d.txt") == [("d.txt", "d", "\ufffdé")] and read("c.HTM")[0][1:] == ("H", "# H\n\np")
    rows = [("7", "T", "seven"), ("3", "3", "c"), ("4", "4", "t")]
    assert read("e.jsonl") == [(f"e.jsonl:{id}", title, text) for id, title, text in rows]
    assert read("e.jsonl", root / "e.jsonl") == rows == [*_lines(root / "e.jsonl", "")]
    long = folder(tmp_path, f_md="# " + "h" * 201)
    assert next(_texts(long, long / "f.md"))[1] == "h" * 200
    for line in ("[1]", "{}", '{"text": 3}', "no", "[" * 100_000):
        (tmp_path / "g.jsonl").write_text('{"text": "x"}\n' + line)
        with pytest.raises(ConfigError) as bad:
            list(_lines(tmp_path / "g.jsonl", ""))
        assert str(bad.value) == (
            f'line 2 of {str(tmp_path / "g.jsonl")!r} is no JSON object with a "text": every line must be one'
        )
    seen: set[str] = set()
    (made,) = _indexed(root, [root / "b.md"], {"b.md": "stamp"}, seen)
    meta = {"file": "b.md", "stamp": "stamp", "documents": 1}
    assert seen == {"b.md"} and made.document.meta == meta and made.document.source == str(root / "b.md")
    assert made.chunks == [Chunk("b.md", 0, 12, "no # heading", "b", meta=meta)] and made.vectors is None
    with pytest.raises(ConfigError, match=r"^two documents have the id 'b\.md': give each its own$"):
        list(_indexed(root, [root / "b.md"], {"b.md": ""}, {"b.md"}))


def test_passages_end_with_a_sentence_near_their_size() -> None:
    one = "x" * (PASSAGE_CHARS - 1) + "."
    assert spans(f"{one} y.") == [(0, 800), (801, 803)] and spans(f"{'x' * 796}. y.") == [(0, 800)]
    assert spans(f" {'x' * 795}. yy. ") == [(1, 801)] and spans(f" {'x' * 795}. yyy. ") == [(1, 797), (798, 802)]
    assert spans("z" * (2 * PASSAGE_CHARS + 3)) == [(0, 1600), (1600, 1603)]
    assert spans(" \n\n ") == [] == spans("") and spans("a\n\nb") == [(0, 4)]


def test_an_index_that_is_kept_follows_its_documents(tmp_path: Path) -> None:
    root, kept = folder(tmp_path / "docs", a_txt="alpha", b_txt="beta"), tmp_path / "kept.index"
    with pytest.raises(ConfigError) as missing:
        SearchIndex(tmp_path / "none")
    assert str(missing.value) == f"no documents at {str(tmp_path / 'none')!r}: give a folder of texts, or a .jsonl file"
    empty = folder(tmp_path / "empty", x_bin="x")
    with pytest.raises(ConfigError) as no_texts:
        SearchIndex(empty)
    assert str(no_texts.value) == f"{str(empty)!r} holds no texts: .txt, .md, .rst, .html, .htm, .jsonl are read"

    def found(query: str) -> list[str]:
        made = SearchIndex(root, kept)
        ids = [each.id for each in made.find(query)]
        made._index.close()
        return ids

    assert found("alpha") == ["a.txt"]
    before = kept.read_bytes()
    assert found("beta") == ["b.txt"] and kept.read_bytes() == before, "nothing has changed"
    folder(root, a_txt="gamma rays", c_txt="alpha again")
    (root / "b.txt").unlink()
    assert (found("alpha"), found("beta"), found("gamma")) == (["c.txt"], [], ["a.txt"])
    tools = search(str(root), index=str(kept))
    assert [(tool.name, tool.effect) for tool in tools] == [("search", "read"), ("lookup", "read")]
    assert kept.read_bytes()[:6] == b"SQLite"
    with pytest.raises(ConfigError) as both:
        SearchIndex(kept, kept)
    assert str(both.value) == f"{str(kept)!r} is an index: leave out index={str(kept)!r}"
    assert [each.id for each in SearchIndex(kept).find("gamma")] == ["a.txt"]
    close_corpora()


def test_an_index_with_vectors_is_searched_by_both(tmp_path: Path) -> None:
    path = write_index(tmp_path / "i", {"a": "fox hen", "b": "owl"})
    made = SearchIndex(path)
    assert [each.id for each in made.find("hen", 2)] == ["a", "b"] and made.find("hen", 2)[0].score == pytest.approx(
        2 / 61
    )

    async def within() -> list[PassageHit]:
        return made.find("hen", 1)

    assert [each.id for each in asyncio.run(within())] == ["a"]
    close_corpora()


# -- the corpus --


def test_texts_are_embedded_with_the_prefix_that_is_theirs(tmp_path: Path) -> None:
    header = IndexHeader("words", "print", DIMENSION, "lines", "q: ", "d: ")
    with open_index(":memory:", header) as index:
        embedder = WordEmbedder()
        corpus = Corpus(index, embedder, "notes", fingerprint="print")
        rows = asyncio.run(corpus.embed(["fox", "hen"]))
        assert rows.dtype == np.float32 and embedder.asked == ["q: fox", "q: hen"]
        assert rows[1].tolist() == embedded("q: hen").tolist()
        asyncio.run(corpus.embed(["owl"], documents=True))
        assert embedder.asked[2:] == ["d: owl"]
        with pytest.raises(
            StoreError, match=r"^the index of notes was embedded again by another process: start again to"
        ):
            asyncio.run(Corpus(index, embedder, "notes", fingerprint="older").embed(["x"]))
        with pytest.raises(
            ConfigError, match=r"^the index of notes has no vectors: search its terms, as with search=lex"
        ):
            asyncio.run(Corpus(index, None, "notes").embed(["x"]))


def test_one_effect_is_what_all_reads_within_it_are(tmp_path: Path) -> None:
    told: list[Any] = []

    async def effect(name: str, arguments: Any, act: Callable[[Any], Any]) -> Any:
        told.append((name, arguments))
        return json.loads(json.dumps(await act({**arguments, "query": "changed"})))

    hit = Hit(Chunk("d", 0, 1, "x"), 1.5)
    with open_index(":memory:", IndexHeader("", "", 0, "lines")) as index:
        corpus = Corpus(index).through(effect)

        async def inner(query: Query, k: int) -> list[Hit]:
            async def act(passed: Any) -> list[Hit]:
                told.append((query.text, passed, k))
                with pytest.raises(AssertionError, match=r"^a model is asked within as_one\(\.\.\.\)"):
                    refuse_within_read()
                return [hit]

            return await corpus.read("inner", {"query": query.text}, act)

        query = Query("q", {"a": 1}, ((1.0, 0.0), (0.0, 1.0)))
        assert asyncio.run(as_one(corpus, "outer", inner)(query, 3)) == [hit]  # type: ignore[arg-type]
        arguments = {"query": "q", "k": 3, "where": {"a": 1}, "vectors": 2}
        assert told == [("outer", arguments), ("changed", {"query": "changed"}, 3)]
        assert arguments_of(Query("q"), 2, hits=["h"]) == {"query": "q", "k": 2, "hits": ["h"]}
        refuse_within_read()
        told.clear()
        plain = corpus.through(None)
        assert asyncio.run(plain.items("x", {"query": 1}, lambda passed: effect("y", passed, _same))) and len(told) == 1


async def _same(passed: Any) -> Any:
    return [passed]


def test_an_index_is_opened_with_the_embedder_that_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "docs" / INDEX_NAME
    inside.parent.mkdir()
    write_index(inside, {"a": "x"})
    close_corpora()
    embedder = WordEmbedder()
    corpus = open_corpus(tmp_path / "docs", embedder=embedder)  # type: ignore[arg-type]
    assert (corpus.name, corpus.embedder, corpus.fingerprint) == ("docs", embedder, "words")
    assert open_corpus(inside) is corpus
    terms = write_index(tmp_path / "plain.index", {"a": "x"}, vectors=False)
    opened = _opened(terms, embedder)  # type: ignore[arg-type]
    assert (opened.name, opened.embedder, opened.fingerprint) == ("plain", None, "")
    with pytest.raises(ConfigError, match=r"plain\.index has no vectors: search its terms"):
        expect_vectors(terms)
    expect_vectors(tmp_path / "docs")
    embedder.fingerprint = "newer"
    with pytest.raises(ConfigError) as other:
        _opened(inside, embedder)  # type: ignore[arg-type]
    assert str(other.value) == (
        f"the index {str(inside)!r} was made with another version of words (words, here newer): make its vectors again with "
        "`firsthand rag reindex`"
    )
    close_corpora()
    monkeypatch.chdir(tmp_path)
    assert nearby_index(Path()) == Path("docs") and nearby_index(Path("x")) == Path("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / INDEX_NAME).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^2 folders here have an index \(b, docs\): choose one with --index$"):
        nearby_index(Path())
    (tmp_path / INDEX_NAME).write_bytes(b"")
    assert nearby_index(Path()) == Path()
