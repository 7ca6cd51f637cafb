"""Scores an answer that must name the value that holds, and none that held before or after."""

from __future__ import annotations

from firsthand.scorers.whole_answer import whole_answer
from firsthand.scorers.whole_words import has_words
from firsthand.task import Task
from firsthand.trace import Score, Trace


def held_value(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer has `secret["answer"]` as whole words and none of `secret["wrong"]`.

    An answer that lists every value it has seen names the right one too, and scores 0.
    """
    answer = whole_answer(trace)
    wrong = [each for each in task.secret.get("wrong", ()) if has_words(answer, str(each))]
    right = has_words(answer, str(task.secret["answer"]))
    return Score("held_value", float(right and not wrong), {"answer": answer[:200], "wrong": wrong})
