"""Scorers of multiple choice: accuracy by log-prob, plain and per character, as lm-evaluation-harness defines them.

The likelihoods are read from the trace. A pattern that writes its answer instead of scoring the choices is judged by the
letter, or the text, that it gave; then `acc` and `acc_norm` agree. The reference is `task.secret["gold"]`, an index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from firsthand.task import Task
from firsthand.trace import Score, Trace


def acc(task: Task, trace: Trace) -> Score:
    """1 if the right choice has the highest log-prob; among equals the first choice counts."""
    return _verdict("acc", task, trace, per_character=False)


def acc_norm(task: Task, trace: Trace) -> Score:
    """1 if the right choice has the highest log-prob per character, counted without the space before it."""
    return _verdict("acc_norm", task, trace, per_character=True)


def chosen_letter(answer: str, task: Task) -> int | None:
    """The index of the choice that an answer names: by its letter, or by its whole text."""
    plain = answer[:2_000].strip().strip("().: ")
    if plain.upper() in task.letters:
        return task.letters.index(plain.upper())
    texts = [choice.strip().casefold() for choice in task.choices]
    return texts.index(plain.casefold()) if texts.count(plain.casefold()) == 1 else None


def _verdict(name: str, task: Task, trace: Trace, *, per_character: bool) -> Score:
    logprobs = _logprobs(task, trace)
    if logprobs is None:
        chosen, by = chosen_letter(trace.answer or "", task), "answer"
    else:
        lengths = [max(1, len(choice.removeprefix(" "))) if per_character else 1 for choice in task.choices]
        ranked = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
        chosen, by = max(range(len(ranked)), key=ranked.__getitem__), "logprob"
    right = chosen is not None and chosen == task.secret.get("gold")
    return Score(name, float(right), {"chosen": None if chosen is None else task.letters[chosen], "by": by})


def _logprobs(task: Task, trace: Trace) -> list[float] | None:
    """The log-probs of the task's choices in the last scoring that holds them all, in order; None if there is none."""
    if not task.choices:
        return None
    for call in reversed(trace.calls):
        likelihoods: list[Mapping[str, Any]] = call.detail.get("likelihoods", []) if call.kind == "score" else []
        if [each.get("text") for each in likelihoods] == list(task.choices):
            values = [float(each.get("logprob", "nan")) for each in likelihoods]
            return None if any(math.isnan(value) for value in values) else values
    return None
