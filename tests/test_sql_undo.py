"""Changes of a database are taken back to the hash from before, and rehearsed without a trace."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial

import pytest

from firsthand import Agent, Task, catalog
from firsthand.errors import ToolError
from firsthand.loop.approval import Approval, Decision
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.undo.roll_back import RollbackLog, points_of, roll_back, state_hash
from firsthand.tools.databases import sql_undo
from firsthand.tools.databases.sql_undo import pages_of, put_back
from firsthand.tools.sql import sql

CHANGES = ("UPDATE books SET price = 9 WHERE id = 1", "DELETE FROM books", "DROP TABLE books")
MADE = (
    "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, price REAL);"
    "INSERT INTO books VALUES (1, 'Emma', 7.5), (2, 'Walden', NULL);"
    "CREATE TABLE loose (x); INSERT INTO loose (rowid, x) VALUES (7, 'a'); PRAGMA user_version = 5;"
)


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop #1.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MADE)
    return path


def asked(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def yes(tool, arguments):
    return Decision(True, "ann")


@pytest.mark.slow
def test_any_change_is_taken_back_to_the_state_at_any_step(shop, tmp_path):
    tools, states = sql(str(shop), write=True), []

    async def changes(task, ctx):
        for number, statement in enumerate(CHANGES):
            states.append(state_hash(tools[2].declares.undo.capture({})))
            ctx = ctx.say(f"step {number}")
            result = await ctx.call(ToolCall(str(number), "sql_change", {"statement": statement}))
            assert not result.is_error, result.content
            ctx = ctx.say(result)
        return "done"

    guard = catalog.guards(["policy:without=declared", "undoable"])
    agent = Agent("a", Scripted([]), changes, tools=tools, guard=guard, approval=Approval(ask=yes))
    trace = asyncio.run(rollout(agent, Task("1", "Change it.")))
    assert trace.error is None
    shown = [
        each.data["detail"]["asked"] for each in trace.events if each.kind == "guard" and "asked" in each.data["detail"]
    ]
    assert "dry run: 1 row would be changed" in shown[0] and "dry run: 2 rows would be changed" in shown[1]
    points, by_name = points_of(trace), {each.name: each for each in tools}
    for to in range(len(CHANGES) - 1, -1, -1):
        steps = roll_back(points[to : to + 1], by_name, RollbackLog(tmp_path / f"{to}.jsonl"))
        assert [each.outcome for each in steps] == ["restored"], (to, steps)
        assert state_hash(tools[2].declares.undo.capture({})) == states[to]
    assert asked(shop, "SELECT * FROM books") == [(1, "Emma", 7.5), (2, "Walden", None)]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_every_kind_of_change_is_put_back_page_by_page(shop, journal):
    changes = (
        "UPDATE loose SET rowid = 9", "CREATE INDEX by_title ON books (title)", "PRAGMA user_version = 6", "VACUUM",
        "INSERT INTO books SELECT id + 2, hex(zeroblob(9000)), 0 FROM books", "ALTER TABLE books ADD COLUMN isbn",
    )  # fmt: skip
    with closing(sqlite3.connect(shop, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        before = pages_of(shop)
        for change in changes:
            connection.execute(change)
    after = pages_of(shop)
    put_back(shop, before)
    assert pages_of(shop) == before != after
    assert asked(shop, "SELECT rowid, x FROM loose") == [(7, "a")] and asked(shop, "PRAGMA user_version") == [(5,)]
    assert asked(shop, "PRAGMA journal_mode") == [(journal,)] and asked(shop, "PRAGMA integrity_check") == [("ok",)]


def test_a_rehearsal_changes_nothing(shop):
    rehearsed, before = sql(str(shop), write=True)[2].declares.dry_run, pages_of(shop)
    assert rehearsed({"statement": "DELETE FROM books WHERE price IS NULL"}) == "1 row would be changed"
    dropped = "books: DELETE: 2 rows before, 0 after, the table is dropped"
    assert rehearsed({"statement": "DROP TABLE books"}) == dropped
    assert rehearsed({"statement": "DELETE FROM books RETURNING title"}).split("\n")[0] == "2 rows would be changed"
    assert rehearsed({"statement": "COMMIT"}) == "no row would be changed"
    assert pages_of(shop) == before and len(asked(shop, "SELECT * FROM books")) == 2


def test_what_somebody_else_wrote_since_is_kept(shop, tmp_path):
    tools = sql(str(shop), write=True)

    async def change(task, ctx):
        return (await ctx.call(ToolCall("1", "sql_change", {"statement": CHANGES[0]}))).content

    agent = Agent(
        "a", Scripted([]), change, tools=tools, guard=catalog.guards(["undoable"]), approval=Approval(ask=yes)
    )
    points = points_of(asyncio.run(rollout(agent, Task("1", "go"))))
    with closing(sqlite3.connect(shop)) as other:
        other.execute("INSERT INTO books VALUES (3, 'Ulysses', 12)")
        other.commit()
    take_back = partial(roll_back, points, {each.name: each for each in tools})
    (step,) = take_back(RollbackLog(tmp_path / "log"))
    assert step.outcome == "kept" and "changed since by something else" in step.reason
    assert len(asked(shop, "SELECT * FROM books")) == 3


def test_a_database_that_somebody_holds_is_left_as_it_is(shop, monkeypatch):
    monkeypatch.setattr(sql_undo, "BUSY_S", 0.01)
    before = pages_of(shop)
    with closing(sqlite3.connect(shop, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM books")
        with pytest.raises(ToolError, match="locked"):
            put_back(shop, before)
        other.execute("ROLLBACK")
    assert pages_of(shop) == before


def test_an_empty_database_is_a_state_too(tmp_path):
    path = tmp_path / "empty.db"
    path.touch()
    before = pages_of(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert pages_of(path) != before
    put_back(path, before)
    assert asked(path, "SELECT count(*) FROM sqlite_master") == [(0,)] and pages_of(path) == before


def test_a_database_too_large_to_keep_is_refused(shop, monkeypatch):
    monkeypatch.setattr(sql_undo, "MAX_DATABASE", 4096)
    with pytest.raises(ToolError, match="has more than 4,096 bytes"):
        pages_of(shop)
