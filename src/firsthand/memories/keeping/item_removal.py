"""Deletes items of a memory file with all that belongs to them: one by its number, or those beyond the bounds of a scope."""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection

from firsthand.errors import ConfigError
from firsthand.memories.keeping.item_age import first_to_go
from firsthand.memories.keeping.item_words import remove_words, renew_items
from firsthand.memories.keeping.kept_item import item_of, words_of


def keep_within(connection: Connection, scope: int, most_items: int, most_bytes: int) -> set[int]:
    """Delete what is beyond the bounds, and a hundredth more, so that a full memory looks for victims rarely.

    `most_bytes` is of the bodies of items, as JSON. Returns the numbers of the deleted items.
    """
    deleted: set[int] = set()
    items, size = connection.execute("SELECT items, bytes FROM scopes WHERE number = ?", (scope,)).fetchone()
    if items <= most_items and size <= most_bytes:
        return deleted
    most = most_items - most_items // 100, most_bytes - most_bytes // 100
    many = max(1, items - most[0], items // 100)  # at once: each look reads all items
    while (items > most[0] or size > most[1]) and (found := first_to_go(connection, scope, many)):
        for number, bytes_ in found:
            if items > most[0] or size > most[1]:
                delete_item(connection, scope, number)
                deleted.add(number)
                items, size = items - 1, size - bytes_
    return deleted


def delete_item(connection: Connection, scope: int, number: int) -> None:
    """Delete an item with its postings, and the words that no other item has."""
    renew_items(connection, scope, [number])
    row = connection.execute("SELECT body, length, length(body) FROM items WHERE number = ?", (number,)).fetchone()
    counts: Mapping[str, int] = {}
    try:
        counts = words_of(item_of("", row[0]).text)
    except (ValueError, ConfigError):  # it can be deleted all the same
        connection.execute("DELETE FROM postings WHERE item = ?", (number,))
    remove_words(connection, scope, number, counts)
    connection.execute("DELETE FROM vectors WHERE item = ?", (number,))
    connection.execute("DELETE FROM imported WHERE item = ?", (number,))
    connection.execute("DELETE FROM items WHERE number = ?", (number,))
    connection.execute(
        "UPDATE scopes SET items = items - 1, words = words - ?, bytes = bytes - ? WHERE number = ?",
        (*row[1:], scope),
    )
