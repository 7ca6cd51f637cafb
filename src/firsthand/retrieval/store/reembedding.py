"""Computes all vectors of an index anew beside those in use, and swaps them in one transaction.

An index has two tables of vectors. The one that is not searched is filled batch by batch, each batch durable, so that a
killed run goes on where it ended; then the header changes to the other table. Until then searches find the old vectors.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.document_rows import checked_lengths, indexed_text_of
from firsthand.retrieval.store.index_file import IndexFile

Embed = Callable[[Sequence[str]], Vectors]
"""Vectors of texts, shape (texts, dimension), each row of length 1. The document prefix is the function's to add."""
_DELETED_AT_ONCE = 20_000


def reembed(file: IndexFile, stored: IndexHeader, header: IndexHeader, embed: Embed, batch_size: int) -> int:
    """Give the index the vectors of another embedder, and return how many were computed in this call."""
    if header.chunker != stored.chunker:
        raise ConfigError(
            f"{file.name} was chunked by {stored.chunker!r} and the header says {header.chunker!r}: "
            "re-embedding keeps chunks, so index the documents again to change them"
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}: give 1 or more")
    computed = 0
    with file.writing():
        with file.transaction() as connection:
            active, next_header = connection.execute("SELECT active, next FROM header").fetchone()
            shadow = f"vectors_{1 - active}"
            form = json.dumps(asdict(header))
            if next_header != form:
                connection.execute(f"DELETE FROM {shadow}")
                connection.execute("UPDATE header SET next = ?", (form,))
        while header.dimension:
            with file.reading() as connection:
                rows = connection.execute(
                    f"SELECT number, heading, text, searchable FROM chunks c WHERE NOT EXISTS "
                    f"(SELECT 1 FROM {shadow} v WHERE v.chunk = c.number) ORDER BY number LIMIT ?",
                    (batch_size,),
                ).fetchall()
            if not rows:
                break
            texts = [indexed_text_of(heading, text) for _, heading, text, searchable in rows if searchable]
            vectors = _checked(embed(texts), len(texts), header) if texts else None
            with file.transaction() as connection:
                _insert(connection, shadow, rows, vectors, header.dimension)
            computed += len(texts)
        with file.transaction() as connection:
            names = [*asdict(header)]
            connection.execute(
                f"UPDATE header SET {', '.join(f'{name} = ?' for name in names)}, active = 1 - active, next = NULL",
                list(asdict(header).values()),
            )
        _empty(file, f"vectors_{active}")
    return computed


def _insert(
    connection: sqlite3.Connection,
    table: str,
    rows: Sequence[tuple[int, str, str, int]],
    vectors: Vectors | None,
    dim: int,
) -> None:
    zeros = np.zeros(dim, dtype="<f2").tobytes()
    blobs = iter(() if vectors is None else [row.tobytes() for row in vectors.astype("<f2")])
    connection.executemany(
        f"INSERT INTO {table} (chunk, vector) VALUES (?, ?)",
        [(number, next(blobs) if searchable else zeros) for number, _, _, searchable in rows],
    )


def _checked(vectors: Vectors, count: int, header: IndexHeader) -> Vectors:
    if vectors.shape != (count, header.dimension):
        raise ConfigError(
            f"the embedder gave vectors of shape {vectors.shape} for {count} texts: expected {(count, header.dimension)}"
        )
    checked_lengths(vectors, "a text", zeros=False)
    return vectors


def _empty(file: IndexFile, table: str) -> None:
    """Delete a table's rows in steps, so that no transaction is large."""
    deleted = 1
    while deleted:
        with file.transaction() as connection:
            deleted = connection.execute(
                f"DELETE FROM {table} WHERE chunk IN (SELECT chunk FROM {table} LIMIT {_DELETED_AT_ONCE})"
            ).rowcount
