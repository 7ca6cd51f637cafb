"""AgentBench's database world: SQL on one table, then an answer; writes are judged by the hash of the table.

The table lies in a SQLite file of the attempt's own. Each statement runs in a process with limits (`tools/sql.py`): one that
hangs, drops everything or asks for too much is answered in words, and the next one runs.
"""

from __future__ import annotations

import ast
import asyncio
import re
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Protocol

from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.tools.sql import SqlFile
from firsthand.worlds.database.mysql_dialect import for_sqlite, one_line
from firsthand.worlds.database.table_items import TableItem, same_rows, table_md5
from firsthand.worlds.world import InvalidAction, WorldCall

MAX_REPLY = 800
"""Characters of a database's reply that an agent sees, as in the paper."""
QUERY_S = 5.0
GRAMMAR = (
    "Action: Operation and then one statement between ```sql and ```, or Action: Answer and then Final Answer: [...]"
)
_SQL = re.compile(r"```sql(?>\s*\n)(.*?)```", re.DOTALL | re.IGNORECASE)
_FINAL = re.compile(r"Final Answer:(.*)", re.IGNORECASE | re.DOTALL)


class TableEngine(Protocol):
    """A database with the table of one attempt."""

    def ready(self) -> None:
        """FirsthandError if it is not installed."""

    async def open(self) -> None:
        """Make the table."""

    async def execute(self, statement: str) -> str:
        """The database's reply as text; what it complains of is a reply too."""

    async def cells(self) -> list[list[str | None]] | None:
        """All rows of the item's table; None if it is gone or cannot be read."""

    async def close(self) -> None:
        """Delete everything."""


class SqliteEngine:
    """The table in a SQLite file of its own. Text compares without regard to case, as in MySQL."""

    def __init__(self, item: TableItem, query_s: float = QUERY_S):
        self.item, self.query_s = item, query_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._file: SqlFile | None = None

    def ready(self) -> None:
        """Do nothing: SQLite comes with Python."""

    async def open(self) -> None:
        """Make the file."""
        self._folder = tempfile.TemporaryDirectory(prefix="firsthand-db-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "table.sqlite"
        item = self.item
        columns = ", ".join(f"{_quoted(name)} TEXT COLLATE NOCASE" for name in item.columns)
        places = ", ".join("?" * len(item.columns))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"CREATE TABLE {_quoted(item.table)} ({columns})")
            connection.executemany(f"INSERT INTO {_quoted(item.table)} VALUES ({places})", item.rows)
        self._file = SqlFile(path, query_s=self.query_s)

    async def execute(self, statement: str) -> str:
        """The reply in the form of MySQL's Python driver: a list of tuples."""
        assert self._file is not None
        sql = for_sqlite(statement, (self.item.table, *self.item.columns))
        try:
            reply = await asyncio.to_thread(self._file.reply, sql, write=True, max_cell=1000)
        except ToolError as error:
            return str(error)
        if reply["columns"] is None:
            return "[]" if reply["count"] < 0 else f"[] ({reply['count']} rows changed)"
        return str([tuple(row) for row in reply["rows"]])

    async def cells(self) -> list[list[str | None]] | None:
        """All rows of the item's table."""
        assert self._file is not None
        names = ", ".join(map(_quoted, self.item.columns))
        most = 10 * len(self.item.rows) + 1000
        try:
            reply = await asyncio.to_thread(
                self._file.reply, f"SELECT {names} FROM {_quoted(self.item.table)}", max_rows=most, max_cell=10_000
            )
        except ToolError:
            return None
        rows: list[list[str | None]] = reply["rows"]
        return None if reply["more"] else rows

    async def close(self) -> None:
        """Delete the file."""
        if self._folder is not None:
            await asyncio.to_thread(self._folder.cleanup)


class DatabaseWorld:
    """A World of one item."""

    form = "(Operation\\n```sql\\n[^\\n]{1,800}\\n```|Answer\\nFinal Answer: \\[[^\\n]{0,400}\\])"
    examples = (
        "Operation\n```sql\nSELECT `Year` FROM `Films` WHERE `Title` = 'Metropolis'\n```",
        "Answer\nFinal Answer: ['1927']",
    )

    def __init__(self, item: TableItem, engine: TableEngine, published: TableEngine | None = None):
        self.item, self.engine, self.published = item, engine, published
        self.ending: str | None = None
        self.answer: list[Any] | None = None
        self.statements: list[str] = []
        self.last_reply = ""

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The statement and the answer."""
        return (self.execute_sql, self.commit_final_answer)

    async def execute_sql(self, statement: str) -> str:
        """Run one SQL statement; returns the database's reply.

        Args:
            statement: One statement, in one line.
        """
        if not statement.strip():
            raise InvalidAction(f"there is no statement: write {GRAMMAR}")
        self.statements.append(statement)
        reply = await self.engine.execute(one_line(statement))
        self.last_reply = reply if len(reply) <= MAX_REPLY else reply[:MAX_REPLY] + "[TRUNCATED]"
        return self.last_reply

    async def commit_final_answer(self, answers: list[str]) -> str:
        """Give the final answer, which ends the task. For a change of the database it can be anything.

        Args:
            answers: Each value of the answer, exactly as it is in the database.
        """
        self.answer, self.ending = list(answers), "answered"
        return "The answer is taken."

    def ready(self) -> None:
        """FirsthandError if the engine is not installed."""
        self.engine.ready()

    async def open(self) -> None:
        """Make the table."""
        await self.engine.open()

    async def close(self) -> None:
        """Delete the table."""
        await self.engine.close()

    def read(self, action: str) -> WorldCall:
        """The statement in an operation's first block, or the list after Final Answer."""
        kind = action.lstrip().split("\n", 1)[0].strip().rstrip(".:").lower()
        if kind.startswith("operation"):
            if (found := _SQL.search(action)) is None:
                raise InvalidAction(f"the operation has no ```sql block: write {GRAMMAR}")
            return WorldCall("execute_sql", {"statement": found[1].strip()})
        if (found := _FINAL.search(action)) is not None and (kind.startswith("answer") or kind.startswith("final")):
            return WorldCall("commit_final_answer", {"answers": read_answer(found[1])})
        raise InvalidAction(f"{kind[:40]!r} is no action: write {GRAMMAR}")

    def admissible(self) -> None:
        """Return None: statements cannot be listed."""
        return

    def render(self) -> str:
        """The table as it was made, and the last statement with its reply."""
        widths = [min(24, max(map(len, column))) for column in zip(self.item.columns, *self.item.rows[:8], strict=True)]
        lines = [
            " | ".join(cell.replace("\n", " ")[:width].ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in (self.item.columns, *self.item.rows[:8])
        ]
        lines.insert(1, "-+-".join("-" * width for width in widths))
        more = len(self.item.rows) - 8
        lines += [f"... {more} more rows"] if more > 0 else []
        last = f"\n\nsql> {self.statements[-1]}\n{self.last_reply}" if self.statements else ""
        return f"{self.item.table}\n" + "\n".join(lines) + last

    async def result(self) -> Json:
        """The answer, and the hash of the table as it is now.

        Of a change, with a `published` engine, also `exact`: the rows are those that the published statement leaves.
        """
        md5, exact = None, False
        if self.item.is_write:
            rows = await self.engine.cells()
            md5 = None if rows is None else table_md5(rows)
            if rows is not None and md5 == self.item.md5 and self.published is not None:
                exact = same_rows(rows, await self._published_rows(self.published))
        told = {"exact": exact} if self.item.is_write and self.published is not None else {}
        return {"answer": self.answer, "md5": md5, "statements": len(self.statements), **told}

    async def _published_rows(self, engine: TableEngine) -> list[list[str | None]]:
        try:
            await engine.open()
            await engine.execute(one_line(self.item.label[0]))
            return await engine.cells() or []
        finally:
            await engine.close()

    def typed(self, line: str) -> str:
        """The action that a person means: a statement, or `answer:` and values with commas between them."""
        if line.lower().startswith(("operation", "answer\n", "final")):
            return line
        if line.lower().startswith("answer"):
            return final_answer([value.strip() for value in line[6:].lstrip(" :").split(",")])
        return operation(line)

    def optimal(self) -> str:
        """The published statement, if something is to be written, and then the published answer."""
        if self.item.is_write and not self.statements:
            return operation(self.item.label[0])
        return final_answer(["done"] if self.item.is_write else self.item.label)

    def random(self, rng: Random) -> str:
        """A count, a look at the table, a change of one column, or a small number as the answer."""
        table = f"`{self.item.table}`"
        column = f"`{rng.choice(self.item.columns)}`"
        drawn = rng.randrange(4)
        if drawn == 3:
            return final_answer([str(rng.randrange(20))])
        change = f"UPDATE {table} SET {column} = '{rng.randrange(20)}'"
        return operation((f"SELECT COUNT({column}) FROM {table}", f"SELECT {column} FROM {table}", change)[drawn])


def operation(statement: str) -> str:
    """The action that runs a statement."""
    return f"Operation\n```sql\n{one_line(statement)}\n```"


def final_answer(values: Sequence[str]) -> str:
    """The action that answers."""
    return f"Answer\nFinal Answer: {list(values)!r}"


def read_answer(text: str) -> list[Any]:
    """The values of a final answer: a list as Python writes it, else the text as one value."""
    given = text.strip()
    line = given.split("\n", 1)[0].strip() if not given.startswith("[") or "]" in given.split("\n", 1)[0] else given
    try:
        value = ast.literal_eval(line[:4000])
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return [line]
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
