"""The Tasks extension of MCP (SEP-2663, 2026-07-28), which the SDK does not have: a call becomes a task that is polled.

Methods tasks/get, tasks/update and tasks/cancel under `io.modelcontextprotocol/tasks`. Tasks live in this process: one that
ends takes them along, and a client then reads that the task is unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from pydantic import Field, TypeAdapter, ValidationError

from firsthand.message import Json
from firsthand.serve.mcp.exchange import capabilities_of, client_of
from firsthand.serve.mcp.running_call import RunningCall

EXTENSION = "io.modelcontextprotocol/tasks"
TTL_MS = 3_600_000
"""Milliseconds that a task is kept after it was made."""
POLL_MS = 500
MAX_TASKS = 1_000
"""The most tasks that are kept; the oldest that is over is forgotten for another."""
MODERN = "2026-07-28"
"""The first revision that has the extension."""
_ANSWER: TypeAdapter[Any] = TypeAdapter(types.ElicitResult | types.CreateMessageResult | types.ListRootsResult)


class TaskIdParams(types.RequestParams):
    """The parameters of tasks/get and tasks/cancel."""

    task_id: str = Field(alias="taskId", max_length=200)


class TaskUpdateParams(TaskIdParams):
    """The parameters of tasks/update."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class ServerTask:
    """A call that goes on as a task, and its state as it stands on the wire."""

    def __init__(self, call: RunningCall, owner: str | None):
        self.call = call
        self.owner = owner
        self.created = self.updated = _now()
        self.until = time.monotonic() + TTL_MS / 1000
        self.cancelled = False
        self._last: tuple[object, ...] = ()

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
        if task.cancelled() or self.cancelled:
            self._touch("cancelled")
            return self._head("cancelled")
        if (error := task.exception()) is not None:
            self._touch("failed")
            told = error.error if isinstance(error, MCPError) else types.ErrorData(code=_INTERNAL, message=_BUG)
            body = told.model_dump(by_alias=True, mode="json", exclude_none=True)
            return self._head("failed") | {"statusMessage": told.message, "error": body}
        self._touch("completed")
        result = task.result().model_dump(by_alias=True, mode="json", exclude_none=True)
        return self._head("completed") | {"result": result}

    def _head(self, status: str) -> Json:
        return {
            "taskId": self.call.id,
            "status": status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        }

    def _touch(self, *state: object) -> None:
        if state != self._last:
            self._last, self.updated = state, _now()


class ServerTasks:
    """The tasks of a server, and the handlers of their methods."""

    def __init__(self) -> None:
        self.tasks: dict[str, ServerTask] = {}

    async def create(self, call: RunningCall, ctx: ServerRequestContext[Any, Any]) -> Json:
        """The reply that a call has become a task, which tasks/get finds from now on."""
        self._forget_old()
        call.exchange.ctx = None  # the request ends here
        self.tasks[call.id] = task = ServerTask(call, client_of(ctx))
        return task.seed()

    async def get(self, ctx: ServerRequestContext[Any, Any], params: TaskIdParams) -> Json:
        """The state of a task."""
        return self._found(ctx, params.task_id).state()

    async def update(self, ctx: ServerRequestContext[Any, Any], params: TaskUpdateParams) -> Json:
        """Takes answers to what a task asked for; those that fit no open request are ignored."""
        task = self._found(ctx, params.task_id)
        answers = {}
        for key, body in params.input_responses.items():
            try:
                answers[key] = _ANSWER.validate_python(body)
            except ValidationError:
                continue
        task.call.exchange.bring(answers)
        await asyncio.sleep(0)  # the call takes them before the next request of this client
        return {}

    async def cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskIdParams) -> Json:
        """Ends a task; one that is over stays as it is."""
        task = self._found(ctx, params.task_id)
        if not task.is_over:
            task.cancelled = True
            await task.call.cancel()
        return {}

    def _found(self, ctx: ServerRequestContext[Any, Any], id: str) -> ServerTask:
        expect_tasks(ctx)
        expect_name_header(ctx, id)
        task = self.tasks.get(id)
        if task is None or task.owner != client_of(ctx):
            raise MCPError(types.INVALID_PARAMS, "there is no such task: it may be too old, or the server began anew")
        return task

    def _forget_old(self) -> None:
        now = time.monotonic()
        for id, task in list(self.tasks.items()):
            if now > task.until or (len(self.tasks) >= MAX_TASKS and task.is_over):
                self.tasks.pop(id).call.task.cancel()
        if len(self.tasks) >= MAX_TASKS:
            raise MCPError(types.INTERNAL_ERROR, f"{MAX_TASKS} tasks are under way, which is the limit: try later")

    async def close(self) -> None:
        """End every task."""
        for task in self.tasks.values():
            await task.call.cancel()
        self.tasks.clear()


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


_INTERNAL = types.INTERNAL_ERROR
_BUG = "the tool failed for a reason of its own"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
