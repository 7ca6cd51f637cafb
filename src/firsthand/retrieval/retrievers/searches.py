"""The searches that everything else is made of: dense (vectors), lexical (BM25), hybrid (both, fused by rank) and convex
(both, fused by score)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.retrieval.chunk_index import HybridSearch
from firsthand.retrieval.corpus import Corpus, arguments_of, as_one
from firsthand.retrieval.retriever import Hit, Query, Retriever, TrailStep
from firsthand.retrieval.retrievers.fusion import fuse
from firsthand.retrieval.retrievers.score_fusion import fuse_scores

POOL = 100
"""Hits of each search that are fused; deeper ranks add less than 1/160 to a score."""
CONVEX_WEIGHTS = (0.4, 0.6)
"""Of vectors and terms; chosen on half of SciFact's train claims (docs/retrieval-evaluation.md)."""


def dense(corpus: Corpus) -> Retriever:
    """Finds the chunks whose vectors have the highest cosine with the query's; the score is the cosine.

    A query with several vectors gives each chunk its best cosine with any of them.
    """

    async def found(query: Query, k: int) -> Sequence[Hit]:
        _check_k(k)

        async def act(passed: Json) -> Sequence[Hit]:
            if query.vectors:
                vectors = np.asarray(query.vectors, dtype=np.float32)
            else:
                vectors = await corpus.embed([str(passed["query"])])
            lists = await corpus.ask(lambda index: [index.search_vectors(row, k, query.where) for row in vectors])
            return traced(_best(lists)[:k], "dense")

        return await corpus.read("dense", arguments_of(query, k), act)

    return found


def lexical(corpus: Corpus) -> Retriever:
    """Finds the chunks with the highest BM25 for the query's words; the score is BM25."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        _check_k(k)

        async def act(passed: Json) -> Sequence[Hit]:
            text = str(passed["query"])
            return traced(await corpus.ask(lambda index: index.search_terms(text, k, query.where)), "lexical")

        return await corpus.read("lexical", arguments_of(query, k), act)

    return found


def hybrid(
    corpus: Corpus, *, constant: float = 60.0, weights: Sequence[float] = (1.0, 1.0), pool: int = POOL
) -> Retriever:
    """Fuses `dense` and `lexical` by reciprocal rank. An index without vectors is searched by its terms alone."""
    if corpus.embedder is None:
        return lexical(corpus)
    both = as_one(corpus, "hybrid", fuse(dense(corpus), lexical(corpus), constant=constant, weights=weights, pool=pool))
    if not isinstance(index := corpus.index, HybridSearch):
        return both

    async def found(query: Query, k: int) -> Sequence[Hit]:
        _check_k(k)
        if len(query.vectors) > 1:
            return await both(query, k)

        async def act(passed: Json) -> Sequence[Hit]:
            text = str(passed["query"])
            [vector] = np.asarray(query.vectors, dtype=np.float32) if query.vectors else await corpus.embed([text])
            most = max(pool, k)
            return await in_thread(
                lambda: index.search_hybrid(vector, text, k, query.where, pool=most, constant=constant, weights=weights)
            )

        return await corpus.read("hybrid", arguments_of(query, k), act)

    return found


def convex(corpus: Corpus, *, weights: Sequence[float] = CONVEX_WEIGHTS, pool: int = POOL) -> Retriever:
    """Combines the scaled scores of `dense` and `lexical`. An index without vectors is searched by its terms alone."""
    if corpus.embedder is None:
        return lexical(corpus)
    return as_one(corpus, "convex", fuse_scores(dense(corpus), lexical(corpus), weights=weights, pool=pool))


SEARCHES: dict[str, Callable[[Corpus], Retriever]] = {
    "dense": dense,
    "lexical": lexical,
    "hybrid": hybrid,
    "convex": convex,
}
"""The searches by name."""


def traced(hits: Sequence[Hit], retriever: str) -> list[Hit]:
    """The hits with one step as their trail: their rank and score here."""
    return [replace(hit, trail=(TrailStep(retriever, rank, float(hit.score)),)) for rank, hit in enumerate(hits, 1)]


def _best(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Each chunk once with its best score, best first, ties by chunk id."""
    if len(lists) == 1:
        return list(lists[0])
    best: dict[str, Hit] = {}
    for hit in (hit for hits in lists for hit in hits):
        if (known := best.get(hit.chunk.id)) is None or hit.score > known.score:
            best[hit.chunk.id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.chunk.id))


def _check_k(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}: ask for 1 hit or more")
