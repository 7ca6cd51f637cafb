"""Statistics of a memory's file, which have no checksums: sizes are counted anew from the items, words' counts checked.

A size that is too large would have items deleted that are within the bounds; one of another type, or a word with a count
below 1, would break every search.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from firsthand.runs.database import Database

_WRONG = """
    SELECT counted, length, size, number FROM scopes, (
        SELECT count(*) AS counted, CAST(total(length) AS INTEGER) AS length,
            CAST(total(length(body)) AS INTEGER) AS size FROM items WHERE scope = :scope)
    WHERE number = :scope AND (items IS NOT counted OR words IS NOT length OR bytes IS NOT size)
"""


def count_anew(database: Database, scope: int) -> None:
    """Put right the size of a scope if it is not that of its items: one look at each of them, 1 to 3 us."""
    if database.read(_WRONG, {"scope": scope}):
        with database.write() as connection:
            put_right(connection, scope)


def put_right(connection: Connection, scope: int) -> None:
    """The same in a transaction, in which nobody else writes."""
    wrong = connection.execute(_WRONG, {"scope": scope}).fetchall()
    connection.executemany("UPDATE scopes SET items = ?, words = ?, bytes = ? WHERE number = ?", wrong)


def expect_sizes(database: Database, sizes: Sequence[Any]) -> None:
    """StoreError if sizes of a scope that could not be put right are no whole numbers."""
    if not all(type(each) is int for each in sizes):
        raise database.damaged("the size of what an owner has is no size")


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
