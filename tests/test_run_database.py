"""A run's file in small: opening and migrating it, transactions, bodies, and every error as its sentence."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from firsthand.errors import StoreError
from firsthand.runs import database as module
from firsthand.runs.database import (
    MIGRATIONS,
    Database,
    Schema,
    _inflate,
    _master,
    _readable,
    _run_script,
    checksum,
    plain,
    put,
)

SMALL = Schema(
    "a shelf", 77,
    ("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT);", "ALTER TABLE books ADD COLUMN year INTEGER; ;"),
    place="the folder of a shelf", missing="look elsewhere", resume="then read on", copied="the shelf", page_bytes=8192,
)  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "run.sqlite", create=True)
    yield made
    made.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "shelf.sqlite", create=True, schema=SMALL)
    yield made
    made.close()


def error(name: str, text: str = "it says") -> sqlite3.Error:
    """An error as SQLite raises it."""
    made = sqlite3.OperationalError(text)
    made.sqlite_errorname = name
    return made


def test_a_new_file_is_of_its_schema_and_set_as_it_should_be(shelf: Database) -> None:
    pragmas = {
        name: shelf.read(f"PRAGMA {name}")[0][0]
        for name in (
            "application_id", "user_version", "page_size", "journal_mode", "synchronous", "trusted_schema",
            "cell_size_check", "wal_autocheckpoint", "busy_timeout",
        )
    }  # fmt: skip
    assert pragmas == {
        "application_id": 77, "user_version": 2, "page_size": 8192, "journal_mode": "wal", "synchronous": 1,
        "trusted_schema": 0, "cell_size_check": 1, "wal_autocheckpoint": 2000, "busy_timeout": 10_000,
    }  # fmt: skip
    assert [row[1] for row in shelf.read("PRAGMA table_info(books)")] == ["id", "title", "year"]
    connection = shelf._connection
    assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == min(module.MAX_BODY_BYTES, 10**9)
    assert shelf.read("SELECT checksum(1, 'a', NULL)") == [(checksum(1, "a", None),)]
    assert checksum(1, "a", None) == zlib.crc32(b"(1, 'a', None)")
    assert connection.isolation_level is None
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.append(shelf.read("SELECT 5")))
    reader.start()
    reader.join()
    assert seen == [[(5,)]], "any thread may use it"
    odd = Database(shelf.path.with_name("a b#?%20é.sqlite"), create=True, schema=SMALL)
    odd.close()
    assert odd.path.is_file()


@pytest.mark.slow
def test_an_older_file_is_migrated_once_and_a_newer_or_foreign_one_is_refused(tmp_path: Path, shelf: Database) -> None:
    path = tmp_path / "old.sqlite"

    def made(script: str, version: int, application: int) -> None:
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript(f"{script}; PRAGMA user_version = {version}; PRAGMA application_id = {application}")
        connection.close()

    def refused(**more: Any) -> str:
        with pytest.raises(StoreError) as why:
            Database(path, schema=SMALL, **more)
        return str(why.value)

    made("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO books VALUES (3, 'x')", 1, 77)
    for _ in range(2):
        old = Database(path, schema=SMALL)
        assert old.read("SELECT id, title, year FROM books") == [(3, "x", None)]
        assert old.read("PRAGMA user_version") == [(2,)]
        old.close()
    made("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT)", 3, 77)
    assert refused() == (
        f"{path} has schema version 3, and this firsthand knows 2: open it with the firsthand that wrote it, or a newer one"
    )
    made("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT)", 1, 78)
    assert refused() == f"{path} is a SQLite file, but not a shelf: give the folder of a shelf"
    made("CREATE TABLE books (id INTEGER)", -1, 77)
    assert "its schema version is -1" in refused()
    made("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, year INTEGER, more TEXT)", 2, 77)
    damaged = f"{path} is damaged: its tables are not those of a shelf"
    rescue = f". Restore the shelf from a copy, or rescue what can be read with `sqlite3 {path} .recover`"
    assert refused() == damaged + rescue
    made("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT); CREATE VIEW v AS SELECT 1", 1, 77)
    assert refused() == f"{damaged}: it has triggers or views{rescue}"
    made("", 0, 0)
    path.write_bytes(b"")
    assert refused() == (
        f"{path} holds nothing yet: its maker was stopped before a shelf was in it. "
        "Write to it again, or delete this one file"
    )
    made("CREATE TABLE other (id INTEGER)", 0, 0)
    assert "is a SQLite file, but not a shelf" in refused()
    path.write_bytes(b"no database" * 100)
    assert refused() == f"{path} is not a SQLite file, or its beginning is damaged: restore it from a copy"
    path.unlink()
    assert refused() == f"no shelf at {path}: look elsewhere"
    assert not path.exists()
    path.mkdir()
    assert refused() == f"no shelf at {path}: look elsewhere", "a folder is no file"
    path.rmdir()
    assert "no shelf at" in refused(create=False)
    assert len(_master(SMALL.migrations)) == 1
    assert _master(SMALL.migrations)[0][:2] == ("table", "books")
    assert len(MIGRATIONS) == 6


class Second(Database):
    """A file that another process migrates after this one has looked at its version."""

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        Database(self.path, schema=self.schema).close()
        with super().write() as connection:
            yield connection


def test_of_two_that_open_an_old_file_at_once_the_second_finds_it_migrated(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO books VALUES (3, 'x');"
        "PRAGMA user_version = 1; PRAGMA application_id = 77"
    )
    connection.close()
    second = Second(path, schema=SMALL)
    assert second.read("SELECT id, title, year FROM books") == [(3, "x", None)]
    assert (second.read("PRAGMA user_version"), second.read("PRAGMA application_id")) == ([(2,)], [(77,)])
    second.close()


def test_a_forged_journal_is_named_and_nothing_is_opened(tmp_path: Path, shelf: Database) -> None:
    journal = Path(os.path.realpath(shelf.path) + "-journal")
    journal.mkdir()  # what cannot be looked into is not believed
    for create in (False, True):
        with pytest.raises(StoreError) as forged:
            Database(shelf.path, schema=SMALL, create=create)
        assert str(forged.value) == (
            f"{journal} names a file that SQLite would delete, and firsthand writes no such journal: do not trust what "
            "came with it; delete the journal to read the shelf all the same"
        )
    journal.rmdir()
    Database(shelf.path, schema=SMALL).close()


def test_a_transaction_is_kept_whole_or_not_at_all(shelf: Database) -> None:
    version = shelf.version
    with shelf.write() as connection:
        assert connection.in_transaction
        connection.execute("INSERT INTO books (title) VALUES ('a')")
        connection.execute("INSERT INTO books (title) VALUES ('b')")
    assert shelf.version != version
    version = shelf.version
    with pytest.raises(KeyError), shelf.write() as connection:
        connection.execute("INSERT INTO books (title) VALUES ('c')")
        raise KeyError
    assert shelf.read("SELECT title FROM books ORDER BY id") == [("a",), ("b",)]
    assert not shelf._connection.in_transaction
    with pytest.raises(StoreError), shelf.write() as connection:
        connection.execute("INSERT INTO nowhere VALUES (1)")
    assert shelf.read("SELECT title FROM books WHERE id = ?", (2,)) == [("b",)]
    assert shelf.read("SELECT title FROM books WHERE id = :id", {"id": 1}) == [("a",)]
    other = Database(shelf.path, schema=SMALL)
    seen = shelf.version
    with other.write() as connection:
        connection.execute("DELETE FROM books")
    assert shelf.version != seen
    other.close()
    assert other._pid == -1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        other._connection.execute("SELECT 1")
    other.close()
    assert other.read("SELECT count(*) FROM books") == [(0,)], "a later use opens it again"
    other.close()
    before = shelf._connection
    shelf._pid = 1  # as in a child that was forked
    assert shelf.read("SELECT 1") == [(1,)]
    assert (shelf._inherited, shelf._pid, shelf._connection is before) == ([before], os.getpid(), False)
    before.close()


def test_a_file_that_cannot_be_written_is_read_where_no_log_waits(tmp_path: Path, database: Database) -> None:
    database.close()
    connection = sqlite3.connect(f"{database.path.as_uri()}?mode=ro", uri=True)
    connection.close()
    readable = database._connect_as("ro&immutable=1")
    assert readable.execute("PRAGMA query_only").fetchone() == (0,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        readable.execute("CREATE TABLE t (x)")
    readable.close()
    shared, wal = Path(f"{database.path}-shm"), Path(f"{database.path}-wal")
    shared.symlink_to(tmp_path / "none" / "file")  # no room for the memory that a log needs
    assert database.read("SELECT count(*) FROM run") == [(0,)]
    with pytest.raises(StoreError), database.write() as connection:
        connection.execute("DELETE FROM run")
    database.close()
    with pytest.raises(sqlite3.OperationalError):
        database._connect(create=True)
    wal.write_bytes(b"")
    database._connect(create=False).close()
    wal.write_bytes(b"what waits in the log must not be passed over")
    with pytest.raises(StoreError, match="cannot be written"):
        database.read("SELECT 1")
    wal.unlink()
    shared.unlink()
    gone = Database(tmp_path / "gone.sqlite", create=True)
    gone.close()
    for file in tmp_path.glob("gone.sqlite*"):
        file.unlink()
    for create in (False, True):
        gone.path = tmp_path / "none" / "gone.sqlite"
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            gone._connect(create)


def test_every_error_of_sqlite_is_a_sentence_that_says_what_to_do(shelf: Database) -> None:
    path, folder = shelf.path, shelf.path.parent
    rescue = f"Restore the shelf from a copy, or rescue what can be read with `sqlite3 {path} .recover`"
    busy = f"{path} is in use by another process and stayed so for 10 s: wait for it or end it, then read on"
    writable = "make its folder writable, or copy the folder to a place that is"
    for name, sentence in (
        ("SQLITE_FULL", f"the disk of {folder} is full (it says). What is recorded is kept: make room, then read on"),
        ("SQLITE_READONLY_DBMOVED", f"{path} cannot be written (it says): {writable}"),
        ("SQLITE_CANTOPEN", f"{path} cannot be written (it says): {writable}"),
        ("SQLITE_PERM", f"{path} cannot be written (it says): {writable}"),
        ("SQLITE_BUSY_SNAPSHOT", busy),
        ("SQLITE_LOCKED", busy),
        ("SQLITE_NOTADB", f"{path} is not a SQLite file, or its beginning is damaged: restore it from a copy"),
        ("SQLITE_IOERR_READ", f"{path} cannot be read or written (it says): check the disk, then read on"),
        ("SQLITE_CORRUPT", f"{path} is damaged: it says. {rescue}"),
        ("", f"{path} is damaged: it says. {rescue}"),
    ):  # fmt: skip
        assert str(shelf._explain(error(name))) == sentence
    for raised, sentence in (
        (error("SQLITE_FULL"), f"the disk of {folder} is full (it says). What is recorded is kept: make room, then read on"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), f"{path} is damaged: its schema is not text. {rescue}"),
        (OverflowError("int too large"), f"{path}: a number is too large to be stored: int too large"),
        (MemoryError(), f"{path} is damaged: it asks for more memory than there is. {rescue}"),
        (OSError(28, "No space left on device"), f"{path} cannot be used: No space left on device"),
        (OSError("odd"), f"{path} cannot be used: odd"),
    ):  # fmt: skip
        with pytest.raises(StoreError) as told, shelf._sentences():
            raise raised
        assert (str(told.value), told.value.__cause__) == (sentence, raised)
    for free, is_full in (((1 << 20) - 1, True), (1 << 20, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
            assert (
                str(shelf._explain(error("SQLITE_IOERR_WRITE"))).startswith(f"the disk of {folder} is full") is is_full
            )
    with pytest.raises(ZeroDivisionError), shelf._sentences():
        raise ZeroDivisionError
    with pytest.raises(StoreError, match="too large to be stored"):
        shelf.read("SELECT ?", (2**63,))


def test_a_body_is_stored_once_by_its_content_and_comes_back_as_it_was(database: Database) -> None:
    body = {"b": [1, None, "é\ud800"], "a": math.inf}
    with database.write() as connection:
        digest = put(connection, body)
        assert put(connection, dict(body)) == digest
        other = put(connection, {"a": math.inf, "b": body["b"]})
        text = put(connection, {"when": Path("x"), "n": (1, 2)}, exact=False)
        odd = put(connection, {("a", 1): {2: [10**5000]}}, exact=False)
    raw = '{"b":[1,null,"é\ud800"],"a":Infinity}'.encode("utf-8", "surrogatepass")
    assert digest == hashlib.sha256(raw).digest()
    assert digest != other, "the order of keys survives"
    assert database.read("SELECT count(*) FROM bodies") == [(4,)]
    assert database.read("SELECT zlib FROM bodies WHERE sha256 = ?", (digest,)) == [(zlib.compress(raw, 3),)]
    assert (database.get(digest), list(database.get(digest))) == (body, ["b", "a"])
    assert database.get(text) == {"when": "x", "n": [1, 2]}
    assert database.get(odd) == {"('a', 1)": {"2": [hex(10**5000)]}}
    with pytest.raises(
        StoreError, match=r"^this cannot be stored as JSON \(.*\): use strings, numbers, lists and objects$"
    ):
        put(connection, {"x": {1}})
    deep: Any = "end"
    for _ in range(101):
        deep = [deep]
    flat = _readable(deep)
    for _ in range(101):
        (flat,) = flat
    assert flat == "nested more than 100 deep"
    assert _readable(deep[0][0][0]) == deep[0][0][0]
    assert _readable({1: (2, {"x": True})}) == {"1": [2, {"x": True}]}
    assert (_readable(2**13_999), _readable(2**14_000)) == (2**13_999, hex(2**14_000))
    assert (plain("abc"), plain("é"), plain("a\ud800")) == ("abc", "é", "a\\ud800")


def test_a_body_has_a_largest_size(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 20)
    with database.write() as connection:
        fits = put(connection, "x" * 17)
        with pytest.raises(StoreError) as large:
            put(connection, "x" * 18)
    assert str(large.value) == "a body of 20 bytes is too large to be stored: the limit is 20"
    assert database.get(fits) == "x" * 17
    assert _inflate(zlib.compress(b"x" * 20)) == b"x" * 20
    for packed in (zlib.compress(b"x" * 500), zlib.compress(b"abc")[:-1]):
        with pytest.raises(ValueError, match="it is cut short, or too large"):
            _inflate(packed)


def test_a_body_that_was_changed_is_named_as_damage(database: Database) -> None:
    sound = json.dumps({"a": 1}).encode()
    digest = hashlib.sha256(sound).digest()

    def damage(packed: Any, of: bytes = digest) -> str:
        with pytest.raises(StoreError) as error:
            database.unpack(of, packed)
        found = re.fullmatch(
            re.escape(str(database.path)) + r" is damaged: (.*?)\. Restore the run's folder .*", str(error.value)
        )
        assert found is not None
        return found[1]

    assert database.unpack(digest, zlib.compress(sound)) == {"a": 1}
    assert damage(zlib.compress(sound + b" ")) == "a body does not have the SHA-256 it was stored under"
    assert damage(zlib.compress(b"{"), hashlib.sha256(b"{").digest()).startswith("a body cannot be read: Expecting ")
    assert damage(b"no stream").startswith("a body cannot be read: Error -3")
    assert damage(zlib.compress(sound)[:-2]) == "a body cannot be read: it is cut short, or too large"
    assert damage(None).startswith("a body cannot be read: ")
    deep = b"[" * 200_000 + b"]" * 200_000
    assert damage(zlib.compress(deep), hashlib.sha256(deep).digest()).startswith(
        "a body cannot be read: maximum recurs"
    )
    for kind in (zlib.error, ValueError, TypeError, RecursionError, MemoryError, KeyError):
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(KeyError if kind is KeyError else StoreError, match=r"cannot be read: it says|'it says'"),
        ):
            patch.setattr(module.json, "loads", Mock(side_effect=kind("it says")))
            database.unpack(digest, zlib.compress(sound))
    with pytest.raises(StoreError, match="a body that is referred to is missing"):
        database.get(digest)


def test_a_script_runs_within_the_transaction_that_is_open() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    _run_script(connection, " CREATE TABLE a (x); \n ; INSERT INTO a VALUES (1) ;")
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
