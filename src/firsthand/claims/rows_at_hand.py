"""Counts the items of a benchmark in the user's own copy, where one is in `$FIRSTHAND_DATA`; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class RowsOf(Protocol):
    """Return type of the readers of benchmarks."""

    @property
    def rows(self) -> Sequence[Any]:
        """The items."""


def rows_at_hand(read: Callable[[], RowsOf], *paths: str) -> int | None:
    """The number of items that `read` finds; None where none of the files is in `$FIRSTHAND_DATA`."""
    from firsthand.benchmarks.sources.datasets import located

    return len(read().rows) if located(paths[0], "", *paths[1:]) is not None else None
