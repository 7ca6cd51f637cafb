"""Advanced RAG: hybrid search, reranking, and each passage read with its neighbours."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.context_windows import neighbours
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import hybrid
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task


@checked(check_rag)
async def advanced(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    rerank: str = "logprob",
    pool: int = 20,
    around: int = 1,
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from the best `k` of `pool` reranked passages, with `around` neighbours.

    `rerank` is logprob (the model's log-prob of "yes": it must score), listwise, sentences or
    cross_encoder:MODEL.
    """
    corpus = corpus_in(ctx, index)
    best = reranked(hybrid(corpus), rerank, corpus, ContextWriter(ctx), pool=pool)
    hits = await neighbours(best, corpus, around=around)(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
