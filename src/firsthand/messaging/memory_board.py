"""A blackboard in this process, for the agents of one attempt. It is gone with the attempt, whose trace has its writes."""

from __future__ import annotations

import time
from collections.abc import Callable

from firsthand.declaration import Readers
from firsthand.messaging.blackboard import BoardEntry, check_entry, conflict
from firsthand.messaging.message_bus import check_bounds


class MemoryBoard:
    """A Blackboard in memory. `clock` gives the time of a write, in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._written: list[BoardEntry] = []
        self._named: dict[str, BoardEntry] = {}

    def write(
        self,
        key: str,
        value: str,
        *,
        writer: str,
        expected: int | None = None,
        once: str | None = None,
        readers: Readers = "public",
    ) -> BoardEntry:
        """Keep a new version of a key; see `Blackboard.write`."""
        check_entry(key, value)
        if once is not None and once in self._named:
            return self._named[once]
        there = self.read(key)
        version = 0 if there is None else there.version
        if expected is not None and expected != version:
            raise conflict(key, expected, there)
        entry = BoardEntry(key, value, version + 1, writer, self._clock(), len(self._written) + 1, readers)
        self._written.append(entry)
        if once is not None:
            self._named[once] = entry
        return entry

    def read(self, key: str) -> BoardEntry | None:
        """The key as it is; None if it was never written."""
        return next((entry for entry in reversed(self._written) if entry.key == key), None)

    def entries(self, prefix: str = "") -> list[BoardEntry]:
        """The latest entry of each key that begins so, by key."""
        latest = {entry.key: entry for entry in self._written if entry.key.startswith(prefix)}
        return [latest[key] for key in sorted(latest)]

    def history(self, key: str) -> list[BoardEntry]:
        """All versions of a key, the first one first."""
        return [entry for entry in self._written if entry.key == key]

    def changes(self, after: int = 0, limit: int = 1000) -> list[BoardEntry]:
        """The writes after that place in the sequence, in order."""
        check_bounds(limit=limit)
        return self._written[max(after, 0) :][:limit]
