"""Scores answers from documents: right or rightly refused, and whether a citation is the passage that answers.

The secret has `answers`, `document` and `quote`; all are empty for a question that the documents do not answer.
"""

from __future__ import annotations

import re

from firsthand.message import Json
from firsthand.scorers.document_refusals import refuses, says_not_in_documents
from firsthand.scorers.whole_words import has_words
from firsthand.task import Task
from firsthand.trace import Score, Trace

RAG_ANSWER = "rag_answer"
"""The event that holds an answer with its citations (`retrieval/answers/variant_parts.py`)."""
QUOTED_SHARE = 0.5
"""A citation is of the gold passage if its quotation has this share of the gold quotation's words."""


def document_answer(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Score 1 if the answer contains a reference, or refuses where the documents do not answer.

    Where they answer, `refuses_answerable` is whether it says "not in the documents", and it is wrong then, whatever else it
    says. Where they do not, `refuses_unanswerable` is whether it says so and gives no answer beside that.
    """
    text = trace.answer or ""
    if not task.secret["document"]:
        refused = refuses(text, task.question)
        return Score("document_answer", float(refused)), Score("refuses_unanswerable", float(refused))
    refused = says_not_in_documents(text)
    right = not refused and any(has_words(text, each) for each in task.secret["answers"])
    return Score("document_answer", float(right)), Score("refuses_answerable", float(refused))


def gold_citation(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Score 1 if a citation quotes the passage that answers; none for questions that the documents do not answer."""
    if not task.secret["document"]:
        return ()
    found = [event.data for event in trace.events if event.kind == RAG_ANSWER]
    cited = found[-1].get("citations", []) if found else []
    return (Score("gold_citation", float(any(_is_gold(task, each) for each in cited))),)


def _is_gold(task: Task, citation: Json) -> bool:
    page = re.sub(r":\d+$", "", str(citation.get("document", "")))
    if page != task.secret["document"]:
        return False
    wanted = _words(task.secret["quote"])
    return len(wanted & _words(str(citation.get("quote", "")))) >= QUOTED_SHARE * len(wanted)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
