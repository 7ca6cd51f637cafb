"""The client's side of the Tasks extension: a tool call that becomes a task is polled until its result is there.

SEP-2663, `io.modelcontextprotocol/tasks` of 2026-07-28: tasks/get, tasks/update and tasks/cancel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import mcp_types as types
from mcp import MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from pydantic import ConfigDict, Field, TypeAdapter

from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.system.poll_pause import pause_s

if TYPE_CHECKING:
    from firsthand.tools.mcp.server_requests import RequestAnswers

TASKS = "io.modelcontextprotocol/tasks"
MIN_POLL_S, MAX_POLL_S = 0.02, 5.0
MAX_INPUTS, MAX_KEY_CHARS, MAX_TASK_ID_CHARS = 100, 256, 4_096
"""The most inputs that a task may ask for, lists of roots too, and the characters of their keys and of its id."""


class CreatedTask(types.Result):
    """A task in place of a result: `resultType` is `task`."""

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str = "working"
    poll_interval_ms: float | None = Field(default=None, alias="pollIntervalMs")


class TaskState(types.Result):
    """The reply to tasks/get: the state, and what belongs to it."""

    model_config = ConfigDict(extra="allow")
    task_id: str = Field(alias="taskId")
    status: str
    status_message: str | None = Field(default=None, alias="statusMessage")
    poll_interval_ms: float | None = Field(default=None, alias="pollIntervalMs")
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    input_requests: dict[str, Any] | None = Field(default=None, alias="inputRequests")


class TaskParams(types.RequestParams):
    """The parameters of tasks/get and tasks/cancel."""

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """The parameters of tasks/update."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class TaskRequest(types.Request[TaskParams, str]):
    """A request about a task; its id goes into the header Mcp-Name."""

    method: str
    params: TaskParams
    name_param = "taskId"


class UpdateRequest(types.Request[UpdateParams, str]):
    """A request with answers for a task."""

    method: str = "tasks/update"
    params: UpdateParams
    name_param = "taskId"


class TasksOfServer(ClientExtension):
    """Follows tasks to their results, and answers what they ask for in between."""

    identifier = TASKS

    def __init__(self, answers: RequestAnswers):
        self._answers = answers

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """The result that a task may stand in for."""
        return (ResultClaim(result_type="task", model=CreatedTask, resolve=self._follow),)

    async def _follow(self, created: CreatedTask, context: ClaimContext) -> types.CallToolResult:
        """The result of the task. OutcomeUnknown without one: the server has begun. A cancelled call cancels the task."""
        try:
            return await self._result(created, context)
        except MCPError as error:
            raise OutcomeUnknown(
                f"{self._origin} failed its task (code {error.code}): {error.message[:2_000]}"
            ) from None
        except ToolError as error:
            raise OutcomeUnknown(str(error)) from None

    async def _result(self, created: CreatedTask, context: ClaimContext) -> types.CallToolResult:
        if len(created.task_id) > MAX_TASK_ID_CHARS:
            raise ToolError(f"{self._origin} gave a task an id of more than {MAX_TASK_ID_CHARS:,} characters")
        answered: set[str] = set()
        wait_s, ended = _wait(created.poll_interval_ms), False
        try:
            while True:
                began_s = time.thread_time()
                state = await self._send(context, "tasks/get", TaskParams(taskId=created.task_id), TaskState)
                if state.status == "completed":
                    ended = True
                    return types.CallToolResult.model_validate(state.result or {})
                if state.status == "failed":
                    ended = True
                    raise MCPError.from_error_data(types.ErrorData.model_validate(state.error or _UNTOLD))
                if state.status == "cancelled":
                    ended = True
                    raise MCPError(_UNTOLD["code"], f"the task was cancelled: {state.status_message or 'no reason'}")
                if fresh := {key: each for key, each in (state.input_requests or {}).items() if key not in answered}:
                    answered |= set(fresh)
                    self._check_keys(answered)
                    await self._answer(context, created.task_id, fresh)
                wait_s = _wait(state.poll_interval_ms, wait_s)
                await asyncio.sleep(pause_s(wait_s, time.thread_time() - began_s))
        finally:
            if not ended:
                cancelling = self._send(context, "tasks/cancel", TaskParams(taskId=created.task_id), types.EmptyResult)
                self._answers.in_background(cancelling)

    @property
    def _origin(self) -> str:
        return self._answers.server.origin

    def _check_keys(self, keys: set[str]) -> None:
        """ToolError for more inputs, or longer keys, than are kept to tell which were answered."""
        if len(keys) > MAX_INPUTS:
            raise ToolError(f"{self._origin} asked for more than {MAX_INPUTS} inputs in one task, which is the limit")
        if any(len(key) > MAX_KEY_CHARS for key in keys):
            raise ToolError(f"{self._origin} asked for an input under a key of more than {MAX_KEY_CHARS} characters")

    async def _answer(self, context: ClaimContext, task: str, requests: dict[str, Any]) -> None:
        replies = {}
        for key, body in requests.items():
            request: Any = _REQUESTS.validate_python(body)
            reply = await self._answers.dispatch(request)
            if isinstance(reply, types.ErrorData):
                raise MCPError.from_error_data(reply)
            replies[key] = reply.model_dump(by_alias=True, mode="json", exclude_none=True)
        update = UpdateRequest(params=UpdateParams(taskId=task, inputResponses=replies))
        await context.session.send_request(update, types.EmptyResult)

    async def _send(self, context: ClaimContext, method: str, params: TaskParams, kind: type[Any]) -> Any:
        return await context.session.send_request(TaskRequest(method=method, params=params), kind)


_UNTOLD: dict[str, Any] = {"code": types.INTERNAL_ERROR, "message": "the task failed without a reason"}
_REQUESTS: TypeAdapter[Any] = TypeAdapter(types.InputRequest)


def _wait(asked_ms: float | None, before_s: float = 0.2) -> float:
    return before_s if asked_ms is None else min(MAX_POLL_S, max(MIN_POLL_S, asked_ms / 1000))
