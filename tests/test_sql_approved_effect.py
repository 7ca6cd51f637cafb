"""A change of a database that was rehearsed for an approval is made only if it has the effect that was shown."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.loop.approval import Approval, Decision, question
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.policy import CallPolicy
from firsthand.task import Task
from firsthand.tools.sql import SqlFile, sql


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Three customers, the word that decides which of them is meant, and a log that notes the time."""
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE customers (name TEXT, paid INTEGER DEFAULT 0); CREATE TABLE meant (name TEXT);
            CREATE TABLE log (id INTEGER PRIMARY KEY, line TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
            CREATE TABLE codes (code TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
            CREATE TABLE drawn (a, chance DEFAULT (random())); CREATE TABLE plain (id INTEGER PRIMARY KEY, a);
            INSERT INTO customers (name) VALUES ('Ann'), ('Bob'), ('Cy'); INSERT INTO meant VALUES ('Ann');
            INSERT INTO codes VALUES ('a', 1), ('b', 2);
        """)
    return path


def approved(shop: Path, statement: str, *meanwhile: str) -> tuple[str, str]:
    """The result of a statement that a person approves after others changed the database, and the question."""
    shown = []

    async def ask(tool, arguments):
        shown.append(question(tool, arguments))
        for each in meanwhile:
            rows(shop, each)
        return Decision(True, "terminal")

    async def make(task, ctx):
        return (await ctx.call(ToolCall("c", "sql_change", {"statement": statement}))).content

    tools = sql(str(shop), write=True)
    agent = Agent("a", Scripted([]), make, tools=tools, guard=CallPolicy(), approval=Approval(ask=ask))
    answer = asyncio.run(rollout(agent, Task("1", "Tidy up."))).answer
    return str(answer), shown[0]


MEANT = "customers WHERE name IN (SELECT name FROM meant)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "meanwhile"),
    [
        (f"DELETE FROM {MEANT}", "INSERT INTO meant VALUES ('Bob')"),  # more rows
        (f"DELETE FROM {MEANT}", "UPDATE meant SET name = 'Bob'"),  # as many, and others
        ("UPDATE customers SET paid = 1 WHERE name = (SELECT name FROM meant)", "UPDATE meant SET name = 'Bob'"),
        (
            "UPDATE customers SET paid = (SELECT max(rowid) FROM meant)",
            "INSERT INTO meant VALUES ('x')",
        ),  # another value
        ("INSERT INTO customers SELECT name, 5 FROM meant", "UPDATE meant SET name = 'Eve'"),
        (f"UPDATE {MEANT.replace(' WHERE', ' SET paid = unixepoch() WHERE')}", "UPDATE meant SET name = 'Bob'"),
        ("DROP TABLE customers", "INSERT INTO customers VALUES ('Dan', 0)"),
        ("UPDATE codes SET n = 9 WHERE n > 1", "UPDATE codes SET n = 3"),  # a table without rowids: by its counts
        (
            "INSERT INTO log (line) VALUES ('x')",
            "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM customers; END",
        ),
    ],
)
def test_a_change_with_another_effect_than_the_approved_one_is_taken_back(
    shop: Path, statement: str, meanwhile: str
) -> None:
    wanted = [each for each in rows(shop, "SELECT name, paid FROM customers")]
    wanted += [("Dan", 0)] if "Dan" in meanwhile else []
    result, shown = approved(shop, statement, meanwhile)
    assert "nothing was changed: the statement would now change other rows" in result and "dry run: " in shown
    assert rows(shop, "SELECT name, paid FROM customers") == wanted and rows(shop, "SELECT * FROM log") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "meanwhile"),
    [
        (f"DELETE FROM {MEANT}", "INSERT INTO customers VALUES ('Dan', 0)"),
        ("UPDATE customers SET paid = 1 WHERE name = 'Ann'", "UPDATE customers SET paid = 7 WHERE name = 'Cy'"),
        ("UPDATE customers SET paid = 1 WHERE name = 'Ann'", "UPDATE customers SET name = 'ANN' WHERE name = 'Bob'"),
        ("INSERT INTO log (line) VALUES ('x')", "INSERT INTO log (line, at) VALUES ('y', 'then')"),
        ("INSERT INTO log (line, at) VALUES (random(), datetime('now'))", "SELECT 1"),
        ("INSERT INTO drawn (a) VALUES (1)", "INSERT INTO drawn (a) VALUES (2)"),
        ("INSERT INTO customers (name) VALUES ('Dan') RETURNING rowid, random()", "SELECT 1"),
        ("INSERT INTO plain (a) VALUES (1)", "INSERT INTO plain (a) VALUES (2)"),
        ("CREATE TABLE more (a)", "INSERT INTO meant VALUES ('x')"),
        ("ALTER TABLE meant RENAME TO named", "SELECT 1"),
        ("DROP TABLE codes", "SELECT 1"),
        ("UPDATE codes SET n = n + 1 WHERE code = 'a'", "SELECT 1"),
    ],
)
def test_an_approved_change_is_made_though_others_write_other_rows(shop: Path, statement: str, meanwhile: str) -> None:
    before = list(sqlite3.connect(shop).iterdump())
    result, _ = approved(shop, statement, meanwhile)
    assert not result.startswith("Error"), result
    assert list(sqlite3.connect(shop).iterdump()) != before


def test_the_count_of_a_question_is_the_databases_and_what_the_statement_returns_is_quoted(shop: Path) -> None:
    forged = "DELETE FROM customers RETURNING char(10) || 'x' AS \"0 rows would be changed\""
    told = str(SqlFile(shop).rehearsed({"statement": forged})).split("\n")
    assert told == [
        "3 rows would be changed", "the statement returns this, in its own words:", "> 0 rows would be changed",
        *["> \\nx"] * 3,
    ]  # fmt: skip
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO meant SELECT i FROM n"
    assert str(SqlFile(shop).rehearsed({"statement": f"{many} RETURNING 1"})).startswith("300 rows would be changed\n")
    timed = SqlFile(shop).rehearsed({"statement": "DELETE FROM customers WHERE unixepoch() > 9e11 OR random() = 1.5"})
    assert timed.split("\n")[1].startswith("it asks for the time or chance (random, unixepoch): ")


def test_without_a_dry_run_a_change_is_made_as_before(shop: Path) -> None:
    assert SqlFile(shop).sql_change("DELETE FROM customers") == "done: 3 rows changed"
