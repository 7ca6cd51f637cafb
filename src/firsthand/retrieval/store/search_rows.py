"""Searchable chunks as arrays in memory, derived from an index's file and brought up to date when its revision changes.

A row is a chunk. Rows are in the order of chunk numbers, which are never used twice, so new chunks are appended; removed
ones are marked until a quarter of all rows is.
"""

# R rows, D dimension

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.retrieval.store.index_file import LAST_CHUNK, renewed_up_to
from firsthand.retrieval.store.term_postings import TermPostings
from firsthand.retrieval.store.vector_rows import VectorRows

Ints = NDArray[np.int64]
Scores = NDArray[np.float64]
_BATCH = 4096
_ID = "S32"


class SearchRows:
    """Numbers, documents, metas, vectors and postings of all searchable chunks, as of one revision."""

    def __init__(self, dimension: int):
        self.dimension = dimension
        self._clear()

    def _clear(self) -> None:
        self.revision = -1
        self._active = -1
        self._removals = -1
        self._is_renewed = False
        self.numbers: Ints = np.empty(0, dtype=np.int64)
        self.ids: NDArray[np.bytes_] = np.empty(0, dtype=_ID)
        self.documents: Ints = np.empty(0, dtype=np.int64)
        self.metas: Ints = np.empty(0, dtype=np.int64)
        self.alive: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self.count = 0
        self.vectors = VectorRows(self.dimension)
        self.postings = TermPostings()

    def is_stale(self, connection: sqlite3.Connection) -> bool:
        """True if the index has changed since the last `refresh`. The connection is in a transaction."""
        return bool(connection.execute("SELECT revision FROM header").fetchone()[0] != self.revision)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read what has changed since the last call. ValueError if rows are not what we wrote."""
        revision, active, removals = connection.execute("SELECT revision, active, removals FROM header").fetchone()
        is_renewed = renewed_up_to(connection) == LAST_CHUNK  # until then words are searched for in all forms
        if active != self._active or is_renewed != self._is_renewed:
            self._clear()
        if removals != self._removals and len(self.numbers):
            found = connection.execute("SELECT number FROM chunks WHERE searchable")
            left = np.fromiter((row[0] for row in found), dtype=np.int64)
            self.alive = np.isin(self.numbers, left)
            if 4 * int((~self.alive).sum()) > len(self.alive):
                self._clear()
        self._append(connection, active)
        self.revision, self._active, self._removals, self._is_renewed = revision, active, removals, is_renewed

    def __len__(self) -> int:
        return self.count

    def digest(self, count: int) -> str:
        """A checksum of the numbers and vectors of the first rows."""
        summed = hashlib.sha256(self.numbers[:count].tobytes())
        self.vectors.add_to(summed, count)
        return summed.hexdigest()

    def best(self, rows: Ints, scores: Scores, k: int) -> tuple[Ints, Scores]:
        """The k rows of highest score with their scores, best first, ties by chunk id."""
        order = np.lexsort((self.ids[rows], -scores))[:k]
        return rows[order], scores[order]

    def fused(
        self, rankings: Sequence[Ints], k: int, constant: float, weights: Sequence[float]
    ) -> tuple[Ints, Scores, list[Ints]]:
        """Reciprocal rank fusion: the k best rows, their scores, and for each ranking their ranks in it, 0 if they are not.

        Equal scores are ordered by the best single rank, then by chunk id (Cormack, Clarke and Büttcher, 2009).
        """
        rows = np.unique(np.concatenate(rankings))
        ranks = []
        scores = np.zeros(len(rows))
        best = np.full(len(rows), np.iinfo(np.int64).max)
        for ranking, weight in zip(rankings, weights, strict=True):
            places = np.searchsorted(rows, ranking)
            rank = np.zeros(len(rows), dtype=np.int64)
            rank[places] = np.arange(1, len(ranking) + 1)
            scores[places] += weight / (constant + rank[places])
            best[places] = np.minimum(best[places], rank[places])
            ranks.append(rank)
        order = np.lexsort((self.ids[rows], best, -scores))[:k]
        return rows[order], scores[order], [rank[order] for rank in ranks]

    def best_terms(self, words: Sequence[tuple[int, int]], k: int, rows: Ints) -> tuple[Ints, Scores]:
        """The k of the given rows of highest BM25 above 0, with their scores, best first, ties by chunk id."""
        scores = self.postings.scores(words, self.alive, self.count)
        if len(rows) < len(scores):
            scores = scores[rows]
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            found = found[scores[found] >= np.partition(scores[found], -k)[-k]]
        return self.best(rows[found], scores[found], k)

    def _append(self, connection: sqlite3.Connection, active: int) -> None:
        last = int(self.numbers[-1]) if len(self.numbers) else 0
        vector = "v.vector" if self.dimension else "NULL"
        join = f"LEFT JOIN vectors_{active} v ON v.chunk = c.number" if self.dimension else ""
        rows = connection.execute(
            f"SELECT c.number, c.document, c.meta, c.length, c.words, c.id, {vector} FROM chunks c {join} "
            "WHERE c.searchable AND c.number > ? ORDER BY c.number",
            (last,),
        )
        num_words = connection.execute("SELECT coalesce(max(number), 0) FROM words").fetchone()[0]
        columns: list[list[Any]] = [[], [], []]
        ids: list[NDArray[np.bytes_]] = []
        while batch := rows.fetchmany(_BATCH):
            for column, values in zip(columns, zip(*(row[:3] for row in batch), strict=True), strict=True):
                column.append(np.array(values, dtype=np.int64))
            ids.append(np.array([row[5].encode("utf-8", "replace") for row in batch], dtype=_ID))
            self.postings.append([row[3] for row in batch], [row[4] for row in batch], num_words)
            if self.dimension:
                self.vectors.append([row[6] for row in batch])
        if columns[0]:
            self.numbers = np.concatenate([self.numbers, *columns[0]])
            self.ids = np.concatenate([self.ids, *ids])
            self.documents = np.concatenate([self.documents, *columns[1]])
            self.metas = np.concatenate([self.metas, *columns[2]])
            self.alive = np.concatenate([self.alive, np.ones(len(self.numbers) - len(self.alive), dtype=np.bool_)])
            self.postings.join()
        self.count = int(self.alive.sum())


def among(some: Ints, rows: Ints) -> Ints:
    """Those of some rows that are among others, both ascending; the time grows with the fewer ones and a logarithm."""
    places = np.searchsorted(rows, some)
    inside = places < len(rows)
    found = some[inside]
    kept: Ints = found[rows[places[inside]] == found]
    return kept
