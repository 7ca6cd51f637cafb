"""The words of items in a memory's file, and their renewal where an older version counted others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from sqlite3 import Connection
from typing import Any

from firsthand.errors import ConfigError
from firsthand.memories.keeping.kept_item import counts_of, item_of
from firsthand.retrieval.store.analyzer import OLDER_FORMS, has_older_forms
from firsthand.runs.database import checksum, plain

_AT_ONCE = 100
"""Items that are renewed in one transaction, some 0.1 s."""


def put_words(connection: Connection, scope: int, counts: Mapping[int, Mapping[str, int]]) -> None:
    """Store the postings of items, by number, and that so many more items have their words."""
    added = Counter(plain(word) for each in counts.values() for word in each)
    connection.executemany(
        "INSERT INTO words (scope, word, items) VALUES (?, ?, ?) "
        "ON CONFLICT (scope, word) DO UPDATE SET items = items + excluded.items",
        ((scope, word, items) for word, items in sorted(added.items())),
    )
    numbers = dict(
        connection.execute(
            "SELECT word, number FROM json_each(?) CROSS JOIN words ON scope = ? AND word = value",
            (json.dumps([*added]), scope),
        ).fetchall()
    )
    connection.executemany(
        "INSERT INTO postings VALUES (?, ?, ?, ?)",
        (
            (numbers[plain(word)], item, count, sum(each.values()))
            for item, each in counts.items()
            for word, count in sorted(each.items())
        ),
    )


def remove_words(connection: Connection, scope: int, number: int, words: Iterable[str]) -> None:
    """Delete the postings of an item of those of the words that it has, and the words that no other item has."""
    for word in words:
        found = connection.execute(
            "SELECT number FROM words WHERE scope = ? AND word = ?", (scope, plain(word))
        ).fetchone()
        if found is not None:
            deleted = connection.execute("DELETE FROM postings WHERE word = ? AND item = ?", (found[0], number))
            connection.execute("UPDATE words SET items = items - ? WHERE number = ?", (deleted.rowcount, *found))
            connection.execute("DELETE FROM words WHERE number = ? AND items <= 0", found)


def begin_renewal(connection: Connection, scope: int) -> None:
    """Note, once, which items of a scope are there and may be an older version's; later ones have their words as they are
    searched for now."""
    # A file that cannot be written says so here: it may be an older one, without the table.
    connection.execute("UPDATE scopes SET items = items WHERE number = ?", (scope,))
    connection.execute("INSERT OR IGNORE INTO renewed SELECT ?, coalesce(max(number), 0) FROM items", (scope,))


def renew_words(connection: Connection, scope: int) -> bool:
    """Count the words of the last items of a scope that may be an older version's anew; True if there are more of them.

    An item that is damaged stays as it is.
    """
    begin_renewal(connection, scope)
    bodies = connection.execute(  # NOT INDEXED: by their numbers, not all of the scope sorted in each step
        "SELECT number, body FROM items NOT INDEXED WHERE scope = ? AND number <= ? ORDER BY number DESC",
        (scope, _left(connection, scope)),
    )
    others = (number for number, body in bodies if isinstance(body, bytes) and not body.isascii())
    numbers = [*islice(others, _AT_ONCE)]
    renew_items(connection, scope, numbers)
    left = numbers[-1] - 1 if len(numbers) == _AT_ONCE else 0
    connection.execute("UPDATE renewed SET item = ? WHERE scope = ?", (left, scope))
    return bool(left)


def renew_items(connection: Connection, scope: int, numbers: Iterable[int]) -> None:
    """Count the words of those of the items that a renewal, which has begun, has not reached."""
    left = _left(connection, scope)
    texts: dict[int, str] = {}
    stored: dict[int, tuple[Any, ...]] = {}
    for number in numbers:
        *row, digest = connection.execute(
            "SELECT id, body, key, valid_s, stored_s, length, digest FROM items WHERE number = ?", (number,)
        ).fetchone()
        if number > left or digest != checksum(scope, *row):
            continue
        with suppress(ValueError, ConfigError):
            text = item_of("", row[1]).text
            if has_older_forms(text):
                texts[number], stored[number] = text, tuple(row)
    older = (counts_of([*texts.values()], form=form) for form in OLDER_FORMS)
    for number, forms in zip(texts, zip(*older, strict=True), strict=True):
        remove_words(connection, scope, number, {word for counts in forms for word in counts})
    counts = dict(zip(texts, counts_of([*texts.values()]), strict=True))
    put_words(connection, scope, counts)
    for number, (*row, length) in stored.items():
        now = sum(counts[number].values())
        connection.execute(
            "UPDATE items SET length = ?, digest = ? WHERE number = ?", (now, checksum(scope, *row, now), number)
        )
        connection.execute("UPDATE scopes SET words = words + ? WHERE number = ?", (now - length, scope))


def _left(connection: Connection, scope: int) -> int:
    """The last item that a renewal has not reached; 0 if there is none."""
    return int(connection.execute("SELECT item FROM renewed WHERE scope = ?", (scope,)).fetchone()[0])
