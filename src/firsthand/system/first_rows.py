"""Has files of rows end early, to see where the data of a benchmark are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

most_rows: ContextVar[int | None] = ContextVar("most_rows", default=None)
"""Number of rows after which a file ends; None without a bound."""


@contextmanager
def first_rows(count: int) -> Iterator[None]:
    """Have each file of rows end after `count` rows within the block, in this thread or task."""
    token = most_rows.set(count)
    try:
        yield
    finally:
        most_rows.reset(token)
