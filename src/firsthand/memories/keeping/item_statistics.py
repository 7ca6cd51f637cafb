"""Statistics of a memory's file, which have no checksums: sizes are counted anew from the items, words' counts checked.

A size that is too large would have items deleted that are within the bounds; one of another type, or a word with a count
below 1, would break every search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from firsthand.runs.database import Database

_WRONG = """
    SELECT coalesce(counted, 0), coalesce(length, 0), coalesce(size, 0), number FROM scopes LEFT JOIN (
        SELECT scope, count(*) AS counted, CAST(total(length) AS INTEGER) AS length,
            CAST(total(length(body)) AS INTEGER) AS size
        FROM items GROUP BY scope) ON scope = number
    WHERE items IS NOT coalesce(counted, 0) OR words IS NOT coalesce(length, 0) OR bytes IS NOT coalesce(size, 0)
"""


def count_anew(database: Database) -> None:
    """Put right the sizes of scopes that are not those of their items: one look at all items, about 1 us each."""
    if database.read(_WRONG):
        with database.write() as connection:
            wrong = connection.execute(_WRONG).fetchall()  # as it is now, that nobody else writes
            connection.executemany("UPDATE scopes SET items = ?, words = ?, bytes = ? WHERE number = ?", wrong)


def expect_words(database: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    """StoreError if rows of (word, number, items) hold anything but counts of 1 and more."""
    if not all(type(items) is int and items > 0 for _, _, items in rows):
        raise _other_counts(database)


def expect_postings(database: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    """StoreError if rows of (item, count, length) hold anything but counts of 1 up to the length."""
    if not all(type(count) is type(length) is int and 0 < count <= length for _, count, length in rows):
        raise _other_counts(database)


def _other_counts(database: Database) -> Exception:
    return database.damaged("the counts of its words are no such counts")
