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

import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName, nearest
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import DocumentOutline, IndexedDocument, IndexHeader, IngestReceipt, Vectors
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Filter, Hit
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.ann_file import AnnReport
from firsthand.retrieval.store.header_row import agreed_header, refuse_stale_header, write_header
from firsthand.retrieval.store.index_checks import faults
from firsthand.retrieval.store.index_file import MEMORY, IndexFile
from firsthand.retrieval.store.index_search import IndexSearch
from firsthand.retrieval.store.meta_reader import MetaReader, meta_column
from firsthand.retrieval.store.reembedding import Embed, reembed
from firsthand.retrieval.store.term_renewal import renew_terms
from firsthand.retrieval.store.text_lookup import chunks_with, titled
from firsthand.retrieval.store.unused_words import remove_unused_words

T = TypeVar("T")
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

        def fill(connection: sqlite3.Connection) -> None:
            if header is not None:
                write_header(connection, header)

        creates = header is not None and not read_only
        self._file = IndexFile(path, create=creates, read_only=read_only, fill=fill)
        self._analyzer = Analyzer()
        self._words: dict[str, int] = {}
        self._words_as_of = -1
        """The `removals` of the header when they were true: another process may have removed some since."""
        try:
            self._header = agreed_header(self._file, header)
        except BaseException:
            self._file.close()
            raise
        self._search = IndexSearch(self._file, self._header, self._analyzer)

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
        with self._writing():
            for each in documents:
                try:
                    into[self._put_one(each)].append(each.document.id)
                except StoreError:
                    raise
                except FirsthandError as error:
                    failed.append((each.document.id, str(error)))
        return IngestReceipt(tuple(added), tuple(updated), tuple(unchanged), failed=tuple(failed))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the right to write; the words of an older file are brought up to ours first."""
        with self._file.writing():
            if not self._file.has_newest_words():
                renew_terms(self._file, self._analyzer)
            yield

    def _put_one(self, indexed: IndexedDocument) -> str:
        ready = rows_of.prepared(indexed, self._header)
        parts = (indexed.chunks[first : first + _AT_ONCE] for first in range(0, len(indexed.chunks), _AT_ONCE))
        counts = [words for part in parts for words in self._analyzer.counts([each.indexed_text for each in part])]
        with self._file.transaction() as connection:
            refuse_stale_header(self._file, connection, self._header)
            found = connection.execute(
                "SELECT number, digest FROM documents WHERE id = ?", (ready.columns[0],)
            ).fetchone()
            if found is not None and found[1] == ready.columns[4]:
                return "unchanged"
            if found is not None:
                rows_of.remove_document(connection, found[0])
            removals = connection.execute("SELECT removals FROM header").fetchone()[0]
            if removals != self._words_as_of + (found is not None):
                self._words.clear()
            self._words_as_of = -1  # until they are committed
            new = {word for each in counts for word in each if word not in self._words}
            self._words |= rows_of.word_numbers(connection, new)
            words = [[(self._words[word], n) for word, n in each.items()] for each in counts]
            active = connection.execute("SELECT active FROM header").fetchone()[0]
            rows_of.put_document(connection, ready, words, active)
        self._words_as_of = removals
        return "added" if found is None else "updated"

    def delete(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Removes documents with all that belongs to them, and returns the ids that were there."""
        removed = []
        with self._writing():
            for id in ids:
                with self._file.transaction() as connection:
                    found = connection.execute(
                        "SELECT number FROM documents WHERE id = ?", (rows_of.sql_text(id),)
                    ).fetchone()
                    if found is not None:
                        rows_of.remove_document(connection, found[0])
                        removed.append(id)
        return tuple(removed)

    def needs_renewal(self) -> bool:
        """True if an older version wrote words of the index; see `renew_words`."""
        return not self._file.has_newest_words()

    def renew_words(self, tell: Callable[[int, int], None] | None = None) -> None:
        """Brings the words of an index of an older version up to those that are searched now; writes do so too.

        Args:
            tell: Called after each batch with the chunks that are done, and the number of all.
        """
        if self.needs_renewal():
            with self._file.writing():
                renew_terms(self._file, self._analyzer, tell)

    def overwrite_deleted(self) -> None:
        """Removes what deleted documents left in the file: their words, and copies that FTS5 keeps. Their text is
        overwritten when they are deleted; once no process has the index open, nothing of it is in the file."""
        with self._writing(), self._file.transaction() as connection:
            self._readable(remove_unused_words, connection)

    # -- reading --

    def hashes(self) -> dict[str, str]:
        """The text's SHA-256 of each document, by id."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT id, sha256 FROM documents ORDER BY id").fetchall()
        return {self._readable(rows_of.python_text, id): str(sha256) for id, sha256 in found}

    def digests(self) -> dict[str, bytes]:
        """A hash of all that is stored of each document but its vectors, by id (`document_rows.digest_of`)."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT id, digest FROM documents").fetchall()
        return {self._readable(rows_of.python_text, id): bytes(digest) for id, digest in found}

    def record_hashes(self) -> dict[str, bytes]:
        """A hash of all that is stored of each document but its chunks, by id, so that it is the same with any chunker."""
        columns = f"id, sha256, title, source, {meta_column('meta')}, locations"
        with self._file.reading() as connection:
            found = connection.execute(f"SELECT {columns} FROM documents ORDER BY id")
            return {
                self._readable(rows_of.python_text, id): hashlib.sha256(repr(rest).encode()).digest()
                for id, *rest in found
            }

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
            )
            return self._readable(rows_of.read_chunks, found)

    def chunk(self, id: str) -> Chunk:
        """The chunk. UnknownName if it is not there."""
        with self._file.reading() as connection:
            found = connection.execute(
                f"SELECT {rows_of.CHUNK_COLUMNS} FROM {rows_of.CHUNK_TABLES} WHERE c.id = ?", (rows_of.sql_text(id),)
            ).fetchone()
        if found is None:
            raise UnknownName(f"no chunk {id[:64]!r} in {self._file.name}: its document may have changed; search again")
        return self._readable(rows_of.read_chunks, [found])[0]

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

    def outlines(self) -> Iterator[DocumentOutline]:
        """Yields every document without its text, by id, in constant memory. One that is put or deleted meanwhile may be
        missing."""
        after: tuple[Any, ...] = ()
        while True:
            where = "WHERE id > ?" if after else ""
            with self._file.reading() as connection:
                found = connection.execute(
                    f"SELECT id, sha256, title, source, {meta_column('meta')} FROM documents {where} ORDER BY id "
                    f"LIMIT {_AT_ONCE}",
                    after,
                ).fetchall()
            for id, sha256, title, source, meta in found:
                body: dict[str, Json] = self._readable(MetaReader().read, meta)
                title, source = rows_of.python_text(title), rows_of.python_text(source)
                yield DocumentOutline(rows_of.python_text(id), sha256, title, source, body)
            if len(found) < _AT_ONCE:
                return
            after = found[-1][:1]

    def metas(self) -> dict[str, dict[str, Json]]:
        """The `meta` of each document, by id."""
        with self._file.reading() as connection:
            found = connection.execute(f"SELECT id, {meta_column('meta')} FROM documents ORDER BY id")
            read = MetaReader().read
            return {self._readable(rows_of.python_text, id): dict(self._readable(read, meta)) for id, meta in found}

    def title(self, id: str) -> str | None:
        """The title of a document; None if it is not there."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT title FROM documents WHERE id = ?", (rows_of.sql_text(id),)).fetchone()
        return None if found is None else self._readable(rows_of.python_text, found[0])

    def titled(self, title: str) -> list[str]:
        """The ids of the documents with a title, in ASCII's upper or lower case alike."""
        with self._file.reading() as connection:
            return titled(connection, title)

    def chunks_with(self, words: Sequence[str], *, limit: int = 1000) -> list[Chunk]:
        """The first chunks that hold the stems of all words, in the order they were indexed; of the last, any beginning."""
        with self._file.reading() as connection:
            return self._readable(lambda asked: chunks_with(connection, self._analyzer, asked, limit), words)

    # -- searching --

    def search_vectors(self, vector: Vectors, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest cosine with a vector of shape (dimension,), best first, ties by chunk id."""
        return self._search.vectors(vector, k, where)

    def search_terms(self, text: str, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest BM25, best first, ties by chunk id; none if no word of the text is indexed."""
        return self._search.terms(text, k, where)

    def search_hybrid(
        self,
        vector: Vectors,
        text: str,
        k: int,
        where: Filter,
        *,
        pool: int = 100,
        constant: float = 60.0,
        weights: Sequence[float] = (1.0, 1.0),
    ) -> list[Hit]:
        """The k best of both searches, `pool` hits each, by reciprocal rank fusion; trails say rank and score in each."""
        return self._search.hybrid(vector, text, k, where, pool, constant, weights)

    def build_ann(self) -> int:
        """Build the approximate side file, by which indexes of a million chunks are searched; returns the rows it covers.

        It is used while most of the rows that it covers are there; chunks stored later are searched exactly beside it.
        MissingExtra without faiss.
        """
        return self._search.build_ann()

    def needs_ann(self) -> bool:
        """True if the index is so large that searches use a side file, and has none that covers four fifths of it."""
        return self._search.needs_ann()

    def ann_report(self, *, queries: int = 100, k: int = 10) -> AnnReport | None:
        """The state of the approximate side file and its measured recall; None if there is none beside the index.

        Each of `queries` stored vectors, drawn with a fixed seed, is searched for its k nearest others.
        """
        return self._search.ann_report(queries, k)

    def _readable(self, read: Callable[[Any], T], row: Any) -> T:
        try:
            return read(row)
        except (ValueError, TypeError, AttributeError, zlib.error, RecursionError, FirsthandError) as error:
            raise self._file.damaged(f"a row cannot be read: {error}") from None

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
        self._search = IndexSearch(self._file, header, self._analyzer)
        return computed

    def close(self) -> None:
        """Releases the file and the memory."""
        self._file.close()
        self._analyzer.close()
        self._search.clear()

    def __enter__(self) -> SqliteIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
