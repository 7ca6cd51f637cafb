"""Requests of an MCP client about tasks, in both revisions, which the SDK's own client follows or does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mcp_types as types
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim

from firsthand.serve.mcp.served_tool import text_result
from firsthand.tools.mcp.remote_tasks import (
    TASKS,
    CreatedTask,
    TaskParams,
    TaskRequest,
    TaskState,
    UpdateParams,
    UpdateRequest,
)


async def raw(client: Any, method: str, **params: Any) -> dict[str, Any]:
    """The reply to a request as it stands on the wire: the SDK's client of 2025-11-25 knows no tasks."""
    found: dict[str, Any] = await client.session._dispatcher.send_raw_request(method, params, {})
    return found


async def state_of(client: Any, id: str) -> TaskState:
    found: TaskState = await client.session.send_request(
        TaskRequest(method="tasks/get", params=TaskParams(taskId=id)), TaskState
    )
    return found


async def answer(client: Any, id: str, **answers: Any) -> None:
    update = UpdateRequest(params=UpdateParams(taskId=id, inputResponses=answers))
    await client.session.send_request(update, types.EmptyResult)


class KnowsTasks(ClientExtension):
    """Declares the extension, and follows no task."""

    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=CreatedTask, resolve=self._stop),)

    async def _stop(self, created: CreatedTask, context: ClaimContext) -> types.CallToolResult:
        return text_result(created.task_id)


async def begun(client: Any, name: str = "ask", **arguments: Any) -> str:
    """The id of the task that a call became."""
    return str((await client.call_tool(name, arguments)).content[0].text)
