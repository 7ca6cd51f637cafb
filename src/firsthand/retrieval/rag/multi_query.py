"""Multi-query, or RAG-Fusion: several rewritings of the question are searched, and their rankings fused."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers import rewriting
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task


@checked(check_rag)
async def multi_query(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    n: int = 4,
    pool: int = 50,
    search: str = "hybrid",
    rerank: str = "",
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from the `k` best passages of the question and up to `n` rewritings together, fused by reciprocal rank."""
    corpus = corpus_in(ctx, index)
    writer = ContextWriter(ctx)
    found = rewriting.multi_query(SEARCHES[search](corpus), writer, n=n, pool=pool)
    hits = await reranked(found, rerank, corpus, writer)(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
