"""TaskFile: the tasks of an MCP server in a SQLite file, so that they outlive the process that runs them.

    <folder>/mcp_tasks.sqlite    each task: its call, the answers it was given, and how it ended

What a method has written survives `kill -9` once it returns.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from firsthand.message import Json
from firsthand.runs.database import Database, Schema

TASKS_FILE = "mcp_tasks.sqlite"
LATE_S = 600.0
"""Seconds for which the end of a task is kept that ran for longer than tasks are kept."""
SCHEMA = Schema(
    "a file of MCP tasks",
    0x66736D74,  # "fsmt"
    (
        """
        CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, owner TEXT, tool TEXT NOT NULL, arguments TEXT NOT NULL,
            declared TEXT NOT NULL, answers TEXT NOT NULL, note TEXT NOT NULL DEFAULT '', status TEXT NOT NULL,
            outcome TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, expires REAL NOT NULL);
        CREATE INDEX tasks_by_status ON tasks (status);
        CREATE INDEX tasks_by_expiry ON tasks (expires);
        """,
        """
        ALTER TABLE tasks ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
        UPDATE tasks SET size = length(arguments) + length(declared) + length(answers) + coalesce(length(outcome), 0);
        CREATE INDEX tasks_by_size ON tasks (owner, size);
        """,
    ),
    "the folder of an MCP server's tasks",
)
_ROW = "id, owner, tool, arguments, declared, answers, note, status, outcome, created_at, updated_at, expires"


@dataclass(frozen=True)
class TaskRow:
    """A task as it is kept."""

    id: str
    owner: str | None
    """The client whose key its call carried."""
    tool: str
    arguments: Json
    declared: Json
    """The capabilities that the client declared."""
    answers: Json
    """The answers that the client gave to its requests, by their keys."""
    note: str
    """Data that the tool needs to go on, such as the id of its run."""
    status: str
    """`working`, or the end: `completed`, `failed` or `cancelled`."""
    outcome: Json | None
    """The result of a completed task, unless its tool keeps it; the error of a failed one."""
    created_at: str
    updated_at: str
    expires: float
    """Seconds of the epoch until which it is kept."""


class TaskFile:
    """The tasks of one server."""

    def __init__(self, folder: Path):
        self._database = Database(folder / TASKS_FILE, create=True, schema=SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, row: TaskRow) -> None:
        """Keep a new task, and drop those that are too old."""
        bodies = [_text(each) for each in (row.arguments, row.declared, row.answers)]
        given = (
            row.id, row.owner, row.tool, *bodies, row.note, row.status, None, row.created_at, row.updated_at, row.expires,
            sum(map(_size, bodies)),
        )  # fmt: skip
        with self._database.write() as connection:
            connection.execute("DELETE FROM tasks WHERE expires < ?", (time.time(),))
            connection.execute(f"INSERT INTO tasks ({_ROW}, size) VALUES ({'?, ' * 12}?)", given)

    def add_answers(self, id: str, answers: Json) -> None:
        """Keep answers of the client besides those that are there."""
        with self._database.write() as connection:
            rows = connection.execute("SELECT answers FROM tasks WHERE id = ?", (id,)).fetchall()
            for (body,) in rows:
                kept = _text(json.loads(body) | answers)
                grown = _size(kept) - _size(body)
                connection.execute("UPDATE tasks SET answers = ?, size = size + ? WHERE id = ?", (kept, grown, id))

    def keep_note(self, id: str, note: str) -> None:
        """Keep what the tool needs to go on."""
        with self._database.write() as connection:
            connection.execute("UPDATE tasks SET note = ? WHERE id = ?", (note, id))

    def end(self, id: str, status: str, outcome: Json | None, at: str) -> None:
        """Keep the end of a task, for LATE_S at least; one that has an end keeps it."""
        body = None if outcome is None else _text(outcome)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE tasks SET status = ?, outcome = ?, updated_at = ?, size = size + ?, expires = max(expires, ?)"
                " WHERE id = ? AND status = 'working'",
                (status, body, at, _size(body or ""), time.time() + LATE_S, id),
            )

    def forget(self, *ids: str) -> None:
        """Drop tasks."""
        with self._database.write() as connection:
            connection.executemany("DELETE FROM tasks WHERE id = ?", [(id,) for id in ids])

    def forget_old(self, *, with_open: bool = False) -> None:
        """Drop what is over and too old; what has no end too where no process runs it."""
        old = "expires < ?" if with_open else "expires < ? AND status <> 'working'"
        if self._database.read(f"SELECT 1 FROM tasks WHERE {old} LIMIT 1", (time.time(),)):
            with self._database.write() as connection:
                connection.execute(f"DELETE FROM tasks WHERE {old}", (time.time(),))

    def size_bytes(self, owner: str | None) -> int:
        """The bytes that a client's tasks take."""
        return int(self._database.read("SELECT total(size) FROM tasks WHERE owner IS ?", (owner,))[0][0])

    def find(self, id: str) -> TaskRow | None:
        """The task with this id, unless it is too old; None if there is none."""
        rows = self._database.read(f"SELECT {_ROW} FROM tasks WHERE id = ? AND expires >= ?", (id, time.time()))
        return _row(*rows[0]) if rows else None

    def unfinished(self) -> list[TaskRow]:
        """The tasks without an end, the oldest first."""
        rows = self._database.read(
            f"SELECT {_ROW} FROM tasks WHERE status = 'working' AND expires >= ? ORDER BY rowid", (time.time(),)
        )
        return [_row(*each) for each in rows]


def _text(body: Json) -> str:
    """JSON in UTF-8, with escapes where it holds half a surrogate."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(body)
    return text


def _size(text: str) -> int:
    return len(text.encode())


def _row(
    id: str,
    owner: str | None,
    tool: str,
    arguments: str,
    declared: str,
    answers: str,
    note: str,
    status: str,
    outcome: str | None,
    *times: str | float,
) -> TaskRow:
    created, updated, expires = times
    return TaskRow(
        id, owner, tool, json.loads(arguments), json.loads(declared), json.loads(answers), note, status,
        None if outcome is None else json.loads(outcome), str(created), str(updated), float(expires),
    )  # fmt: skip
