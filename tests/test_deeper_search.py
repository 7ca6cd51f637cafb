"""Searching further where one source, or copies of one text, fill all hits that were looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import WordEmbedder
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Corpus, open_corpus
from firsthand.retrieval.rag.isolated_rag import isolated_rag
from firsthand.retrieval.rag.short_answer import short_answer
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.retrievers.rewriting import hyde, multi_query, step_back
from firsthand.retrieval.retrievers.searches import hybrid, lexical
from firsthand.retrieval.retrievers.selection import distinct, per_source, where
from firsthand.retrieval.writer import ModelWriter
from firsthand.task import Task
from rag_played import index_of, play

ASKED = "When was the mill built?"
PLANTED = 120


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 records of one file before one passage of another and one of a document without a source."""
    planted = [
        (
            f"p{n:03}",
            f"When was the mill built? It was built in 1999, {n}",
            {"source": "planted", "site": "p", "year": 7},
        )
        for n in range(PLANTED)
    ]
    honest = [("mill", "the mill of the town stood long", {"source": "mill.md", "site": "m", "year": 8})]
    own = [("none", "of the town and of its river, a mill", {"source": ""})]
    path: Path = index_of(tmp_path_factory.mktemp("flooded") / "i", [*planted, *honest, *own])
    return path


class Asked:
    """A retriever that keeps what it was asked for."""

    def __init__(self, retriever: Retriever):
        self.retriever, self.asked = retriever, list[tuple[Any, int]]()

    async def __call__(self, query: Query, k: int) -> Sequence[Hit]:
        self.asked.append((dict(query.where), k))
        return await self.retriever(query, k)


def given(hits: Iterable[Hit]) -> Asked:
    """A retriever of these hits, whatever the filter."""
    found = list(hits)

    async def first(query: Query, k: int) -> Sequence[Hit]:
        return found[:k]

    return Asked(first)


def documents(retriever: Retriever, k: int, query: Query | None = None) -> list[str]:
    return [hit.chunk.document for hit in asyncio.run(retriever(query or Query(ASKED), k))]


def chunk(document: str, text: str = "", **meta: Any) -> Hit:
    return Hit(Chunk(document, 0, 1, text or document, meta=meta), 1.0)


def test_a_source_that_fills_all_hits_hides_no_other_source(flooded: Path) -> None:
    corpus = open_corpus(flooded)
    for search in (lexical, hybrid):
        asked = Asked(search(corpus))
        first, *others = documents(per_source(asked, corpus, most=1, by="source"), 3)
        assert first.startswith("p") and others == ["mill", "none"]
        assert asked.asked == [({}, 50), ({"source": {"not": ["planted"]}}, 50)], (
            "one more search, and none of 100 hits"
        )
    one = Asked(lexical(corpus))
    assert len(documents(per_source(one, corpus, most=2, by="source"), 2)) == 2 and len(one.asked) == 1
    by_site = Asked(lexical(corpus))
    assert documents(per_source(by_site, most=1, by="site"), 3)[1:] == ["mill", "none"]
    assert by_site.asked[1:] == [({"site": {"not": ["p"]}}, 50)]
    by_year = Asked(lexical(corpus))  # numbers that are equal may be written in several ways, so they are not filtered
    assert documents(per_source(by_year, most=1, by="year"), 3)[1:] == ["mill", "none"]
    assert by_year.asked == [({}, 50), ({}, 100), ({}, 200)]
    by_title = Asked(lexical(corpus))
    assert len(documents(per_source(by_title, corpus, most=1, by="title"), 60)) == 60, "each counts for itself"
    assert by_title.asked == [({}, 60)]
    alone = documents(per_source(lexical(corpus), corpus, most=2, by="source"), 9)
    assert len(alone) == 4 and alone[2:] == ["mill", "none"]


def test_documents_without_a_source_are_left_out_by_their_names(tmp_path: Path) -> None:
    path = index_of(tmp_path / "i", [("long", "mill", {"source": ""}), ("short", "the mill", {"source": "x"})])
    corpus = open_corpus(path)
    copies = [Hit(replace(chunk("long").chunk, start=n, end=n + 1), 1.0) for n in range(50)]
    asked = given([*copies, chunk("short")])
    assert documents(per_source(asked, corpus, most=1, by="source"), 2) == ["long", "short"]
    assert asked.asked == [({}, 50), ({"document": {"not": ["long"]}}, 50), ({"document": {"not": ["long"]}}, 100)]
    both = given([*copies, chunk("short")])
    documents(per_source(both, corpus, most=1, by="source", pool=51), 3)
    assert both.asked[1] == ({"document": {"not": ["long"]}, "source": {"not": ["x"]}}, 51)


def test_a_filter_of_the_user_is_kept(flooded: Path) -> None:
    corpus = open_corpus(flooded)
    among = Query(ASKED, {"source": ["planted", "mill.md"]})
    asked = Asked(lexical(corpus))
    assert documents(per_source(asked, corpus, most=1, by="source"), 3, among)[1:] == ["mill"]
    assert asked.asked == [(among.where, k) for k in (50, 100, 200, 400)]
    fixed = where(lexical(corpus), {"source": {"not": "mill.md"}})
    assert documents(per_source(fixed, corpus, most=1, by="source"), 3)[1:] == ["none"]
    other = Query(ASKED, {"site": {"not": "m"}})
    assert documents(per_source(lexical(corpus), corpus, most=1, by="source"), 3, other)[1:] == ["none"]

    async def failing(query: Query, k: int) -> Sequence[Hit]:
        raise ConfigError("no index")

    with pytest.raises(ConfigError, match="no index"):
        documents(per_source(failing), 3)


def test_near_copies_that_fill_all_hits_hide_no_other_text() -> None:
    copies = [chunk(f"c{n:03}", "the mill of Tesk was built in 1999 as all say") for n in range(149)]
    for behind, asked in ((49, [50]), (99, [50, 100]), (149, [50, 100, 200])):
        hits = given([*copies[:behind], chunk("other", "a mill by the river")])
        assert documents(distinct(hits), 2) == ["c000", "other"] and [k for _, k in hits.asked] == asked
        assert documents(distinct(hits), 1) == ["c000"]
    alone = given(copies)
    assert documents(distinct(alone), 3) == ["c000"] and [k for _, k in alone.asked] == [50, 100, 200, 400]
    few = given(copies[:24])
    assert documents(distinct(few), 3) == ["c000"] and [k for _, k in few.asked] == [50]
    some = given(copies[:25])  # others may have been withheld from these by a guard
    assert documents(distinct(some), 3) == ["c000"] and [k for _, k in some.asked] == [50, 100]


def test_a_retriever_that_repeats_itself_for_ever_is_asked_no_more() -> None:
    async def endless(query: Query, k: int) -> Sequence[Hit]:
        return [chunk("a")] * k

    for choose in (distinct, per_source):
        asked = Asked(endless)
        assert len(documents(choose(asked), 9)) == (1 if choose is distinct else 2)
        assert len(asked.asked) <= 3


def test_scores_fall_over_several_searches_of_fused_ranks(flooded: Path) -> None:
    corpus = open_corpus(flooded)
    hits = asyncio.run(per_source(hybrid(corpus), corpus, most=2, by="source")(Query(ASKED), 5))
    scores = [hit.score for hit in hits]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True) and scores[1] > scores[2]
    assert [hit.trail[-1].rank for hit in hits] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda found, corpus, model: multi_query(found, model),
        lambda found, corpus, model: step_back(found, model),
        lambda found, corpus, model: hyde(found, corpus, model, n=1),
    ],
)
def test_a_query_is_rewritten_once_however_often_it_is_searched(
    flooded: Path, rewritten: Callable[..., Retriever]
) -> None:
    corpus, model = open_corpus(flooded), Scripted(["1. Who built the mill?"] * 4)
    found = per_source(
        distinct(rewritten(hybrid(corpus), corpus, ModelWriter(model)), similarity=1.0), corpus, most=1, by="source"
    )
    query = Query(ASKED)
    assert documents(found, 3, query)[1:] == ["mill", "none"] and len(model.asked) == 1
    documents(found, 3, query)
    assert len(model.asked) == 2, "the next search is rewritten anew"


@pytest.mark.parametrize("pattern", [short_answer, isolated_rag])
def test_patterns_read_the_sources_behind_a_flood_and_keep_few_hits_of_it(flooded: Path, pattern: Any) -> None:
    made = play(pattern, flooded, ["1871"] * 9, task=Task("t", ASKED), search="lexical", k=3, per_source=1)
    assert [each[0] for each in made.reads] == ["lexical", "per_source"] * 2
    assert [len(each[3]) for each in made.reads] == [50, 1, 2, 3]
    assert made.noted("ranking")[0]["documents"][1:] == ["mill", "none"]


def test_a_resumed_search_asks_for_what_it_asked_for(flooded: Path) -> None:
    opened, kept = open_corpus(flooded), dict[str, Any]()

    async def journalled(name: str, arguments: Json, act: Any) -> Any:
        key = json.dumps([name, arguments])
        if key not in kept:
            kept[key] = json.loads(json.dumps(await act(arguments)))
        return kept[key]

    def search(corpus: Corpus) -> list[str]:
        return documents(per_source(lexical(corpus), corpus, most=1, by="source"), 3)

    first = search(opened.through(journalled))
    other = Corpus(index=None, embedder=WordEmbedder())  # type: ignore[arg-type]
    assert search(other.through(journalled)) == first and len(first) == 3 and len(kept) == 4
