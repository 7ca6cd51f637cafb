"""A team of three agents: a coordinator plans, a retrieval agent searches, a reasoning agent answers with citations.

Each has its own conversation, a branch of the trace. The ways in which such teams fail are closed here: a coordinator that
asks for the same again is cut off, a search that finds nothing is told and never answered from memory, and an answer that
ignores the evidence is asked for once more and then stripped of what the passages do not support.
"""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS, Answer, AnswerSettings, answer
from firsthand.retrieval.answers.evidence import escaped
from firsthand.retrieval.answers.variant_parts import AnswerForm, answered, check_rag, record
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.rewriting import distinct_lines, lines_of
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.writer import ContextWriter
from firsthand.task import Task

READY = "READY"
_PLAN = (
    "You coordinate a team that answers a question from documents. One member searches, one reasons. Write the search query "
    "that is to be run first, and nothing else.\n\nQuestion: {question}"
)
_REPORT = (
    "The search for {query!r} found {new} new passages ({total} in all), from: {sources}. Write {ready} if this is enough "
    "to answer, or else the next search query, and nothing else."
)
_AGAIN = "{question}\n\n(Every sentence must come from the passages; the last draft had sentences that do not.)"


@checked(check_rag)
async def team(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    rounds: int = 3,
    search: str = "hybrid",
    form: AnswerForm = "cited",
    floor: float | None = None,
) -> str:
    """The reasoning agent's answer, after up to `rounds` searches that the coordinator asks for.

    The coordinator sees counts and the names of documents, never a passage, so no text in one can instruct it. Claims
    without support are dropped.
    """
    corpus = corpus_in(ctx, index)
    ctx.branch("coordinator")
    planner = await ctx.say(_PLAN.format(question=task.question)).generate(temperature=0.0, max_tokens=64)
    found: dict[str, Hit] = {}
    queries: list[str] = []
    for left in reversed(range(rounds)):
        query = next(iter(lines_of(planner.said, numbered=False)), "")
        if query.strip(" .!").upper() == READY and found:
            break
        if not query or query.strip(" .!").upper() == READY:
            query = task.question
        if len(distinct_lines([*queries, query])) == len(queries):
            ctx.note("coordinator_loops", query=query)
            break
        queries.append(query)
        hits = [hit for hit in await SEARCHES[search](corpus)(Query(query), k) if hit.chunk.id not in found]
        found |= {hit.chunk.id: hit for hit in hits}
        if not left:
            break
        sources = ", ".join(sorted({escaped(repr(hit.chunk.document[:80])) for hit in found.values()})[:8]) or "none"
        report = _REPORT.format(query=query, new=len(hits), total=len(found), sources=sources, ready=READY)
        planner = await planner.say(report).generate(temperature=0.0, max_tokens=64)
    ctx.branch("retrieval", "done", text=f"{len(queries)} searches, {len(found)} passages")
    if not found:
        ctx.note("nothing_found", queries=queries)
        return record(ctx, Answer(NOT_IN_DOCUMENTS))
    passages = list(found.values())
    if form in ("plain", "chosen") or task.choices or task.hint is not None:
        return await answered(task, ctx, corpus, passages, form="chosen" if form == "chosen" else "plain", floor=floor)
    ctx.branch("reasoning")
    settings = AnswerSettings(quotes=form == "quoted", unsupported="drop", floor=floor)
    made = await answer(task.question, passages, ContextWriter(ctx), corpus, settings)
    if made.unsupported:
        ctx.note("reasoning_ignores", claims=list(made.unsupported))
        again = await answer(_AGAIN.format(question=task.question), passages, ContextWriter(ctx), corpus, settings)
        made = min(made, again, key=lambda each: (not each.in_documents, len(each.unsupported)))
    return record(ctx, made)
