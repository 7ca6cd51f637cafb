"""The words of items in a memory's file, and their renewal where an older version kept a text without blanks as one word."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from sqlite3 import Connection

from firsthand.errors import ConfigError
from firsthand.memories.keeping.kept_item import item_of, words_of
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.unspaced_words import has_unspaced
from firsthand.runs.database import checksum, plain


def word_number(connection: Connection, scope: int, word: str) -> int:
    """The number of a word, which one more item has."""
    found = connection.execute(
        "INSERT INTO words (scope, word, items) VALUES (?, ?, 1) "
        "ON CONFLICT (scope, word) DO UPDATE SET items = items + 1 RETURNING number",
        (scope, word),
    ).fetchone()
    return int(found[0])


def remove_words(connection: Connection, scope: int, number: int, words: Iterable[str]) -> None:
    """Delete the postings of an item, and the words that no other item has."""
    for word in words:
        found = connection.execute(
            "SELECT number FROM words WHERE scope = ? AND word = ?", (scope, plain(word))
        ).fetchone()
        if found is not None:
            connection.execute("DELETE FROM postings WHERE word = ? AND item = ?", (found[0], number))
            connection.execute("UPDATE words SET items = items - 1 WHERE number = ?", found)
            connection.execute("DELETE FROM words WHERE number = ? AND items <= 0", found)


def renew_words(connection: Connection, scope: int) -> None:
    """Count the words of the scope's items in scripts without blanks anew, once: as they are searched for now.

    An item that is damaged stays as it is.
    """
    # A file that cannot be written says so here: it may be an older one, without the table.
    connection.execute("UPDATE scopes SET items = items WHERE number = ?", (scope,))
    if connection.execute("SELECT 1 FROM renewed WHERE scope = ?", (scope,)).fetchone() is not None:
        return
    bodies = connection.execute("SELECT number, body FROM items WHERE scope = ?", (scope,))
    for number in [number for number, body in bodies if isinstance(body, bytes) and not body.isascii()]:
        _renew(connection, scope, number)
    connection.execute("INSERT INTO renewed VALUES (?)", (scope,))


def _renew(connection: Connection, scope: int, number: int) -> None:
    *stored, length, digest = connection.execute(
        "SELECT id, body, key, valid_s, stored_s, length, digest FROM items WHERE number = ?", (number,)
    ).fetchone()
    try:
        text = item_of("", stored[1]).text
    except (ValueError, ConfigError):
        return
    if digest != checksum(scope, *stored, length) or not has_unspaced(text):
        return
    before, counts = _former().counts([text])[0], words_of(text)
    remove_words(connection, scope, number, before)
    now = sum(counts.values())
    connection.executemany(
        "INSERT INTO postings VALUES (?, ?, ?, ?)",
        [(word_number(connection, scope, plain(word)), number, n, now) for word, n in sorted(counts.items())],
    )
    connection.execute(
        "UPDATE items SET length = ?, digest = ? WHERE number = ?", (now, checksum(scope, *stored, now), number)
    )
    connection.execute("UPDATE scopes SET words = words + ? WHERE number = ?", (now - length, scope))


@lru_cache(maxsize=1)
def _former() -> Analyzer:
    return Analyzer(apart=False)
