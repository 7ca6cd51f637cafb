"""Retrieve documents for the task's prompt and answer with their ids, best first: what retrieval benchmarks score.

No model is asked, unless it reranks. The corpus is an index of the user's, or the one of the task's benchmark, which is
made on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Json
from firsthand.retrieval.benchmark_corpus import task_index
from firsthand.retrieval.corpus import Corpus, arguments_of, as_one
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.retrievers.reranker_names import asks_model, check_reranker, reranked
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.writer import ContextWriter, Writer
from firsthand.task import Task

Search = Literal["hybrid", "dense", "lexical", "convex"]


def _check(*, variant: str, k: int, pool: int, rerank: str, **rest: Any) -> None:
    at_least(1, k=k, pool=pool)
    check_reranker(rerank)
    if variant not in SEARCHES:
        raise ConfigError(f"variant is {variant!r}: give one of {', '.join(SEARCHES)}")


@checked(_check)
async def retrieve(
    task: Task,
    ctx: Context,
    *,
    index: str = "",
    variant: Search = "hybrid",
    embedder: str = "minilm",
    rerank: str = "",
    pool: int = 20,
    k: int = 100,
) -> str:
    """The ids of the k best documents, one a line.

    Args:
        index: An index that `firsthand rag index` made; empty: that of the task's benchmark.
        variant: dense, lexical, both fused by reciprocal rank (hybrid), or by scaled scores (convex).
        embedder: With a benchmark's index: the embedder of its vectors.
        rerank: sentences or cross_encoder:MODEL, or logprob or listwise, which ask the agent's model; empty: none.
        pool: Documents that are reranked; those behind them keep their order.
        k: Number of documents.
    """
    corpus = corpus_in(ctx, await task_index(task, index, embedder="" if variant == "lexical" else embedder))
    found = documents_once(SEARCHES[variant](corpus))
    if not asks_model(rerank):
        found = brief(corpus, variant, top_reranked(found, rerank, corpus, None, pool=pool))
    else:
        found = top_reranked(as_one(corpus, variant, found), rerank, corpus, ContextWriter(ctx), pool=pool)
    hits = await found(Query(task.prompt), k)
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.chunk.document, hit.score)  # a guard may have given several documents one name
    ctx.note("ranking", documents=list(best), scores=list(best.values()))
    return "\n".join(best)


def documents_once(retriever: Retriever) -> Retriever:
    """Finds the k best documents: the best chunk of each, from as many chunks as that takes."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        many = k
        while True:
            hits = await retriever(query, many)
            best: dict[str, Hit] = {}
            for hit in hits:
                best.setdefault(hit.chunk.document, hit)
            if len(best) >= k or len(hits) < many:
                return list(best.values())[:k]
            many *= 2

    return found


def top_reranked(retriever: Retriever, name: str, corpus: Corpus, writer: Writer | None, *, pool: int) -> Retriever:
    """The retriever with its first `pool` hits reranked and the others behind them; scores are places, counted from k."""
    if not name:
        return retriever

    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = list(await retriever(query, max(pool, k)))

        async def given(query: Query, k: int) -> Sequence[Hit]:
            return hits[:pool]

        best = await reranked(given, name, corpus, writer, pool=pool)(query, pool)
        return [replace(hit, score=float(k - place)) for place, hit in enumerate([*best, *hits[pool:]][:k])]

    return found


def brief(corpus: Corpus, name: str, retriever: Retriever) -> Retriever:
    """The retriever as one read of the corpus, whose journal keeps the documents found without their text."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        async def act(passed: Json) -> Sequence[Hit]:
            hits = await retriever(replace(query, text=str(passed["query"])), k)
            return [replace(hit, chunk=replace(hit.chunk, text="", heading="", meta={})) for hit in hits]

        return await corpus.read(name, arguments_of(query, k), act)

    return found
