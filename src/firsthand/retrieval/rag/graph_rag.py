"""Graph RAG: questions answered from entities, their relations, and reports of their communities (Edge et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal

from firsthand.context import Context
from firsthand.errors import ConfigError, PromptTooLong
from firsthand.loop.pattern_options import at_least, checked
from firsthand.retrieval.graph.graph_context import LocalShares
from firsthand.retrieval.graph.graph_search import GraphSearch
from firsthand.retrieval.graph.open_graph import check_graph
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.task import Task

GraphMode = Literal["local", "global", "drift"]


def _check(
    *, index: str, level: int, context_tokens: int, entities: int, follow_ups: int, depth: int, threshold: int, **_: Any
) -> None:
    at_least(1, context_tokens=context_tokens, entities=entities, follow_ups=follow_ups, depth=depth)
    at_least(0, level=level)
    if not 0 <= threshold <= 5:
        raise ConfigError(f"threshold is {threshold}: reports are rated from 0 to 5")
    check_graph(index)


@checked(_check)
async def graph_rag(
    task: Task,
    ctx: Context,
    *,
    index: str,
    mode: GraphMode = "local",
    level: int = 2,
    context_tokens: int = 12_000,
    entities: int = 10,
    dynamic: bool = False,
    threshold: int = 1,
    follow_ups: int = 20,
    depth: int = 3,
) -> str:
    """The answer from the graph that `firsthand rag graph INDEX` made.

    `local` answers questions about entities, `global` questions about the whole, `drift` begins with reports and follows
    up with local searches. Contexts have at most `context_tokens`, with shares of .15, .5 and .35 for reports, passages, and
    entities with relations, where four bytes count as a token: names and numbers take more of a model's own. The defaults
    are GraphRAG's; a model with a small context needs a smaller one.
    """
    shares = LocalShares(tokens=context_tokens, entities=entities, level=level)
    search = GraphSearch(ctx, corpus_in(ctx, index), index, shares, level, context_tokens)
    question = task.question
    try:
        if mode == "global":
            return await search.global_(question, dynamic=dynamic, threshold=threshold)
        if mode == "drift":
            return await search.drift(question, follow_ups=follow_ups, depth=depth)
        return await search.local(question)
    except PromptTooLong as error:
        raise PromptTooLong(f"{error}; context_tokens is {context_tokens}: give graph_rag a smaller one") from None
