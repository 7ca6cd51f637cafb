"""Reads a task's reference answers, for the scorers that compare an answer with them.

A task without one cannot be judged by such a scorer: an error of the score, and never a 0, or a 1 of an empty answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

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
    if wants_all(task, found):
        fitting = "a judge model, as in reference:judge=NAME" if are_letters(task, found) else "string_match"
        raise DataError(
            f"task {task.id:.100} wants {len(found)} answers at once, and this scorer compares with one: take {fitting}"
        )
    return found


def wants_all(task: Task, references: Sequence[str]) -> bool:
    """Return whether an answer must hold several references at once, and not one of them."""
    return task.secret.get("match") == "all" and len(references) > 1


def are_letters(task: Task, references: Iterable[str]) -> bool:
    """Return whether references are letters of the task's choices, which nearly any text contains."""
    return set(references) <= set(task.letters)


def right_answer(task: Task) -> str | None:
    """Return one right answer as text: the first reference, or all with commas where all are wanted; None without one."""
    try:
        found = reference_answers(task)
    except DataError:
        return None
    return ", ".join(found) if wants_all(task, found) else found[0]


def told_references(task: Task) -> str | None:
    """Return all references for a reader, as `"Paris" or "Paname"`, or with `and` where all are wanted; None without one."""
    try:
        found = reference_answers(task)
    except DataError:
        return None
    if len(found) == 1:
        return found[0]
    return (" and " if wants_all(task, found) else " or ").join(f'"{each}"' for each in found)


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


def secret_of(target: object, choices: Sequence[str] = ()) -> Json:
    """Return the secret of a task of another tool, whose target is a text, a list of accepted texts, or missing.

    With choices, the letter of one is the right choice, and of several letters all are wanted at once.
    """
    if target is None or target == []:
        return {}
    texts = [target] if isinstance(target, str) else target
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        return {"answer": json.dumps(target, ensure_ascii=False)}
    named = list(dict.fromkeys(each.strip() for each in texts))
    letters = Task("", "", tuple(choices[:26])).letters
    if set(named) <= set(letters):
        only = {"answer": named[0], "gold": letters.index(named[0])}
        return only if len(named) == 1 else {"answers": named, "match": "all"}
    return {"answer": target} if isinstance(target, str) else {"answers": target}


def _texts(task: Task, given: object) -> list[str]:
    if isinstance(given, list | tuple) and all(isinstance(each, str | int | float) for each in given):
        found = [text for each in given if (text := str(each)).strip()]
        if found:
            return found
    raise DataError(
        f"task {task.id:.100} has no reference answer to compare with: take a scorer that fits it, as its benchmark does"
    )
