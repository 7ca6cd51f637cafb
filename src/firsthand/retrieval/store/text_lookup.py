"""Finds documents by their very title, and chunks that hold all of some words, in the order in which they were indexed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.store.analyzer import NEWEST_FORM, OLDER_FORMS, Analyzer, plain_text
from firsthand.retrieval.store.document_rows import CHUNK_COLUMNS, CHUNK_TABLES, python_text, read_chunks, sql_text
from firsthand.retrieval.store.index_file import LAST_CHUNK, renewed_up_to
from firsthand.retrieval.store.letter_forms import plain_letters
from firsthand.retrieval.store.unspaced_words import spaced


def titled(connection: sqlite3.Connection, title: str) -> list[str]:
    """The ids of the documents with a title, in ASCII's upper or lower case alike."""
    rows = connection.execute(
        "SELECT id FROM documents WHERE title = ? COLLATE NOCASE ORDER BY number", (sql_text(title),)
    )
    return [python_text(row[0]) for row in rows]


def chunks_with(connection: sqlite3.Connection, analyzer: Analyzer, words: Sequence[str], limit: int) -> list[Chunk]:
    """The first chunks, at most `limit`, that hold the stems of all words; of the last word, any beginning."""
    forms = [NEWEST_FORM] if renewed_up_to(connection) == LAST_CHUNK else [*OLDER_FORMS, NEWEST_FORM]
    asked = dict.fromkeys(found for form in forms if (found := _query(analyzer, words, form)))
    if not asked:
        return []
    rows = connection.execute(
        f"SELECT {CHUNK_COLUMNS} FROM {CHUNK_TABLES} JOIN "
        "(SELECT rowid AS found FROM terms WHERE terms MATCH ? ORDER BY rowid LIMIT ?) ON found = c.number "
        "ORDER BY c.number",
        (" OR ".join(f"({each})" for each in asked), limit),
    )
    return read_chunks(rows)


def _query(analyzer: Analyzer, words: Sequence[str], form: int) -> str:
    """FTS5's query for the words as chunks of a form hold them; empty if they hold none of them."""
    written = [plain_text(word, form=form) for word in words]
    counts = zip(words, written, analyzer.counts(words, form=form), strict=True)
    parts = (found if _is_parted(word) else [text] if len(found) == 1 else [] for word, text, found in counts)
    whole = [each for part in parts for each in part]
    quoted = [f'"{word}"' for word in whole]
    return " AND ".join(quoted) + ("*" if whole and whole[-1] == written[-1] else "")


def _is_parted(word: str) -> bool:
    """True if a word is indexed as pairs of its letters."""
    plain = plain_letters(word)
    return spaced(plain) != plain
