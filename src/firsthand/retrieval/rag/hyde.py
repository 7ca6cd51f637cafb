"""HyDE: the model makes passages up, and the documents nearest to their mean vector are read (Gao et al., 2022)."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers import rewriting
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import dense
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task


@checked(check_rag)
async def hyde(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    n: int = 8,
    rerank: str = "",
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from the `k` passages nearest to the mean vector of the question and `n` made-up passages."""
    corpus = corpus_in(ctx, index)
    writer = ContextWriter(ctx)
    found = rewriting.hyde(dense(corpus), corpus, writer, n=n)
    hits = await reranked(found, rerank, corpus, writer)(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
