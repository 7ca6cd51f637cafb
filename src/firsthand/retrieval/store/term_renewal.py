"""Brings the words of an older index up to those that are searched now; only texts in scripts without blanks differ."""

from __future__ import annotations

import sqlite3

import numpy as np

from firsthand.retrieval.store.analyzer import Analyzer, plain_text
from firsthand.retrieval.store.document_rows import indexed_text_of, python_text, word_number
from firsthand.retrieval.store.index_file import SPACED_VERSION, IndexFile
from firsthand.retrieval.store.unspaced_words import has_unspaced


def renew_terms(file: IndexFile, analyzer: Analyzer) -> None:
    """Index those chunks anew, in one transaction, within `writing`. StoreError if a row is not what we wrote."""
    with file.transaction() as connection:
        try:
            rows = connection.execute("SELECT number, heading, text FROM chunks ORDER BY number")
            wanted = [n for n, *texts in rows if any(has_unspaced(python_text(each)) for each in texts)]
            for number in wanted:
                _renew(connection, number, analyzer)
        except (ValueError, TypeError, AttributeError) as error:
            raise file.damaged(f"a row cannot be read: {error}") from None
        connection.execute(f"PRAGMA user_version = {SPACED_VERSION}")


def _renew(connection: sqlite3.Connection, number: int, analyzer: Analyzer) -> None:
    row = connection.execute("SELECT heading, text FROM chunks WHERE number = ?", (number,)).fetchone()
    text = indexed_text_of(*row)
    connection.execute(
        "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)", (number, plain_text(text, apart=False))
    )
    connection.execute("INSERT INTO terms (rowid, text) VALUES (?, ?)", (number, plain_text(text)))
    [counts] = analyzer.counts([text])
    words = np.array([(word_number(connection, word), n) for word, n in counts.items()], dtype="<u4").reshape(-1, 2)
    connection.execute(
        "UPDATE chunks SET words = ?, length = ? WHERE number = ?",
        (words.tobytes(), int(words[:, 1].sum()), number),
    )
