"""The A2A SDK's stores of tasks and webhooks, over the file of sessions: every read and write is one client's own.

A task is kept as its protobuf bytes, beside what lists filter and order by. A task that is over stays so: a later write with
another state, such as one that lost a race against a cancel, changes nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.tasks.push_notification_config_store import (
    PushNotificationConfigStore,
    normalize_push_notification_config,
)
from a2a.server.tasks.task_store import TaskStore
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task, TaskPushNotificationConfig, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InternalError, InvalidParamsError
from a2a.utils.task import ListTasksCursor, decode_list_tasks_cursor, encode_list_tasks_cursor

from firsthand.errors import StoreError
from firsthand.runs.database import Database

FINAL = frozenset(
    (
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_REJECTED,
    )
)
"""States that no task leaves."""
_FINAL = ", ".join(str(int(state)) for state in sorted(FINAL))
PAGE_BYTES = 2 << 20
"""A page of tasks ends once it has so many bytes; one task may have more by itself."""
MAX_WEBHOOKS = 16
"""Most webhooks of one task."""


class _ClientsDatabase:
    """A database whose errors name no file: the SDK sends their text to the client. The log has them whole."""

    def __init__(self, database: Database):
        self._database = database

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with _errors_logged():
            return self._database.read(sql, values)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction; leaving the block commits it."""
        with _errors_logged(), self._database.write() as connection:
            yield connection


@contextmanager
def _errors_logged() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        logging.getLogger("firsthand").error("tasks of A2A: %s", error)
        raise InternalError("the server cannot read or keep its tasks now: try again later") from None


class SqliteTaskStore(TaskStore):
    """Tasks of A2A clients, each of which sees its own."""

    def __init__(self, database: Database):
        self._database = _ClientsDatabase(database)

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Keep a task as it is now."""
        body = _bytes(task)
        row = (task.id, _owner(context), task.context_id, int(task.status.state), _stamp(task), body, len(body))
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO wire_tasks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
                " stamp = excluded.stamp, body = excluded.body, size = excluded.size WHERE owner = excluded.owner"
                f" AND (state NOT IN ({_FINAL}) OR state = excluded.state)",
                row,
            )

    async def get(self, task_id: str, context: ServerCallContext) -> Task | None:
        """The client's task, or None, also where another client has a task of this id."""
        rows = self._database.read("SELECT body FROM wire_tasks WHERE id = ? AND owner = ?", (task_id, _owner(context)))
        return Task.FromString(rows[0][0]) if rows else None

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """The client's tasks, the last changed first, a page of them: it ends at PAGE_BYTES, whatever its size may be."""
        where: list[str] = ["owner = ?"]
        values: list[str | int] = [_owner(context)]
        if params.context_id:
            where, values = [*where, "context = ?"], [*values, params.context_id]
        if params.status:
            where, values = [*where, "state = ?"], [*values, int(params.status)]
        if params.HasField("status_timestamp_after"):
            where, values = [*where, "stamp >= ?"], [*values, _stored(params.status_timestamp_after.ToNanoseconds())]
        filters = " AND ".join(where)
        total = int(self._database.read(f"SELECT count(*) FROM wire_tasks WHERE {filters}", values)[0][0])
        if params.page_token:
            cursor = decode_list_tasks_cursor(params.page_token)
            if cursor is None or not abs(cursor.timestamp_ns or 0) < 1 << 63:
                raise InvalidParamsError(f"Invalid page token: {params.page_token[:80]}")
            filters, values = f"{filters} AND (stamp, id) < (?, ?)", [*values, cursor.timestamp_ns or 0, cursor.task_id]
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        rows = self._database.read(
            f"SELECT stamp, id, length(body) FROM wire_tasks WHERE {filters} ORDER BY stamp DESC, id DESC LIMIT ?",
            [*values, size + 1],
        )
        taken, left = 0, PAGE_BYTES
        while taken < min(size, len(rows)) and left > 0:
            left -= rows[taken][2]
            taken += 1
        token = encode_list_tasks_cursor(ListTasksCursor(*rows[taken - 1][:2])) if len(rows) > taken else ""
        found = [await self.get(id, context) for _, id, _ in rows[:taken]]
        tasks = [task for task in found if task is not None]
        return ListTasksResponse(next_page_token=token, tasks=tasks, total_size=total, page_size=size)

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Forget a task of the client."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM wire_tasks WHERE id = ? AND owner = ?", (task_id, _owner(context)))

    def open_tasks(self) -> dict[str, tuple[str, Task]]:
        """The owner and the body of each task that is not over, by id."""
        rows = self._database.read(f"SELECT id, owner, body FROM wire_tasks WHERE state NOT IN ({_FINAL})")
        return {str(id): (str(owner), Task.FromString(body)) for id, owner, body in rows}

    def owner_of(self, task_id: str) -> str | None:
        """The client that a task belongs to; None if there is no such task."""
        rows = self._database.read("SELECT owner FROM wire_tasks WHERE id = ?", (task_id,))
        return str(rows[0][0]) if rows else None


class SqlitePushConfigs(PushNotificationConfigStore):
    """Webhooks of tasks, each client's own."""

    def __init__(self, database: Database):
        self._database = _ClientsDatabase(database)

    async def set_info(
        self, task_id: str, notification_config: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Keep a webhook, in place of one with the same id."""
        kept, owner = normalize_push_notification_config(task_id, notification_config), _owner(context)
        with self._database.write() as connection:
            others = "SELECT count(*) FROM push_configs WHERE task = ? AND owner = ? AND id <> ?"
            if connection.execute(others, (task_id, owner, kept.id)).fetchone()[0] >= MAX_WEBHOOKS:
                raise InvalidParamsError(f"the task has {MAX_WEBHOOKS} webhooks: delete one first")
            connection.execute(
                "INSERT OR REPLACE INTO push_configs VALUES (?, ?, ?, ?)", (task_id, kept.id, owner, _bytes(kept))
            )
        return kept

    async def get_info(self, task_id: str, context: ServerCallContext) -> list[TaskPushNotificationConfig]:
        """The client's webhooks of a task."""
        return self._read("task = ? AND owner = ?", task_id, _owner(context))

    async def get_info_for_dispatch(self, task_id: str) -> list[TaskPushNotificationConfig]:
        """All webhooks of a task."""
        return self._read("task = ?", task_id)

    async def delete_info(self, task_id: str, context: ServerCallContext, config_id: str | None = None) -> None:
        """Forget a webhook of the client, or all of a task; one that is not there is no error."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM push_configs WHERE task = ? AND owner = ? AND (? IS NULL OR id = ?)",
                (task_id, _owner(context), config_id, config_id),
            )

    def queue(self, task_id: str, body: bytes) -> None:
        """Keep an event that the task's webhooks are to be told of."""
        with self._database.write() as connection:
            connection.execute("INSERT INTO push_outbox (task, body) VALUES (?, ?)", (task_id, body))

    def queued_tasks(self) -> list[str]:
        """The tasks with events that were not sent."""
        return [
            str(id) for (id,) in self._database.read("SELECT task FROM push_outbox GROUP BY task ORDER BY min(seq)")
        ]

    def first_queued(self, task_id: str) -> tuple[int, bytes] | None:
        """The place and the body of the oldest event of a task that was not sent."""
        rows = self._database.read("SELECT seq, body FROM push_outbox WHERE task = ? ORDER BY seq LIMIT 1", (task_id,))
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else None

    def sent(self, place: int) -> None:
        """Forget an event that was sent, or given up."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM push_outbox WHERE seq = ?", (place,))

    def _read(self, where: str, *values: str) -> list[TaskPushNotificationConfig]:
        rows = self._database.read(f"SELECT body FROM push_configs WHERE {where} ORDER BY rowid", values)
        parse: Callable[[Any], TaskPushNotificationConfig] = TaskPushNotificationConfig.FromString
        return [parse(body) for (body,) in rows]


def _owner(context: ServerCallContext) -> str:
    return str(context.user.user_name)


def _bytes(message: Task | TaskPushNotificationConfig) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _stored(number: int) -> int:
    """The nearest number that the file can hold."""
    return max(-(1 << 63), min(number, (1 << 63) - 1))


def _stamp(task: Task) -> int:
    """The time of the task's state in nanoseconds since 1970; 0 if it has none."""
    return task.status.timestamp.ToNanoseconds() if task.status.HasField("timestamp") else 0
