"""A part of the rows that a filter finds, for a list that is shown page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class FoundPage(Generic[R]):
    """A part of what a filter finds."""

    rows: tuple[R, ...]
    total: int
    """The number that the filter finds."""
    start: int
    """The place of the first row among them."""

    @property
    def next_start(self) -> int | None:
        """The start of the next page; None after the last."""
        after = self.start + len(self.rows)
        return after if self.rows and after < self.total else None
