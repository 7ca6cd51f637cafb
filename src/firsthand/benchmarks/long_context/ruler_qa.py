"""RULER's two question answering tasks: a question's paragraphs in SQuAD 2.0 or HotpotQA among others of the set."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from firsthand.benchmarks.long_context.ruler_sample import QA, RulerSample, SampleGenerator, SampleKey
from firsthand.benchmarks.protocols.protocol import fill
from firsthand.benchmarks.sources.datasets import Source, contents, fetch, find, read
from firsthand.errors import DataError
from firsthand.message import Json

DOCUMENT = "Document {i}:\n{document}"
FILES = {
    "qa_1": ("squad.json", "dev-v2.0.json"),
    "qa_2": ("hotpotqa.json", "hotpot_dev_distractor_v1.json"),
}
"""Task -> file names: the one RULER's script uses, and the authors' own."""
ADDRESSES = {
    "qa_1": "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
    "qa_2": "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
}
SOURCES = {
    "qa_1": Source(
        "longctx/squad_v2_validation.jsonl", 11_873, "CC BY-SA 4.0", "rajpurkar/squad_v2", "squad_v2", "validation",
        lambda row: {"title": row["title"], "context": row["context"], "question": row["question"],
                     "answers": list(row["answers"]["text"])},
    ),
    "qa_2": Source(
        "longctx/hotpot_distractor_validation.jsonl", 7_405, "CC BY-SA 4.0", "hotpotqa/hotpot_qa", "distractor",
        "validation",
        lambda row: {"question": row["question"], "answer": row["answer"], "context": [
            [title, list(sentences)]
            for title, sentences in zip(row["context"]["title"], row["context"]["sentences"], strict=True)]},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SetQuestion:
    """A question, its answers, and documents by number: those it needs, and those added first as distractors."""

    query: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    distractors: tuple[int, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """Questions and documents of a dataset, with their origin."""

    questions: tuple[SetQuestion, ...]
    documents: tuple[str, ...]
    origin: str


def qa(question_set: QuestionSet, wrap: str) -> SampleGenerator:
    """Return the generator: question `index` of the set, with its documents and others shuffled; size counts documents."""
    return SampleGenerator(
        partial(_sample, question_set, wrap), QA.tokens, "documents", 1, "part", "question answering"
    )


def read_question_set(task: str, data: str) -> QuestionSet:
    """Read the set of `qa_1` (SQuAD) or `qa_2` (HotpotQA) from a folder of the user's or, if `data` is `hub`, the hub."""
    if data == "hub":
        source = SOURCES[task]
        rows = list(read(fetch(source), source, "hub").rows)
        return _squad_rows(rows, source.dataset) if task == "qa_1" else _hotpot(rows, source.dataset)
    root = Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser()
    path = find(root, *(f"longctx/{name}" for name in FILES[task]), SOURCES[task].path)
    if path is None:
        raise DataError(
            f"{task} of RULER needs the paragraphs of its set, and {str(root)!r} has neither {' nor '.join(FILES[task])}: "
            f"put the file there ({ADDRESSES[task]}), give data=hub to fetch {SOURCES[task].dataset}, or leave qa out "
            "with tasks=generated"
        )
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        rows = list(read(path, SOURCES[task], "data folder").rows)
        return _squad_rows(rows, path.name) if task == "qa_1" else _hotpot(rows, path.name)
    try:
        body = json.loads(contents(path))
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON: fetch it again") from None
    return _squad(body, path) if task == "qa_1" else _hotpot(body, path.name)


def _sample(question_set: QuestionSet, wrap: str, size: int, rng: Random, draw: SampleKey) -> RulerSample:
    if draw.number >= len(question_set.questions):
        raise DataError(
            f"{question_set.origin} has {len(question_set.questions):,} questions: "
            f"give samples={len(question_set.questions)}"
        )
    question, everything = question_set.questions[draw.number], question_set.documents
    wanted = max(0, size - len(question.needed))
    if size >= len(everything):
        chosen = [everything[each % len(everything)] for each in range(size)]
    elif wanted > len(question.distractors):
        known = {*question.needed, *question.distractors}
        others = [each for each in range(len(everything)) if each not in known]
        more = rng.sample(others, min(len(others), wanted - len(question.distractors)))
        chosen = [everything[each] for each in (*question.needed, *question.distractors, *more)]
    else:
        chosen = [everything[each] for each in (*question.needed, *rng.sample(question.distractors, wanted))]
    rng.shuffle(chosen)
    shown = [fill(DOCUMENT, {"i": str(number), "document": each}) for number, each in enumerate(chosen, 1)]
    text = fill(wrap.replace("{task}", QA.task), {"context": "\n\n".join(shown), "query": question.query})
    cluster = f"document {question.needed[0]}" if question.distractors else None
    return RulerSample(text, QA.prefix, question.answers, cluster=cluster)


def _squad(body: Any, path: Path) -> QuestionSet:
    """Read the authors' nested file."""
    try:
        rows = [
            {
                "title": article["title"],
                "context": paragraph["context"],
                "question": each["question"],
                "answers": [] if each.get("is_impossible") else [answer["text"] for answer in each["answers"]],
            }
            for article in body["data"]
            for paragraph in article["paragraphs"]
            for each in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} is not SQuAD's file of articles with paragraphs and qas: fetch dev-v2.0.json"
        ) from None
    return _squad_rows(rows, path.name)


def _squad_rows(rows: list[Json], origin: str) -> QuestionSet:
    try:
        numbers = {text: number for number, text in enumerate(sorted({str(row["context"]) for row in rows}))}
        articles: dict[str, dict[int, None]] = {}
        for row in rows:
            articles.setdefault(str(row["title"]), {})[numbers[str(row["context"])]] = None
        questions = []
        for row in rows:
            here = numbers[str(row["context"])]
            distractors = tuple(each for each in articles[str(row["title"])] if each != here)
            if row["answers"]:
                questions.append(
                    SetQuestion(str(row["question"]), tuple(map(str, row["answers"])), (here,), distractors)
                )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{origin}: {error!r}: title, context, question and answers were expected in each row"
        ) from None
    return _checked(questions, numbers, f"SQuAD 2.0 ({origin})")


def _hotpot(rows: Any, origin: str) -> QuestionSet:
    try:
        paragraphs = [[f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]] for row in rows]
        numbers = {text: number for number, text in enumerate(sorted({text for each in paragraphs for text in each}))}
        questions = [
            SetQuestion(str(row["question"]), (str(row["answer"]),), tuple(numbers[text] for text in each))
            for row, each in zip(rows, paragraphs, strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{origin} has no 'context' with titles and sentences for each question: RULER needs HotpotQA's distractor "
            "file, hotpot_dev_distractor_v1.json (a file of questions and answers alone is not enough)"
        ) from None
    return _checked(questions, numbers, f"HotpotQA, distractor ({origin})")


def _checked(questions: list[SetQuestion], numbers: dict[str, int], origin: str) -> QuestionSet:
    if not questions or not numbers:
        raise DataError(f"{origin} has no answerable question: is it the right file?")
    return QuestionSet(tuple(questions), tuple(numbers), f"{origin}, {len(questions):,} questions")
