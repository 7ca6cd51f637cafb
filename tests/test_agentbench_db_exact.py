"""AgentBench's database tasks scored exactly: what the published rule takes for right, and is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.benchmarks.agentbench_db import solved, solved_exact
from firsthand.errors import DataError
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.database.database_world import DatabaseWorld, SqliteEngine
from firsthand.worlds.database.table_items import TableItem, is_exact, same_rows, table_md5

ROW = ("Metropolis", "1927", "Lang")
INSERT = f"INSERT INTO Films VALUES {ROW}"
ITEM = TableItem("INSERT", "Films", ("Title", "Year", "Director"), (("A", "1920", "B"),), (INSERT,),
                 table_md5([("A", "1920", "B"), ROW]))  # fmt: skip


def scored(item: TableItem, result: Any) -> tuple[float, float]:
    state = {"rounds": 1, "invalid_actions": 0, "longest_loop": 0, "ended": "answered", "result": result}
    trace = Trace("t", "b", "t", {}, 0, 0, "", 0.0, final_state=state)
    task = Task("t", "q", secret={"item": item.to_json()})
    return solved(task, trace).value, solved_exact(task, trace).value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "both"),
    [
        (INSERT, (1, 1)),
        ("INSERT INTO Films (Director, Year, Title) VALUES ('Lang', 1927, 'Metropolis')", (1, 1)),
        ("INSERT INTO Films VALUES ('Metropolis,1927,Lang', NULL, NULL)", (1, 0)),
        ("INSERT INTO Films VALUES ('Metropolis', '1927,Lang', NULL)", (1, 0)),
        ("INSERT INTO Films VALUES ('Metropolis', '1928', 'Lang')", (0, 0)),
        ("DROP TABLE Films", (0, 0)),
    ],
)
def test_a_change_is_exact_with_the_rows_of_the_published_statement(statement: str, both: tuple[int, int]) -> None:
    async def ended() -> Any:
        world = DatabaseWorld(ITEM, SqliteEngine(ITEM), SqliteEngine(ITEM))
        await world.open()
        try:
            await world.execute_sql(statement)
            return await world.result()
        finally:
            await world.close()

    assert scored(ITEM, asyncio.run(ended())) == both


class Table(SqliteEngine):
    """A table of these rows."""

    def __init__(self, *rows: list[str | None] | None) -> None:
        super().__init__(ITEM)
        self.rows, self.done = rows, []  # type: ignore[var-annotated]

    async def open(self) -> None:
        self.done.append("open")

    async def execute(self, statement: str) -> str:
        self.done.append(statement)
        return "[]"

    async def cells(self) -> Any:
        return list(self.rows)

    async def close(self) -> None:
        self.done.append("close")


def test_the_published_statement_runs_once_the_hash_is_right_in_a_table_of_its_own() -> None:
    first: list[str | None] = ["A", "1920", "B"]
    for mine, exact, done in (
        ([*ROW], True, ["open", INSERT, "close"]),
        (["Metropolis,1927,Lang", None, None], False, ["open", INSERT, "close"]),
        (["Metropolis", "1928", "Lang"], False, []),
    ):
        published = Table([*ROW], first)
        result = asyncio.run(DatabaseWorld(ITEM, Table(first, mine), published).result())
        assert (result["exact"], published.done) == (exact, done)
    assert "exact" not in asyncio.run(DatabaseWorld(ITEM, Table(first)).result())


def test_rows_are_equal_cell_by_cell_in_any_order_and_each_as_often() -> None:
    assert same_rows([("a", None), ["b", "c"]], [["b", "c"], ["a", None]]) and same_rows([], [])
    for other in ([("a", "")], [("a",)], [(None, "a")], [("a", None)] * 2, []):
        assert not same_rows([("a", None)], other), other


def test_an_answer_is_exact_with_each_value_as_text_and_as_often() -> None:
    asks = TableItem("other", "t", ("a",), (), ("a", "b"))
    for answer, both in (
        (["b", "a"], (1, 1)), (["a", "a", "b"], (1, 0)), (["a"], (0, 0)), (None, (0, 0)), ([["a"], "b"], (0, 0)),
    ):  # fmt: skip
        assert scored(asks, {"answer": answer, "md5": None}) == both, answer
    number = TableItem("counting", "t", ("a",), (), ("5",))
    for given, both in (
        (5, (1, 1)),
        ("5", (1, 1)),
        ("5.0", (1, 0)),
        ("\u0665", (1, 0)),
        (" 5 ", (1, 0)),
        ("6", (0, 0)),
    ):
        assert scored(number, {"answer": [given], "md5": None}) == both, given
    assert is_exact(["nan"], ["nan"]) and scored(TableItem("other", "t", ("a",), (), ("nan",)), {
        "answer": ["nan"], "md5": None}) == (0, 0), "what is not solved is not exact"  # fmt: skip


def test_a_run_of_an_older_version_is_not_taken_for_wrong() -> None:
    with pytest.raises(
        DataError, match=r"was made before 0\.21\.0 and does not say whether each cell is right: run the task"
    ):
        scored(ITEM, {"answer": None, "md5": ITEM.md5})
