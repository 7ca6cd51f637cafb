"""The world of one database table over SQLite: replies, cells, hashes, what is shown, written and drawn."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dealt_random import Dealt
from firsthand.errors import ToolError
from firsthand.worlds.database import database_world
from firsthand.worlds.database.database_world import (
    GRAMMAR,
    MAX_REPLY,
    DatabaseWorld,
    SqliteEngine,
    final_answer,
    operation,
    read_answer,
)
from firsthand.worlds.database.mysql_dialect import for_sqlite
from firsthand.worlds.database.table_items import TableItem, is_right, table_md5
from firsthand.worlds.world import InvalidAction

ROWS = (("Ann", "3"), ("é'b", ""), ("Cy", "12"))
ITEM = TableItem("other", 'T "x"', ("Name", "a`b"), ROWS, ("Ann",))


class Replies:
    """A file of SQLite that answers from a list, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[Any]()

    def reply(self, statement: str, **options: Any) -> Any:
        self.asked.append((statement, options))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def rows(*found: Any, more: bool = False) -> dict[str, Any]:
    return {"columns": ["a"], "rows": list(found), "count": -1, "more": more}


def changed(count: int) -> dict[str, Any]:
    return {"columns": None, "rows": [], "count": count, "more": False}


def engine(item: TableItem, *answers: Any) -> tuple[SqliteEngine, Replies]:
    made, file = SqliteEngine(item), Replies(*answers)
    made._file = file  # type: ignore[assignment]
    return made, file


def test_replies_have_the_form_of_mysqls_driver_and_cells_are_read_up_to_a_bound() -> None:
    answers = (rows(["Ann", None], ["é", "3"]), rows(), changed(-1), changed(0), changed(2), ToolError("no such table"))
    made, file = engine(ITEM, *answers)
    told = [asyncio.run(made.execute(f"SELECT {number}x")) for number in range(6)]
    assert told == [
        "[('Ann', None), ('é', '3')]",
        "[]",
        "[]",
        "[] (0 rows changed)",
        "[] (2 rows changed)",
        "no such table",
    ]
    assert file.asked == [(f"SELECT `{number}x`", {"write": True, "max_cell": 1000}) for number in range(6)]
    made, file = engine(ITEM, rows(["a", None]), rows(["a", "b"], more=True), ToolError("gone"), rows())
    found = [asyncio.run(made.cells()) for _ in range(4)]
    assert found == [[["a", None]], None, None, []], "none if there are more, or the table is gone"
    select = 'SELECT "Name", "a`b" FROM "T ""x"""'
    assert file.asked == [(select, {"max_rows": 10 * 3 + 1000, "max_cell": 10_000})] * 4
    assert asyncio.run(SqliteEngine(ITEM).close()) is None, "one that was never opened is closed too"


def test_a_table_is_made_of_the_items_cells_in_a_folder_of_its_own() -> None:
    made = SqliteEngine(ITEM, query_s=1.5)
    asyncio.run(made.open())
    assert made._folder is not None and made._file is not None and made._file.query_s == 1.5
    folder = Path(made._folder.name)
    with closing(sqlite3.connect(folder / "table.sqlite")) as connection:
        assert connection.execute('SELECT * FROM "T ""x"""').fetchall() == list(ROWS)
        assert connection.execute('SELECT "a`b" FROM "T ""x""" WHERE name = \'aNN\'').fetchall() == [("3",)]
    asyncio.run(made.close())
    assert not folder.exists() and folder.name.startswith("firsthand-db-")


def test_the_result_of_a_write_is_the_hash_of_its_table_and_that_of_a_question_its_answer() -> None:
    write = TableItem("UPDATE", "t", ("a",), (("1",),), ("UPDATE t SET a = 2",), "x")

    async def ended(item: TableItem, *answers: Any) -> Any:
        made, file = engine(item, *answers)
        world = DatabaseWorld(item, made)
        assert await world.execute_sql("UPDATE t\nSET a = 2") == "[] (1 rows changed)" == world.last_reply
        assert file.asked[0][0] == "UPDATE t SET a = 2" and world.statements == ["UPDATE t\nSET a = 2"]
        before = world.ending
        assert await world.commit_final_answer(("x", "y")) == "The answer is taken."  # type: ignore[arg-type]
        return await world.result(), before, world.ending

    result, before, after = asyncio.run(ended(write, changed(1), rows(["2"])))
    assert (before, after) == (None, "answered")
    assert result == {"answer": ["x", "y"], "md5": table_md5([["2"]]), "statements": 1}
    assert asyncio.run(ended(write, changed(1), ToolError("gone")))[0]["md5"] is None
    assert asyncio.run(ended(ITEM, changed(1)))[0] == {"answer": ["x", "y"], "md5": None, "statements": 1}


def test_a_reply_of_the_limit_is_whole_and_a_longer_one_is_cut() -> None:
    made, _ = engine(ITEM, rows(["x" * (MAX_REPLY - 7)]), rows(["x" * (MAX_REPLY - 6)]))
    world = DatabaseWorld(ITEM, made)
    whole, cut = (asyncio.run(world.execute_sql("SELECT 1")) for _ in range(2))
    assert whole == f"[('{'x' * (MAX_REPLY - 7)}',)]" and len(whole) == MAX_REPLY
    assert cut == f"[('{'x' * (MAX_REPLY - 6)}',)"[:MAX_REPLY] + "[TRUNCATED]" == world.last_reply
    for empty in ("", " \n"):
        with pytest.raises(InvalidAction) as error:
            asyncio.run(world.execute_sql(empty))
        assert str(error.value) == f"there is no statement: write {GRAMMAR}" and len(world.statements) == 2


def test_a_table_is_shown_with_eight_rows_of_cells_up_to_24_characters() -> None:
    rows = tuple((f"n{number}", "long\n" + "y" * 40 if number == 7 else "z") for number in range(9))
    world = DatabaseWorld(TableItem("other", "t", ("id", "text"), rows, ("1",)), SqliteEngine(ITEM))
    cell = "long " + "y" * 19
    assert world.render().split("\n") == [
        "t", f"id | text{' ' * 20}", f"---+-{'-' * 24}".replace("---+-", "---+-", 1),
        *(f"n{number} | z{' ' * 23}" for number in range(7)), f"n7 | {cell}", "... 1 more rows",
    ]  # fmt: skip
    world.statements, world.last_reply = ["a", "b"], "[]"
    assert world.render().endswith("... 1 more rows\n\nsql> b\n[]")
    eight = DatabaseWorld(TableItem("other", "t", ("id", "text"), rows[:8], ("1",)), SqliteEngine(ITEM))
    assert "more rows" not in eight.render() and eight.render().count("\n") == 10
    none = DatabaseWorld(TableItem("other", "t", ("id",), (), ("1",)), SqliteEngine(ITEM))
    assert none.render() == "t\nid\n--"


def test_actions_are_read_written_and_drawn_by_the_grammar() -> None:
    world = DatabaseWorld(ITEM, SqliteEngine(ITEM))
    reads = {
        "Operation\n```sql\nSELECT 1\n```": ("execute_sql", {"statement": "SELECT 1"}),
        "\n operation.\nwords ```SQL \n\n a\nb ``` and ```sql\nc\n```": ("execute_sql", {"statement": "a\nb"}),
        "Answer\nFinal Answer: ['a', 1]": ("commit_final_answer", {"answers": ["a", 1]}),
        "final answer: x": ("commit_final_answer", {"answers": ["x"]}),
        "ANSWER:\nfinal answer: (2,)": ("commit_final_answer", {"answers": [2]}),
    }
    assert {text: world.read(text) for text in reads} == reads
    for text, told in {
        "operation\nSELECT 1": f"the operation has no ```sql block: write {GRAMMAR}",
        "Operation ```sql SELECT 1```": f"the operation has no ```sql block: write {GRAMMAR}",
        f"{'k' * 41}\nFinal Answer: 1": f"{'k' * 40!r} is no action: write {GRAMMAR}", "Answer: 1":
        f"'answer: 1' is no action: write {GRAMMAR}",
    }.items():  # fmt: skip
        with pytest.raises(InvalidAction) as error:
            world.read(text)
        assert str(error.value) == told
    assert world.typed("select 1\nx") == operation("select 1\nx") == "Operation\n```sql\nselect 1 x\n```"
    assert world.typed("answer: a , b") == "Answer\nFinal Answer: ['a', 'b']" == world.typed("ANSWER a,b")
    for kept in ("Operation\n...", "answer\nx", "final x"):
        assert world.typed(kept) == kept
    assert final_answer(("a", "b'")) == "Answer\nFinal Answer: ['a', \"b'\"]"
    drawn = {
        place: world.random(places)
        for place, places in enumerate((Below(1, 0, 5), Below(0, 1, 5), Below(0, 2, 7), Below(1, 3, 19)))
    }
    table = '`T "x"`'
    assert drawn == {
        0: operation(f"SELECT COUNT(`a`b`) FROM {table}"), 1: operation(f"SELECT `Name` FROM {table}"),
        2: operation(f"UPDATE {table} SET `Name` = '7'"), 3: final_answer(["19"]),
    }  # fmt: skip
    assert world.optimal() == final_answer(["Ann"])
    write = DatabaseWorld(TableItem("DELETE", "t", ("a",), (), ("DELETE FROM t", "x")), SqliteEngine(ITEM))
    assert write.optimal() == operation("DELETE FROM t")
    write.statements.append("DELETE FROM t")
    assert write.optimal() == final_answer(["done"])
    answers = {
        "['a', 'b']": ["a", "b"], " {1} ": [1], "'x'\nmore": ["x"], "[1,\n2]": [1, 2], "[1] \nmore": [1], "a, b": ["a, b"],
        "": [""], "3": [3], "None": [None], "[1": ["[1"], "f(x)": ["f(x)"], "()": [],
    }  # fmt: skip
    assert {text: read_answer(text) for text in answers} == answers
    assert [move.__name__ for move in world.moves] == ["execute_sql", "commit_final_answer"]
    assert database_world._quoted('a"b') == '"a""b"'


class Below(Dealt):
    """Draws numbers below a bound from the same list."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self.places.pop(0) % start


def test_answers_are_compared_as_one_value_or_as_sets() -> None:
    cases = [
        (["3"], ["3.0"], True), ([3], ["3"], True), (["3"], ["4"], False), (["a"], ["a"], True), (["a"], ["A"], False),
        ([None], ["None"], False), (["nan"], ["nan"], False), (["b", "a"], ["a", "b"], True), (["a", "a"], ["a"], True),
        (["a"], ["a", "b"], False), ([["a"], "b"], ["a", "b"], False), ([], ["a"], False), ([["a"]], ["a"], False),
    ]  # fmt: skip
    assert [is_right(answer, label) for answer, label, _ in cases] == [right for _, _, right in cases]
    assert table_md5([["a", None], ["b", "c"]]) == table_md5([["b", "c"], ["a"]]) != table_md5([["b", "c"], ["a", ""]])


def test_mysqls_notation_is_rewritten_token_by_token() -> None:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    described = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{}' COLLATE NOCASE"
    cases = {
        " show  full tables ; ": tables, "SHOW TABLES": tables, "SHOW TABLES FROM x": "SHOW TABLES FROM x",
        "DESC `My  t`;": described.format("My  t"), "describe a": described.format("a"),
        "SHOW COLUMNS FROM a": described.format("a"), "show full columns in 'a b' ;": described.format("a b"),
        "SHOW CREATE TABLE \"x\"": described.format("x"), "DESCRIBE a; b": "DESCRIBE a; b",
        r"SELECT 'a\'b', 'c''d', 'e\nf\t\0\q'": "SELECT 'a''b', 'c''d', 'e\nf\t\0q'", r"'\r\b\Z\\'": "'\r\b\x1a\\'",
        "SELECT 2nd, t.3rd, 1e5, 0xFf, 12 FROM 2020_x": "SELECT `2nd`, t.3rd, 1e5, 0xFf, 12 FROM `2020_x`",
        "a -- b\nc # d\ne /* f */g": "a  \nc  \ne  g", "a /* open": "a  ", '"a\\" `b``c`': '"a\\" `b``c`',
        "'-- no' \"# no\"": "'-- no' \"# no\"", "SELECT 'open": "SELECT 'open", "": "", "é = '\u00fc'": "é = 'ü'",
    }  # fmt: skip
    assert {text: for_sqlite(text) for text in cases} == cases
