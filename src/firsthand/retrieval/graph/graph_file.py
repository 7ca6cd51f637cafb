"""The SQLite file of a graph, beside its index: what was extracted from each chunk, and each text that a model wrote.

Extractions are stored by chunk and heading with their state, done or failed, so that what is missing or left over is found
by comparing keys with the index. Texts (descriptions, reports) and vectors are stored by a hash of all that decides them:
after an update only those are made again whose sources changed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.knowledge_graph import Extraction
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.lock import claimed
from firsthand.system.own_file import expect_own_file
from firsthand.system.sqlite_journal import forged_journal
from firsthand.system.stored_json import decoded_object

SUFFIX = ".graph"
_APPLICATION_ID = 0x66736772  # "fsgr"
_SCHEMA_VERSION = 1
_AT_ONCE = 500
_TABLES = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE extractions (chunk TEXT PRIMARY KEY, document TEXT NOT NULL, start INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('done', 'failed')), reason TEXT NOT NULL, body TEXT NOT NULL);
    CREATE TABLE texts (key TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL);
"""


MAX_META_CHARS, MAX_META_VALUES = 500_000_000, 10_000_000
"""Characters and JSON values of the communities of a graph, which name its entities at each level."""
MAX_PART_CHARS, MAX_PART_VALUES = 16 << 20, 100_000
"""Those of the extraction of a chunk, and of a report: a model writes some thousand tokens."""


def decoded_part(column: object) -> Json:
    """The object of an extraction or a report. ValueError, which says why, for anything else or too much of it."""
    return decoded_object(column, MAX_PART_CHARS, MAX_PART_VALUES)


def _tables() -> set[tuple[str]]:
    """The statements that made the tables of a graph, as SQLite keeps them."""
    return {(statement.strip(),) for statement in _TABLES.split(";") if statement.strip()}


def extraction_key(chunk: Chunk) -> str:
    """The key of a chunk's extraction: its id, and where it has headings, which are read too, a colon and their hash.

    Versions before 0.23 stored every extraction by the id alone.
    """
    if not chunk.heading:
        return chunk.id
    return f"{chunk.id}:{hashlib.sha256(chunk.heading.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def chunk_id(key: str) -> str:
    """The id of the chunk of an extraction's key."""
    return key.partition(":")[0]


def graph_path(index: Path) -> Path:
    """The file of the graph of an index's file."""
    return index.with_name(index.name + SUFFIX)


class GraphFile:
    """An open graph file. Use it from one thread at a time, and close it."""

    def __init__(self, path: Path, *, create: bool = False):
        """StoreError if there is none and it is not to be created, or if it is no graph."""
        self.path = path
        if create:
            expect_own_file(path)
        if not create and not path.is_file():
            raise StoreError(f"no graph at {path}: make one with `firsthand rag graph INDEX`")
        if (journal := forged_journal(path)) is not None:
            raise StoreError(f"{journal} names a file that SQLite would delete: do not trust what came with it")
        with self._sentences():
            mode = "rwc" if create else "rw"
            self._connection = connect_bounded(path, mode, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(create)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, create: bool) -> None:
        connection = self._connection
        connection.execute("PRAGMA trusted_schema = OFF")
        is_empty = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        if create and is_empty:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise StoreError(f"{self.path} is not the file of a graph: delete it and build the graph again")
        if (version := connection.execute("PRAGMA user_version").fetchone()[0]) != _SCHEMA_VERSION:
            raise StoreError(f"{self.path} has schema version {version}, and this firsthand knows {_SCHEMA_VERSION}")
        if set(connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")) != _tables():
            raise StoreError(
                f"{self.path} has a table, trigger or view that firsthand did not make: do not trust it, delete it and "
                "build the graph again"
            )
        connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write. StoreError if another process has it."""
        lock = self.path.with_name(self.path.name + ".lock")
        with claimed(
            lock, lambda holder: StoreError(f"{self.path} is being written by {holder}: wait, then try again")
        ):
            yield

    # -- extractions --

    def states(self) -> dict[str, str]:
        """`done` or `failed` for the key of each extraction."""
        return dict(self._rows("SELECT chunk, state FROM extractions"))

    def keep(self, chunk: Chunk, found: Extraction | FailedChunk) -> None:
        """Store the result of a chunk, in place of one by its id alone; it survives `kill -9` once this returns."""
        is_done = isinstance(found, Extraction)
        row = (
            extraction_key(chunk),
            chunk.document,
            chunk.start,
            "done" if is_done else "failed",
            "" if isinstance(found, Extraction) else found.reason,
            _written(found.to_json()) if isinstance(found, Extraction) else "{}",
        )
        with self._transaction():
            self._execute("DELETE FROM extractions WHERE chunk = ?", (chunk.id,))
            self._execute("INSERT OR REPLACE INTO extractions VALUES (?, ?, ?, ?, ?, ?)", row)

    def extractions(self) -> list[Extraction]:
        """The results of all chunks that were read, in the order of documents and chunks."""
        rows = self._rows("SELECT chunk, body FROM extractions WHERE state = 'done' ORDER BY document, start, chunk")
        try:
            return [Extraction.from_json(chunk_id(key), decoded_part(body)) for key, body in rows]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._damaged(f"an extraction cannot be read: {error}") from None

    def failed(self) -> list[FailedChunk]:
        """The chunks that could not be read, with reasons."""
        rows = self._rows(
            "SELECT chunk, document, reason FROM extractions WHERE state = 'failed' ORDER BY document, start"
        )
        return [FailedChunk(chunk_id(key), document, reason) for key, document, reason in rows]

    def forget(self, keys: Iterable[str]) -> None:
        """Remove extractions, and the record of the build whose communities and reports tell of them, all or none."""
        with self._transaction():
            keys = list(keys)
            for key in keys:
                self._execute("DELETE FROM extractions WHERE chunk = ?", (key,))
            if keys:
                self._execute("DELETE FROM meta WHERE key = 'built'")

    # -- texts and vectors, by the hash of what decides them --

    def texts(self, keys: Sequence[str]) -> dict[str, str]:
        """The stored ones of these texts."""
        return {key: str(body) for key, body in self._by_key("SELECT key, body FROM texts WHERE key IN", keys)}

    def put_text(self, key: str, body: str) -> None:
        """Store a text."""
        self._execute("INSERT OR REPLACE INTO texts VALUES (?, ?)", (key, body))

    def vectors(self, keys: Sequence[str]) -> dict[str, Vectors]:
        """The stored ones of these vectors."""
        rows = self._by_key("SELECT key, vector FROM vectors WHERE key IN", keys)
        try:
            return {key: np.frombuffer(blob, dtype="<f4").astype(np.float32) for key, blob in rows}
        except (ValueError, TypeError) as error:
            raise self._damaged(f"a vector cannot be read: {error}") from None

    def has_vectors(self) -> bool:
        """True if any vector is stored."""
        return bool(self._rows("SELECT 1 FROM vectors LIMIT 1"))

    def put_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors, all or none."""
        with self._transaction():
            for key, vector in vectors.items():
                row = (key, np.asarray(vector, dtype="<f4").tobytes())
                self._execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", row)

    def drop_others(self, texts: Iterable[str], vectors: Iterable[str]) -> None:
        """Remove texts and vectors that are not among these keys."""
        with self._transaction():
            for table, kept in (("texts", set(texts)), ("vectors", set(vectors))):
                stored = [key for (key,) in self._rows(f"SELECT key FROM {table}")]
                for key in stored:
                    if key not in kept:
                        self._execute(f"DELETE FROM {table} WHERE key = ?", (key,))

    # -- meta --

    def meta(self, key: str) -> Json | None:
        """A stored object, None if there is none."""
        rows = self._rows("SELECT body FROM meta WHERE key = ?", (key,))
        try:
            return decoded_object(rows[0][0], MAX_META_CHARS, MAX_META_VALUES) if rows else None
        except ValueError as error:
            raise self._damaged(f"{key} cannot be read: {error}") from None

    def put_meta(self, key: str, body: Json) -> None:
        """Store an object."""
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, _written(body)))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _by_key(self, query: str, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        for first in range(0, len(keys), _AT_ONCE):
            some = list(keys[first : first + _AT_ONCE])
            found += self._rows(f"{query} ({','.join('?' * len(some))})", some)
        return found

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        with self._sentences():
            return self._connection.execute(query, values).fetchall()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> None:
        with self._sentences():
            self._connection.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
            raise

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR")):
                raise StoreError(f"{self.path} cannot be written ({error}): make room, then run it again") from error
            raise self._damaged(str(error)) from error

    def _damaged(self, fault: str) -> StoreError:
        return StoreError(f"{self.path} cannot be used: {fault}. Delete it and build the graph again")


def _written(body: Json) -> str:
    return json.dumps(body, ensure_ascii=True, sort_keys=True)
