"""Opens a run's SQLite file: schema and migrations, transactions, bodies stored by content, errors as sentences.

SQLite in WAL mode with `synchronous=NORMAL`: a commit survives `kill -9` of every process; a power cut may take the last
ones. Each write is one `BEGIN IMMEDIATE` transaction: a deferred one that reads and then writes fails under contention,
whatever the timeout. `store.py` says what the tables mean. A file may come from anyone: its schema must be ours (so no
foreign trigger or view runs), and every body is checked against its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import BodyTooLarge, StoreError
from firsthand.runs.body_values import too_many_values
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.system.own_file import expect_own_file
from firsthand.system.sqlite_journal import forged_journal

MAX_BODY_BYTES = 512 << 20
_BUSY_TIMEOUT_S = 10.0
_MAX_DEPTH, _MAX_BITS = 100, 14_000
"""Of values that a scorer or a pattern made of an answer."""
_CHECKPOINT_BYTES = 4000 * 4096
"""The write-ahead log holds so much before it is moved into the file: a page written often moves once."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE bodies (sha256 BLOB NOT NULL PRIMARY KEY, zlib BLOB NOT NULL);
    CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), created_at TEXT NOT NULL, status TEXT NOT NULL,
        about BLOB NOT NULL);
    CREATE TABLE tasks (benchmark TEXT NOT NULL, task TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (benchmark, task));
    CREATE TABLE agents (name TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE effects (seq INTEGER PRIMARY KEY, attempt TEXT NOT NULL, effect TEXT NOT NULL, request TEXT NOT NULL,
        reply BLOB NOT NULL, at TEXT NOT NULL);
    CREATE INDEX effects_by_place ON effects (attempt, effect, request);
    CREATE INDEX effects_by_request ON effects (request);
    CREATE TABLE traces (seq INTEGER PRIMARY KEY, attempt TEXT NOT NULL, try INTEGER NOT NULL, benchmark TEXT NOT NULL,
        task TEXT NOT NULL, agent TEXT NOT NULL, epoch INTEGER NOT NULL, score REAL, stop_reason TEXT NOT NULL, error TEXT,
        calls INTEGER NOT NULL, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL, duration_s REAL NOT NULL,
        version INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (attempt, try));
    CREATE TABLE preferences (seq INTEGER PRIMARY KEY, task TEXT NOT NULL, body BLOB NOT NULL);
    """,
    """
    ALTER TABLE tasks ADD COLUMN cluster TEXT;
    CREATE INDEX traces_by_agent ON traces (benchmark, agent, task, score, tokens, cost_usd, duration_s);
    CREATE INDEX traces_retried ON traces (attempt, try) WHERE try > 1;
    """,
    """
    CREATE TABLE scores (seq INTEGER PRIMARY KEY, attempt TEXT NOT NULL, try INTEGER NOT NULL, name TEXT NOT NULL,
        scorer TEXT NOT NULL, value REAL, body BLOB NOT NULL, at TEXT NOT NULL);
    CREATE INDEX scores_by_attempt ON scores (attempt, try, name);
    CREATE INDEX scores_by_name ON scores (name, scorer);
    """,
    """
    ALTER TABLE run ADD COLUMN planned INTEGER;
    ALTER TABLE traces ADD COLUMN id TEXT NOT NULL DEFAULT '';
    ALTER TABLE traces ADD COLUMN numbers TEXT;
    ALTER TABLE scores ADD COLUMN numbers TEXT;
    UPDATE traces SET id = attempt;
    CREATE INDEX traces_by_id ON traces (id);
    CREATE INDEX traces_by_name ON traces (benchmark || '/' || task || '/' || agent || '/' || epoch);
    CREATE TABLE steps (seq INTEGER PRIMARY KEY, attempt TEXT NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL,
        body TEXT NOT NULL);
    CREATE INDEX steps_by_attempt ON steps (attempt) WHERE kind <> 'ended';
    """,
    """
    ALTER TABLE run ADD COLUMN digest INTEGER;
    ALTER TABLE tasks ADD COLUMN digest INTEGER;
    ALTER TABLE traces ADD COLUMN digest INTEGER;
    ALTER TABLE scores ADD COLUMN digest INTEGER;
    UPDATE run SET digest = checksum(id, created_at, status, about, planned);
    UPDATE tasks SET digest = checksum(benchmark, task, body, cluster);
    UPDATE traces SET digest = checksum(seq, attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls,
        tokens, cost_usd, duration_s, version, body, id, numbers);
    UPDATE scores SET digest = checksum(seq, attempt, try, name, scorer, value, body, at, numbers);
    """,
    """
    CREATE TABLE metrics (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, at REAL NOT NULL,
        digest INTEGER);
    CREATE INDEX metrics_by_name ON metrics (name, step, seq, value, at);
    CREATE TABLE rewinds (seq INTEGER PRIMARY KEY, step INTEGER NOT NULL, after INTEGER NOT NULL, at REAL NOT NULL,
        digest INTEGER);
    CREATE TABLE samples (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL,
        at REAL NOT NULL, digest INTEGER);
    CREATE TABLE artifacts (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER, path TEXT NOT NULL,
        sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, at REAL NOT NULL, digest INTEGER);
    """,
)
"""Migration number n takes a file from schema version n to n + 1. They are only ever added to."""


@dataclass(frozen=True)
class Schema:
    """The tables that a kind of SQLite file has."""

    noun: str
    """With its article, as in "is a SQLite file, but not a run"."""
    application_id: int
    """Tells the file from any other SQLite file."""
    migrations: tuple[str, ...]
    place: str = "the folder of a run"
    """The word by which a user names such a file."""
    missing: str = "`firsthand runs` shows all"
    """The end of the sentence on a file that is not there."""
    resume: str = "then resume the run"
    """The end of a sentence on a fault that passes."""
    copied: str = "the run's folder"
    """The files that are restored from a copy."""
    reads_from: int | None = None
    """The oldest version that is read as it is where it cannot be brought up to ours; None: only ours is."""
    page_bytes: int = 4096
    """The page size of a new file."""


RUN_SCHEMA = Schema("a run", 0x66737468, MIGRATIONS)  # "fsth"


class Database:
    """A SQLite file, a run's by default, for use from any thread, and from a forked child too."""

    def __init__(self, path: Path, *, create: bool = False, schema: Schema = RUN_SCHEMA):
        self.path = path
        self.schema = schema
        self._lock = threading.RLock()
        self._inherited: list[sqlite3.Connection] = []
        self._pid = -1
        with self._sentences():
            noun = schema.noun.removeprefix("a ")
            if not create and not path.is_file():
                raise StoreError(f"no {noun} at {path}: {schema.missing}")
            expect_own_file(path)
            if (journal := forged_journal(path)) is not None:
                raise StoreError(
                    f"{journal} names a file that SQLite would delete, and firsthand writes no such journal: "
                    f"do not trust what came with it; delete the journal to read the {noun} all the same"
                )
            self._open(create)

    def read(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._sentences(), self._lock:
            return self._connected().execute(sql, values).fetchall()

    @property
    def version(self) -> str:
        """A text that changes with every commit that this connection can read, its own and those of others."""
        with self._sentences(), self._lock:
            connection = self._connected()
            return f"{connection.execute('PRAGMA data_version').fetchone()[0]} {connection.total_changes}"

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that holds the one right to write. Leaving the block commits it."""
        with self._sentences(), self._lock:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise

    def empty_log(self, wait_s: float = _BUSY_TIMEOUT_S) -> bool:
        """Move what was written from the log beside the file into the file. False if other connections read for `wait_s`."""
        with self._sentences(), self._lock:
            connection = self._connected()
            connection.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
            try:
                return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                connection.execute(f"PRAGMA busy_timeout = {round(_BUSY_TIMEOUT_S * 1000)}")

    def get(self, digest: Any) -> Any:
        """The body of that SHA-256; StoreError if it is missing or was changed."""
        found = self.read("SELECT zlib FROM bodies WHERE sha256 = ?", (digest,))
        if not found:
            raise self.damaged("a body that is referred to is missing")
        return self.unpack(digest, found[0][0])

    def unpack(self, digest: Any, packed: Any) -> Any:
        """The JSON in a stored body, which must have this SHA-256."""
        try:
            raw = _inflate(packed)
            if hashlib.sha256(raw).digest() != digest:
                raise self.damaged("a body does not have the SHA-256 it was stored under")
            if fault := too_many_values(raw, len(packed)):
                raise ValueError(fault)
            return json.loads(raw.decode("utf-8", "surrogatepass"))
        except (zlib.error, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise self.damaged(f"a body cannot be read: {error}") from None

    def pack(self, body: Any, *, exact: bool = True) -> PackedBody:
        """A body for `put_packed`, with the errors of `put`. It keeps no other thread from the file meanwhile."""
        with self._sentences():
            encoded = _encoded(body, exact)
            return PackedBody(hashlib.sha256(encoded).digest(), _packed(encoded))

    def damaged(self, what: str) -> StoreError:
        """The error of a file whose content is not what we wrote."""
        return StoreError(
            f"{self.path} is damaged: {what}. Restore {self.schema.copied} from a copy, or rescue what can be read with "
            f"`sqlite3 {shlex.quote(str(self.path))} .recover`"
        )

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._sentences(), self._lock:
            if self._pid == os.getpid():
                self._connection.close()
            self._pid = -1

    # -- opening --

    def _open(self, create: bool) -> None:
        self._connection = self._connect(create)
        self._pid = os.getpid()
        try:
            self._migrate(create)
        except BaseException:
            self._connection.close()
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            # A connection must not cross a fork; closing it here would checkpoint under the parent, so it is kept.
            if self._pid != -1:
                self._inherited.append(self._connection)
            self._connection = self._connect(create=False)
            self._pid = os.getpid()
        return self._connection

    def _connect(self, create: bool) -> sqlite3.Connection:
        try:
            return self._connect_as("rwc" if create else "rw")
        except sqlite3.Error as error:
            wal = self.path.with_name(self.path.name + "-wal")
            unwritable = _name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR"))
            if create or not unwritable or (wal.exists() and wal.stat().st_size):
                raise
            # A read-only folder or a full disk has no room for WAL's shared memory, and with no WAL none is needed.
            return self._connect_as("ro&immutable=1")

    def _connect_as(self, mode: str) -> sqlite3.Connection:
        connection = connect_bounded(
            self.path,
            mode,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.create_function("checksum", -1, checksum, deterministic=True)
            connection.create_function("folded", 1, folded, deterministic=True)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BODY_BYTES)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            pages = _CHECKPOINT_BYTES // self.schema.page_bytes
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            if mode == "rwc":
                connection.execute(f"PRAGMA page_size = {self.schema.page_bytes}")  # of a file that is there, nothing
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # the first look at the file itself
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, create: bool) -> None:
        """Bring an older schema up to ours, or read it as it is if it cannot be written; refuse a newer or foreign one."""
        version, migrations = self._version(), self.schema.migrations
        if version > len(migrations):
            raise StoreError(
                f"{self.path} has schema version {version}, and this firsthand knows {len(migrations)}: "
                "open it with the firsthand that wrote it, or a newer one"
            )
        ours = self.read("PRAGMA application_id")[0][0] == self.schema.application_id
        if not create and not ours:
            if self.read("PRAGMA schema_version")[0][0] == 0 and version == 0:
                if self.schema == RUN_SCHEMA:
                    raise never_begun(self.path.parent)
                raise StoreError(
                    f"{self.path} holds nothing yet: its maker was stopped before {self.schema.noun} was in it. "
                    "Write to it again, or delete this one file"
                )
            raise StoreError(f"{self.path} is a SQLite file, but not {self.schema.noun}: give {self.schema.place}")
        if self.read("SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index') LIMIT 1"):
            raise self.damaged(f"its tables are not those of {self.schema.noun}: it has triggers or views")
        if version < len(migrations):
            try:
                with self.write() as connection:
                    for number in range(self._version(), len(migrations)):  # again, now that nobody else can migrate
                        _run_script(connection, migrations[number])
                    connection.execute(f"PRAGMA application_id = {self.schema.application_id}")
                    connection.execute(f"PRAGMA user_version = {len(migrations)}")
            except StoreError:  # a read-only folder or a full disk, where a reader needs nothing new
                if create or self.schema.reads_from is None or version < self.schema.reads_from:
                    raise
                migrations = migrations[: self._version()]
        found = self.read(_MASTER)
        if tuple(sorted(found, key=repr)) != _master(migrations):
            raise self.damaged(f"its tables are not those of {self.schema.noun}")

    def _version(self) -> int:
        version = int(self.read("PRAGMA user_version")[0][0])
        if version < 0:
            raise self.damaged(f"its schema version is {version}")
        return version

    # -- errors --

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """SQLite's and the system's errors as StoreErrors that say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except UnicodeDecodeError as error:  # SQLite's complaint quotes the file, which may hold anything
            raise self.damaged("its schema is not text") from error
        except OverflowError as error:
            raise StoreError(f"{self.path}: a number is too large to be stored: {error}") from error
        except MemoryError as error:
            raise self.damaged("it asks for more memory than there is") from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror or error}") from error

    def _explain(self, error: sqlite3.Error) -> StoreError:
        name = _name(error)
        if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and self._disk_is_full()):
            return StoreError(
                f"the disk of {self.path.parent} is full ({error}). What is recorded is kept: "
                f"make room, {self.schema.resume}"
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return StoreError(
                f"{self.path} cannot be written ({error}): make its folder writable, or copy the folder to a place that is"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreError(
                f"{self.path} is in use by another process and stayed so for {_BUSY_TIMEOUT_S:g} s: "
                f"wait for it or end it, {self.schema.resume}"
            )
        if name == "SQLITE_NOTADB":
            return StoreError(f"{self.path} is not a SQLite file, or its beginning is damaged: restore it from a copy")
        if name.startswith("SQLITE_IOERR"):
            return StoreError(f"{self.path} cannot be read or written ({error}): check the disk, {self.schema.resume}")
        return self.damaged(str(error))

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self.path.parent).free < 1 << 20


def never_begun(folder: Path) -> StoreError:
    """The error of a run whose maker was stopped before it had written what the run is."""
    return StoreError(
        f"{folder} was never begun, so it cannot be resumed: its maker was stopped at once. Delete the folder"
    )


_EXACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LENIENT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def digest_of(body: Any) -> bytes:
    """The SHA-256 that a JSON body is stored under."""
    return hashlib.sha256(_EXACT.encode(body).encode("utf-8", "surrogatepass")).digest()


class PackedBody(NamedTuple):
    """A JSON body as it is stored."""

    sha256: bytes
    zlib: bytes


def put(connection: sqlite3.Connection, body: Any, *, exact: bool = True) -> bytes:
    """The SHA-256 of a JSON body, which is stored unless an equal one is there already.

    What is not JSON is a StoreError, or with `exact=False` becomes its text. BodyTooLarge if no file may hold it.
    Key order, NaN and lone surrogates survive.
    """
    encoded = _encoded(body, exact)
    digest = hashlib.sha256(encoded).digest()
    if connection.execute("SELECT 1 FROM bodies WHERE sha256 = ?", (digest,)).fetchone() is None:
        put_packed(connection, PackedBody(digest, _packed(encoded)))
    return digest


def put_packed(connection: sqlite3.Connection, body: PackedBody) -> bytes:
    """The SHA-256 of a body of `Database.pack`, which is stored unless an equal one is there already."""
    connection.execute("INSERT INTO bodies VALUES (?, ?) ON CONFLICT DO NOTHING", body)
    return body.sha256


def _encoded(body: Any, exact: bool) -> bytes:
    try:
        raw = (_EXACT if exact else _LENIENT).encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        if exact:
            raise StoreError(
                f"this cannot be stored as JSON ({error}): use strings, numbers, lists and objects"
            ) from error
        raw = _LENIENT.encode(_readable(body))
    encoded = raw.encode("utf-8", "surrogatepass")
    if len(encoded) >= MAX_BODY_BYTES:
        raise BodyTooLarge(f"a body of {len(encoded)} bytes is too large to be stored: the limit is {MAX_BODY_BYTES}")
    return encoded


def _packed(encoded: bytes) -> bytes:
    packed = zlib.compress(encoded, 3)
    if fault := too_many_values(encoded, len(packed)):
        raise BodyTooLarge(f"a body cannot be stored: {fault}; store arrays as a file beside the run")
    return packed


def _readable(value: Any, depth: int = 0) -> Any:
    """The value as JSON can hold it: keys as texts, integers beyond Python's limit of digits in hex, and no deep nesting."""
    if depth > _MAX_DEPTH:
        return f"nested more than {_MAX_DEPTH} deep"
    if isinstance(value, dict):
        return {str(key): _readable(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(each, depth + 1) for each in value]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return hex(value)
    return value


def checksum(*values: Any) -> int:
    """A row's checksum, which also SQL can call; any single changed byte of the row changes it."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def folded(value: Any) -> Any:
    """A text without its case, which also SQL can call: SQLite's `lower` and LIKE know the letters of ASCII alone."""
    return value.casefold() if isinstance(value, str) else value


def plain(text: str) -> str:
    """The text as a column can hold it: lone surrogates, which UTF-8 has no bytes for, are written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _inflate(packed: Any) -> bytes:
    """The bytes of a zlib stream, never more than a body may have."""
    inflater = zlib.decompressobj()
    raw = inflater.decompress(packed, MAX_BODY_BYTES)
    if not inflater.eof:
        raise ValueError("it is cut short, or too large")
    return raw


def _name(error: sqlite3.Error) -> str:
    """SQLite's name for an error; empty where Python's own layer raised it."""
    return getattr(error, "sqlite_errorname", "")


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements inside the open transaction, which `executescript` would commit first."""
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


_MASTER = """
    SELECT type, name, sql FROM sqlite_master WHERE NOT (name LIKE 'sqlite\\_autoindex\\_%' ESCAPE '\\' AND type = 'index'
        AND sql IS NULL OR name IN ('sqlite_stat1', 'sqlite_stat4') AND type = 'table')
"""
"""All that a schema holds but what SQLite adds itself. A name alone tells nothing: a trigger may be called `sqlite_x`."""


@cache
def _master(migrations: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """The rows of `sqlite_master` after all migrations."""
    connection = sqlite3.connect(":memory:")
    connection.create_function("checksum", -1, checksum, deterministic=True)
    try:
        for script in migrations:
            _run_script(connection, script)
        return tuple(sorted(connection.execute(_MASTER).fetchall(), key=repr))
    finally:
        connection.close()
