"""Storage for what people make in the Studio besides runs: saved views, queues, data sets, prompts, accounts, an audit log.

Everything is a document: a kind, a key, a body of JSON and a version, so that of two tabs which edit one the second is told.
`SqliteStore` keeps them in one file of the data home; `postgres_store.py` in a PostgreSQL database, for several machines.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.preference import utc_now
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.own_file import expect_own_file
from firsthand.system.sqlite_journal import forged_journal

FILE = "studio.sqlite"
MAX_BODY_CHARS = 4_000_000
MAX_KEY_CHARS = 200
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE items (kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE log (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
"""


@dataclass(frozen=True)
class StoredItem:
    """A document of the store."""

    key: str
    body: Json
    version: int
    """1 for the first; each change adds one."""
    at: str
    """When it was changed last: UTC, ISO 8601."""


class StudioStore(Protocol):
    """Keeps documents by kind and key, and a log that only grows."""

    def items(self, kind: str) -> list[StoredItem]:
        """All documents of a kind, by key."""

    def get(self, kind: str, key: str) -> StoredItem | None:
        """One document; None if there is none."""

    def versions(self, kind: str) -> dict[str, int]:
        """The versions of all documents of a kind by key, to tell which of them have changed without reading them."""

    def put(self, kind: str, key: str, body: Json, *, version: int | None = None) -> int:
        """Keeps a document and returns its new version.

        `version` is the one that was read: 0 for a document that must not be there yet. ConfigError if it is another by now.
        None replaces whatever is there.
        """

    def remove(self, kind: str, key: str, *, version: int | None = None) -> bool:
        """Removes a document; False if there was none.

        `version` is the one that was read. ConfigError if it is another by now, or the document is gone. None removes any.
        """

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Runs what is within as one transaction: nobody else is in one of this name, in any process.

        All of its changes are kept, or none if it raises.
        """

    def log(self, kind: str, body: Json) -> None:
        """Adds an entry to the log."""

    def logged(self, kind: str, limit: int = 200) -> list[tuple[str, Json]]:
        """The last entries of a kind with their times, the newest first."""

    def close(self) -> None:
        """Closes it."""


class SqliteStore:
    """A StudioStore in one SQLite file, for any number of processes of this machine."""

    def __init__(self, home: Path):
        self.path = home / FILE
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writing_thread = 0

    def items(self, kind: str) -> list[StoredItem]:
        """All documents of a kind, by key; none if the file is not there yet."""
        rows = self._read("SELECT key, body, version, at FROM items WHERE kind = ? ORDER BY key", (kind,))
        return [StoredItem(key, stored_body(key, body), version, at) for key, body, version, at in rows]

    def get(self, kind: str, key: str) -> StoredItem | None:
        """One document; None if there is none."""
        rows = self._read("SELECT key, body, version, at FROM items WHERE kind = ? AND key = ?", (kind, key))
        return StoredItem(rows[0][0], stored_body(key, rows[0][1]), rows[0][2], rows[0][3]) if rows else None

    def versions(self, kind: str) -> dict[str, int]:
        """The versions of all documents of a kind by key; none if the file is not there yet."""
        return dict(self._read("SELECT key, version FROM items WHERE kind = ?", (kind,)))

    def put(self, kind: str, key: str, body: Json, *, version: int | None = None) -> int:
        """Keeps a document; see `StudioStore.put`."""
        text = checked_body(key, body)
        with self._write() as connection:
            now = self._expect_version(connection, kind, key, version)
            connection.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)", (kind, key, now + 1, text, utc_now())
            )
        return now + 1

    def remove(self, kind: str, key: str, *, version: int | None = None) -> bool:
        """Removes a document; see `StudioStore.remove`."""
        if not key.isprintable():
            return False
        with self._write() as connection:
            self._expect_version(connection, kind, key, version)
            return connection.execute("DELETE FROM items WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Runs what is within as one transaction, beside which nobody writes; see `StudioStore.exclusive`."""
        with self._write():
            yield

    def log(self, kind: str, body: Json) -> None:
        """Adds an entry to the log."""
        text = checked_body(kind, body)
        with self._write() as connection:
            connection.execute("INSERT INTO log (at, kind, body) VALUES (?, ?, ?)", (utc_now(), kind, text))

    def logged(self, kind: str, limit: int = 200) -> list[tuple[str, Json]]:
        """The last entries of a kind with their times, the newest first."""
        rows = self._read("SELECT at, body FROM log WHERE kind = ? ORDER BY seq DESC LIMIT ?", (kind, limit))
        return [(at, stored_body(kind, body)) for at, body in rows]

    def close(self) -> None:
        """Closes the file."""
        with self._lock, self._reading:
            for each in (self._connection, self._reader):
                if each is not None:
                    each.close()
            self._connection = self._reader = None

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """All rows of a query, from a connection of its own: who reads does not wait for who waits to write."""
        with self._sentences():
            if self._writing_thread == threading.get_ident():  # within `exclusive`, what it has written counts
                return self._connected().execute(sql, values).fetchall()
            with self._reading:
                if self._reader is not None:
                    return self._reader.execute(sql, values).fetchall()
            with self._lock:
                if not self.path.exists():
                    return []
                self._connected()
            return self._read(sql, values)

    def _expect_version(self, connection: sqlite3.Connection, kind: str, key: str, version: int | None) -> int:
        """The version that a document has, 0 if it is not there; ConfigError if another was read."""
        row = connection.execute("SELECT version FROM items WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        now = int(row[0]) if row else 0
        expect_version(kind, key, version, now)
        return now

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._sentences():
            connection = self._connected()
            is_within = connection.in_transaction  # this thread's, by `exclusive`, which ends it
            if is_within:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            self._writing_thread = threading.get_ident()
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._writing_thread = 0

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            expect_own_file(self.path)
            if forged_journal(self.path):
                raise StoreError(f"a journal beside {self.path} is not its own: remove it")
            if not self.path.exists():
                self.path.touch(mode=0o600)
            connection = self._opened("rw")
            connection.execute("PRAGMA journal_mode = WAL")
            if _schema_of(connection) == 0:  # else no lock is waited for
                connection.execute("BEGIN IMMEDIATE")
                if _schema_of(connection) == 0:
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")
            if (version := _schema_of(connection)) > SCHEMA_VERSION:
                connection.close()
                raise StoreError(f"{self.path} was written by a newer firsthand (schema {version}): update firsthand")
            self._connection, self._reader = connection, self._opened("ro")
        return self._connection

    def _opened(self, mode: str) -> sqlite3.Connection:
        connection = connect_bounded(self.path, mode, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            raise StoreError(f"{self.path} cannot be used: {error}") from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be made: {error.strerror or error}") from error


def _schema_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def checked_body(key: str, body: Json) -> str:
    """The body as JSON in ASCII; ConfigError for a key or body that is too long, or a key that is no line, `.` or `..`."""
    if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise ConfigError(f"{key[:60]!r} is no name: give 1 to {MAX_KEY_CHARS} characters on one line")
    if key in (".", ".."):  # a browser takes them out of an address
        raise ConfigError(f"{key!r} is no name: no browser could open a page of it")
    text = json.dumps(body, ensure_ascii=True)
    if len(text) > MAX_BODY_CHARS:
        raise ConfigError(f"{key[:60]!r} has {len(text):,} characters: at most {MAX_BODY_CHARS:,} are kept")
    return text


def stored_body(key: str, text: str) -> Json:
    """The body of a row; StoreError for one that another program has written."""
    try:
        body = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise StoreError(
            f"the store's row {key[:60]!r} holds no JSON object: another program has written it; delete it"
        )
    return body


def expect_version(kind: str, key: str, version: int | None, now: int) -> None:
    """ConfigError if a document has another version than the one that was read."""
    if version is not None and version != now:
        what = "is there already" if version == 0 else "was changed in the meantime"
        raise ConfigError(f"the {kind.rpartition('/')[2]} {key[:60]!r} {what}: open it again and repeat your change")
