"""Checks of answers that the Studio offers for a data set: scorers that compare with a task's reference answer.

A check fits a task if it accepts the task's own reference as an answer. One that does not would score every right answer 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from firsthand.errors import ConfigError, DataError
from firsthand.scorers import familiar, match
from firsthand.scorers.reference_answers import accepted_answers, right_choice
from firsthand.task import Task
from firsthand.trace import Score, Trace

Check = Literal["numeric", "exact", "normalised", "flexible", "choice", "none"]
_SCORERS: dict[Check, Callable[[Task, Trace], Score]] = {
    "numeric": match.numeric,
    "exact": match.exact,
    "normalised": match.normalised,
    "flexible": match.flexible,
    "choice": familiar.choice,
}


def check_of(text: str) -> Check:
    """Return the check that a form names; ConfigError if it is none."""
    if text not in get_args(Check):
        raise ConfigError(f"the check is {text[:40]!r}: it is one of {', '.join(get_args(Check))}")
    return text  # type: ignore[return-value]


def check_scorers(check: Check) -> tuple[Callable[[Task, Trace], Score], ...]:
    """Return the scorer of a check, alone; nothing for `none`."""
    return () if check == "none" else (_SCORERS[check],)


def fitting_checks(tasks: Sequence[Task]) -> list[Check]:
    """Return the checks that fit every task, `none` among them."""
    return [each for each in get_args(Check) if misfit(each, tasks) is None]


class OfferedChecks:
    """The checks that fit each data set, found again only when its tasks change: of 2,000 tasks it takes seconds."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, list[Check]]] = {}

    def of(self, name: str, tasks: Sequence[Task]) -> list[Check]:
        """Return the checks that fit every task of the data set of that name."""
        # by content: a data set that was removed and made again has the versions of the former one
        digest = hashlib.sha256(json.dumps([each.to_json() for each in tasks], default=str).encode()).digest()
        known = self._known.get(name)
        if known is None or known[0] != digest:
            known = self._known[name] = (digest, fitting_checks(tasks))
        return known[1]


def misfit(check: Check, tasks: Sequence[Task]) -> Task | None:
    """Return the first task that a check cannot judge; None if it fits all."""
    return next((each for scorer in check_scorers(check) for each in tasks if not _is_judged(scorer, each)), None)


def _is_judged(scorer: Callable[[Task, Trace], Score], task: Task) -> bool:
    try:
        answers = [task.letters[right_choice(task)]] if scorer is familiar.choice else accepted_answers(task)
    except DataError:
        return False
    if scorer in (match.exact, match.normalised):
        return True  # any text is itself, and to see it so would take seconds for a data set of long ones
    given = (Trace("", "", task.id, {"name": ""}, 0, 0, "", 0.0, answer=each) for each in answers)
    try:
        return any(scorer(task, each).value == 1 for each in given)
    except DataError:  # as of a reference that is no number
        return False
