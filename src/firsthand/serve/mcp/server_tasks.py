"""The Tasks extension of MCP (SEP-2663, 2026-07-28), which the SDK does not have: a call becomes a task that is polled.

Methods tasks/get, tasks/update and tasks/cancel under `io.modelcontextprotocol/tasks`; `older_tasks.py` has those of
2025-11-25. With a TaskFile tasks outlive the process: the next one goes on with those whose tool can, and ends the others as
failed. Without one they end with it, and a client then reads that the task is unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from pydantic import Field, TypeAdapter, ValidationError

from firsthand.errors import FirsthandError, StoreError, UnknownName
from firsthand.message import Json
from firsthand.serve.mcp.exchange import MODERN, ParkedExchange, capabilities_of, client_of
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import CallStore, ServedTool, failed
from firsthand.serve.mcp.task_file import LATE_S, TaskFile, TaskRow

EXTENSION = "io.modelcontextprotocol/tasks"
TTL_MS = 3_600_000
"""Milliseconds that a task is kept after it was made."""
POLL_MS = 500
SWEEP_S = 60.0
"""Seconds between two looks for tasks that are over and too old."""
MAX_TASKS = 1_000
"""The most tasks that are kept; the oldest that is over is forgotten for another."""
MAX_OWN_TASKS = 250
"""The most of them that a client with a key has; its own oldest is forgotten for another."""
MAX_OWN_BYTES = 1 << 30
"""The most bytes of a client in the file of tasks, with which no other one is taken until some are an hour old."""
_ANSWER: TypeAdapter[Any] = TypeAdapter(types.ElicitResult | types.CreateMessageResult | types.ListRootsResult)


class TaskIdParams(types.RequestParams):
    """The parameters of tasks/get and tasks/cancel."""

    task_id: str = Field(alias="taskId", max_length=200)


class TaskUpdateParams(TaskIdParams):
    """The parameters of tasks/update."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class ServerTask:
    """A call that goes on as a task, and its state as it stands on the wire."""

    def __init__(self, call: RunningCall, owner: str | None, created: str = ""):
        self.call = call
        self.owner = owner
        self.tool = ""
        self.is_kept = False
        """True once its end is in the file."""
        self.updated = _now()
        self.created = created or self.updated
        self.until = time.monotonic() + TTL_MS / 1000
        self.cancelled = False
        self._last: tuple[object, ...] = ()
        self._kept_end: Callable[[], tuple[str, Json | None]] | None = None

    @property
    def is_over(self) -> bool:
        """True once nothing of it runs."""
        return self.call.task.done()

    def seed(self) -> Json:
        """The task as the reply to the call carries it."""
        body = self._head("working")
        return {"resultType": "task", **body}

    def state(self) -> Json:
        """The task as tasks/get gives it."""
        task = self.call.task
        if not task.done():
            requests = self.call.requests()
            status = "input_required" if requests else "working"
            self._touch(status, tuple(requests), self.call.exchange.status)
            body = self._head(status)
            if self.call.exchange.status:
                body["statusMessage"] = self.call.exchange.status
            if requests:
                body["inputRequests"] = {
                    key: each.model_dump(by_alias=True, mode="json", exclude_none=True)
                    for key, each in requests.items()
                }
            return body
        status, outcome = self.end()
        self._touch(status)
        return self._head(status) | _told(status, outcome)

    def end(self) -> tuple[str, Json | None]:
        """The status of a task that is over, and its result or error as it stands on the wire."""
        if self._kept_end is not None:
            return self._kept_end()
        task = self.call.task
        if task.cancelled() or self.cancelled:
            return "cancelled", None
        if (error := task.exception()) is not None:
            told = error.error if isinstance(error, MCPError) else types.ErrorData(code=_INTERNAL, message=_BUG)
            return "failed", told.model_dump(by_alias=True, mode="json", exclude_none=True)
        result: Json = task.result().model_dump(by_alias=True, mode="json", exclude_none=True)
        return "completed", result

    def let_go(self, kept_end: Callable[[], tuple[str, Json | None]]) -> None:
        """Drop the outcome, which the file has and `kept_end` gives."""
        self._kept_end = kept_end
        self.call.let_go()

    def _head(self, status: str) -> Json:
        return head_of(self.call.id, status, self.created, self.updated)

    def _touch(self, *state: object) -> None:
        if state != self._last:
            self._last, self.updated = state, _now()


class ServerTasks:
    """The tasks of a server, and the handlers of their methods."""

    def __init__(
        self, file: TaskFile | None = None, calls_of: Callable[[str], CallStore | None] = lambda tool: None
    ) -> None:
        """`calls_of` gives a tool's own store of its calls."""
        self.file = file
        self._calls_of = calls_of
        self._sweeping: asyncio.Task[None] | None = None
        self.tasks: dict[str, ServerTask] = {}

    def begin(self, call: RunningCall, owner: str | None, tool: str, arguments: Json) -> ServerTask:
        """Make a task of a call that has not begun to run; with a file it is kept before this returns."""
        try:
            self._forget_old(owner)
            self._expect_room(owner)
        except MCPError:
            call.task.cancel()
            raise
        call.exchange.ctx = None  # the request ends here
        if self.file is not None and (calls := self._calls_of(tool)) is not None:
            call, arguments = _taken(calls, call, owner, arguments), {}
        task = ServerTask(call, owner)
        if self.file is not None:
            row = TaskRow(
                call.id, owner, tool, arguments, call.exchange.declared, {}, call.exchange.note, "working", None,
                task.created, task.updated, time.time() + TTL_MS / 1000,
            )  # fmt: skip
            self.file.add(row)
        self._adopt(task, tool)
        return task

    def resume(self, tools: Mapping[str, ServedTool]) -> None:
        """Go on with the tasks that another process left, and forget each in time; where the tool cannot, it has failed."""
        self._sweeping = asyncio.create_task(self._sweep(), name="firsthand-mcp-old-tasks")
        if self.file is None:
            return
        self.file.forget_old(with_open=True)
        for row in self.file.unfinished():
            tool = tools.get(row.tool)
            if tool is None or not tool.resumes:
                error = {"code": _INTERNAL, "message": f"the server was stopped while {row.tool} ran: call it again"}
                self.file.end(row.id, "failed", error, _now())
                continue
            exchange = ParkedExchange(None, row.declared, _answers(row.answers), client=row.owner)
            exchange.note = row.note
            call = RunningCall(tool.name, tool.result(row.arguments, exchange), exchange, row.id)
            self._adopt(ServerTask(call, row.owner, row.created_at), tool.name)

    def _adopt(self, task: ServerTask, tool: str) -> None:
        """Keep a task in this process, and its end in the file."""
        exchange, id = task.call.exchange, task.call.id
        exchange.task = id
        if (file := self.file) is not None:
            exchange.on_note = lambda note: file.keep_note(id, note)
        task.tool = tool
        self.tasks[id] = task
        task.call.task.add_done_callback(lambda _: self._over(task))

    def _over(self, task: ServerTask) -> None:
        task.until = max(task.until, time.monotonic() + LATE_S)
        self._keep_end(task)

    def _keep_end(self, task: ServerTask) -> None:
        """Keep how a task ended. One that ends because the server does goes on later."""
        if self.file is None or task.is_kept or (task.call.task.cancelled() and not task.cancelled):
            return
        task.is_kept = True
        id, (status, outcome) = task.call.id, task.end()
        try:
            told = self._told_by_tool(task.tool, task.call.exchange.note, task.owner) if status == "completed" else None
        except UnknownName:
            self.file.forget(id)
            return
        outcome = outcome if told is None else None
        self.file.end(id, status, outcome, _now())
        if status == "completed":
            task.let_go(lambda: _end_of(self._row(id)))

    def _told_by_tool(self, tool: str, note: str, owner: str | None) -> Json | None:
        """The result that the tool itself keeps; None if it keeps none. UnknownName if the call was deleted."""
        calls = self._calls_of(tool)
        found = calls.result(note, owner) if calls is not None and note else None
        return None if found is None else found.model_dump(by_alias=True, mode="json", exclude_none=True)

    def _row(self, id: str) -> TaskRow:
        """A task in the file with its outcome. MCPError if there is none, or what it asked was deleted."""
        row = None if self.file is None else self.file.find(id)
        if row is None:
            raise _unknown()
        if row.status == "working":
            return row
        try:
            told = self._told_by_tool(row.tool, row.note, row.owner)
        except UnknownName:
            raise _unknown() from None
        is_left_out = row.status == "completed" and row.outcome is None
        return replace(row, outcome=told) if is_left_out else row

    def size_bytes(self, owner: str | None) -> int:
        """The bytes that the file keeps of a client's tasks."""
        return 0 if self.file is None else self.file.size_bytes(owner)

    def forget(self, ids: Sequence[str]) -> None:
        """Drop from the file tasks whose calls were deleted; any thread may call it."""
        if (file := self.file) is not None:
            file.forget(*ids)

    async def _sweep(self) -> None:
        """Forget what is over and too old, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for id in [id for id, task in self.tasks.items() if task.is_over and now > task.until]:
                del self.tasks[id]
            if (file := self.file) is not None:
                with suppress(StoreError):
                    await asyncio.to_thread(file.forget_old)

    async def get(self, ctx: ServerRequestContext[Any, Any], params: TaskIdParams) -> Json:
        """The state of a task."""
        expect_tasks(ctx)
        expect_name_header(ctx, params.task_id)
        found = self.find(client_of(ctx), params.task_id)
        return found.state() if isinstance(found, ServerTask) else row_state(found)

    async def update(self, ctx: ServerRequestContext[Any, Any], params: TaskUpdateParams) -> Json:
        """Takes answers to what a task asked for; those that fit no open request are ignored."""
        expect_tasks(ctx)
        expect_name_header(ctx, params.task_id)
        task = self.find(client_of(ctx), params.task_id)
        if isinstance(task, ServerTask):
            self.bring(task, _answers(params.input_responses))
            await asyncio.sleep(0)  # the call takes them before the next request of this client
        return {}

    def bring(self, task: ServerTask, answers: Mapping[str, Any]) -> None:
        """Hand over answers to a task that runs; with a file they are kept first."""
        taken = {key: each for key, each in answers.items() if key in task.call.exchange.pending}
        if self.file is not None and taken:
            bodies = {
                key: each.model_dump(by_alias=True, mode="json", exclude_none=True) for key, each in taken.items()
            }
            self.file.add_answers(task.call.id, bodies)
        task.call.exchange.bring(taken)

    async def cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskIdParams) -> Json:
        """Ends a task; one that is over stays as it is."""
        expect_tasks(ctx)
        expect_name_header(ctx, params.task_id)
        task = self.find(client_of(ctx), params.task_id)
        if isinstance(task, ServerTask):
            await self.end(task)
        return {}

    async def end(self, task: ServerTask) -> None:
        """Cancel a task that runs."""
        if not task.is_over:
            task.cancelled = task.call.exchange.is_ended = True
            await task.call.cancel()

    def find(self, owner: str | None, id: str) -> ServerTask | TaskRow:
        """A client's task: one that runs or ran in this process, or the row of one that is over. MCPError without one."""
        task: ServerTask | TaskRow = self.tasks.get(id) or self._row(id)
        if task.owner != owner:
            raise _unknown()
        if isinstance(task, ServerTask) and task.is_over:
            self._keep_end(task)  # before anybody is told
            if task.is_kept:
                self._row(id)  # unless it was deleted
        return task

    def _forget_old(self, owner: str | None) -> None:
        """Forget what is too old, and what is over where its owner, or the server, has as many as it may have."""
        now = time.monotonic()
        own = sum(task.owner == owner for task in self.tasks.values()) if owner is not None else 0
        for id, task in list(self.tasks.items()):
            is_own = owner is not None and task.owner == owner
            full = len(self.tasks) >= MAX_TASKS or (is_own and own >= MAX_OWN_TASKS)
            if now > task.until or (full and task.is_over):
                self.tasks.pop(id).call.task.cancel()
                own -= is_own
                if self.file is not None:
                    self.file.forget(id)
        if own >= MAX_OWN_TASKS:
            raise MCPError(types.INTERNAL_ERROR, f"{own} tasks of yours are under way, which is the limit: try later")
        if len(self.tasks) >= MAX_TASKS:
            raise MCPError(types.INTERNAL_ERROR, f"{MAX_TASKS} tasks are under way, which is the limit: try later")

    def _expect_room(self, owner: str | None) -> None:
        """MCPError if the file has as many bytes of a client as it may."""
        if (size := self.size_bytes(owner)) >= MAX_OWN_BYTES:
            told = f"your tasks of the last hour take {size:,} bytes, and may take {MAX_OWN_BYTES:,}: try later"
            raise MCPError(types.INTERNAL_ERROR, told)

    async def close(self) -> None:
        """End every task of this process; what is in a file goes on with the next one."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})
        for task in self.tasks.values():
            await task.call.cancel()
        self.tasks.clear()
        if self.file is not None:
            self.file.close()
            self.file = None


def head_of(id: str, status: str, created: str, updated: str) -> Json:
    """The fields that every state of a task has."""
    return {
        "taskId": id,
        "status": status,
        "createdAt": created,
        "lastUpdatedAt": updated,
        "ttlMs": TTL_MS,
        "pollIntervalMs": POLL_MS,
    }


def row_state(row: TaskRow) -> Json:
    """A task that is over as tasks/get gives it."""
    return head_of(row.id, row.status, row.created_at, row.updated_at) | _told(row.status, row.outcome)


def _told(status: str, outcome: Json | None) -> Json:
    if status == "failed":
        return {"statusMessage": (outcome or {}).get("message", _BUG), "error": outcome or {}}
    return {"result": outcome or {}} if status == "completed" else {}


def _answers(bodies: Json) -> dict[str, Any]:
    """The answers among what a client sent."""
    answers: dict[str, Any] = {}
    for key, body in bodies.items():
        with suppress(ValidationError):
            answers[key] = _ANSWER.validate_python(body)
    return answers


def declares_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    """True if the client of this request knows tasks, and its revision has them."""
    extensions = capabilities_of(ctx).get("extensions")
    return ctx.protocol_version >= MODERN and isinstance(extensions, Mapping) and EXTENSION in extensions


def expect_tasks(ctx: ServerRequestContext[Any, Any]) -> None:
    """MCPError if the client did not declare that it knows tasks."""
    if not declares_tasks(ctx):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "this needs a client with the Tasks extension",
            {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def expect_name_header(ctx: ServerRequestContext[Any, Any], id: str) -> None:
    """MCPError if a request over HTTP does not name the task in the header Mcp-Name, by which proxies route it."""
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != id:
        raise MCPError(types.HEADER_MISMATCH, f"the header {MCP_NAME_HEADER} is not the taskId of the request")


def _taken(calls: CallStore, call: RunningCall, owner: str | None, arguments: Json) -> RunningCall:
    """The call, kept by its tool; where that refuses it, a call in its place whose result says why."""
    try:
        call.exchange.note = calls.take(call.id, arguments, owner)
    except FirsthandError as error:
        call.task.cancel()
        return RunningCall("refused", _refused(str(error)), ParkedExchange(None, {}, {}, client=owner), call.id)
    return call


async def _refused(why: str) -> types.CallToolResult:
    return failed(why)


def _end_of(row: TaskRow) -> tuple[str, Json | None]:
    return row.status, row.outcome


def _unknown() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "there is no such task: it may be too old, or the server began anew")


_INTERNAL = types.INTERNAL_ERROR
_BUG = "the tool failed for a reason of its own"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
