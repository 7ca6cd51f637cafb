"""Keeps the resource of spans, the attributes of the program that sent them, once for all of its spans, and removes it with
the last of them: a resource that no span and no segment names takes room that removing traces could never free.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

NAMED = (
    """
    CREATE INDEX spans_by_resource ON spans (resource);
    CREATE TABLE sealed_resources (resource INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY (resource, file))
        WITHOUT ROWID;
    INSERT INTO sealed_resources SELECT id, file FROM resources, (SELECT file FROM segments
        ORDER BY last_s DESC, file DESC LIMIT 1);
    DELETE FROM resources WHERE NOT EXISTS (SELECT 1 FROM segments) AND NOT EXISTS
        (SELECT 1 FROM spans WHERE spans.resource = resources.id)
    """,
)
"""The migration to a store that knows what names a resource. What the segments of an older one name is not known: the newest
of them, which is removed last, names all resources.
"""
_REMOVE = (
    "DELETE FROM resources WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM spans WHERE resource = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM sealed_resources WHERE resource = ?1)"
)


class KeptResources:
    """The resources of a store, within one transaction: in another, they may be gone."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._known: dict[bytes, int] = {}

    def id_of(self, digest: bytes, body: bytes) -> int:
        """The id of a resource, which is kept if it is new."""
        known = self._known.get(digest)
        if known is None:
            self._connection.execute("INSERT OR IGNORE INTO resources (digest, body) VALUES (?, ?)", (digest, body))
            found = self._connection.execute("SELECT id FROM resources WHERE digest = ?", (digest,))
            known = self._known[digest] = int(found.fetchone()[0])
        return known

    def remove_unnamed(self, ids: Iterable[int]) -> None:
        """Remove those of the resources that no span and no segment names any longer."""
        if self._connection.executemany(_REMOVE, [(id,) for id in set(ids)]).rowcount:
            self._known.clear()

    def seal(self, file: str, ids: Iterable[int]) -> None:
        """Note which resources a segment names."""
        rows = [(id, file) for id in set(ids)]
        self._connection.executemany("INSERT OR IGNORE INTO sealed_resources VALUES (?, ?)", rows)

    def drop(self, file: str) -> None:
        """Remove the resources that this segment alone named."""
        found = self._connection.execute("SELECT resource FROM sealed_resources WHERE file = ?", (file,)).fetchall()
        self._connection.execute("DELETE FROM sealed_resources WHERE file = ?", (file,))
        self.remove_unnamed(id for (id,) in found)
