"""The ages of a memory's items in its file: a time after the newest one's, and the items that go first."""

from __future__ import annotations

import math
from contextlib import suppress
from sqlite3 import Connection

from firsthand.errors import ConfigError
from firsthand.memories.keeping.kept_item import item_of, time_of


def after_newest(connection: Connection, scope: int, key: str | None, now_s: float) -> float:
    """A valid time after that of every item of a key which was stored without one: now, unless a clock was set back."""
    later = connection.execute(
        "SELECT valid_s, body FROM items WHERE scope = ? AND key IS ? AND valid_s >= ? ORDER BY valid_s DESC",
        (scope, key, now_s),
    )
    for newest_s, body in later:
        with suppress(ValueError, ConfigError):
            if time_of(item_of("", body)) is None:
                return max(float(newest_s) + 1e-6, math.nextafter(newest_s, math.inf))
    return now_s


def first_to_go(connection: Connection, scope: int, many: int) -> list[tuple[int, int]]:
    """Numbers and bytes of at most so many items: replaced ones, or else the oldest of all."""
    return (
        connection.execute(
            "SELECT number, length(body) FROM items AS old WHERE scope = ? AND key IS NOT NULL AND EXISTS (SELECT 1 FROM "
            "items WHERE scope = old.scope AND key = old.key AND valid_s > old.valid_s) ORDER BY valid_s, id LIMIT ?",
            (scope, many),
        ).fetchall()
        or connection.execute(
            "SELECT number, length(body) FROM items WHERE scope = ? ORDER BY valid_s, id LIMIT ?", (scope, many)
        ).fetchall()
    )
