"""An approved change has the values that were rehearsed, whatever columns are called, and in tables that it makes too."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.loop.approval import Approval, Decision, question
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.policy import CallPolicy
from firsthand.task import Task
from firsthand.tools.sql import SqlFile, sql

TABLES = """
    CREATE TABLE o (v); INSERT INTO o VALUES ('as shown');
    CREATE TABLE t (k INTEGER PRIMARY KEY, datetime TEXT, updated TEXT, lifetime TEXT DEFAULT 'no date', v TEXT);
    CREATE TABLE stamped (k INTEGER PRIMARY KEY, v TEXT, made TEXT DEFAULT CURRENT_TIMESTAMP);
    CREATE TABLE drawn (k INTEGER PRIMARY KEY, v TEXT, chance DEFAULT ("random"()), day DEFAULT (date('now')));
    CREATE TABLE audited (k INTEGER PRIMARY KEY, v TEXT, made TEXT DEFAULT (datetime('now')));
    CREATE TABLE noted (v TEXT, label TEXT DEFAULT 'no date', made TEXT DEFAULT CURRENT_TIMESTAMP);
    CREATE TRIGGER audit AFTER UPDATE ON audited BEGIN INSERT INTO stamped (v) VALUES ('audited'); END;
"""
ROWS = """
    INSERT INTO t (k, datetime) VALUES (1, 'x'); INSERT INTO stamped VALUES (1, 'x', 'then');
    INSERT INTO drawn VALUES (1, 'x', 5, 'then'); INSERT INTO audited VALUES (1, 'x', 'then');
"""
OTHER = "(SELECT v FROM o)"


@pytest.fixture
def base(tmp_path: Path) -> SqlFile:
    path = tmp_path / "base.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLES + ROWS)
    return SqlFile(path)


def rows(base: SqlFile, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(base.path)) as connection, connection:
        return connection.execute(query).fetchall()


def made_after(base: SqlFile, statement: str, meanwhile: str) -> tuple[str, str]:
    """The dry run that a person approves, and the result after another writer changed the database meanwhile."""
    shown = []

    async def ask(tool, arguments):
        shown.append(question(tool, arguments))
        rows(base, meanwhile)
        return Decision(True, "terminal")

    async def act(task, ctx):
        return (await ctx.call(ToolCall("c", "sql_change", {"statement": statement}))).content

    tools = sql(str(base.path), write=True)
    agent = Agent("a", Scripted([]), act, tools=tools, guard=CallPolicy(), approval=Approval(ask=ask))
    said = str(asyncio.run(rollout(agent, Task("1", "Tidy up."))).answer)
    inside = said.removeprefix("Error: ").partition(">\n")[2].removesuffix("\n</untrusted>")
    return shown[0].partition("dry run: ")[2].partition("\nRun sql_change")[0], inside


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        *[f"UPDATE t SET {column} = {OTHER}" for column in ("datetime", "updated", "lifetime", "v")],
        f"INSERT INTO t (datetime) VALUES ({OTHER})",
        f"UPDATE stamped SET made = {OTHER}",  # no default is filled in
        f"UPDATE drawn SET chance = {OTHER}",
        f"INSERT INTO stamped (v, made) VALUES ('x', {OTHER})",
        f"INSERT INTO stamped (v) VALUES ({OTHER})",  # the columns beside the one that is filled in
        f"REPLACE INTO stamped (k, v) VALUES (1, {OTHER})",
        f"INSERT INTO drawn (v) VALUES ({OTHER})",
        f"UPDATE audited SET v = {OTHER}",
        f"UPDATE audited SET made = {OTHER}",  # the trigger's own table has a default that is filled in
        "CREATE TABLE n AS SELECT v FROM o",
        "CREATE TABLE IF NOT EXISTS n AS SELECT * FROM o ORDER BY v",
    ],
)
def test_other_values_than_the_rehearsed_ones_are_not_written(base: SqlFile, statement: str) -> None:
    before = rows(base, "SELECT * FROM t, stamped, drawn, audited")
    _, said = made_after(base, statement, "UPDATE o SET v = 'other'")
    assert said.startswith("nothing was changed: the statement would now change other rows"), said
    assert rows(base, "SELECT * FROM t, stamped, drawn, audited") == before
    assert rows(base, "SELECT name FROM sqlite_master WHERE name = 'n'") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE t SET datetime = {OTHER}",
        "INSERT INTO stamped (v) VALUES ('x')",
        "REPLACE INTO stamped (k, v) VALUES (1, 'y')",
        "INSERT INTO drawn (v) VALUES ('x'), ('y')",
        "INSERT INTO drawn DEFAULT VALUES",
        "UPDATE audited SET v = 'y', made = 'now'",
        "CREATE TABLE n AS SELECT v, random() FROM o",
        "CREATE TABLE n AS SELECT * FROM t",
        "CREATE TABLE n (v, at DEFAULT CURRENT_TIMESTAMP)",
        "CREATE TABLE n (k INTEGER PRIMARY KEY AUTOINCREMENT)",
        "ALTER TABLE o RENAME TO named",
        "ALTER TABLE t DROP COLUMN updated",
        "DROP TABLE o",
        "CREATE INDEX i ON t (datetime)",
        "CREATE VIEW w AS SELECT datetime('now'), v FROM o",
        "ANALYZE",
    ],
)
def test_an_approved_change_is_made_where_nobody_else_wrote_what_it_reads(base: SqlFile, statement: str) -> None:
    _, said = made_after(base, statement, "SELECT 1")
    assert said.startswith("done"), said


@pytest.mark.slow
def test_a_table_that_is_made_and_its_rows_are_told_and_compared(base: SqlFile) -> None:
    rows(base, "INSERT INTO o VALUES ('more')")
    shown, said = made_after(base, "CREATE TABLE n AS SELECT v FROM o", "SELECT 1")
    assert shown == "n: a new table of 2 rows" and said == "done\nn: a new table of 2 rows"
    shown, said = made_after(base, "CREATE TABLE m AS SELECT v FROM o", "DELETE FROM o WHERE v = 'more'")
    assert shown == "m: a new table of 2 rows" and said.startswith("nothing was changed")
    assert str(base.rehearsed({"statement": "CREATE TABLE e (v)"})) == "no row would be changed"


@pytest.mark.slow
def test_the_rows_of_a_table_that_is_made_by_chance_are_counted(base: SqlFile) -> None:
    shown, said = made_after(base, "CREATE TABLE r AS SELECT random() FROM o", "INSERT INTO o VALUES ('more')")
    assert "(random): the values that it writes to r may be others later" in shown and said.startswith("nothing was")


def test_a_renamed_table_is_no_new_one(base: SqlFile) -> None:
    shown, said = made_after(base, "ALTER TABLE o RENAME TO named", "INSERT INTO o VALUES ('more')")
    assert shown == "no row would be changed" and said == "done"


@pytest.mark.slow
def test_the_question_names_the_columns_that_are_not_compared(base: SqlFile) -> None:
    def told(statement: str) -> list[str]:
        return str(base.rehearsed({"statement": statement})).split("\n")

    filled = "filled in with the time or chance, and not compared when it is made"
    assert told("INSERT INTO stamped (v) VALUES ('x')") == ["1 row would be changed", f"{filled}: stamped.made"]
    assert told("INSERT INTO drawn (v) VALUES ('x')")[-1] == f"{filled}: drawn.chance, drawn.day"
    assert told("INSERT INTO noted (v) VALUES ('x')")[-1] == f"{filled}: noted.made"
    assert told("UPDATE audited SET v = 'y'")[-1] == f"{filled}: stamped.made"
    assert told("UPDATE t SET datetime = 'y'") == told("UPDATE stamped SET made = 'y'") == ["1 row would be changed"]
    assert told("UPDATE t SET v = random()")[-1] == (
        "it asks for the time or chance (random): the values that it writes to t may be others later"
    )


@pytest.mark.slow
@pytest.mark.parametrize("before", [";", "/* x */ ;", "\n;", "EXPLAIN"])
def test_a_statement_that_cannot_be_looked_at_first_is_not_made(base: SqlFile, before: str) -> None:
    statement, broken = f"{before} DELETE FROM o", "the statement failed: near"
    shown, said = made_after(base, statement, "INSERT INTO o VALUES ('more')")
    assert shown.startswith(f"it failed (ToolError: {broken}") and said.startswith(broken)
    with pytest.raises(ToolError, match=broken):
        base.sql_change(statement)
    assert rows(base, "SELECT count(*) FROM o") == [(2,)]


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "\n ", "-- why\n", "/* why */ ", "WITH x AS (SELECT 1) "])
def test_a_remark_before_a_statement_changes_nothing(base: SqlFile, before: str) -> None:
    said = made_after(base, f"{before}DELETE FROM o;", "SELECT 1")[1]
    assert said.startswith("done") and rows(base, "SELECT * FROM o") == []
    said = made_after(base, f"{before}UPDATE t SET v = (SELECT datetime FROM t)", "UPDATE t SET datetime = 'y'")[1]
    assert said.startswith("nothing was changed")


def test_tables_beyond_those_that_are_compared_are_told(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    made = "".join(f"CREATE TABLE t{number} (v);" for number in range(60))
    body = "".join(f"INSERT INTO t{number} VALUES (new.v);" for number in range(1, 60))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {made} CREATE TRIGGER many AFTER INSERT ON t0 BEGIN {body} END; COMMIT")
    shown = SqlFile(path).rehearsed({"statement": "INSERT INTO t0 VALUES (1)"})
    line = next(each for each in shown.split("\n") if each.startswith("only the number of rows"))
    assert "t50" in line and line.endswith("and 5 more") and len(json.loads(shown.effect)["rows"]) == 61
