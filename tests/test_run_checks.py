"""The checks of a run's file: each changed number, type and body is found, and the sentence says where."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DataError, StoreError
from firsthand.loop.journal import MemoryJournal
from firsthand.rollout import verdict
from firsthand.runs import integrity
from firsthand.runs.database import Database, checksum, put
from firsthand.runs.integrity import check_bodies, check_file, check_numbers, seal
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Score, Trace

FINISHED = Trace("1", "b", "t", {"name": "a"}, 0, 0, "2026-01-01T00:00:00+00:00", 1.0, answer="x")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "run.sqlite", create=True)
    yield made
    made.close()


def filled(database: Database) -> None:
    """A row in each table that has a checksum."""
    with database.write() as connection:
        body = put(connection, {"x": 1})
        connection.execute("INSERT INTO run (id, created_at, status, about) VALUES (1, 'now', 'done', ?)", (body,))
        connection.execute(
            "INSERT INTO tasks (benchmark, task, body) VALUES ('b', 't', ?), ('b', 'u', ?)", (body, body)
        )
        connection.execute("INSERT INTO agents VALUES ('a', ?)", (body,))
        connection.execute("INSERT INTO metrics (name, step, value, at) VALUES ('m', 1, 9e999, 0.5), ('m', 2, NULL, 0)")
        connection.execute(
            "INSERT INTO scores (attempt, try, name, scorer, value, body, at) VALUES ('p', 1, 's', 'by', 0.5, ?, 'now')",
            (body,),
        )
        seal(connection, "run", "true")
        seal(connection, "tasks", "task = ?", ("t",))
        seal(connection, "metrics", "step = 1")
        seal(connection, "scores", "true")


def test_a_changed_number_and_a_value_of_another_type_are_found(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(database)
    for check in (check_numbers, check_file, check_bodies):
        check(database)
    assert database.read("SELECT task, digest IS NULL FROM tasks") == [("t", 0), ("u", 1)]

    def told(change: str, back: str, check: Any = check_file) -> str:
        with database.write() as connection:
            connection.execute(change)
        with pytest.raises(StoreError) as error:
            check(database)
        with database.write() as connection:
            connection.execute(back)
        check(database)
        return str(error.value).removeprefix(f"{database.path} is damaged: ").partition(". Restore")[0]

    changed = "1 of the rows in its {} have been changed"
    half = "UPDATE scores SET value = 0.5"
    assert told("UPDATE scores SET value = 0.75", half) == changed.format("scores")
    assert told("UPDATE scores SET value = 0.75", half, check_numbers) == changed.format("scores")
    assert told("UPDATE run SET status = 'running'", "UPDATE run SET status = 'done'") == changed.format("run")
    assert told(
        "UPDATE metrics SET at = 1 WHERE seq = 1", "UPDATE metrics SET at = 0.5 WHERE seq = 1"
    ) == changed.format("metrics")
    other = "1 of the rows in its {} hold values of another type than their columns"
    for value in ("'text'", "9e999", "-1.1e200"):
        assert told(f"UPDATE scores SET value = {value}", half) == other.format("scores")
    with database.write() as connection:
        connection.execute("UPDATE scores SET value = -1e200, digest = NULL")
    check_file(database)
    assert told("UPDATE agents SET body = 'x'", "UPDATE agents SET body = (SELECT sha256 FROM bodies)") == other.format(
        "agents"
    )
    monkeypatch.setattr(integrity, "EVERY_READ", 3)  # one score and two metrics
    assert told("UPDATE run SET status = 'x'", "UPDATE run SET status = 'done'", check_numbers) == changed.format("run")
    monkeypatch.setattr(integrity, "EVERY_READ", 2)
    with database.write() as connection:
        connection.execute("UPDATE run SET status = 'x'")
    check_numbers(database)


def test_an_index_that_lacks_a_row_is_found_in_its_table_and_in_the_file(tmp_path: Path, database: Database) -> None:
    name, filled_by = (
        "traces_retried",
        "INSERT INTO traces (attempt, try, benchmark, task, agent, epoch, stop_reason, calls,",
    )
    filled_by += (
        " tokens, cost_usd, duration_s, version, body) VALUES ('p', 2, 'b', 't', 'a', 0, 'done', 0, 0, 0, 0, 3, x'00')"
    )
    ((sql,),) = database.read("SELECT sql FROM sqlite_master WHERE name = ?", (name,))
    database.close()
    connection = sqlite3.connect(database.path, isolation_level=None)
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.execute(f"DROP INDEX {name}")
    connection.execute(sql.replace("try > 1", "try > 2"))
    connection.execute(filled_by)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))
    connection.close()
    said = r"its tables and indexes do not agree \(row 1 missing from index traces_retried\)\. Restore the run's folder"
    for check in (check_numbers, check_file, lambda file: integrity._check_indexes(file, "(traces)")):
        with pytest.raises(StoreError, match=said):
            check(database)
    integrity._check_indexes(database, "(scores)")


def test_each_body_that_is_referred_to_is_there_and_sound(database: Database) -> None:
    filled(database)
    with database.write() as connection:
        bodies = [put(connection, {"n": n}) for n in range(205)]
    for table, column in integrity._REFERENCES:
        with database.write() as connection:
            columns = {
                row[1]: row for row in connection.execute(f"PRAGMA table_info({table})") if row[3] or row[1] == column
            }
            values = {
                name: "" if row[2] == "TEXT" else 2
                for name, row in columns.items()
                if name != "id" or table == "traces"
            }
            connection.execute(f"DELETE FROM {table}")
            marks = ", ".join("?" * len(values))
            given = [b"none" if name == column else value for name, value in values.items()]
            connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", given)
        with pytest.raises(StoreError, match=f"a body that its {table} refer to is missing"):
            check_bodies(database)
        with database.write() as connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (bodies[7],))
        check_bodies(database)
    last = max(bodies)
    with database.write() as connection:
        connection.execute("UPDATE bodies SET zlib = ? WHERE sha256 = ?", (zlib.compress(b"{}"), last))
    with pytest.raises(StoreError, match="a body does not have the SHA-256 it was stored under"):
        check_bodies(database)


def test_a_number_with_which_a_run_could_not_be_read_is_never_written(tmp_path: Path) -> None:
    with create(tmp_path, {}, "far") as run:
        kept = replace(FINISHED, scores=(Score("s", 1e200), Score("failed", math.inf, failure="x")))
        run.append(kept)
        for far in (math.inf, -math.inf, 1.1e200, -1e308):
            with pytest.raises(DataError, match=r"^the score of .* is .*: a number up to 1e\+200 was expected"):
                run.append(replace(kept, scores=(Score("s", far if math.isfinite(far) else 2e200),)))
            with pytest.raises(DataError, match=r"^the score later of .* is "):
                run.add_score(kept, 1, "later", "x", Score("later", far))
        with pytest.raises(DataError, match=r"^the time of .* is infinite"):
            run.append(replace(kept, duration_s=math.inf))
        check_file(run.database)
        (read,) = run.traces()
        assert read.value() == 1e200


@pytest.mark.parametrize(("value", "fails"), [(1e200, False), (-1e200, False), (1.1e200, True), (-math.inf, True)])
def test_a_scorer_that_gives_no_number_a_run_can_hold_has_failed(value: float, fails: bool) -> None:
    for given in (value, Score("s", value), (Score("first", 1.0), Score("s", value))):
        scores = asyncio.run(verdict(lambda *_, given=given: given, Task("t", "?"), FINISHED, MemoryJournal()))
        assert any(each.failed for each in scores) is fails
