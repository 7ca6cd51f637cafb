"""Modular RAG: the stages of a pipeline chosen by name, each a combinator of retrievers (Gao et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.claims import Unsupported
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers import rewriting
from firsthand.retrieval.retrievers.context_windows import neighbours, parents
from firsthand.retrieval.retrievers.reranker_names import reranked
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.retrievers.selection import distinct, mmr, per_source
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task

Rewrite = Literal["none", "hyde", "multi_query", "step_back"]
Order = Literal["none", "rerank", "mmr"]
Cap = Literal["none", "per_source", "distinct"]
Widen = Literal["none", "neighbours", "parents"]


def _check(
    *, rewrite: str = "none", order: str = "none", cap: str = "none", widen: str = "none", search: str, **rest: Any
) -> None:
    stages = {"rewrite": (rewrite, Rewrite), "order": (order, Order), "cap": (cap, Cap), "widen": (widen, Widen)}
    for name, (value, kind) in stages.items():
        if value not in get_args(kind):
            raise ConfigError(f"{name} is {value!r}: {', '.join(get_args(kind))} was expected")
    if rewrite == "hyde" and search == "lexical":
        raise ConfigError("rewrite is hyde and search is lexical: HyDE searches by vectors, so take dense or hybrid")
    check_rag(search=search, **rest)


@checked(_check)
async def modular(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    search: str = "hybrid",
    rewrite: Rewrite = "none",
    order: Order = "none",
    rerank: str = "logprob",
    cap: Cap = "none",
    widen: Widen = "none",
    pool: int = 20,
    form: AnswerForm = "cited",
    unsupported: Unsupported = "mark",
    floor: float | None = None,
) -> str:
    """The answer from passages of a pipeline: rewrite the query, search, cap, order, widen. Any stage may be left out.

    `rerank` is the reranker of order=rerank: logprob, listwise, sentences or cross_encoder:MODEL.
    """
    corpus, writer = corpus_in(ctx, index), ContextWriter(ctx)
    found = SEARCHES[search](corpus)
    if rewrite == "hyde":
        found = rewriting.hyde(found, corpus, writer)
    elif rewrite == "multi_query":
        found = rewriting.multi_query(found, writer)
    elif rewrite == "step_back":
        found = rewriting.step_back(found, writer)
    found = {"none": found, "per_source": per_source(found, corpus, by="source"), "distinct": distinct(found)}[cap]
    if order == "rerank":
        found = reranked(found, rerank, corpus, writer, pool=pool)
    elif order == "mmr":
        found = mmr(found, corpus, pool=pool)
    found = {"none": found, "neighbours": neighbours(found, corpus), "parents": parents(found, corpus)}[widen]
    hits = await found(Query(task.question), k)
    return await answered(task, ctx, corpus, hits, form=form, unsupported=unsupported, floor=floor)
