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
    """The result of a completed task, the error of a failed one."""
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
        given = (
            row.id, row.owner, row.tool, json.dumps(row.arguments), json.dumps(row.declared), json.dumps(row.answers),
            row.note, row.status, None, row.created_at, row.updated_at, row.expires,
        )  # fmt: skip
        with self._database.write() as connection:
            connection.execute("DELETE FROM tasks WHERE expires < ?", (time.time(),))
            connection.execute(f"INSERT INTO tasks ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", given)

    def add_answers(self, id: str, answers: Json) -> None:
        """Keep answers of the client besides those that are there."""
        with self._database.write() as connection:
            rows = connection.execute("SELECT answers FROM tasks WHERE id = ?", (id,)).fetchall()
            for (body,) in rows:
                kept = json.dumps(json.loads(body) | answers)
                connection.execute("UPDATE tasks SET answers = ? WHERE id = ?", (kept, id))

    def keep_note(self, id: str, note: str) -> None:
        """Keep what the tool needs to go on."""
        with self._database.write() as connection:
            connection.execute("UPDATE tasks SET note = ? WHERE id = ?", (note, id))

    def end(self, id: str, status: str, outcome: Json | None, at: str) -> None:
        """Keep the end of a task; one that has an end keeps it."""
        body = None if outcome is None else json.dumps(outcome)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE tasks SET status = ?, outcome = ?, updated_at = ? WHERE id = ? AND status = 'working'",
                (status, body, at, id),
            )

    def forget(self, id: str) -> None:
        """Drop a task."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM tasks WHERE id = ?", (id,))

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
