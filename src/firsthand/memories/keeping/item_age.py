"""The order of a memory's items by newness, and the items of its file that go first.

Of an item that was stored without a time both times are the clock's, and clocks are set back, or differ between machines.
The order of writing is sure: what was stored before another such item of its key counts as no newer than that one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from sqlite3 import Connection

from firsthand.memories.keeping.kept_item import KeptItem


def oldest_first(items: Iterable[KeptItem]) -> list[KeptItem]:
    """Items of one key by newness: the last one holds.

    By valid time, then confidence, then order of writing; those that were stored without a time are in the order of writing
    whatever their clocks said, and newer than others of the same time.
    """
    items = list(items)
    order: dict[int, tuple[float, float]] = {}
    before_s = math.inf
    for kept in sorted(items, key=lambda kept: -kept.number):
        if kept.is_timed:
            order[kept.number] = kept.valid_s, kept.confidence
        else:
            before_s = min(before_s, kept.valid_s)
            order[kept.number] = before_s, math.inf
    return sorted(items, key=lambda kept: (*order[kept.number], kept.number))


_REPLACED = """
    WITH aged AS (
        SELECT number, id, key, valid_s, length(body) AS size, CASE WHEN valid_s = stored_s THEN number ELSE 0 END AS place,
            CASE WHEN valid_s = stored_s THEN min(CASE WHEN valid_s = stored_s THEN valid_s END)
                OVER (PARTITION BY key ORDER BY number DESC) ELSE valid_s END AS since_s
        FROM items WHERE scope = ? AND key IS NOT NULL),
    ranked AS (SELECT *, rank() OVER (PARTITION BY key ORDER BY since_s DESC, place DESC) AS newness FROM aged)
    SELECT number, size FROM ranked WHERE newness > 1 ORDER BY valid_s, id LIMIT ?
"""
"""The order of `oldest_first`, but that none of several items which a writer gave one time is replaced by another."""


def first_to_go(connection: Connection, scope: int, many: int) -> list[tuple[int, int]]:
    """Numbers and bytes of at most so many items: replaced ones, or else the oldest of all."""
    return (
        connection.execute(_REPLACED, (scope, many)).fetchall()
        or connection.execute(
            "SELECT number, length(body) FROM items WHERE scope = ? ORDER BY valid_s, id LIMIT ?", (scope, many)
        ).fetchall()
    )
