"""Isolate, then aggregate: each passage is answered from alone, and only words that several answers share are kept.

RobustRAG's keyword aggregation (Xiang et al., 2024): a planted passage cannot speak through the others, so it needs as many
passages as the threshold to put its answer through. Keywords are here the content words of an answer, without a parser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, checked
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.retrieval.benchmark_corpus import task_index
from firsthand.retrieval.rag.retrieve import Search
from firsthand.retrieval.rag.short_answer import short_prompt
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.retrievers.selection import per_source as capped
from firsthand.retrieval.store.word_marks import marks
from firsthand.task import Task

SHARE, LEAST = 0.3, 3
"""A keyword is kept from so many answers on: this share of those that say anything, and no more than this number."""
_STOP = frozenset(
    re.findall(
        r"\w+",
        """
    a an the and or but if of in on at to for from by with as is are was were be been being it its this that these
    those he she they his her their there which who whom whose what when where how why not no yes do does did has
    have had will would can could may might must shall should than then so such into about over under between
    according answer question passage document documents information also
""",
    )
)


def _check(*, k: int, per_source: int, max_tokens: int, **rest: Any) -> None:
    at_least(1, k=k, max_tokens=max_tokens)
    at_least(0, per_source=per_source)


@checked(_check)
async def isolated_rag(
    task: Task,
    ctx: Context,
    *,
    index: str = "",
    search: Search = "hybrid",
    embedder: str = "minilm",
    k: int = 5,
    per_source: int = 0,
    max_tokens: int = 64,
) -> str:
    """A short answer from words that several passages, each read alone, agree on; or "Not in the documents."

    Args:
        index: An index that `firsthand rag index` made; empty: that of the task's benchmark.
        search: hybrid, dense, lexical or convex.
        embedder: With a benchmark's index: the embedder of its vectors.
        k: Passages.
        per_source: At most so many of one source: the file or URL that documents were read from; 0 is no limit.
        max_tokens: Of each answer.
    """
    path = await task_index(task, index, embedder="" if search == "lexical" else embedder)
    corpus = corpus_in(ctx, path)
    retriever = SEARCHES[search](corpus)
    if per_source:
        retriever = capped(retriever, corpus, most=per_source, by="source")
    hits = list(await retriever(Query(task.prompt), k))
    ctx.note("ranking", documents=[hit.chunk.document for hit in hits], scores=[hit.score for hit in hits])
    if not hits:
        return NOT_IN_DOCUMENTS
    said = await ctx.group(ctx.say(short_prompt(task.prompt, [hit])).generate(max_tokens=max_tokens) for hit in hits)
    answers = [each.said.strip() for each in said]
    kept, needed = shared_keywords(answers, task.prompt)
    ctx.note("aggregated", answers=answers, keywords=kept, needed=needed)
    if not kept:
        return NOT_IN_DOCUMENTS
    asked = (
        f"Question: {task.prompt}\nWords that several sources agree on: {', '.join(kept)}\n"
        "Answer the question in a few words, with these words alone."
    )
    return (await ctx.say(asked).generate(max_tokens=max_tokens)).text.strip()


def _words(text: str) -> list[str]:
    return _word().findall(text)


@cache
def _word() -> re.Pattern[str]:
    letters = rf"(?:[^\W_]|[{marks()}])+"
    return re.compile(rf"{letters}(?:[.,'’-]{letters})*")


def shared_keywords(answers: Sequence[str], question: str) -> tuple[list[str], int]:
    """The content words that enough answers share, most shared first, and how many answers are enough.

    Each answer counts a word once; words of the question are no evidence. Answers that say no do not count.
    """
    told = [each for each in answers if each and not each.startswith(NOT_IN_DOCUMENTS.rstrip("."))]
    asked = {word.casefold() for word in _words(question)}
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for answer in told:
        words = {word.casefold(): word for word in _words(answer)}
        for folded, word in words.items():
            if folded not in _STOP and folded not in asked:
                counts[folded] += 1
                shown.setdefault(folded, word)
    needed = max(1, min(LEAST, -int(-SHARE * len(told) // 1)))
    kept = sorted((word for word in counts if counts[word] >= needed), key=lambda word: (-counts[word], word))
    return [shown[word] for word in kept], needed
