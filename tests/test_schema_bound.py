"""SQLite files of somebody else: their schema is bounded while SQLite parses it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import DataError, StoreError
from firsthand.memories.keeping.item_file import MEMORY_SCHEMA
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.runs import track_import
from firsthand.runs.database import Database
from firsthand.system.bounded_sqlite import SCHEMA_STATEMENT_BYTES, connect_bounded

TOLD = "its schema has more than 1,000 tables and indexes, or one made by more than 8,000 bytes"


def with_statement(path: Path, size: int) -> Path:
    """Make a file whose one table has a statement of so many bytes."""
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE metrics (x)")
        made.commit()
        made.execute("PRAGMA writable_schema = ON")
        head, tail = "CREATE TABLE metrics(x CHECK(x IN (1", ")))"
        items = ",1" * ((size - len(head) - len(tail)) // 2)
        blanks = " " * (size - len(head) - len(tail) - len(items))
        made.execute("UPDATE sqlite_master SET sql = ?", (head + items + blanks + tail,))
        made.commit()
    return path


def with_tables(path: Path, count: int) -> Path:
    """Make a file of so many tables."""
    with closing(sqlite3.connect(path)) as made:
        for number in range(count):
            made.execute(f"CREATE TABLE t{number} (a, b)")
        made.commit()
    return path


def test_a_statement_of_the_schema_has_a_length(tmp_path: Path) -> None:
    with closing(connect_bounded(with_statement(tmp_path / "a.db", SCHEMA_STATEMENT_BYTES - 10), "ro")) as fits:
        assert fits.execute("SELECT name FROM sqlite_master").fetchall() == [("metrics",)]
    for size in (SCHEMA_STATEMENT_BYTES + 10, 3 * SCHEMA_STATEMENT_BYTES):
        with pytest.raises(sqlite3.DatabaseError, match=TOLD):
            connect_bounded(with_statement(tmp_path / f"{size}.db", size), "ro")


def test_a_schema_has_a_number_of_entries(tmp_path: Path) -> None:
    with closing(connect_bounded(with_tables(tmp_path / "a.db", 1_000), "rw")) as fits:
        fits.execute("INSERT INTO t999 VALUES (1, 2)")
        assert len(fits.execute("SELECT * FROM sqlite_master").fetchall()) == 1_000
    with pytest.raises(sqlite3.DatabaseError, match=TOLD):
        connect_bounded(with_tables(tmp_path / "b.db", 1_150), "ro")


def test_statements_of_ours_may_be_longer_than_those_of_a_schema(tmp_path: Path) -> None:
    with closing(connect_bounded(tmp_path / "a.db", "rwc")) as made:
        made.execute("CREATE TABLE t (x)")
        made.execute("INSERT INTO t VALUES (?)", ("x" * 3 * SCHEMA_STATEMENT_BYTES,))
        asked = "SELECT length(x) FROM t WHERE 1 IN (1" + ",1" * SCHEMA_STATEMENT_BYTES + ")"
        assert made.execute(asked).fetchall() == [(3 * SCHEMA_STATEMENT_BYTES,)]


def test_what_analyze_found_takes_nothing_of_the_bound(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        for number in range(120):
            made.execute(f"CREATE TABLE t{number} (a, b)")
            made.execute(f"CREATE INDEX i{number} ON t{number} (a)")
            made.execute(f"INSERT INTO t{number} VALUES (1, 2)")
        made.execute("ANALYZE")
        made.commit()
    with closing(connect_bounded(tmp_path / "a.db", "ro")) as opened:
        assert opened.execute("SELECT count(*) FROM sqlite_stat1").fetchone() == (120,)


def test_every_file_of_a_stranger_has_this_bound(tmp_path: Path) -> None:
    path = with_statement(tmp_path / "a.db", 2_000_000)
    began_s = time.process_time()
    for opened in (
        lambda: Database(path),
        lambda: Database(path, schema=MEMORY_SCHEMA),
        lambda: IndexFile(path, create=False, read_only=True),
        lambda: GraphFile(path),
        lambda: list(track_import._trackio(path)),
    ):
        with pytest.raises((StoreError, DataError, sqlite3.DatabaseError), match=TOLD):
            opened()
    assert time.process_time() - began_s < 1
