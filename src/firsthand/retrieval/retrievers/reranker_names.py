"""Rerankers by name: `sentences`, `logprob`, `listwise`, or `cross_encoder:MODEL`, as variants and `--rerank` take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.message import Json
from firsthand.retrieval.corpus import Corpus, arguments_of
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.retrievers.best_sentence import rerank_by_sentence
from firsthand.retrieval.retrievers.cross_encoder import by_cross_encoder
from firsthand.retrieval.retrievers.listwise import by_listwise
from firsthand.retrieval.retrievers.reranking import PairScorer, by_logprob, rerank
from firsthand.retrieval.writer import Writer

KINDS = "sentences, logprob, listwise or cross_encoder:MODEL"


def check_reranker(name: str) -> None:
    """ConfigError for a name that is no reranker, UnknownName for a cross-encoder's path without a model; empty is none."""
    kind, _, model = name.partition(":")
    if name in ("", "sentences", "logprob", "listwise"):
        return
    if kind != "cross_encoder" or not model:
        raise ConfigError(f"rerank is {name!r}: {KINDS} was expected, where MODEL is a folder or hf:org/name")
    if not model.startswith("hf:"):
        model_lookup.resolve(model)


def asks_model(name: str) -> bool:
    """True if the reranker asks the model of the attempt."""
    return name in ("logprob", "listwise")


def reranked(retriever: Retriever, name: str, corpus: Corpus, writer: Writer | None, *, pool: int = 20) -> Retriever:
    """The retriever with the best `pool` of its hits in the order of the reranker of that name; without a name, as it is.

    The order of a cross-encoder or of sentences is a read of the corpus, which an attempt that is resumed does not repeat.
    `writer` is the model of `logprob` and `listwise`.
    """
    check_reranker(name)
    if not name:
        return retriever
    if name == "sentences":
        return rerank_by_sentence(retriever, corpus, pool=pool)
    if not asks_model(name):
        return _scored(retriever, by_cross_encoder(name.partition(":")[2]), corpus, pool)
    if writer is None:
        raise ConfigError(
            f"rerank is {name!r}, which asks a model, and there is none: name a model, or cross_encoder:MODEL"
        )
    return rerank(retriever, by_logprob(writer) if name == "logprob" else by_listwise(writer), pool=pool)


def _scored(retriever: Retriever, scorer: PairScorer, corpus: Corpus, pool: int) -> Retriever:
    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = await retriever(query, max(pool, k))

        async def given(query: Query, k: int) -> Sequence[Hit]:
            return hits

        async def act(passed: Json) -> Sequence[Hit]:
            return await rerank(given, scorer, pool=pool)(replace(query, text=str(passed["query"])), k)

        return await corpus.read("cross_encoder", arguments_of(query, k, hits=[hit.chunk.id for hit in hits]), act)

    return found
