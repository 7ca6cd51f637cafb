"""Says in words what answer a task expects, as far as its secret says so; tests and rubrics are not answers."""

from __future__ import annotations

import json

from firsthand.task import Task

MOST_ANSWERS = 8


def expected_answer(task: Task | None, *, reveal: bool = False) -> str:
    """The expected answer; empty where the task has none, or is protected and not to be revealed.

    Of a choice it is the letter and the text, of several accepted answers all, each in quotation marks, with `and` between
    them where all are wanted at once.
    """
    if task is None or (task.protected is not None and not reveal):
        return ""
    secret = task.secret
    gold = secret.get("gold")
    if type(gold) is int and 0 <= gold < len(task.choices):
        letter = secret.get("answer")
        text = task.choices[gold].strip()
        return f"{letter}: {text}" if isinstance(letter, str) and letter != text else text
    for name in ("answer", "output", "target"):
        if name in secret:
            return _text(secret[name])
    answers = secret.get("answers")
    if isinstance(answers, list | tuple) and answers:
        shown = [json.dumps(_text(each), ensure_ascii=False) for each in answers[:MOST_ANSWERS]]
        link = " and " if secret.get("match") == "all" else " or "
        more = f"{link}{len(answers) - MOST_ANSWERS} more" if len(answers) > MOST_ANSWERS else ""
        return shown[0] if len(answers) == 1 else link.join(shown) + more
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
