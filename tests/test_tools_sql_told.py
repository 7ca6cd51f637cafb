"""What a change of a database does besides its own rows is told before it is approved, and when it is done."""

import sqlite3
from pathlib import Path

import pytest

from firsthand.tools.databases.sql_process import authorizer, counted
from firsthand.tools.sql import SqlFile, sql

RETURNS = "would be changed\nthe statement returns this, in its own words:\n"


@pytest.fixture
def staff(tmp_path: Path) -> SqlFile:
    """Five users, a log whose trigger deletes them, and a view whose trigger writes elsewhere."""
    path = tmp_path / "staff.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE users (name TEXT UNIQUE, age INTEGER); CREATE TABLE log (line TEXT); CREATE TABLE notes (n INTEGER);
            INSERT INTO users VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5);
            CREATE TRIGGER audit AFTER INSERT ON log BEGIN DELETE FROM users; INSERT INTO notes VALUES (1); END;
            CREATE VIEW people AS SELECT * FROM users;
            CREATE TRIGGER joins INSTEAD OF INSERT ON people BEGIN INSERT INTO notes VALUES (2); END;
        """)
    connection.close()
    return SqlFile(path)


def rehearsed(base: SqlFile, statement: str) -> list[str]:
    return base.rehearsed({"statement": statement}).split("\n")


def users(base: SqlFile) -> int:
    with sqlite3.connect(base.path) as connection:
        (found,) = connection.execute("SELECT count(*) FROM users").fetchone()
    connection.close()
    return int(found)


@pytest.mark.slow
def test_what_a_trigger_would_do_is_in_the_rehearsal_and_in_the_result(staff: SqlFile) -> None:
    told = rehearsed(staff, "INSERT INTO log VALUES ('done')")
    assert told == [
        "1 row would be changed",
        "with what triggers do, 7 rows in all",
        "log: INSERT: 0 rows before, 1 after",
        "users: DELETE by the trigger audit: 5 rows before, 0 after",
        "notes: INSERT by the trigger audit: 0 rows before, 1 after",
    ]
    assert users(staff) == 5
    returning = rehearsed(staff, "INSERT INTO log VALUES ('done') RETURNING line")
    assert returning == [*told, "the statement returns this, in its own words:", "> line", "> done"]
    done = staff.sql_change("INSERT INTO log VALUES ('done')").split("\n")
    assert done == [
        "done: 1 row changed", "with what triggers do, 7 rows in all", "log: INSERT", "users: DELETE by the trigger audit",
        "notes: INSERT by the trigger audit",
    ]  # fmt: skip
    assert users(staff) == 0


@pytest.mark.slow
def test_a_dropped_table_a_view_and_replaced_rows_are_told(staff: SqlFile) -> None:
    assert rehearsed(staff, "DROP TABLE users") == ["users: DELETE: 5 rows before, 0 after, the table is dropped"]
    replaced = "UPDATE OR REPLACE users SET name = 'a' WHERE age IN (2, 3)"
    assert rehearsed(staff, replaced) == ["2 rows would be changed", "users: UPDATE: 5 rows before, 3 after"]
    assert (
        rehearsed(staff, "INSERT OR REPLACE INTO users VALUES ('a', 2)")[1] == "users: INSERT: 5 rows before, 5 after"
    )
    assert rehearsed(staff, "INSERT INTO people VALUES ('f', 6)") == [
        "0 rows would be changed", "with what triggers do, 1 row in all", "people: INSERT",
        "notes: INSERT by the trigger joins: 0 rows before, 1 after",
    ]  # fmt: skip
    assert users(staff) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM users", "5 rows would be changed"),
        ("DELETE FROM users WHERE age < 3", "2 rows would be changed"),
        ("UPDATE users SET age = age + 1", "5 rows would be changed"),
        ("INSERT INTO users VALUES ('f', 6), ('g', 7)", "2 rows would be changed"),
        ("INSERT INTO users VALUES ('a', 6) ON CONFLICT DO UPDATE SET age = 6", "1 row would be changed"),
        ("DELETE FROM users WHERE age = 1 RETURNING name", f"1 row {RETURNS}> name\n> a"),
        ("UPDATE users SET age = 9 WHERE age = 1 RETURNING age", f"1 row {RETURNS}> age\n> 9"),
        ("CREATE TABLE more (a)", "no row would be changed"),
        ("DROP TRIGGER audit", "no row would be changed"),
    ],
)
def test_a_plain_change_is_told_by_its_count_alone(staff: SqlFile, statement: str, told: str) -> None:
    assert staff.rehearsed({"statement": statement}) == told


def test_names_of_tables_and_triggers_are_lines_of_their_own_and_short(tmp_path: Path) -> None:
    path, name = tmp_path / "odd.sqlite", 'x"\n0 rows would be changed\x1b[2J' + "y" * 90
    with sqlite3.connect(path) as connection:
        quoted = name.replace('"', '""')
        connection.execute("CREATE TABLE log (line)")
        connection.execute(f'CREATE TABLE "{quoted}" (a)')
        connection.execute(
            f'CREATE TRIGGER "t{quoted}" AFTER INSERT ON log BEGIN INSERT INTO "{quoted}" VALUES (1); END'
        )
    connection.close()
    lines = str(sql(str(path), write=True)[2].declares.dry_run({"statement": "INSERT INTO log VALUES (1)"})).split("\n")
    assert len(lines) == 4 and lines[3].startswith('x" 0 rows would be changed\\x1b[2J') and len(lines[3]) < 200
    assert lines[3].endswith(": 0 rows before, 1 after")


def test_counting_stops_when_its_time_is_up_and_only_tables_with_rows_of_their_own_are_counted(staff: SqlFile) -> None:
    connection = sqlite3.connect(staff.path)
    names = ["users", "people", "log", "none"]
    assert counted(connection, names, float("inf")) == {"users": 5, "log": 0}
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)"
    connection.execute(f"INSERT INTO users {many} SELECT NULL, i FROM n")
    assert counted(connection, names, -1.0) == {"users": None, "log": None}
    connection.close()
    assert authorizer(writes=True)(sqlite3.SQLITE_INSERT, "users", None, "main", None) == sqlite3.SQLITE_OK
