"""The reads that retrievers make of a corpus, whole, and orders of hits that one wrong comparison would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from corpus_tiny import DIMENSION, MemoryIndex, WordEmbedder, embedded, sentences_of, tiny_corpus
from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit, Query, Retriever, TrailStep
from firsthand.retrieval.retrievers import cross_encoder
from firsthand.retrieval.retrievers.best_sentence import rerank_by_sentence
from firsthand.retrieval.retrievers.context_windows import neighbours, parents
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import convex, dense, hybrid, lexical
from firsthand.retrieval.retrievers.selection import distinct, mmr

LINES = {"a": "mill one\nriver two\nOslo three\n", "b": "mill four\n"}
WHERE = Query("mill", {"n": 1}, (tuple(embedded("river").tolist()), tuple(embedded("four").tolist())))


class Told:
    """An effect that carries each read out, and keeps its name and arguments."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, Any]] = []

    async def __call__(self, name: str, arguments: Any, act: Any) -> Any:
        self.reads.append((name, arguments))
        return await act(arguments)


def given(*hits: Hit) -> Retriever:
    async def found(query: Query, k: int) -> Sequence[Hit]:
        return list(hits)[:k]

    return found


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk.document for hit in hits]


def test_every_read_names_its_query_its_limits_and_the_hits_it_starts_from() -> None:
    plain = tiny_corpus(LINES, n=1)
    hits = [Hit(chunk, score) for chunk, score in zip(plain.index.chunks("a"), (0.9, 0.5, 0.1), strict=True)]
    told = Told()
    corpus = plain.through(told)  # type: ignore[arg-type]
    asked = {"query": "mill", "k": 2, "where": {"n": 1}, "vectors": 2}
    named = {**asked, "hits": [hit.chunk.id for hit in hits[:2]]}
    pooled = {**asked, "hits": [hit.chunk.id for hit in hits]}
    for make, name, arguments in (
        (neighbours(given(*hits), corpus), "neighbours", named),
        (parents(given(*hits), corpus), "parents", named),
        (mmr(given(*hits), corpus, pool=3), "mmr", pooled),
        (rerank_by_sentence(given(*hits), corpus, pool=3), "sentences", pooled),
        (dense(corpus), "dense", asked),
        (lexical(corpus), "lexical", asked),
        (hybrid(corpus), "hybrid", asked),
        (convex(corpus), "convex", asked),
    ):
        told.reads.clear()
        assert len(asyncio.run(make(WHERE, 2))) <= 2
        assert told.reads == [(name, arguments)], name
        told.reads.clear()
        asyncio.run(make(Query("Oslo"), 3))
        more = {"hits": pooled["hits"]} if "hits" in arguments else {}
        assert told.reads == [(name, {"query": "Oslo", "k": 3, **more})], name


def test_a_named_reranker_gets_its_pool_and_the_whole_name_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny_corpus(LINES)
    told, sizes = Told(), []
    corpus = plain.through(told)  # type: ignore[arg-type]
    hits = [Hit(chunk, 1.0, (TrailStep("dense", 1, 1.0),)) for chunk in plain.index.chunks("a")]

    async def found(query: Query, k: int) -> Sequence[Hit]:
        sizes.append(k)
        return hits[:k]

    class Encoder:
        """Scores a text by its length against that of the query."""

        async def score(self, query: str, texts: Sequence[str]) -> list[float]:
            return [float(len(text) - len(query)) for text in texts]

    monkeypatch.setitem(cross_encoder._open, "hf:org/name", Encoder())  # type: ignore[arg-type]
    made = asyncio.run(reranked(found, "cross_encoder:hf:org/name", corpus, None, pool=3)(Query("four"), 2))
    assert [(hit.chunk.text, hit.score, hit.trail[-1]) for hit in made] == [
        ("Oslo three", 6.0, TrailStep("rerank", 1, 6.0)), ("river two", 5.0, TrailStep("rerank", 2, 5.0))
    ]  # fmt: skip
    names = [hit.chunk.id for hit in hits]
    assert told.reads == [("cross_encoder", {"query": "four", "k": 2, "hits": names})]
    best = asyncio.run(reranked(found, "sentences", corpus, None, pool=2)(Query("Oslo three"), 1))
    assert ids(best) == ["a"] and best[0].chunk.text != "Oslo three", "the third is beyond the pool"
    assert told.reads[1] == ("sentences", {"query": "Oslo three", "k": 1, "hits": names[:2]})
    assert (
        asyncio.run(reranked(found, "sentences", corpus, None, pool=2)(Query("Oslo three"), 3))[0].chunk
        == hits[2].chunk
    )
    assert sizes == [3, 2, 3]
    for name in ("listwise", "logprob"):
        with pytest.raises(ConfigError) as refused:
            reranked(found, name, corpus, None)
        assert str(refused.value) == (
            f"rerank is '{name}', which asks a model, and there is none: name a model, or cross_encoder:MODEL"
        )


class Fused(MemoryIndex):
    """An index with a hybrid search of its own, which keeps what it is asked."""

    def search_hybrid(
        self, vector: Any, text: str, k: int, where: Mapping[str, Any], *, pool: int, constant: float, weights: Any
    ) -> list[Hit]:
        assert isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.shape == (DIMENSION,)
        self.searches.append((vector.tolist(), text, k, dict(where), pool, constant, weights))  # type: ignore[arg-type]
        return [Hit(chunk, 0.5, (TrailStep("rrf", 1, 0.5),)) for chunk in self.all][:k]


def test_an_index_that_fuses_itself_is_given_the_querys_own_vector_and_a_pool_of_k_or_more() -> None:
    documents = [Document(id, text) for id, text in LINES.items()]
    index = Fused(documents, [chunk for each in documents for chunk in sentences_of(each)])
    embedder, told = WordEmbedder(), Told()
    corpus = Corpus(index, embedder, "notes").through(told)  # type: ignore[arg-type]
    searched = hybrid(corpus, constant=7.0, weights=(0.5, 2.0), pool=3)
    own = embedded("river two")
    found = asyncio.run(searched(Query("mill", {"n": 1}, (tuple(own.tolist()),)), 2))
    assert found == [Hit(chunk, 0.5, (TrailStep("rrf", 1, 0.5),)) for chunk in index.all[:2]]
    assert index.searches == [(own.tolist(), "mill", 2, {"n": 1}, 3, 7.0, (0.5, 2.0))] and embedder.asked == []
    asyncio.run(searched(Query("mill"), 4))
    assert index.searches[1] == (embedded("query: mill").tolist(), "mill", 4, {}, 4, 7.0, (0.5, 2.0))
    assert embedder.asked == ["query: mill"]
    assert told.reads == [
        ("hybrid", {"query": "mill", "k": 2, "where": {"n": 1}, "vectors": 1}), ("hybrid", {"query": "mill", "k": 4})
    ]  # fmt: skip
    index.searches.clear()
    several = asyncio.run(searched(Query("mill", {}, WHERE.vectors), 4))
    assert index.searches == ["vectors", "vectors", "mill"], "of several vectors the searches are fused here"
    assert {step.retriever for step in several[0].trail} == {"dense", "lexical", "rrf"}
    assert told.reads[2] == ("hybrid", {"query": "mill", "k": 4, "vectors": 2}) and len(told.reads) == 3
    asyncio.run(hybrid(corpus)(Query("mill"), 1))
    assert index.searches[-1][2:] == (1, {}, 100, 60.0, (1.0, 1.0))
    with pytest.raises(ConfigError, match=r"^k is 0: ask for 1 hit or more$"):
        asyncio.run(searched(Query("mill"), 0))


def test_of_equal_scores_the_best_rank_in_any_ranking_comes_first() -> None:
    def ranked(name: str, *names: str) -> list[Hit]:
        return [Hit(Chunk(id, 0, 1, id), 9.0, (TrailStep(name, n, 9.0),)) for n, id in enumerate(names, 1)]

    first, second = ranked("x", "p", "q", "r"), ranked("y", "r", "s", "q", "p")
    low, high = sorted("pr", key=lambda id: Chunk(id, 0, 1, id).id)
    even = reciprocal_rank_fusion([first, second], weights=[0, 0])
    ends = sorted("qs", key=lambda id: Chunk(id, 0, 1, id).id)
    assert ids(even) == [low, high, *ends], "best ranks: p 1, r 1, q 2, s 2"
    assert ids(reciprocal_rank_fusion([second, first], weights=[0, 0])) == [low, high, *ends]
    assert even[0].trail[-1] == TrailStep("rrf", 1, 0.0) and len(even[3].trail) in (2, 3)
    last = reciprocal_rank_fusion(
        [ranked("x", "u", "t"), ranked("y", "u", "v", "w", "z", "t"), ranked("z", "t")], constant=0, weights=[1, 1, 0]
    )
    assert [(hit.chunk.document, hit.score) for hit in last] == [
        ("u", 2.0), ("t", 0.7), ("v", 0.5), ("w", 1 / 3), ("z", 0.25)
    ]  # fmt: skip
    assert [step.retriever for step in last[1].trail] == ["x", "y", "z", "rrf"]


def test_a_hit_that_is_near_to_one_that_was_left_out_alone_is_kept() -> None:
    words = [f"w{n}" for n in range(12)]
    texts = [" ".join(words[first : first + 9]) for first in range(4)]  # 5 shingles, 4 in common with the next: 4/6
    hits = [Hit(Chunk(str(n), 0, len(text), text), 0.5) for n, text in enumerate(texts)]
    found = asyncio.run(distinct(given(*hits), similarity=4 / 6)(Query("q"), 9))
    assert ids(found) == ["0", "2"] and [hit.trail for hit in found] == [
        (TrailStep("distinct", 1, 0.5),), (TrailStep("distinct", 2, 0.5),)
    ]  # fmt: skip
    assert ids(asyncio.run(distinct(given(*hits), similarity=3 / 7)(Query("q"), 9))) == ["0", "3"]
    assert ids(asyncio.run(distinct(given(*hits), similarity=4 / 6, pool=1)(Query("q"), 1))) == ["0"]
