"""A database of JSON records that an attempt changes without copying it: records are copied when they are first written.

The final state is what differs from the beginning, so that two attempts are compared by their changes alone, as tau-bench
compares hashes of the whole database.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from firsthand.message import Json

Tables = Mapping[str, Mapping[str, Json]]
"""Name of a table -> key -> record."""


class RecordLedger:
    """The records of some tables, and the changes of one attempt."""

    def __init__(self, tables: Tables) -> None:
        """Begin with the tables, which are shared and never changed."""
        self._tables = tables
        self._changed: dict[str, dict[str, Json]] = {name: {} for name in tables}

    def find(self, table: str, key: str) -> Json | None:
        """A record to read; None if there is none. It must not be changed."""
        return self._changed[table].get(key, self._tables[table].get(key))

    def edit(self, table: str, key: str) -> Json:
        """A record to change; KeyError if there is none."""
        changed = self._changed[table]
        if key not in changed:
            changed[key] = copy.deepcopy(self._tables[table][key])
        return changed[key]

    def add(self, table: str, key: str, record: Json) -> None:
        """A new record."""
        self._changed[table][key] = record

    def rows(self, table: str) -> Iterator[tuple[str, Json]]:
        """All records of a table, to read, in the order of the file; new ones last."""
        changed = self._changed[table]
        for key, record in self._tables[table].items():
            yield key, changed.get(key, record)
        for key, record in changed.items():
            if key not in self._tables[table]:
                yield key, record

    def changes(self) -> Json:
        """Table -> key -> record, of all records that differ from the beginning."""
        found = {
            table: {key: record for key, record in sorted(records.items()) if record != self._tables[table].get(key)}
            for table, records in self._changed.items()
        }
        return {table: records for table, records in found.items() if records}
