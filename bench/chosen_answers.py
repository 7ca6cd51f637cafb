"""The control of answers that a model chooses: the sentence of the same passages that shares most words with the question.

    firsthand papers index --model none --index INDEX
    python bench/chosen_answers.py INDEX

No model is asked and nothing is refused. `firsthand run reading_questions:measure=answers --pattern
naive:index=INDEX:search=lexical:k=3:form=chosen` is what it stands beside.
"""

from __future__ import annotations

import argparse
import asyncio
import re

from firsthand.benchmarks.reading_questions import reading_questions
from firsthand.retrieval.answers.chosen import candidates
from firsthand.retrieval.answers.held_words import content_words
from firsthand.retrieval.corpus import Corpus, close_corpora, open_corpus
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.searches import lexical
from firsthand.scorers.contained import has_words
from firsthand.scorers.document_answers import QUOTED_SHARE
from firsthand.stats.intervals import proportion_interval
from firsthand.task import Task


def is_gold(task: Task, document: str, sentence: str) -> bool:
    """True if the sentence has half of the words of the gold quotation and is of its document."""
    wanted = set(re.findall(r"\w+", task.secret["quote"].casefold()))
    shared = len(wanted & set(re.findall(r"\w+", sentence.casefold())))
    return document == task.secret["document"] and shared >= QUOTED_SHARE * len(wanted)


async def measured(corpus: Corpus, k: int) -> list[tuple[bool, bool, bool]]:
    """For each question with an answer: whether the sentence has it, is the gold one, and whether the gold one was there."""
    found = []
    for task in reading_questions(measure="answers").tasks(0):
        if not task.secret["document"]:
            continue
        hits = await lexical(corpus)(Query(task.question), k)
        texts = [hits[each.hit].chunk.text[each.start : each.end] for each in candidates(hits)]
        sources = [hits[each.hit].chunk.document for each in candidates(hits)]
        asked = content_words(task.question)
        best = max(range(len(texts)), key=lambda at: (len(asked & content_words(texts[at])), -len(texts[at])))
        found.append(
            (
                any(has_words(texts[best], each) for each in task.secret["answers"]),
                is_gold(task, sources[best], texts[best]),
                any(map(is_gold, [task] * len(texts), sources, texts)),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", help="an index of `firsthand papers index`")
    parser.add_argument("--k", type=int, default=3, help="passages")
    options = parser.parse_args()
    rows = asyncio.run(measured(open_corpus(options.index), options.k))
    close_corpora()
    for name, values in zip(
        ("a reference is in it", "the gold sentence", "the gold one is a candidate"),
        zip(*rows, strict=True),
        strict=True,
    ):
        low, high = proportion_interval(sum(values), len(values))
        print(f"{name}: {sum(values)} of {len(values)}, {sum(values) / len(values):.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
