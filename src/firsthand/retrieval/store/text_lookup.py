"""Finds documents by their very title, and chunks that hold all of some words, in the order in which they were indexed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.document_rows import CHUNK_COLUMNS, CHUNK_TABLES, python_text, read_chunks, sql_text
from firsthand.retrieval.store.index_file import spaced_up_to
from firsthand.retrieval.store.unspaced_words import has_unspaced


def titled(connection: sqlite3.Connection, title: str) -> list[str]:
    """The ids of the documents with a title, in ASCII's upper or lower case alike."""
    rows = connection.execute(
        "SELECT id FROM documents WHERE title = ? COLLATE NOCASE ORDER BY number", (sql_text(title),)
    )
    return [python_text(row[0]) for row in rows]


def chunks_with(connection: sqlite3.Connection, analyzer: Analyzer, words: Sequence[str], limit: int) -> list[Chunk]:
    """The first chunks, at most `limit`, that hold the stems of all words; of the last word, any beginning."""
    counts = zip(words, analyzer.counts(words, apart=spaced_up_to(connection) > 0), strict=True)
    parts = (found if has_unspaced(word) else [word] if len(found) == 1 else [] for word, found in counts)
    whole = [each for part in parts for each in part]
    if not whole:
        return []
    quoted = [f'"{word}"' for word in whole]
    quoted[-1] += "*" if whole[-1] == words[-1] else ""
    rows = connection.execute(
        f"SELECT {CHUNK_COLUMNS} FROM {CHUNK_TABLES} JOIN "
        "(SELECT rowid AS found FROM terms WHERE terms MATCH ? ORDER BY rowid LIMIT ?) ON found = c.number "
        "ORDER BY c.number",
        (" AND ".join(quoted), limit),
    )
    return read_chunks(rows)
