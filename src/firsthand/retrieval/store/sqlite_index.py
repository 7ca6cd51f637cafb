"""SqliteIndex: documents, chunks, terms and vectors in one SQLite file.

    documents   id, title, source, text (zlib) and its hash, meta, locations
    chunks      span, text, heading, parent; the words with their counts; a hash that finds texts embedded before
    metas       distinct values of chunks' `meta`, and `fields` with a row for each key, which filters read
    terms       FTS5 of each chunk's indexed text
    vectors_0   a vector in f16 for each chunk; vectors_1 is the other generation, filled by `reembed`
    header      what determines vectors and chunks; which generation is searched; the revision

Search works on arrays in memory (`search_rows.py`), which are derived from the file and follow its revision, so that
what another process wrote is found by the next search.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName, nearest
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, IngestReceipt, Vectors
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Filter, Hit, TrailStep
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.filter_masks import FilterMasks
from firsthand.retrieval.store.index_checks import faults
from firsthand.retrieval.store.index_file import MEMORY, IndexFile
from firsthand.retrieval.store.reembedding import Embed, reembed
from firsthand.retrieval.store.search_rows import SearchRows

_AT_ONCE = 500


def open_index(path: str | Path, header: IndexHeader | None = None, *, read_only: bool = False) -> SqliteIndex:
    """Open the index at a path; with a header, make it if it is not there. ":memory:" keeps it in memory.

    ConfigError if the index was made with another header than the one given; StoreError if it cannot be opened.
    """
    if read_only and header is not None and not Path(path).exists():
        raise StoreError(f"no index at {path}: open it without read_only to make it")
    return SqliteIndex(None if str(path) == MEMORY else Path(path), header, read_only=read_only)


class SqliteIndex:
    """A ChunkIndex in one file. Thread-safe; other processes may read while one writes."""

    def __init__(self, path: Path | None, header: IndexHeader | None, *, read_only: bool = False):
        if path is None and header is None:
            raise ConfigError("an index in memory needs a header: give the embedder's, or one of dimension 0")
        self.path = path
        self._file = IndexFile(path, create=header is not None and not read_only, read_only=read_only)
        self._analyzer = Analyzer()
        self._words: dict[str, int] = {}
        try:
            self._header = self._agreed_header(header)
        except BaseException:
            self._file.close()
            raise
        self._rows = SearchRows(self._header.dimension)
        self._masks = FilterMasks()

    @property
    def header(self) -> IndexHeader:
        """The header it was created with, or that `reembed` gave it."""
        return self._header

    # -- writing --

    def put(self, documents: Iterable[IndexedDocument]) -> IngestReceipt:
        """Adds or replaces documents, each in one transaction; those that are stored just so are left as they are.

        A document that does not fit the index is reported as failed, and the others go on. What the receipt names is on
        the disk.
        """
        added: list[str] = []
        updated: list[str] = []
        unchanged: list[str] = []
        failed: list[tuple[str, str]] = []
        into = {"added": added, "updated": updated, "unchanged": unchanged}
        with self._file.writing():
            for each in documents:
                try:
                    into[self._put_one(each)].append(each.document.id)
                except StoreError:
                    raise
                except FirsthandError as error:
                    failed.append((each.document.id, str(error)))
        return IngestReceipt(tuple(added), tuple(updated), tuple(unchanged), failed=tuple(failed))

    def _put_one(self, indexed: IndexedDocument) -> str:
        ready = rows_of.prepared(indexed, self._header)
        counts = self._analyzer.counts([chunk.indexed_text for chunk in indexed.chunks])
        new: dict[str, int] = {}
        with self._file.transaction() as connection:
            self._check_current(connection)
            found = connection.execute(
                "SELECT number, digest FROM documents WHERE id = ?", (ready.columns[0],)
            ).fetchone()
            if found is not None and found[1] == ready.columns[4]:
                return "unchanged"
            if found is not None:
                rows_of.remove_document(connection, found[0])
            words = [[(self._word(connection, word, new), n) for word, n in each.items()] for each in counts]
            active = connection.execute("SELECT active FROM header").fetchone()[0]
            rows_of.put_document(connection, ready, words, active)
        self._words.update(new)
        return "added" if found is None else "updated"

    def _word(self, connection: Any, word: str, new: dict[str, int]) -> int:
        """The number of a word, which is stored if it is new."""
        number = self._words.get(word) or new.get(word)
        if number is None:
            found = connection.execute("SELECT number FROM words WHERE word = ?", (word,)).fetchone()
            number = int(
                found[0] if found else connection.execute("INSERT INTO words (word) VALUES (?)", (word,)).lastrowid
            )
            new[word] = number
        return number

    def delete(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Removes documents with all that belongs to them, and returns the ids that were there."""
        removed = []
        with self._file.writing():
            for id in ids:
                with self._file.transaction() as connection:
                    found = connection.execute(
                        "SELECT number FROM documents WHERE id = ?", (rows_of.sql_text(id),)
                    ).fetchone()
                    if found is not None:
                        rows_of.remove_document(connection, found[0])
                        removed.append(id)
        return tuple(removed)

    # -- reading --

    def hashes(self) -> dict[str, str]:
        """The text's SHA-256 of each document, by id."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT id, sha256 FROM documents ORDER BY id").fetchall()
        return {rows_of.python_text(id): sha256 for id, sha256 in found}

    def document(self, id: str) -> Document:
        """The document. UnknownName if it is not there."""
        with self._file.reading() as connection:
            found = connection.execute(
                f"SELECT {rows_of.DOCUMENT_COLUMNS} FROM documents WHERE id = ?", (rows_of.sql_text(id),)
            ).fetchone()
        if found is None:
            close = nearest(id, self.hashes())
            hint = f"; did you mean {close!r}?" if close else ""
            raise UnknownName(f"no document {id[:200]!r} in {self._file.name}{hint}")
        return self._readable(rows_of.read_document, found)

    def chunks(self, document: str) -> list[Chunk]:
        """The chunks of a document in order of start."""
        with self._file.reading() as connection:
            found = connection.execute(
                f"SELECT {rows_of.CHUNK_COLUMNS} FROM {rows_of.CHUNK_TABLES} WHERE d.id = ? ORDER BY c.start, c.number",
                (rows_of.sql_text(document),),
            ).fetchall()
        return [self._readable(rows_of.read_chunk, row) for row in found]

    def chunk(self, id: str) -> Chunk:
        """The chunk. UnknownName if it is not there."""
        with self._file.reading() as connection:
            found = connection.execute(
                f"SELECT {rows_of.CHUNK_COLUMNS} FROM {rows_of.CHUNK_TABLES} WHERE c.id = ?", (rows_of.sql_text(id),)
            ).fetchone()
        if found is None:
            raise UnknownName(f"no chunk {id[:64]!r} in {self._file.name}: its document may have changed; search again")
        return self._readable(rows_of.read_chunk, found)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors of chunks, a row each in the order of `ids`. UnknownName if one is not there."""
        found = self._vectors_by("c.id", [rows_of.sql_text(id) for id in ids])
        missing = [id for id in ids if rows_of.sql_text(id) not in found]
        if missing:
            raise UnknownName(f"no vector of the chunk {missing[0][:64]!r} in {self._file.name}")
        return np.array([found[rows_of.sql_text(id)] for id in ids], dtype=np.float32).reshape(
            -1, self._header.dimension
        )

    def known_vectors(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are the `indexed_text` of a stored chunk, so that none is computed twice."""
        hashed = {text: rows_of.text_hash(text) for text in texts}
        found = self._vectors_by("c.text_hash", list({*hashed.values()}))
        return {text: found[key] for text, key in hashed.items() if key in found}

    def _vectors_by(self, column: str, keys: Sequence[Any]) -> dict[Any, Vectors]:
        """Vectors other than zeros by a column of their chunk."""
        found: dict[Any, Vectors] = {}
        if not self._header.dimension:
            return found
        with self._file.reading() as connection:
            active = connection.execute("SELECT active FROM header").fetchone()[0]
            for first in range(0, len(keys), _AT_ONCE):
                some = keys[first : first + _AT_ONCE]
                for key, blob in connection.execute(
                    f"SELECT {column}, v.vector FROM chunks c JOIN vectors_{active} v ON v.chunk = c.number "
                    f"WHERE {column} IN ({','.join('?' * len(some))})",
                    some,
                ):
                    vector = self._vector(blob)
                    if column == "c.id" or vector.any():
                        found[key] = vector
        return found

    def _vector(self, blob: bytes) -> Vectors:
        if len(blob) != 2 * self._header.dimension:
            raise self._file.damaged(f"a vector has {len(blob)} bytes instead of {2 * self._header.dimension}")
        return np.frombuffer(blob, dtype="<f2").astype(np.float32)

    def __len__(self) -> int:
        """The number of searchable chunks."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM chunks WHERE searchable").fetchone()[0])

    # -- searching --

    def search_vectors(self, vector: Vectors, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest cosine with a vector of shape (dimension,), best first, ties by chunk id."""
        query = self._query_vector(vector)
        with self._file.reading() as connection:
            rows = self._passing(connection, where)
            if k < 1 or not len(rows):
                return []
            candidates = self._rows.vectors.candidates(query, k, rows)
            numbers = self._rows.numbers[candidates]
            active = connection.execute("SELECT active FROM header").fetchone()[0]
            scored: list[tuple[int, float]] = []
            for first in range(0, len(numbers), _AT_ONCE):
                some = numbers[first : first + _AT_ONCE].tolist()
                found = connection.execute(
                    f"SELECT chunk, vector FROM vectors_{active} WHERE chunk IN ({','.join('?' * len(some))})", some
                ).fetchall()
                halves = np.array([self._vector(blob) for _, blob in found], dtype=np.float64)
                scores = (halves * query.astype(np.float64)).sum(axis=1)
                scored += [(number, float(score)) for (number, _), score in zip(found, scores, strict=True)]
            return self._hits(connection, "dense", scored, k)

    def search_terms(self, text: str, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest BM25, best first, ties by chunk id; none if no word of the text is indexed."""
        with self._file.reading() as connection:
            [counts] = self._analyzer.counts([text])
            rows = self._passing(connection, where)
            words = self._known_words(connection, counts)
            if k < 1 or not len(rows) or not words:
                return []
            found, scores = self._rows.best_terms(words, k, rows)
            numbers = self._rows.numbers[found].tolist()
            return self._hits(connection, "terms", list(zip(numbers, scores.tolist(), strict=True)), k)

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
        return query

    def _passing(self, connection: Any, where: Filter) -> Any:
        """The rows that are searchable and pass a filter. The arrays are brought up to date first."""
        try:
            if self._rows.is_stale(connection):
                self._check_current(connection)
                self._rows.refresh(connection)
                self._masks.clear()
        except (ValueError, TypeError, OverflowError) as error:
            raise self._file.damaged(str(error)) from None
        return self._masks.rows(connection, where, self._rows)

    def _known_words(self, connection: Any, counts: Mapping[str, int]) -> list[tuple[int, int]]:
        """Numbers and counts of a query's words that are stored, in the words' order."""
        found: dict[str, int] = {}
        words = sorted(counts)
        for first in range(0, len(words), _AT_ONCE):
            some = words[first : first + _AT_ONCE]
            found |= connection.execute(
                f"SELECT word, number FROM words WHERE word IN ({','.join('?' * len(some))})", some
            ).fetchall()
        return [(found[word], counts[word]) for word in words if word in found]

    def _hits(self, connection: Any, retriever: str, scored: list[tuple[int, float]], k: int) -> list[Hit]:
        """The best k of (chunk number, score), equal scores by chunk id."""
        if len(scored) > k:
            least = sorted((score for _, score in scored), reverse=True)[k - 1]
            scored = [each for each in scored if each[1] >= least]
        found = []
        for first in range(0, len(scored), _AT_ONCE):
            scores = dict(scored[first : first + _AT_ONCE])
            rows = connection.execute(
                f"SELECT c.number, {rows_of.CHUNK_COLUMNS} FROM {rows_of.CHUNK_TABLES} "
                f"WHERE c.number IN ({','.join('?' * len(scores))})",
                list(scores),
            ).fetchall()
            if len(rows) < len(scores):
                raise self._file.damaged("a chunk has no document or no meta")
            found += [(-scores[number], row[0], row) for number, *row in rows]
        found.sort(key=lambda each: each[:2])
        return [
            Hit(self._readable(rows_of.read_chunk, row), -score, (TrailStep(retriever, rank, -score),))
            for rank, (score, _, row) in enumerate(found[:k], 1)
        ]

    def _readable(self, read: Any, row: Any) -> Any:
        try:
            return read(row)
        except (ValueError, TypeError, zlib.error, RecursionError, FirsthandError) as error:
            raise self._file.damaged(f"a row cannot be read: {error}") from None

    # -- the header --

    def _stored_header(self, connection: Any) -> IndexHeader | None:
        names = [each.name for each in fields(IndexHeader)]
        row = connection.execute(f"SELECT {', '.join(names)} FROM header").fetchone()
        return None if row is None else IndexHeader(*row)

    def _check_current(self, connection: Any) -> None:
        """StoreError if another process has re-embedded the index since it was opened."""
        if self._stored_header(connection) != self._header:
            raise StoreError(f"{self._file.name} was re-embedded by another process: open it again")

    def _agreed_header(self, wanted: IndexHeader | None) -> IndexHeader:
        """The stored header, which is written first if there is none. ConfigError if it is not the wanted one."""
        with self._file.reading() as connection:
            stored = self._stored_header(connection)
        if stored is None and wanted is not None:
            with self._file.writing(), self._file.transaction() as connection:
                stored = self._stored_header(connection)  # again, now that nobody else can write it
                if stored is None:
                    values = asdict(wanted)
                    connection.execute(
                        f"INSERT INTO header (id, {', '.join(values)}, active, revision, removals) "
                        f"VALUES (1, {', '.join('?' * len(values))}, 0, 0, 0)",
                        list(values.values()),
                    )
                    stored = wanted
        if stored is None:
            raise self._file.damaged("it has no header")
        if wanted is not None:
            self._check_same(stored, wanted)
        return stored

    def _check_same(self, stored: IndexHeader, wanted: IndexHeader) -> None:
        differing = [
            f"{name} {repr(was)[:80]} (now {repr(now)[:80]})"
            for (name, was), now in zip(asdict(stored).items(), asdict(wanted).values(), strict=True)
            if was != now and name != "embedder"
        ]
        if differing:
            raise ConfigError(
                f"{self._file.name} was made with {', '.join(differing)}: use what it was made with, "
                "or make it again with `firsthand rag reindex`"
            )

    # -- care --

    def verify(self) -> list[str]:
        """Faults found by recounting everything, a sentence each; empty if there are none."""
        with self._file.reading() as connection:
            return faults(connection, self._header, self._analyzer)

    def reembed(self, header: IndexHeader, embed: Embed, *, batch_size: int = 256) -> int:
        """Gives all chunks the vectors of another embedder, in one swap; returns how many were computed in this call.

        `embed` maps texts to vectors and adds the document prefix. A call that was killed goes on where it ended.
        """
        computed = reembed(self._file, self._header, header, embed, batch_size)
        self._header = header
        self._rows = SearchRows(header.dimension)
        self._masks.clear()
        return computed

    def close(self) -> None:
        """Releases the file and the memory."""
        self._file.close()
        self._analyzer.close()
        self._rows = SearchRows(self._header.dimension)

    def __enter__(self) -> SqliteIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
