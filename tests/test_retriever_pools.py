"""Every retriever that asks another: how many hits it asks for, what a guard's change of the query does, and its edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import TEXTS, WordEmbedder, tiny_corpus, write_index
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Corpus, open_corpus
from firsthand.retrieval.rag.retrieve import brief, documents_once, top_reranked
from firsthand.retrieval.retriever import Hit, Query, Retriever, TrailStep
from firsthand.retrieval.retrievers.best_sentence import MAX_SENTENCES, best_cosines, rerank_by_sentence
from firsthand.retrieval.retrievers.context_windows import _widened, neighbours, parents
from firsthand.retrieval.retrievers.fusion import fuse
from firsthand.retrieval.retrievers.reranker_names import _scored, reranked
from firsthand.retrieval.retrievers.reranking import rerank
from firsthand.retrieval.retrievers.rewriting import hyde, multi_query, step_back
from firsthand.retrieval.retrievers.score_fusion import fuse_scores
from firsthand.retrieval.retrievers.searches import convex, dense, hybrid, lexical
from firsthand.retrieval.retrievers.selection import distinct, mmr, per_source

LINES = {"a": "mill stood\nriver ran\nOslo town\n", "b": "river and mill\nOslo\n", "c": "mill\n"}


class Writer:
    async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
        return [""] * n

    async def logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return [0.0 for _ in continuations]


class Given:
    """Finds the same chunks for every query, and keeps what it was asked for."""

    def __init__(self, hits: Sequence[Hit]):
        self.hits, self.asked = hits, []

    async def __call__(self, query: Query, k: int) -> Sequence[Hit]:
        self.asked.append(k)
        return self.hits[:k]


def all_of(corpus: Corpus) -> list[Hit]:
    chunks = [chunk for id in LINES for chunk in corpus.index.chunks(id)]
    return [Hit(chunk, 1.0 - place / 10) for place, chunk in enumerate(chunks)]


async def even(query: str, texts: Sequence[str]) -> Sequence[float]:
    return [float("Oslo" in query and "Oslo" in text) for text in texts]


def test_each_retriever_asks_for_its_pool_or_for_as_many_as_are_wanted() -> None:
    corpus, writer = tiny_corpus(LINES), Writer()
    made: dict[str, tuple[int, Callable[[Retriever], Retriever]]] = {
        "fuse": (100, lambda given: fuse(given)),
        "fuse_scores": (100, lambda given: fuse_scores(given, weights=[1.0])),
        "mmr": (50, lambda given: mmr(given, corpus)),
        "per_source": (50, lambda given: per_source(given)),
        "distinct": (50, lambda given: distinct(given)),
        "multi_query": (50, lambda given: multi_query(given, writer)),
        "step_back": (50, lambda given: step_back(given, writer)),
        "rerank": (20, lambda given: rerank(given, even)),
        "scored": (7, lambda given: _scored(given, even, corpus, 7)),
        "sentences": (20, lambda given: rerank_by_sentence(given, corpus)),
        "logprob": (20, lambda given: reranked(given, "logprob", corpus, writer)),
        "listwise": (20, lambda given: reranked(given, "listwise", corpus, writer)),
        "named sentences": (20, lambda given: reranked(given, "sentences", corpus, None)),
        "top": (9, lambda given: top_reranked(given, "logprob", corpus, writer, pool=9)),
        "hyde": (1, lambda given: hyde(given, corpus, writer)),
        "neighbours": (1, lambda given: neighbours(given, corpus)),
        "parents": (1, lambda given: parents(given, corpus)),
    }
    for name, (pool, make) in made.items():
        given = Given(all_of(corpus))
        found = make(given)
        one, many = asyncio.run(found(Query("mill"), 1)), asyncio.run(found(Query("mill"), 201))
        assert (name, given.asked) == (name, [pool, 201])
        assert len(one) == 1 and 1 < len(many) <= 6
        assert list(asyncio.run(make(Given(()))(Query("mill"), 3))) == [], name


def test_as_many_chunks_are_searched_as_the_documents_take() -> None:
    hits = all_of(tiny_corpus(LINES))
    assert [hit.chunk.document for hit in hits] == ["a", "a", "a", "b", "b", "c"]
    for k, asked in ((1, [1]), (2, [2, 4]), (3, [3, 6]), (4, [4, 8]), (9, [9])):
        given = Given(hits)
        found = asyncio.run(documents_once(given)(Query("mill"), k))
        assert (list(found), given.asked) == ([hits[0], hits[3], hits[5]][:k], asked), k
    assert list(asyncio.run(documents_once(Given(()))(Query("mill"), 3))) == []
    more = Given([hits[0], hits[1], hits[3], hits[5]])
    assert list(asyncio.run(documents_once(more)(Query("mill"), 2))) == [hits[0], hits[3]] and more.asked == [2, 4]


def _mmr(hits: Sequence[Hit], corpus: Corpus) -> Retriever:
    return mmr(Given(hits), corpus, pool=3)


def _sentences(hits: Sequence[Hit], corpus: Corpus) -> Retriever:
    return rerank_by_sentence(Given(hits), corpus)


def _encoder(hits: Sequence[Hit], corpus: Corpus) -> Retriever:
    return _scored(Given(hits), even, corpus, 4)


def _brief(corpus: Corpus) -> Retriever:
    return brief(corpus, "brief", lexical(corpus))


def test_a_guard_that_changes_the_query_of_a_read_changes_what_is_found(tmp_path: Path) -> None:
    stored = open_corpus(write_index(tmp_path / "i", LINES))
    names: list[str] = []

    async def guarded(name: str, arguments: Json, act: Any) -> Any:
        names.append(name)
        return await act({**arguments, "query": "Oslo"})

    for corpus in (tiny_corpus(LINES), stored):
        hits = all_of(corpus)
        for make in (
            dense, lexical, hybrid, convex, partial(_mmr, hits), partial(_sentences, hits), partial(_encoder, hits), _brief
        ):  # fmt: skip
            plain = asyncio.run(make(corpus)(Query("Oslo"), 4))
            changed = asyncio.run(make(corpus.through(guarded))(Query("mill"), 4))
            other = asyncio.run(make(corpus)(Query("mill"), 4))
            assert [(hit.chunk.id, hit.score) for hit in changed] == [
                (hit.chunk.id, pytest.approx(hit.score)) for hit in plain
            ]
            assert [hit.chunk.id for hit in other] != [hit.chunk.id for hit in plain]
    assert names == ["dense", "lexical", "hybrid", "convex", "mmr", "sentences", "cross_encoder", "brief"] * 2


def test_a_passage_counts_by_its_first_hundred_sentences() -> None:
    corpus = tiny_corpus(TEXTS)
    filler = "Rain fell. " * (MAX_SENTENCES - 1)

    def cosines(*texts: str) -> list[float]:
        return asyncio.run(best_cosines(corpus, "oslo", list(texts)))

    inside, outside, blank = cosines(f"{filler}Oslo.", f"{filler}Rain. Oslo.", " \n")
    assert inside > outside and blank == -1.0 and cosines("", " ") == [-1.0, -1.0] and cosines() == []
    assert isinstance(corpus.embedder, WordEmbedder) and corpus.embedder.asked[0] == "query: oslo"
    first = Hit(corpus.index.chunks("c.md")[0], 0.0)  # "Oslo."
    found = asyncio.run(rerank_by_sentence(Given([first, first, first]), corpus, weight=0.0)(Query("oslo"), 2))
    assert [hit.score for hit in found] == [1.0, 1.0]  # equal scores, whatever they are
    assert found[1].trail == (TrailStep("sentences", 2, 1.0),)
    headed = [
        Hit(replace(first.chunk, text=said, heading=head), 0.0) for said, head in (("Rain.", "Oslo."), ("Oslo.", ""))
    ]
    found = asyncio.run(rerank_by_sentence(Given(headed), corpus, weight=1.0)(Query("oslo"), 2))
    assert [hit.chunk.text for hit in found] == ["Oslo.", "Rain."], "a heading is no sentence of the passage"
    for options, words in (
        ({"pool": 0}, "pool is 0: rerank 1 hit or more"), ({"weight": -0.01}, "weight is -0.01: give 0 to 1"),
        ({"weight": 1.01}, "weight is 1.01: give 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^{words}$"):
            rerank_by_sentence(Given([]), corpus, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^the index of notes has no vectors: search its terms"):
        rerank_by_sentence(Given([]), tiny_corpus(TEXTS, vectors=False))


def test_a_window_within_another_adds_nothing_and_one_that_touches_is_joined() -> None:
    text = "".join(f"line {n}\n" for n in range(9))
    corpus = tiny_corpus({"d": text})
    lines = corpus.index.chunks("d")
    wide = Chunk("d", lines[2].start, lines[5].end, text[lines[2].start : lines[5].end])

    def widened(*hits: tuple[Chunk, float], around: int = 1) -> list[tuple[str, float, tuple[TrailStep, ...]]]:
        found = _widened(corpus.index, [Hit(chunk, score) for chunk, score in hits], around, {})
        return [(hit.chunk.text, hit.score, hit.trail) for hit in found]

    def span(first: int, last: int) -> str:
        return text[lines[first].start : lines[last].end]

    step = TrailStep("neighbours", 1, 0.9)
    assert widened((lines[3], 0.9), (wide, 0.5)) == [(span(1, 6), 0.9, (step,))]
    assert widened((wide, 0.9), (lines[3], 0.5)) == [(span(1, 6), 0.9, (step,))]
    apart = widened((lines[7], 0.9), (lines[0], 0.5), (lines[3], 0.4))
    assert [each[:2] for each in apart] == [(span(6, 8), 0.9), (span(0, 1), 0.5), (span(2, 4), 0.4)]
    assert [each[2][0].rank for each in apart] == [1, 2, 3]
    outside = Chunk("d", len(text), len(text), "")
    assert widened((outside, 0.9)) == [("", 0.9, (step,))]
    begun = tiny_corpus({"d": f"\n\n{text}"})
    early = Chunk("d", 0, 8, "\n\nline 0")  # it begins in the white space before the first line
    [first] = _widened(begun.index, [Hit(early, 0.9)], 1, {})
    assert (first.chunk.start, first.chunk.text) == (0, "\n\nline 0\nline 1")
    with pytest.raises(ConfigError, match=r"^around is 0: give 1 chunk or more on each side$"):
        neighbours(Given([]), corpus, around=0)
