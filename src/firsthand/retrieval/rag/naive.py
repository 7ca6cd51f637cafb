"""Naive RAG: the passages nearest to the question, and an answer from them."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task


@checked(check_rag)
async def naive(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    search: str = "dense",
    rerank: str = "",
    pool: int = 20,
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from the `k` best passages of one search: dense, lexical, hybrid or convex; of `pool`, if reranked."""
    corpus = corpus_in(ctx, index)
    found = reranked(SEARCHES[search](corpus), rerank, corpus, ContextWriter(ctx), pool=pool)
    hits = await found(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
