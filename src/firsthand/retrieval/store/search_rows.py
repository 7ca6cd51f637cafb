"""Searchable chunks as arrays in memory, derived from an index's file and brought up to date when its revision changes.

A row is a chunk. Rows are in the order of chunk numbers, which are never used twice, so that new chunks are appended; removed
ones are marked until a quarter of all rows is.
"""

# R rows, D dimension

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.retrieval.store.term_postings import TermPostings
from firsthand.retrieval.store.vector_rows import VectorRows

Ints = NDArray[np.int64]
_BATCH = 4096


class SearchRows:
    """Numbers, documents, metas, vectors and postings of all searchable chunks, as of one revision."""

    def __init__(self, dimension: int):
        self.dimension = dimension
        self._clear()

    def _clear(self) -> None:
        self.revision = -1
        self._active = -1
        self._removals = -1
        self.numbers: Ints = np.empty(0, dtype=np.int64)
        self.documents: Ints = np.empty(0, dtype=np.int64)
        self.metas: Ints = np.empty(0, dtype=np.int64)
        self.alive: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self.vectors = VectorRows(self.dimension)
        self.postings = TermPostings()

    def refresh(self, connection: sqlite3.Connection) -> bool:
        """Read what has changed since the last call; False if nothing has. The connection is in a transaction."""
        revision, active, removals = connection.execute("SELECT revision, active, removals FROM header").fetchone()
        if revision == self.revision:
            return False
        if active != self._active:
            self._clear()
        if removals != self._removals and len(self.numbers):
            found = connection.execute("SELECT number FROM chunks WHERE searchable")
            left = np.fromiter((row[0] for row in found), dtype=np.int64)
            self.alive = np.isin(self.numbers, left)
            if 4 * int((~self.alive).sum()) > len(self.alive):
                self._clear()
        self._append(connection, active)
        self.revision, self._active, self._removals = revision, active, removals
        return True

    def __len__(self) -> int:
        return int(self.alive.sum())

    def _append(self, connection: sqlite3.Connection, active: int) -> None:
        last = int(self.numbers[-1]) if len(self.numbers) else 0
        vector = "v.vector" if self.dimension else "NULL"
        join = f"LEFT JOIN vectors_{active} v ON v.chunk = c.number" if self.dimension else ""
        rows = connection.execute(
            f"SELECT c.number, c.document, c.meta, c.length, c.words, {vector} FROM chunks c {join} "
            "WHERE c.searchable AND c.number > ? ORDER BY c.number",
            (last,),
        )
        columns: list[list[Any]] = [[], [], []]
        while batch := rows.fetchmany(_BATCH):
            for column, values in zip(columns, zip(*(row[:3] for row in batch), strict=True), strict=True):
                column.append(np.array(values, dtype=np.int64))
            self.postings.append([row[3] for row in batch], [row[4] for row in batch])
            if self.dimension:
                self.vectors.append([row[5] for row in batch])
        if columns[0]:
            self.numbers = np.concatenate([self.numbers, *columns[0]])
            self.documents = np.concatenate([self.documents, *columns[1]])
            self.metas = np.concatenate([self.metas, *columns[2]])
            self.alive = np.concatenate([self.alive, np.ones(len(self.numbers) - len(self.alive), dtype=np.bool_)])
            self.vectors.join()
            self.postings.join()
