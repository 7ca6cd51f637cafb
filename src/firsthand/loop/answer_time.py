"""Bounds the time that the tool calls of one answer take together, so that no answer holds an attempt for hours.

Only the time in which tools run counts, each call by itself; waiting for a person does not. A call that has begun ends by
its own timeout.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from firsthand.errors import ToolError

RUN_S = 600.0
"""Seconds that the calls of one answer run together; tools of a longer timeout have four times that."""

LATE = "not run, for the calls of this message ran"
"""The begin of what such a call is answered, which stays its answer when an attempt is resumed."""


@dataclass
class AnswerTime:
    """The seconds that the calls of one answer have run."""

    spent_s: float = 0.0


_here: ContextVar[AnswerTime | None] = ContextVar("firsthand_answer_time", default=None)


@contextmanager
def one_answer() -> Iterator[AnswerTime]:
    """Marks the calls of the block as those of one answer."""
    spent = AnswerTime()
    mark = _here.set(spent)
    try:
        yield spent
    finally:
        _here.reset(mark)


def check_time(timeout_s: float) -> None:
    """Raises ToolError if the calls of this answer have run long enough."""
    spent, most_s = _here.get(), max(RUN_S, 4 * timeout_s)
    if spent is not None and spent.spent_s >= most_s:
        raise ToolError(
            f"{LATE} {spent.spent_s:.0f} s, and {most_s:.0f} s were expected at most: "
            "make fewer and shorter calls at a time"
        )


@contextmanager
def timed() -> Iterator[None]:
    """Counts the block as the run of a call; what it calls in turn is not counted twice."""
    spent = _here.get()
    begun_s = time.monotonic()
    mark = _here.set(None)
    try:
        yield
    finally:
        _here.reset(mark)
        if spent is not None:
            spent.spent_s += time.monotonic() - begun_s
