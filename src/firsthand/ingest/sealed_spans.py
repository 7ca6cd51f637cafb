"""Remembers which spans of a trace were sealed, so that one that is sent again is known without opening a segment.

A span is remembered until its trace is removed, also when it has left its segment. Those of segments that an older version
wrote are not known.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable

REMEMBERED = (
    """
    CREATE TABLE sealed_spans (trace TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (trace, digest)) WITHOUT ROWID
    """,
)
"""The migration to a store that remembers what was sealed."""


class SealedSpans:
    """The sealed spans of a store, within one transaction."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._is_empty = connection.execute("SELECT 1 FROM sealed_spans LIMIT 1").fetchone() is None
        self._known: dict[str, bool] = {}

    def has_of(self, trace: str) -> bool:
        """True if spans of this trace were sealed."""
        if self._is_empty:
            return False
        known = self._known.get(trace)
        if known is None:
            found = self._connection.execute("SELECT 1 FROM sealed_spans WHERE trace = ? LIMIT 1", (trace,))
            known = self._known[trace] = found.fetchone() is not None
        return known

    def has(self, trace: str, span: str, digest: bytes) -> bool:
        """True if a span of this id and content was sealed."""
        sql = "SELECT 1 FROM sealed_spans WHERE trace = ? AND digest = ?"
        return self._connection.execute(sql, (trace, _key(span, digest))).fetchone() is not None

    def remember(self, spans: Iterable[tuple[str, str, bytes]]) -> None:
        """Remember spans by trace, id and digest."""
        rows = [(trace, _key(span, digest)) for trace, span, digest in spans]
        self._connection.executemany("INSERT OR IGNORE INTO sealed_spans VALUES (?, ?)", rows)


def _key(span: str, digest: bytes) -> bytes:
    """The id and the content of a span in 12 bytes."""
    return hashlib.blake2b(digest + span.encode("utf-8", "surrogatepass"), digest_size=12).digest()
