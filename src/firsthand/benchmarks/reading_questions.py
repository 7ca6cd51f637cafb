"""A hundred questions about the reading list and this documentation: is the passage found, and the answer right.

    firsthand run reading_questions --model scripted:echo --pattern retrieve:variant=lexical,retrieve:variant=hybrid
    firsthand run reading_questions:measure=answers --model smollm2 --pattern short_answer

Eighty-five have a gold passage, which retrieval is scored by; fifteen are answered by no document, and the right answer to
them is to say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from firsthand.benchmark import Benchmark, Figure
from firsthand.benchmarks.mteb.labelled_texts import spec_with
from firsthand.errors import ConfigError
from firsthand.reading.entry_documents import page_files, passages
from firsthand.reading.list_questions import ListQuestion, gold_passages, list_questions
from firsthand.retrieval.document import Document
from firsthand.scorers.concerns.probe_margins import rate_among
from firsthand.scorers.document_answers import document_answer, gold_citation
from firsthand.scorers.ranking import ndcg_at_10, recall_at_5, recall_at_100, reciprocal_rank_at_10
from firsthand.task import Task
from firsthand.trace import Trace

Measure = Literal["retrieval", "answers"]


def reading_questions(*, measure: Measure = "retrieval", docs: str = "") -> Benchmark:
    """Return the questions: 85 with gold passages for retrieval, all 100 for answers. `docs` is the folder of the pages."""
    if measure not in ("retrieval", "answers"):
        raise ConfigError(f"measure is {measure!r}: retrieval or answers was expected")
    spec, found = spec_with("reading_questions", docs=docs), corpus(docs=docs)
    ranks = measure == "retrieval"
    asked = [each for each in _mixed(list_questions()) if each.is_answerable or not ranks]
    tasks = [_task(each, found, spec) for each in asked]
    return Benchmark(
        name="reading_questions" if ranks else "reading_questions:measure=answers",
        tasks=lambda seed: tasks,
        scorers=(recall_at_5, ndcg_at_10, reciprocal_rank_at_10, recall_at_100)
        if ranks
        else (document_answer, gold_citation),
        description="Questions about the reading list and this documentation, with the passages that answer them.",
        protocol=f"{len(tasks)} questions of ours over {len(found):,} passages; gold is the passage with the quotation; "
        + (
            "recall@5, nDCG@10 and MRR@10 as trec_eval"
            if ranks
            else "an answer is right if it contains a reference, or says that the documents do not answer where they do not"
        ),
        licence="none needed: our own text",
        figures=None if ranks else _figures,
        options={"measure": measure},
    )


def corpus(*, measure: Measure = "retrieval", docs: str = "") -> list[Document]:
    """Return the passages of the list's entries and of the documentation."""
    return passages(Path(docs).expanduser() if docs else None)


def corpus_files(*, measure: Measure = "retrieval", docs: str = "") -> list[Path]:
    """Return the pages of the documentation; the list is part of the package."""
    return page_files(Path(docs).expanduser() if docs else None)


def _mixed(questions: Sequence[ListQuestion]) -> list[ListQuestion]:
    """The questions in an order by hash, so that the first N are of all kinds."""
    return sorted(questions, key=lambda each: hashlib.sha256(each.id.encode()).digest())


def _task(question: ListQuestion, found: Sequence[Document], spec: str) -> Task:
    gold = gold_passages(question, found)
    return Task(
        question.id,
        question.question,
        metadata={"corpus": spec, "documents": gold, "answerable": question.is_answerable},
        secret={
            "judgements": dict.fromkeys(gold, 1),
            "answers": list(question.answers),
            "document": question.document,
            "quote": question.quote,
        },
    )


def _figures(traces: Sequence[Trace]) -> list[Figure]:
    return [
        rate_among("gold_citation", traces, "gold_citation", lower_is_better=False),
        rate_among("refuses_unanswerable", traces, "refuses_unanswerable", lower_is_better=False),
        rate_among("refuses_answerable", traces, "refuses_answerable"),
    ]
