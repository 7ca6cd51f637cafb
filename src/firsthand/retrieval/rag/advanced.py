"""Advanced RAG: hybrid search, reranking by the model, and each passage read with its neighbours."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.context_windows import neighbours
from firsthand.retrieval.retrievers.reranking import by_logprob, rerank
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
    pool: int = 20,
    around: int = 1,
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from the best `k` of `pool` passages, scored by the model's log-prob of "yes", with `around` neighbours.

    The model must score (a local one, or an endpoint that echoes log-probs).
    """
    corpus = corpus_in(ctx, index)
    best = rerank(hybrid(corpus), by_logprob(ContextWriter(ctx)), pool=pool)
    hits = await neighbours(best, corpus, around=around)(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
