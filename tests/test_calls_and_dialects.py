"""What worlds read: calls as JSON, MySQL for SQLite, tau-bench's files of tasks, and calls written as Python."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks.closed_world import closed_world
from firsthand.errors import DataError
from firsthand.worlds.database.mysql_dialect import for_sqlite, one_line
from firsthand.worlds.function_turns import TurnTask, listed, parsed
from firsthand.worlds.json_calls import read_call, unfenced
from firsthand.worlds.tau.tau_tasks import TauTask, domain_folder, read_policy, read_tables, read_tasks
from firsthand.worlds.world import InvalidAction


async def put(name: str, count: int = 1, tags: list[str] | None = None, note: Any = None) -> str:
    return name


async def stop() -> str:
    return ""


def test_a_call_as_json_names_a_move_and_gives_it_what_it_takes() -> None:
    fenced = {
        "```json\n{}\n```": "{}",
        " ``` x ``` ": "x",
        "`````": "`````",
        "``````": "",
        "```x": "```x",
        "x```": "x```",
    }
    assert {text: unfenced(text) for text in fenced} == fenced

    def told(body: object) -> str:
        with pytest.raises(InvalidAction) as error:
            read_call(body if isinstance(body, str) else json.dumps(body), (put, stop))
        return str(error.value)

    found = read_call('{"name": "put", "arguments": {"name": "é", "tags": [], "note": 3}}', (stop, put))
    assert (found.name, found.arguments) == ("put", {"name": "é", "tags": [], "note": 3})
    assert read_call('{"name": "put", "kwargs": {"name": "a"}}', (put,)).arguments == {"name": "a"}
    both = '{"name": "put", "kwargs": {"name": "a"}, "arguments": {"name": "b"}}'
    assert read_call(both, (put,)).arguments == {"name": "b"}
    assert read_call('{"name": "stop"}', (put, stop)).arguments == {}
    example = 'write one object, {"name": ..., "arguments": {...}}'
    assert told("{") == (
        "the action is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)): "
        + example
    )
    for deep in ("[" * 100_000, '{"a":' * 100_000):
        said = told(deep)
        assert said.startswith("the action is no JSON (") and said.endswith(f"): {example}")
        assert len(said) <= len(f"the action is no JSON (): {example}") + 80
    assert told("").startswith("the action is no JSON (Expecting value: line 1 column 1 (char 0)): ")
    assert told([1]) == f"the action is no JSON object but a list: {example}"
    for body, kind in (("null", "NoneType"), ("3", "int"), ('"put"', "str"), ("true", "bool")):
        assert told(body) == f"the action is no JSON object but a {kind}: {example}"
    for empty, kind in (([], "list"), (None, "NoneType"), ("", "str"), (0, "int"), (False, "bool")):
        for key in ("arguments", "kwargs"):
            wrong = {"name": "stop", key: empty}
            assert told(wrong) == f"the arguments of stop are a JSON {kind}: an object was expected"
        wrong = {"name": "stop", "arguments": empty, "kwargs": {}}
        assert told(wrong) == f"the arguments of stop are a JSON {kind}: an object was expected"
    both = '{"name": "stop", "kwargs": {"name": "a"}, "arguments": {}}'
    assert read_call(both, (stop,)).arguments == {}, "arguments go first, empty ones too"
    assert told({}) == told({"name": None}) == "there is no tool 'None': there are put, stop"
    assert told({"name": "x" * 61}) == f"there is no tool {'x' * 60!r}: there are put, stop"
    assert told({"name": "stop", "arguments": [1]}) == "the arguments of stop are a JSON list: an object was expected"
    assert told({"name": "put", "arguments": {}}) == "the arguments do not fit put: missing a required argument: 'name'"
    assert told({"name": "stop", "arguments": {"a": 1}}).startswith("the arguments do not fit stop: ")
    for key, value, came in (
        ("name", 3, "int"),
        ("count", "1", "str"),
        ("tags", "b", "str"),
        ("count", None, "NoneType"),
    ):
        wanted = {"name": "str", "count": "int", "tags": "list[str] | None"}[key]
        sentence = f"the argument {key} of put is a JSON {came}: {wanted} was expected"
        assert told({"name": "put", "arguments": {"name": "a", key: value}}) == sentence


def test_a_statement_is_put_on_one_line_but_for_the_ends_of_its_comments() -> None:
    for given, line in (
        ("UPDATE t\nSET n = 9\n\nWHERE a = 1\n", "UPDATE t SET n = 9  WHERE a = 1 "),
        ("UPDATE t SET n = 9 -- new\nWHERE\na = 1", "UPDATE t SET n = 9 -- new\nWHERE a = 1"),
        ("# first\n\nSELECT 1 --\n", "# first\n SELECT 1 --\n"),
        ("SELECT 'a -- b\nc', \"d # e\nf\", `g\nh`", "SELECT 'a -- b c', \"d # e f\", `g h`"),
        ("SELECT 5--3\nFROM t", "SELECT 5--3 FROM t"),
        ("SELECT 1 /* a\nb */ + 1", "SELECT 1 /* a b */ + 1"),
        ("SELECT /* a */'b\nc'", "SELECT /* a */'b c'"),
        ("SELECT 'open -- x\ny", "SELECT 'open -- x y"),
        ("", ""),
    ):
        assert one_line(given) == line


def test_mysql_is_rewritten_where_sqlite_would_read_it_otherwise() -> None:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    for asked in ("SHOW TABLES", "show full tables ; ", "-- what is there\nSHOW TABLES # all"):
        assert for_sqlite(asked) == tables
    assert for_sqlite("SHOW TABLES LIKE 'a'") == "SHOW TABLES LIKE 'a'"
    for asked in (
        "DESC a b",
        "DESCRIBE `a b`;",
        "show columns from 'a b'",
        "SHOW FULL COLUMNS IN a b",
        "SHOW CREATE TABLE a b",
    ):
        assert for_sqlite(asked) == (
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'a b' COLLATE NOCASE"
        ), asked
    rewritten = {
        r"SELECT 'it\'s', 'a''b', 'x\ny\\', '\q'": "SELECT 'it''s', 'a''b', 'x\ny\\', 'q'",
        "SELECT 1st, a.2nd, 2, 1e5, 0xFF, 1.5 FROM 3d": "SELECT `1st`, a.2nd, 2, 1e5, 0xFF, 1.5 FROM `3d`",
        "SELECT 1 -- one\n, 2 # two\n /* 3st */ + 4": "SELECT 1  \n, 2  \n   + 4",
        'SELECT "1st", `2nd x`': 'SELECT "1st", `2nd x`',
        "SELECT 'open 1st": "SELECT 'open 1st",
        "SELECT 1 /* open": "SELECT 1  ",
    }
    assert {each: for_sqlite(each) for each in rewritten} == rewritten
    [row] = sqlite3.connect(":memory:").execute(for_sqlite(r"SELECT 'a\tb\r\b\Z', 'it\'s'")).fetchall()
    assert row == ("a\tb\r\b\x1a", "it's")
    assert for_sqlite(r"'\t\r\b\Z\0'") == "'\t\r\b\x1a\0'"


TASKS = """
from tau_bench.types import Action, Task
TASKS = [
    Task(annotator="0", user_id="ann_1", instruction="Do it.", actions=[
        Action(name="cancel", kwargs={"order_id": "#W1", "n": [1, None]}), Action(kwargs={}, name="think")],
        outputs=["10", 4.5]),
    Task(user_id="bob_2", instruction="Nothing.", actions=[]),
]
"""


def test_tau_benchs_tasks_are_parsed_and_its_tables_and_policy_found(tmp_path: Path) -> None:
    file = tmp_path / "tasks_test.py"
    file.write_text(TASKS, encoding="utf-8")
    assert read_tasks(file) == [
        TauTask("ann_1", "Do it.", (("cancel", {"order_id": "#W1", "n": [1, None]}), ("think", {})), ("10", "4.5")),
        TauTask("bob_2", "Nothing.", (), ()),
    ]

    def told(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as error:
            read_tasks(file)
        return str(error.value).removeprefix(str(file))

    assert told("x = (") == " is no Python file of tau-bench's tasks: '(' was never closed (<unknown>, line 1)"
    assert told("x = 1") == " holds no Task(...): a file such as tau-bench's tasks_test.py was expected"
    assert told("\nTask(actions=3)") == ", line 2: the task has no list of actions"
    for action in ("3", "Other(name='a', kwargs={})", "Action(name=1, kwargs={})", "Action(name='a', kwargs=[])"):
        assert told(f"Task(actions=[{action}])") == ", line 1: an action is no Action(name=..., kwargs=...)"
    assert told("Task(actions=[], user_id=f())") == (
        ", line 1: a value is no literal: it would have to be run, and is not"
    )
    for fields in ("user_id='a'", "instruction='a'", "user_id=1, instruction='a'"):
        assert told(f"Task(actions=[], {fields})") == ", line 1: the task has no text user_id and instruction"

    for place in ("", "tau_bench/envs/retail", "agents/tau_bench/retail", "retail"):  # each goes before the last
        folder = tmp_path / "data" / place
        (folder / "data").mkdir(parents=True)
        (folder / "wiki.md").write_text(f"Policy of {place}.", encoding="utf-8")
        if place == "":
            with pytest.raises(DataError, match=r"there is no retail/wiki\.md and retail/data/users\.json in "):
                domain_folder(tmp_path / "data", "retail")
        (folder / "data" / "users.json").write_text('{"a": {"b": 1}}', encoding="utf-8")
        assert domain_folder(tmp_path / "data", "retail") == folder
        assert read_policy(folder) == f"Policy of {place}."
    (folder / "data" / "orders.json").write_text("{}", encoding="utf-8")
    (folder / "data" / "products.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="an object of records was expected"):
        read_tables(folder, "retail")
    (folder / "data" / "products.json").write_text('{"p": {}}', encoding="utf-8")
    assert read_tables(folder, "retail") == {"users": {"a": {"b": 1}}, "orders": {}, "products": {"p": {}}}


def test_calls_in_python_and_functions_are_read_and_listed() -> None:
    assert parsed("move('a', 2, to=[1, None], by=-0.5)") == ("move", ["a", 2], {"to": [1, None], "by": -0.5})
    described = [
        {"name": "a", "description": "é", "parameters": {"x": 1}, "response": {}},
        {"parameters": {}, "description": "", "name": "b"},
    ]
    assert listed(described).split("\n") == [
        '{"name": "a", "description": "\\u00e9", "parameters": {"x": 1}}',
        '{"name": "b", "description": "", "parameters": {}}',
    ]
    task = TurnTask("t", ("x",), (), {}, (), ((),), later={1: ("a", "b"), 3: ("c",)})
    assert [task.is_later(name) for name in "abcd"] == [True, True, True, False]
    assert not TurnTask("t", (), (), {}, (), ()).is_later("a")


def test_pages_are_there_only_for_those_who_may_search() -> None:
    assert [closed_world(search=search).environment is None for search in (True, False)] == [False, True]
