"""SQLite files of somebody else: queries end within the steps and bytes of an honest file of that size."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping.item_file import MEMORY_SCHEMA
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.runs.database import Database
from firsthand.system import bounded_sqlite
from firsthand.system.bounded_sqlite import connect_bounded

WIDE = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT {} FROM n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    """A connection to a small file whose queries take at most 20,000 steps and 20 for each of its 8,192 bytes."""
    with closing(connect_bounded(tmp_path / "a.db", "rwc", steps=20_000)) as made:
        made.execute("CREATE TABLE t (x)")
        made.commit()
        yield made


def forged(path: Path, table: str, cells: int = 300) -> None:
    """Make the table's page the one leaf of a chain of interior pages: its rows come 300**4 times."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    data = bytearray(path.read_bytes())
    size = struct.unpack(">H", data[16:18])[0]
    data += data[(root - 1) * size : root * size]

    def interior(child: int) -> bytes:
        page, at = bytearray(size), size - 5 * cells
        page[0], page[3:5], page[5:7] = 5, struct.pack(">H", cells), struct.pack(">H", at)
        page[8:12] = struct.pack(">I", child)
        for cell in range(cells):
            page[at + 5 * cell : at + 5 * cell + 5] = struct.pack(">I", child) + b"\1"
            page[12 + 2 * cell : 14 + 2 * cell] = struct.pack(">H", at + 5 * cell)
        return bytes(page)

    for _ in range(3):
        data += interior(len(data) // size)
    data[(root - 1) * size : root * size] = interior(len(data) // size)
    data[28:32], data[92:96] = struct.pack(">I", len(data) // size), data[24:28]
    path.write_bytes(data)


def test_a_run_and_a_memory_and_an_index_whose_pages_are_one_chain_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_sqlite, "ROW_BYTES", 1 << 20)
    for name, schema, fill, table in (
        ("run.sqlite", None, "INSERT INTO run VALUES (1, 'x', 'done', x'00', NULL, NULL)", "run"),
        ("memory.db", MEMORY_SCHEMA, "INSERT INTO scopes VALUES (1, 'o', 'k', 1, 1, 1)", "scopes"),
    ):
        path, more = tmp_path / name, {} if schema is None else {"schema": schema}
        with closing(Database(path, create=True, **more)) as made, made.write() as connection:
            connection.execute(fill)
        with closing(Database(path, **more)) as made:
            assert len(made.read(f"SELECT * FROM {table}")) == 1, "an honest file is read"
        forged(path, table)
        with (
            closing(Database(path, **more)) as made,
            pytest.raises(StoreError, match="more rows than a file of its size"),
        ):
            made.read(f"SELECT * FROM {table}")
    path = tmp_path / "index.db"
    with (
        closing(IndexFile(path, create=True, read_only=False)) as index,
        index.writing(),
        index.transaction() as connection,
    ):
        connection.execute("INSERT INTO words VALUES (1, 'owl')")
    forged(path, "words")
    with (
        closing(IndexFile(path, create=False, read_only=True)) as index,
        pytest.raises(StoreError, match="more rows than a file of its size"),
        index.reading() as connection,
    ):
        list(connection.execute("SELECT * FROM words"))


def test_a_query_ends_once_it_takes_more_steps_than_the_file_allows_and_the_next_one_counts_anew(small: Any) -> None:
    assert small.execute(WIDE.format(9_000, "max(i)")).fetchone() == (9_000,)
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError, match="more steps than a file of its size"):
            small.execute(WIDE.format(10**9, "max(i)")).fetchone()
        assert small.execute(WIDE.format(9_000, "max(i)")).fetchone() == (9_000,)


def test_a_file_that_grows_allows_more_steps(small: Any) -> None:
    query = WIDE.format(60_000, "max(i)")
    with pytest.raises(sqlite3.DatabaseError, match="more steps"):
        small.execute(query)
    small.execute("INSERT INTO t VALUES (zeroblob(100000))")
    small.commit()
    assert small.execute(query).fetchone() == (60_000,)


def test_rows_are_counted_however_they_are_fetched(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small.execute("INSERT INTO t VALUES (zeroblob(1000))")
    monkeypatch.setattr(bounded_sqlite, "ROW_BYTES", 300_000)
    query, allowed = WIDE.format(2_000, "(SELECT x FROM t)"), WIDE.format(200, "(SELECT x FROM t)")

    def each(cursor: Any) -> list[Any]:
        found = []
        while row := cursor.fetchone():
            found.append(row)
        return found

    for fetch in (list, each, lambda cursor: cursor.fetchall(), lambda cursor: cursor.fetchmany(2_000)):
        assert len(fetch(small.execute(allowed))) == 200
        with pytest.raises(sqlite3.DatabaseError, match="more rows than a file of its size"):
            fetch(small.execute(query))


def test_many_rows_are_written_at_once_and_what_a_signal_raises_comes_out(small: Any) -> None:
    small.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(20_000)))
    assert small.execute("SELECT max(x) FROM t").fetchone() == (19_999,)

    class Stopping:
        """A size that is asked for while a signal arrives."""

        def __truediv__(self, other: str) -> Path:
            raise AssertionError

        def stat(self) -> Any:
            raise KeyboardInterrupt

        def __str__(self) -> str:
            return "a"

    small.bound.path = Stopping()
    with pytest.raises(KeyboardInterrupt):
        small.execute(WIDE.format(10**9, "max(i)")).fetchone()
