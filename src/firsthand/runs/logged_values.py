"""The numbers of one run of another tracker while it is imported: so many at most, each with a name of bounded length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from firsthand.errors import DataError
from firsthand.runs.event_files import LoggedValue
from firsthand.runs.track import MAX_NAME

MAX_VALUES = 5_000_000
"""Values of one run, of which each takes some 200 bytes while it is imported."""


class LoggedValues(list[LoggedValue]):
    """A list that refuses a value too many when it comes, and not once all are in memory."""

    def __init__(self, run: str = "the run", values: Iterable[LoggedValue] = ()):
        super().__init__()
        self.run = run
        self.extend(values)

    def append(self, value: LoggedValue) -> None:
        """Add a value; DataError if there are more than `MAX_VALUES`."""
        if len(self) >= MAX_VALUES:
            raise DataError(f"{self.run[:60]!r} has more than {MAX_VALUES:,} values: thin its log out, then import it")
        super().append(value if len(value.name) <= MAX_NAME else replace(value, name=value.name[:MAX_NAME]))

    def extend(self, values: Iterable[LoggedValue]) -> None:
        """Add values one at a time; DataError as from `append`."""
        for value in values:
            self.append(value)
