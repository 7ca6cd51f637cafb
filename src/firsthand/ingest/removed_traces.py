"""Removes whole traces from a store, with all that belongs to them. Their rows in segments stay there, where nothing reads
them, until the segment goes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from firsthand.ingest.kept_resources import KeptResources


def remove_traces(connection: sqlite3.Connection, traces: Iterable[str]) -> None:
    """Remove traces with their spans, scores, and programs that nothing else names."""
    rows = [(trace,) for trace in traces]
    named: set[int] = set()
    for row in rows:
        named.update(id for (id,) in connection.execute("SELECT resource FROM spans WHERE trace = ?", row))
    for table in ("spans", "sealed", "sealed_spans", "scores", "traces"):
        connection.executemany(f"DELETE FROM {table} WHERE trace = ?", rows)
    KeptResources(connection).remove_unnamed(named)
