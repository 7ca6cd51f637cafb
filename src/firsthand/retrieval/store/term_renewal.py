"""Brings the words of an older index up to those that are searched now, where an older version wrote others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from firsthand.retrieval.store.analyzer import OLDER_FORMS, Analyzer, has_older_forms, plain_text
from firsthand.retrieval.store.document_rows import (
    indexed_text_of,
    known_numbers,
    packed_words,
    unpacked_words,
    word_numbers,
)
from firsthand.retrieval.store.index_file import LAST_CHUNK, IndexFile, renewed_up_to, set_renewed_up_to

_AT_ONCE = 200


class _StoredChunk(NamedTuple):
    number: int
    text: str
    words: list[tuple[int, int]]
    """Numbers of words with their counts, in the form of the version that wrote it."""


def renew_terms(file: IndexFile, analyzer: Analyzer, tell: Callable[[int, int], None] | None = None) -> None:
    """Index those chunks anew, within `writing`, a transaction for each batch. One that was killed goes on where it ended.

    `tell` gets the chunks that are done, and the number of all. StoreError if a row is not what we wrote.
    """
    with file.reading() as connection:
        total = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
        rest = "SELECT count(*) FROM chunks WHERE number > ?"
        done = total - connection.execute(rest, (renewed_up_to(connection),)).fetchone()[0]
    renewed = _AT_ONCE
    while renewed:
        with file.transaction() as connection:
            renewed = _renew_some(file, connection, analyzer)
        done += renewed
        if tell is not None:
            tell(done, total)


def _renew_some(file: IndexFile, connection: sqlite3.Connection, analyzer: Analyzer) -> int:
    """Renew the next chunks, and return how many; the file notes up to which it got, or that it is done."""
    some = "SELECT number, heading, text, words FROM chunks WHERE number > ? ORDER BY number LIMIT ?"
    rows = connection.execute(some, (renewed_up_to(connection), _AT_ONCE)).fetchall()
    if rows and rows[-1][0] >= LAST_CHUNK:
        raise file.damaged(f"a chunk has the number {rows[-1][0]}")
    try:
        chunks = [
            _StoredChunk(number, indexed_text_of(heading, text), unpacked_words(words))
            for number, heading, text, words in rows
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise file.damaged(f"a row cannot be read: {error}") from None
    _renew(file, connection, [chunk for chunk in chunks if has_older_forms(chunk.text)], analyzer)
    set_renewed_up_to(connection, rows[-1][0] if rows else LAST_CHUNK)
    return len(rows)


def _renew(file: IndexFile, connection: sqlite3.Connection, chunks: list[_StoredChunk], analyzer: Analyzer) -> None:
    connection.executemany(  # FTS5 has no texts: it takes out the words that it is told
        "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)",
        _as_stored(file, connection, chunks, analyzer),
    )
    connection.executemany(
        "INSERT INTO terms (rowid, text) VALUES (?, ?)", ((chunk.number, plain_text(chunk.text)) for chunk in chunks)
    )
    counts = analyzer.counts([chunk.text for chunk in chunks])
    numbers = word_numbers(connection, {word for each in counts for word in each})
    connection.executemany(
        "UPDATE chunks SET words = ?, length = ? WHERE number = ?",
        (
            (*packed_words([(numbers[word], n) for word, n in each.items()]), chunk.number)
            for each, chunk in zip(counts, chunks, strict=True)
        ),
    )


def _as_stored(
    file: IndexFile, connection: sqlite3.Connection, chunks: list[_StoredChunk], analyzer: Analyzer
) -> list[tuple[int, str]]:
    """Number and text of each chunk in the older form that it has: the one with the words that are stored."""
    texts = [chunk.text for chunk in chunks]
    counts = {form: analyzer.counts(texts, form=form) for form in OLDER_FORMS}
    numbers = known_numbers(connection, [*{word for found in counts.values() for each in found for word in each}])
    written: list[tuple[int, str]] = []
    for place, chunk in enumerate(chunks):
        for form, found in counts.items():
            if sorted((numbers.get(word, 0), n) for word, n in found[place].items()) == sorted(chunk.words):
                written.append((chunk.number, plain_text(chunk.text, form=form)))
                break
        else:
            raise file.damaged(f"the chunk {chunk.number} has other words than its text")
    return written
