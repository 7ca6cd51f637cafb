"""Reads a task's reference answers, for the scorers that compare an answer with them.

A task without one cannot be judged by such a scorer: an error of the score, and never a 0, or a 1 of an empty answer.
"""

from __future__ import annotations

from firsthand.errors import DataError
from firsthand.task import Task


def reference_answers(task: Task) -> list[str]:
    """Return each of `secret["answers"]`, or `["answer"]` alone, as text.

    DataError if there is none, if all are blank, or if one is neither text nor number.
    """
    given = task.secret["answers"] if "answers" in task.secret else [task.secret.get("answer")]
    is_list = isinstance(given, list | tuple)
    if not is_list or not all(isinstance(each, str | int | float) for each in given):
        raise _unfit(task)
    found = [str(each) for each in given]
    if not any(each.strip() for each in found):
        raise _unfit(task)
    return found


def accepted_answers(task: Task) -> list[str]:
    """Return the reference answers of which one is enough, none of them blank.

    DataError as `reference_answers`, or if the task wants several at once, as some of RULER's do.
    """
    found = [each for each in reference_answers(task) if each.strip()]
    if task.secret.get("match") == "all" and len(found) > 1:
        raise DataError(
            f"task {task.id:.100} wants {len(found)} answers at once, and this scorer compares with one: take string_match"
        )
    return found


def right_choice(task: Task) -> int:
    """Return the index of a task's right choice, `secret["gold"]`; DataError if it has none."""
    gold = task.secret.get("gold")
    if type(gold) is not int or not 0 <= gold < len(task.choices):
        raise DataError(
            f"task {task.id:.100} has no right choice to compare with: take a scorer that fits it, as its benchmark does"
        )
    return gold


def _unfit(task: Task) -> DataError:
    return DataError(
        f"task {task.id:.100} has no reference answer to compare with: take a scorer that fits it, as its benchmark does"
    )
