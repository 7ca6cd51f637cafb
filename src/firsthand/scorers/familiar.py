"""Scorers under the names that users of other harnesses know: includes, contains, regex, choice and f1.

The reference is `task.secret["answer"]`, or each of `["answers"]`. Answers are read whole.
"""

from __future__ import annotations

import re

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.parts.answers import extract_answer, parse_number
from firsthand.patterns.parts.stated_choice import stated_choice
from firsthand.scorers.bounded_search import search
from firsthand.scorers.choice import chosen_letter
from firsthand.scorers.reference_answers import reference_answers, right_choice
from firsthand.scorers.text import token_f1
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace

SHORT_CHARS = 2_000
"""An expression that does not finish on an answer of so many characters is at fault; on a longer one the answer is wrong."""


def includes(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer includes the reference, ignoring case: Inspect's `includes`, promptfoo's `icontains`."""
    answer = whole_answer(trace).casefold()
    return Score("includes", float(any(each.casefold() in answer for each in reference_answers(task))))


def contains(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer contains the reference exactly, case included: promptfoo's `contains`."""
    answer = whole_answer(trace)
    return Score("contains", float(any(each in answer for each in reference_answers(task))))


def regex(*, pattern: str = "") -> Scorer:
    """Score 1 if the reference, as a regular expression, matches in the answer; or `pattern`'s first group is the reference.

    `regex:pattern=Answer\\: (\\w+)` compares what the group finds, the last time that the pattern matches, with the
    reference, ignoring case (Inspect's `pattern`); without `pattern` the reference itself is the expression.
    """
    if pattern:
        _compiled(pattern, "the pattern")

    def score(task: Task, trace: Trace) -> Score:
        answer = whole_answer(trace)
        if not pattern:
            for each in reference_answers(task):
                _compiled(each, f"the reference of task {task.id}")
        try:
            if not pattern:
                return Score(
                    "regex", float(any(search(each, answer, most=1).times for each in reference_answers(task)))
                )
            found = search(pattern, answer).last
        except DataError as error:
            if len(answer) <= SHORT_CHARS:
                raise
            return Score("regex", 0.0, {"found": None, "why": str(error)})
        wanted = {each.strip().casefold() for each in reference_answers(task)}
        return Score("regex", float(found is not None and found.strip().casefold() in wanted), {"found": found})

    score.__name__ = "regex"
    return score


def choice(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer names the right choice, by its letter or its text, alone or as in `The answer is B`."""
    answer = whole_answer(trace)
    chosen = chosen_letter(answer, task)
    if chosen is None and (letter := _stated(answer, task)) in task.letters:
        chosen = task.letters.index(letter)
    named = None if chosen is None else task.letters[chosen]
    return Score("choice", float(chosen == right_choice(task)), {"chosen": named})


def _stated(answer: str, task: Task) -> str | None:
    """Return the choice that an answer states, as `extract_answer` reads it, but from the whole text."""
    if task.last_line or task.verbatim or not task.choices:
        return extract_answer(answer, task)
    return stated_choice(answer, task, parse_number)


def f1(task: Task, trace: Trace) -> Score:
    """Score the word overlap of answer and reference, 0 to 1: `token_f1`, SQuAD's F1."""
    found = token_f1(task, trace)
    return Score("f1", found.value, found.detail)


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{what} is no regular expression ({error}): {pattern[:80]!r}") from None
