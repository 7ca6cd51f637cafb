"""Databases of trackio that are made to have no end: each is passed over or refused in one sentence, within steps."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.runs.track_import import tracked_runs

METRICS = "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
ENDLESS = "CREATE VIEW endless(rid, run_name, config) AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, 'r', '{}' FROM n"  # noqa: E501


def database(file: Path, *statements: str, rows: int = 1, runs: int = 1) -> Path:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(METRICS)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES ('2026-01-01', ?, ?, ?)",
            ((f"r{each % runs}", each // runs, json.dumps({"loss": 1.0})) for each in range(rows)),
        )
        connection.execute("COMMIT")
        for each in statements:
            connection.execute(each)
    return file


def test_settings_that_a_virtual_table_computes_are_not_read(tmp_path: Path) -> None:
    virtual = "CREATE VIRTUAL TABLE configs USING fts5(run_name, config, content='endless', content_rowid='rid')"
    file = database(tmp_path / "p.db", ENDLESS, virtual)
    assert [(each.name, each.config) for each in tracked_runs(file)] == [("p-r0", {})]


def test_metrics_that_are_a_virtual_table_are_no_runs(tmp_path: Path) -> None:
    virtual = "CREATE VIRTUAL TABLE metrics USING rtree(id, timestamp, run_name, step, metrics)"
    row = "INSERT INTO metrics VALUES (1, 0, 1, 0, 1)"
    file = database(tmp_path / "p.db", "DROP TABLE metrics", virtual, row)
    assert [*tracked_runs(file)] == []


def repeated(file: Path, page: int, size: int) -> None:
    """Turn the table's root, which has to be an interior page, into one that holds its first child again and again."""
    raw = bytearray(file.read_bytes())
    start = (page - 1) * size
    assert raw[start] == 5, "an interior page of a table"
    offset = int.from_bytes(raw[start + 12 : start + 14], "big")
    child = raw[start + offset : start + offset + 4]
    cells = (size - 12) // 8
    cell = bytes(child) + bytes([1])
    for number in range(cells):
        at = size - 5 * (number + 1)
        raw[start + at : start + at + 5] = cell
        raw[start + 12 + 2 * number : start + 14 + 2 * number] = at.to_bytes(2, "big")
    raw[start + 3 : start + 5] = cells.to_bytes(2, "big")
    raw[start + 5 : start + 7] = (size - 5 * cells).to_bytes(2, "big")
    raw[start + 8 : start + 12] = child
    file.write_bytes(raw)


def test_rows_that_come_again_and_again_are_damage(tmp_path: Path) -> None:
    file = database(tmp_path / "p.db", rows=400)
    assert len(next(iter(tracked_runs(file))).values) == 400  # type: ignore[arg-type]
    with closing(sqlite3.connect(file)) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master")
        ((size,),) = connection.execute("PRAGMA page_size")
    repeated(file, page, size)
    with pytest.raises(DataError, match=r"is damaged: its rows have more text than the file|cannot be read"):
        list(tracked_runs(file))


def test_a_database_of_many_runs_without_an_index_is_read(tmp_path: Path) -> None:
    file = database(tmp_path / "p.db", rows=6000, runs=600)
    found = [len([*each.values]) for each in tracked_runs(file)]
    assert found == [10] * 600
