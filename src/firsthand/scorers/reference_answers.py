"""Reads a task's reference answers, for the scorers that compare an answer with them.

A task without one cannot be judged by such a scorer: an error of the score, and never a 0, or a 1 of an empty answer.
"""

from __future__ import annotations

import json

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.task import Task


def reference_answers(task: Task) -> list[str]:
    """Return each of `secret["answers"]`, or `["answer"]` alone, as text, but for blank ones, which any answer contains.

    DataError if none is left, or if one is neither text nor number.
    """
    return _texts(task, task.secret["answers"] if "answers" in task.secret else [task.secret.get("answer")])


def accepted_answers(task: Task) -> list[str]:
    """Return the reference answers of which one is enough.

    DataError as `reference_answers`, or if the task wants several at once, as some of RULER's do.
    """
    found = reference_answers(task)
    if task.secret.get("match") == "all" and len(found) > 1:
        raise DataError(
            f"task {task.id:.100} wants {len(found)} answers at once, and this scorer compares with one: take string_match"
        )
    return found


def reference_texts(task: Task) -> list[str]:
    """Return each of `secret["references"]`, or the accepted answers where it is empty; DataError as these."""
    given = task.secret.get("references")
    return _texts(task, given) if given else accepted_answers(task)


def right_choice(task: Task) -> int:
    """Return the index of a task's right choice, `secret["gold"]`; DataError if it has none."""
    gold = task.secret.get("gold")
    if type(gold) is not int or not 0 <= gold < len(task.choices):
        raise DataError(
            f"task {task.id:.100} has no right choice to compare with: take a scorer that fits it, as its benchmark does"
        )
    return gold


def secret_of(target: object, *, wants_all: bool = False) -> Json:
    """Return the secret of a task of another tool, whose target is a text, a list of accepted texts, or missing.

    `wants_all`: of a list all are wanted at once, as of the right letters of a question with choices.
    """
    if target is None or target == []:
        return {}
    if isinstance(target, list) and all(isinstance(each, str) for each in target):
        return {"answers": target} | ({"match": "all"} if wants_all else {})
    return {"answer": target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)}


def _texts(task: Task, given: object) -> list[str]:
    if isinstance(given, list | tuple) and all(isinstance(each, str | int | float) for each in given):
        found = [text for each in given if (text := str(each)).strip()]
        if found:
            return found
    raise DataError(
        f"task {task.id:.100} has no reference answer to compare with: take a scorer that fits it, as its benchmark does"
    )
