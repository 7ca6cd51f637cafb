"""Removes from an index's file the words that only deleted documents had: `words` keeps them, and FTS5 until it merges."""

from __future__ import annotations

import sqlite3

import numpy as np


def remove_unused_words(connection: sqlite3.Connection) -> None:
    """Delete them and have FTS5 written anew, in time that grows with the index. ValueError for rows that are not ours."""
    used: set[int] = set()
    for (words,) in connection.execute("SELECT words FROM chunks"):
        used.update(np.frombuffer(words, dtype="<u4")[::2].tolist())
    unused = [row for row in connection.execute("SELECT number FROM words") if row[0] not in used]
    connection.executemany("DELETE FROM words WHERE number = ?", unused)
    connection.execute("INSERT INTO terms (terms) VALUES ('optimize')")
    connection.execute("UPDATE header SET removals = removals + 1")  # writers forget the numbers that they know
