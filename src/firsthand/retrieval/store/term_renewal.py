"""Brings the words of an older index up to those that are searched now; only texts in scripts without blanks differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from firsthand.retrieval.store.analyzer import Analyzer, plain_text
from firsthand.retrieval.store.document_rows import indexed_text_of, packed_words, word_numbers
from firsthand.retrieval.store.index_file import LAST_CHUNK, SPACED_VERSION, IndexFile, spaced_up_to
from firsthand.retrieval.store.unspaced_words import has_unspaced

_AT_ONCE = 200


def renew_terms(file: IndexFile, analyzer: Analyzer, tell: Callable[[int, int], None] | None = None) -> None:
    """Index those chunks anew, within `writing`, a transaction for each batch. One that was killed goes on where it ended.

    `tell` gets the chunks that are done, and the number of all. StoreError if a row is not what we wrote.
    """
    with file.reading() as connection:
        total = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
        rest = "SELECT count(*) FROM chunks WHERE number > ?"
        done = total - connection.execute(rest, (spaced_up_to(connection),)).fetchone()[0]
    renewed = _AT_ONCE
    while renewed:
        with file.transaction() as connection:
            renewed = _renew_some(file, connection, analyzer)
        done += renewed
        if tell is not None:
            tell(done, total)


def _renew_some(file: IndexFile, connection: sqlite3.Connection, analyzer: Analyzer) -> int:
    """Renew the next chunks, and return how many; the version says up to which it got, or that it is done."""
    some = "SELECT number, heading, text FROM chunks WHERE number > ? ORDER BY number LIMIT ?"
    rows = connection.execute(some, (spaced_up_to(connection), _AT_ONCE)).fetchall()
    if rows and rows[-1][0] >= LAST_CHUNK:
        raise file.damaged(f"a chunk has the number {rows[-1][0]}")
    try:
        texts = {number: indexed_text_of(heading, text) for number, heading, text in rows}
    except (ValueError, TypeError, AttributeError) as error:
        raise file.damaged(f"a row cannot be read: {error}") from None
    _renew(connection, {number: text for number, text in texts.items() if has_unspaced(text)}, analyzer)
    connection.execute(f"PRAGMA user_version = {-rows[-1][0] if rows else SPACED_VERSION}")
    return len(rows)


def _renew(connection: sqlite3.Connection, texts: dict[int, str], analyzer: Analyzer) -> None:
    connection.executemany(
        "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)",
        ((number, plain_text(text, apart=False)) for number, text in texts.items()),
    )
    connection.executemany(
        "INSERT INTO terms (rowid, text) VALUES (?, ?)", ((number, plain_text(text)) for number, text in texts.items())
    )
    counts = analyzer.counts([*texts.values()])
    numbers = word_numbers(connection, {word for each in counts for word in each})
    connection.executemany(
        "UPDATE chunks SET words = ?, length = ? WHERE number = ?",
        (
            (*packed_words([(numbers[word], n) for word, n in each.items()]), number)
            for each, number in zip(counts, texts, strict=True)
        ),
    )
