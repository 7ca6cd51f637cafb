"""Scores whether an answer contains the references: for RULER, Lost in the Middle, and its key-value task.

The references are `task.secret["answers"]`, a list of texts, or `["answer"]` alone. All compare in lower case. An answer
that copies the whole document would contain everything, so the length of answers is part of each protocol.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from firsthand.errors import DataError
from firsthand.scorers.match import same_words
from firsthand.scorers.reference_answers import are_letters, reference_answers
from firsthand.scorers.whole_answer import whole_answer
from firsthand.scorers.whole_words import has_words
from firsthand.task import Task
from firsthand.trace import Score, Trace

_CONTROL = re.compile(r"[\x00-\x1f]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def string_match(task: Task, trace: Trace) -> Score:
    """Score as RULER does: `string_match_part` for its two question answering tasks, `string_match_all` for the others."""
    part = task.secret.get("match") == "part"
    found = (string_match_part if part else string_match_all)(task, trace)
    return Score("string_match", found.value, found.detail)


def string_match_all(task: Task, trace: Trace) -> Score:
    """Score the share of the references that the answer contains (Hsieh et al., 2024)."""
    found, references = _found(task, trace)
    return Score("string_match_all", len(found) / len(references), {"found": found})


def string_match_part(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer contains any of the references (Hsieh et al., 2024)."""
    found, _ = _found(task, trace)
    return Score("string_match_part", float(bool(found)), {"found": found})


def contains_value(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer contains the first reference: the key-value retrieval of Liu et al. (2023)."""
    value = reference_answers(task)[0].lower()
    return Score("contains_value", float(value in whole_answer(trace).lower()))


def best_subspan_em(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer's first line contains any reference, both normalised by SQuAD's rule (Liu et al., 2023).

    Only the first line counts, as text that a model copies from the documents contains the answer too. A reference that
    SQuAD's rule leaves nothing of (`A`, `The`, `+`) is compared with the line as `normalised` does.
    """
    first = whole_answer(trace).partition("\n")[0]
    line = _squad(first)
    found = any(_squad(each) in line if _squad(each) else same_words(first, each) for each in reference_answers(task))
    return Score("best_subspan_em", float(found), {"line": line[:200]})


def contains_words(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer contains any reference as whole words, ignoring case and punctuation: 24 is not in 0.24."""
    answer = whole_answer(trace)
    return Score("contains_words", float(any(has_words(answer, each) for each in reference_answers(task))))


def _found(task: Task, trace: Trace) -> tuple[list[str], Sequence[str]]:
    answer = _CONTROL.sub("\n", whole_answer(trace).strip()).lower()
    references = reference_answers(task)
    if are_letters(task, references):
        raise DataError(
            f"task {task.id:.100} has letters of choices as its reference, which nearly any text contains: take choice, or "
            "a judge model where several are wanted"
        )
    return [each for each in references if each.lower() in answer], references


def _squad(text: str) -> str:
    """Normalise as SQuAD's evaluation script does: lower case, no ASCII punctuation or articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
