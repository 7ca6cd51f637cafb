"""Opens an index's SQLite file: schema, transactions, the right to write, errors as sentences.

SQLite in WAL mode. A reader sees the file as of one commit. A writer holds a lock beside the file, so a second one is told
who holds it. Commits within `writing` reach the operating system, which keeps them when the process is killed; leaving the
block syncs them to the disk. A file may come from anyone: its schema must be ours, and no foreign trigger or view runs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from firsthand.errors import StoreError, reason_of
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.lock import claimed, holder, is_held
from firsthand.system.own_file import expect_own_file
from firsthand.system.sqlite_journal import forged_journal

MEMORY = ":memory:"
"""The path of an index that is kept in memory and lost with the process."""
MAX_VALUE_BYTES = 512 << 20
TOKENIZE = "porter unicode61 remove_diacritics 2"
"""Lower case, letters without their marks, and Porter's stems of English words."""
_BUSY_TIMEOUT_S = 10.0
_APPLICATION_ID = 0x66736978  # "fsix"
_CHECKPOINT_PAGES = 4000
NEWEST_VERSION = 4
"""The version of files all of whose words have the newest form (see `analyzer`). Those of version 1 have the first form, of
version 2 the second, of version -N the second up to chunk N and the first after it, of version 3 the third, and of version
2**30 + N the third up to chunk N. They are renewed when they are written to: the version is _RENEWING + N while chunks up to
number N have the newest form and later ones an older one. Versions of firsthand that write an older form refuse both."""
_RENEWING = 2**29
LAST_CHUNK = 2**29 - 1
"""The last number of a chunk that a version can say."""
_READS_FROM = 1

_TABLES = f"""
    CREATE TABLE header (id INTEGER PRIMARY KEY CHECK (id = 1), embedder TEXT NOT NULL, fingerprint TEXT NOT NULL,
        dimension INTEGER NOT NULL, chunker TEXT NOT NULL, query_prefix TEXT NOT NULL, document_prefix TEXT NOT NULL,
        active INTEGER NOT NULL, next TEXT, revision INTEGER NOT NULL, removals INTEGER NOT NULL);
    CREATE TABLE documents (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
        source TEXT NOT NULL, sha256 TEXT NOT NULL, digest BLOB NOT NULL, meta TEXT NOT NULL, locations TEXT NOT NULL,
        text BLOB NOT NULL);
    CREATE INDEX documents_by_title ON documents (title COLLATE NOCASE);
    CREATE INDEX documents_by_source ON documents (source);
    CREATE TABLE metas (number INTEGER PRIMARY KEY AUTOINCREMENT, json TEXT NOT NULL UNIQUE);
    CREATE TABLE fields (key TEXT NOT NULL, kind INTEGER NOT NULL, value NOT NULL, meta INTEGER NOT NULL,
        PRIMARY KEY (key, kind, value, meta)) WITHOUT ROWID;
    CREATE INDEX fields_by_meta ON fields (meta);
    CREATE TABLE chunks (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document INTEGER NOT NULL,
        start INTEGER NOT NULL, end INTEGER NOT NULL, heading TEXT NOT NULL, parent TEXT, meta INTEGER NOT NULL,
        text TEXT NOT NULL, text_hash BLOB NOT NULL, searchable INTEGER NOT NULL, words BLOB NOT NULL,
        length INTEGER NOT NULL);
    CREATE INDEX chunks_by_document ON chunks (document, start);
    CREATE INDEX chunks_by_meta ON chunks (meta);
    CREATE INDEX chunks_by_text ON chunks (text_hash);
    CREATE TABLE words (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
    CREATE VIRTUAL TABLE terms USING fts5 (text, content = '', detail = 'none', tokenize = '{TOKENIZE}');
    CREATE TABLE vectors_0 (chunk INTEGER PRIMARY KEY, vector BLOB NOT NULL);
    CREATE TABLE vectors_1 (chunk INTEGER PRIMARY KEY, vector BLOB NOT NULL)
"""


class IndexFile:
    """The SQLite file of an index, for use from any thread, and from a forked child too."""

    def __init__(
        self,
        path: Path | None,
        *,
        create: bool,
        read_only: bool,
        fill: Callable[[sqlite3.Connection], None] = lambda connection: None,
    ):
        """`path` is None for an index in memory. `fill` writes the first rows of a new file, together with its tables."""
        self.path = path
        self.name = MEMORY if path is None else str(path)
        self._read_only = read_only
        self._lock = threading.RLock()
        self._pid = -1
        self._inherited: list[sqlite3.Connection] = []
        self._writer = threading.RLock()
        self._writing = False
        with self._sentences():
            if path is not None:
                self._look_at(path, create)
            self._makes_wal = read_only and path is not None and not Path(f"{path}-wal").exists()
            with self._making(create):
                self._connection = self._connected_as("rwc" if create else "ro" if read_only else "rw")
                self._pid = os.getpid()
                try:
                    self._check_schema(create, fill)
                except BaseException:
                    self._connection.close()
                    raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the file as of one commit."""
        with self._sentences(), self._lock:
            connection = self._own_connection()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write for several transactions. Leaving the block syncs what was committed."""
        if self._read_only:
            raise StoreError(f"{self.name} was opened to be read: open it again without read_only to write")
        with self._sentences(), self._lock:
            self._own_connection().execute("SELECT 1 FROM header")  # a closed index has no claim
        if self.path is None:
            yield
            return
        with self._writer:  # not the connection's lock: other threads search between two transactions
            if self._writing:
                yield
                return
            with claimed(_lock(self.path), self._busy):
                self._writing = True
                try:
                    yield
                finally:
                    self._writing = False
                    self._sync()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction, within `writing`. Leaving the block commits it."""
        with self._sentences(), self._lock:
            connection = self._own_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("UPDATE header SET revision = revision + 1")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise

    def has_newest_words(self) -> bool:
        """True if all words of the file have the newest form, now."""
        with self._sentences(), self._lock:
            return renewed_up_to(self._own_connection()) == LAST_CHUNK

    def damaged(self, fault: str) -> StoreError:
        """The error of a file whose content is not what we wrote."""
        return StoreError(
            f"{self.name} is damaged: {fault}. Restore it from a copy, or delete it and index the documents again"
        )

    def close(self) -> None:
        """Close the file; a later use is an error of SQLite's, as a sentence."""
        with self._sentences(), self._lock:
            if self._pid == os.getpid():
                self._connection.close()
                if self._makes_wal:
                    self._drop_wal()

    def _drop_wal(self) -> None:
        """Remove the write-ahead log that reading made: SQLite does so where the last connection to close may write."""
        with suppress(sqlite3.Error):
            self._connect("rw").close()

    # -- opening --

    @contextmanager
    def _making(self, create: bool) -> Iterator[None]:
        """Hold the right to write while a file that is not there yet, or is empty, is made."""
        if not create or self.path is None or _has_content(str(self.path)):
            yield
            return
        with claimed(_lock(self.path), self._busy):
            yield

    def _look_at(self, path: Path, create: bool) -> None:
        if path.is_dir():
            raise StoreError(f"{path} is a folder: give the path of an index's file in it")
        if not self._read_only:
            expect_own_file(path)
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the folder of {path} cannot be made ({reason_of(error)}): give another path"
                ) from None
        elif not path.is_file():
            raise StoreError(f"no index at {path}: make one with `firsthand rag index`, or give another path")
        if (journal := forged_journal(path)) is not None:
            raise StoreError(
                f"{journal} names a file that SQLite would delete, and firsthand writes no such journal: "
                "do not trust what came with it; delete the journal to read the index all the same"
            )

    def _own_connection(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            if self.path is None:
                raise StoreError("an index in memory cannot be used in a forked process: keep it in a file")
            # A connection must not cross a fork; closing it here would checkpoint under the parent, so it is kept.
            self._inherited.append(self._connection)
            self._connection = self._connected_as("ro" if self._read_only else "rw")
            self._pid = os.getpid()
        return self._connection

    def _connected_as(self, mode: str) -> sqlite3.Connection:
        try:
            return self._connect(mode)
        except sqlite3.Error as error:
            unwritable = _name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR"))
            if mode != "ro" or self.path is None or not unwritable or _has_content(f"{self.path}-wal"):
                raise
            # A read-only folder has no room for WAL's shared memory, and with no WAL none is needed.
            return self._connect("ro&immutable=1")

    def _connect(self, mode: str) -> sqlite3.Connection:
        more: dict[str, Any] = {"timeout": _BUSY_TIMEOUT_S, "isolation_level": None, "check_same_thread": False}
        more["cached_statements"] = 512
        connection = sqlite3.connect(MEMORY, **more) if self.path is None else connect_bounded(self.path, mode, **more)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.text_factory = _text
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA secure_delete = ON")  # deleted bytes are overwritten
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            if mode == "rwc":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # the first look at the file itself
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, create: bool, fill: Callable[[sqlite3.Connection], None]) -> None:
        """Make the tables in an empty file; refuse a newer or foreign one, and one that another process is making."""
        connection = self._connection
        if create and _is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if _is_empty(connection):  # again, now that nobody else can make them
                    _run_script(connection, _TABLES)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {NEWEST_VERSION}")
                    fill(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        if self.path is not None and _is_empty(connection) and is_held(lock := _lock(self.path)):
            raise self._busy(holder(lock))
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise StoreError(f"{self.name} is a SQLite file and is no index: give another path, or remove it")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_renewing = version < 0 or _RENEWING <= version < 2**31 - 1
        if not (is_renewing or _READS_FROM <= version <= NEWEST_VERSION):
            raise StoreError(
                f"{self.name} has schema version {version}, and this firsthand knows {NEWEST_VERSION}: "
                "open it with the firsthand that wrote it, or index the documents again"
            )
        if tuple(sorted(connection.execute(_MASTER).fetchall(), key=repr)) != _master():
            raise self.damaged("its tables are not those of an index")

    def _sync(self) -> None:
        """Sync all commits to the disk: in WAL mode one synced commit carries those before it."""
        with self._sentences(), self._lock:
            connection = self._own_connection()
            connection.execute("PRAGMA synchronous = FULL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE header SET revision = revision + 1")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute("PRAGMA synchronous = NORMAL")

    # -- errors --

    def _busy(self, holder: str) -> StoreError:
        return StoreError(f"{self.name} is being written by {holder}: wait for it or end it, then try again")

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """SQLite's and the system's errors as StoreErrors that say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except UnicodeDecodeError as error:
            raise self.damaged("its schema is not text") from error
        except MemoryError as error:
            raise self.damaged("it asks for more memory than there is") from error
        except OSError as error:
            raise StoreError(f"{self.name} cannot be used: {error.strerror or error}") from error

    def _explained(self, error: sqlite3.Error) -> StoreError:
        name, folder = _name(error), Path() if self.path is None else self.path.parent
        if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_full(folder)):
            return StoreError(
                f"the disk of {folder} is full ({error}). The documents stored before are kept: "
                "make room, then index again, which goes on where it ended"
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return StoreError(f"{self.name} cannot be written ({error}): make its folder writable, or use another path")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreError(
                f"{self.name} is in use by another process and stayed so for {_BUSY_TIMEOUT_S:g} s: "
                "wait for it or end it, then try again"
            )
        if name == "SQLITE_NOTADB":
            return StoreError(f"{self.name} is no index, or its beginning is damaged: give another path, or remove it")
        if name.startswith("SQLITE_IOERR"):
            return StoreError(f"{self.name} cannot be read or written ({error}): check the disk, then try again")
        if "fts5" in str(error):
            return StoreError(f"this Python's SQLite ({sqlite3.sqlite_version}) was built without FTS5: use another")
        if isinstance(error, sqlite3.ProgrammingError):
            return StoreError(f"{self.name} cannot be used ({error}): open it again")
        return self.damaged(str(error))


def _lock(path: Path) -> Path:
    """The file whose lock is the right to write an index."""
    return path.with_name(f"{path.name}.lock")


def renewed_up_to(connection: sqlite3.Connection) -> int:
    """The number of the last chunk whose words have the newest form: LAST_CHUNK if those of all have it, 0 if of none."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == NEWEST_VERSION:
        return LAST_CHUNK
    return version - _RENEWING if _RENEWING <= version < 2 * _RENEWING else 0


def set_renewed_up_to(connection: sqlite3.Connection, number: int) -> None:
    """Note the number of the last chunk whose words have the newest form: LAST_CHUNK if those of all have it."""
    version = NEWEST_VERSION if number == LAST_CHUNK else _RENEWING + number
    connection.execute(f"PRAGMA user_version = {version}")


_MASTER = """
    SELECT type, name, sql FROM sqlite_master WHERE NOT (name LIKE 'sqlite\\_autoindex\\_%' ESCAPE '\\' AND type = 'index'
        AND sql IS NULL OR name IN ('sqlite_stat1', 'sqlite_stat4') AND type = 'table')
"""


@cache
def _master() -> tuple[Any, ...]:
    """The rows of `sqlite_master` of an index."""
    connection = sqlite3.connect(MEMORY)
    try:
        _run_script(connection, _TABLES)
        return tuple(sorted(connection.execute(_MASTER).fetchall(), key=repr))
    finally:
        connection.close()


def _is_empty(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    return bool(found is None and connection.execute("PRAGMA user_version").fetchone()[0] == 0)


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements inside the open transaction, which `executescript` would commit first."""
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def _name(error: sqlite3.Error) -> str:
    """SQLite's name for an error; empty where Python's own layer raised it."""
    return getattr(error, "sqlite_errorname", "")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction, if an error has not ended it already."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _has_content(path: str) -> bool:
    return Path(path).exists() and Path(path).stat().st_size > 0


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 1 << 20
