"""Searches an index: arrays in memory give the candidates and the BM25 scores, the file the vectors that decide.

Both searches and their fusion see the index as of one commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors, of_length_one
from firsthand.retrieval.retriever import Filter, Hit, TrailStep
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.ann_file import AnnFile, AnnReport, ann_path
from firsthand.retrieval.store.filter_masks import FilterMasks
from firsthand.retrieval.store.header_row import refuse_stale_header
from firsthand.retrieval.store.index_file import LAST_CHUNK, IndexFile, renewed_up_to
from firsthand.retrieval.store.search_rows import Ints, Scores, SearchRows, among

ANN_ROWS = 1_000_000
"""Fewer chunks are searched exactly even where there is a side file."""
_ANN_SHARE = 0.2
"""A filter that passes less than this is searched exactly: few of the side file's candidates would pass."""


class IndexSearch:
    """The searches of one open index."""

    def __init__(self, file: IndexFile, header: IndexHeader, analyzer: Analyzer):
        self._file, self._header, self._analyzer = file, header, analyzer
        self._ann: AnnFile | None = None
        self.ann_rows = ANN_ROWS
        self.clear()

    def clear(self) -> None:
        """Forget what was read; the next search reads it again."""
        self._rows = SearchRows(self._header.dimension)
        self._masks = FilterMasks()

    def build_ann(self) -> int:
        """Build the approximate side file, and return the number of rows that it covers."""
        if not self._header.dimension or self._file.path is None:
            raise ConfigError(f"{self._file.name} has no vectors in a file: an approximate side file needs both")
        with self._file.reading() as connection:
            self._passing(connection, {})
            self._ann = AnnFile.built(self._file.path, self._rows)
        return self._ann.count

    def needs_ann(self) -> bool:
        """True if there are so many chunks that a side file is used, and none that covers most of them."""
        if not self._header.dimension or self._file.path is None:
            return False
        with self._file.reading() as connection:
            count = connection.execute("SELECT count(*) FROM chunks WHERE searchable").fetchone()[0]
            if count < self.ann_rows:
                return False
            self._passing(connection, {})
            ann = self._ann or AnnFile.opened(self._file.path, self._rows)
            return not ann.fresh_for(self._rows)

    def ann_report(self, queries: int, k: int) -> AnnReport | None:
        """The side file's coverage, and its candidates' recall for the k nearest of stored vectors; None without one."""
        if not self._header.dimension or self._file.path is None or not ann_path(self._file.path).is_file():
            return None
        with self._file.reading() as connection:
            passing = self._passing(connection, {})
            ann, rows = AnnFile.opened(self._file.path, self._rows), self._rows
            if not ann.covers(rows) or len(passing) <= k:
                return AnnReport(0, len(passing), None, 0, k)
            covered = passing[passing < ann.count]
            asked = np.random.default_rng(0).choice(covered, size=min(queries, len(covered)), replace=False)
            held = 0
            for row, query in zip(asked, rows.vectors.approximate(asked), strict=True):
                near, _ = self._best_vectors(connection, query, k + 1, covered, exact=True)
                near = near[near != row][:k]
                held += len(np.intersect1d(ann.nearest(query, k + 1), near))
            return AnnReport(len(covered), len(passing), held / (k * len(asked)), len(asked), k)

    def _candidates(self, query: Vectors, k: int, passing: Ints) -> Ints:
        """The rows whose vectors are compared exactly: all that can be among the best, or an approximation of them."""
        rows = self._rows
        if self._file.path is None or len(rows) < self.ann_rows or len(passing) < _ANN_SHARE * len(rows):
            return rows.vectors.candidates(query, k, passing)
        if self._ann is None:
            self._ann = AnnFile.opened(self._file.path, rows)
        if not self._ann.covers(rows):
            return rows.vectors.candidates(query, k, passing)
        later = passing[np.searchsorted(passing, self._ann.count) :]
        near = among(self._ann.nearest(query, k), passing)
        return np.concatenate([near, rows.vectors.candidates(query, k, later)])

    def vectors(self, vector: Vectors, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest cosine with a vector of shape (dimension,), best first, ties by chunk id."""
        query = self._query_vector(vector)
        with self._file.reading() as connection:
            return self._hits(connection, *self._best_vectors(connection, query, k, self._passing(connection, where)))

    def terms(self, text: str, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest BM25, best first, ties by chunk id; none if no word of the text is indexed."""
        with self._file.reading() as connection:
            return self._hits(connection, *self._best_terms(connection, text, k, self._passing(connection, where)))

    def hybrid(
        self, vector: Vectors, text: str, k: int, where: Filter, pool: int, constant: float, weights: Sequence[float]
    ) -> list[Hit]:
        """The k best of both searches, `pool` hits each, by reciprocal rank fusion; trails say rank and score in each."""
        query = self._query_vector(vector)
        with self._file.reading() as connection:
            passing = self._passing(connection, where)
            dense = self._best_vectors(connection, query, max(pool, k), passing)
            terms = self._best_terms(connection, text, max(pool, k), passing)
            rows, scores, ranks = self._rows.fused([dense[0], terms[0]], max(k, 0), constant, weights)
            hits = self._hits(connection, rows, scores)
        trails: list[list[TrailStep]] = [[] for _ in hits]
        for name, (_, found), rank in zip(("dense", "lexical"), (dense, terms), ranks, strict=True):
            for trail, place in zip(trails, rank.tolist(), strict=True):
                if place:
                    trail.append(TrailStep(name, place, float(found[place - 1])))
        return [
            replace(hit, trail=(*trail, TrailStep("rrf", rank, hit.score)))
            for rank, (hit, trail) in enumerate(zip(hits, trails, strict=True), 1)
        ]

    def _best_vectors(
        self, connection: Any, query: Vectors, k: int, passing: Ints, *, exact: bool = False
    ) -> tuple[Ints, Scores]:
        """The k rows of highest cosine, and their scores, from the vectors in the file."""
        if k < 1 or not len(passing):
            return np.empty(0, dtype=np.int64), np.empty(0)
        candidates = self._rows.vectors.candidates(query, k, passing) if exact else self._candidates(query, k, passing)
        active = connection.execute("SELECT active FROM header").fetchone()[0]
        numbers = self._rows.numbers[candidates].tolist()
        found = connection.execute(  # CROSS JOIN keeps the order of the numbers without sorting
            f"SELECT chunk, vector FROM json_each(?) CROSS JOIN vectors_{active} ON chunk = value",
            (json.dumps(numbers),),
        ).fetchall()
        raw = b"".join([vector for _, vector in found])
        if [number for number, _ in found] != numbers or len(raw) != 2 * len(query) * len(numbers):
            raise self._file.damaged("a vector is missing or has another dimension than the header says")
        halves = np.frombuffer(raw, dtype="<f2").reshape(len(candidates), len(query)).astype(np.float64)
        # A sum along each row, for a product of matrices may round equal rows differently.
        return self._rows.best(candidates, (halves * query.astype(np.float64)).sum(axis=1), k)

    def _best_terms(self, connection: Any, text: str, k: int, passing: Ints) -> tuple[Ints, Scores]:
        """The k rows of highest BM25, and their scores."""
        words = self._known_words(connection, self._searched_words(connection, text))
        if k < 1 or not len(passing) or not words:
            return np.empty(0, dtype=np.int64), np.empty(0)
        return self._rows.best_terms(words, k, passing)

    def _query_vector(self, vector: Vectors) -> Vectors:
        dimension = self._header.dimension
        if not dimension:
            raise ConfigError(f"{self._file.name} has terms alone: search by terms, or index with an embedder")
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (dimension,):
            raise ConfigError(
                f"the vector has the shape {query.shape}, and {self._file.name} has ({dimension},): "
                f"embed the query with {self._header.embedder!r}"
            )
        if not np.isfinite(query).all():
            raise ConfigError("the vector has values that are not finite: check the embedder")
        return of_length_one(query)

    def _passing(self, connection: Any, where: Filter) -> Ints:
        """The rows that are searchable and pass a filter. The arrays are brought up to date first."""
        try:
            if self._rows.is_stale(connection):
                refuse_stale_header(self._file, connection, self._header)
                self._rows.refresh(connection)
                self._masks.clear()
            return self._masks.rows(connection, where, self._rows)
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            raise self._file.damaged(str(error)) from None

    def _searched_words(self, connection: Any, text: str) -> dict[str, int]:
        """The words of a query with their counts: in all forms unless all chunks have the newest."""
        is_renewed = renewed_up_to(connection) == LAST_CHUNK
        return self._analyzer.counts([text])[0] if is_renewed else self._analyzer.counts_of_any_form(text)

    def _known_words(self, connection: Any, counts: Mapping[str, int]) -> list[tuple[int, int]]:
        """Numbers and counts of a query's words that are stored, in the words' order."""
        found = dict(
            connection.execute(
                "SELECT word, number FROM json_each(?) JOIN words ON word = value", (json.dumps([*counts]),)
            ).fetchall()
        )
        return [(found[word], counts[word]) for word in sorted(found)]

    def _hits(self, connection: Any, rows: Ints, scores: Scores) -> list[Hit]:
        """The chunks of rows, in their order."""
        found = connection.execute(
            f"SELECT {rows_of.CHUNK_COLUMNS} FROM {rows_of.CHUNK_TABLES} JOIN json_each(?) ON value = c.number "
            "ORDER BY json_each.key",
            (json.dumps(self._rows.numbers[rows].tolist()),),
        )
        try:
            chunks = rows_of.read_chunks(found)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._file.damaged(f"a row cannot be read: {error}") from None
        if len(chunks) < len(rows):
            raise self._file.damaged("a chunk has no document or no meta")
        return [Hit(chunk, score) for chunk, score in zip(chunks, scores.tolist(), strict=True)]
