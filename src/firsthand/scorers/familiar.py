"""Scorers under the names that users of other harnesses know: includes, contains, regex, choice and f1.

The reference is `task.secret["answer"]`, or each of `["answers"]`. Only so many characters of an answer are looked at.
"""

from __future__ import annotations

import re

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError
from firsthand.patterns.parts.answers import extract_answer
from firsthand.scorers.bounded_search import search
from firsthand.scorers.choice import chosen_letter
from firsthand.scorers.text import token_f1
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 20_000
"""Only this many last characters of an answer are searched."""
MAX_PATTERN_CHARS = 2_000
"""Only this many last characters are searched with a regular expression, whose time may grow faster than the text."""


def includes(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer includes the reference, ignoring case: Inspect's `includes`, promptfoo's `icontains`."""
    answer = (trace.answer or "")[-MAX_CHARS:].casefold()
    return Score("includes", float(any(each.casefold() in answer for each in _references(task))))


def contains(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer contains the reference exactly, case included: promptfoo's `contains`."""
    answer = (trace.answer or "")[-MAX_CHARS:]
    return Score("contains", float(any(each in answer for each in _references(task))))


def regex(*, pattern: str = "") -> Scorer:
    """Score 1 if the reference, as a regular expression, matches in the answer; or `pattern`'s first group is the reference.

    `regex:pattern=Answer\\: (\\w+)` compares what the group finds, the last time that the pattern matches, with the
    reference, ignoring case (Inspect's `pattern`); without `pattern` the reference itself is the expression.
    """
    if pattern:
        _compiled(pattern, "the pattern")

    def score(task: Task, trace: Trace) -> Score:
        answer = (trace.answer or "")[-MAX_PATTERN_CHARS:]
        if not pattern:
            for each in _references(task):
                _compiled(each, f"the reference of task {task.id}")
            return Score("regex", float(any(search(each, answer, most=1).times for each in _references(task))))
        found = search(pattern, answer).last
        wanted = {each.strip().casefold() for each in _references(task)}
        return Score("regex", float(found is not None and found.strip().casefold() in wanted), {"found": found})

    score.__name__ = "regex"
    return score


def choice(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer names the right choice, by its letter or its text, alone or as in `The answer is B`."""
    answer = (trace.answer or "")[-MAX_CHARS:]
    chosen = chosen_letter(answer, task)
    if chosen is None and (letter := extract_answer(answer, task)) in task.letters:
        chosen = task.letters.index(letter)
    named = None if chosen is None else task.letters[chosen]
    return Score("choice", float(chosen is not None and chosen == task.secret.get("gold")), {"chosen": named})


def f1(task: Task, trace: Trace) -> Score:
    """Score the word overlap of answer and reference, 0 to 1: `token_f1`, SQuAD's F1."""
    found = token_f1(task, trace)
    return Score("f1", found.value, found.detail)


def _references(task: Task) -> list[str]:
    """Return the texts of which one is enough. An empty one would be in every answer."""
    given = task.secret.get("answers", [task.secret.get("answer", "")])
    return [str(each) for each in given if str(each)]


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{what} is no regular expression ({error}): {pattern[:80]!r}") from None
