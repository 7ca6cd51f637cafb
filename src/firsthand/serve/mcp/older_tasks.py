"""Tasks of MCP's revision 2025-11-25, of which the SDK has the types and no server: the same tasks on the older wire.

A `tools/call` with `task` in its parameters gets a task in place of the result. `tasks/get` polls it, `tasks/result` waits
for the result and passes on what the call asks of the client meanwhile, `tasks/cancel` ends it. `tasks/list` is not offered:
without keys a server cannot tell its clients apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata

from firsthand.message import Json
from firsthand.serve.mcp.exchange import ParkedExchange, capabilities_of, client_of, result_type
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool
from firsthand.serve.mcp.server_tasks import ServerTask, ServerTasks, TaskIdParams, row_state
from firsthand.serve.mcp.task_file import TaskRow
from firsthand.serve.mcp.whole_texts import whole

REVISION = "2025-11-25"
RELATED = "io.modelcontextprotocol/related-task"
OFFERED: Json = {"cancel": {}, "requests": {"tools": {"call": {}}}}
"""The capability `tasks` of a server."""
Context = ServerRequestContext[Any, Any]


class OlderTasks:
    """The tasks of a server, for clients of 2025-11-25."""

    def __init__(self, tasks: ServerTasks, tool: Callable[[str], ServedTool | None]):
        self._tasks, self._tool = tasks, tool

    async def middleware(self, ctx: Context, call_next: Any) -> Any:
        """Declares the tasks where a client says hello, and makes one of a call that wants to be one."""
        if ctx.method == "initialize":
            result = await call_next(ctx)
            if isinstance(result, dict) and result.get("protocolVersion") == REVISION:
                result["capabilities"] = {**result.get("capabilities", {}), "tasks": OFFERED}
            return result
        given = ctx.params or {}
        if ctx.method == "tools/call" and ctx.protocol_version == REVISION and given.get("task") is not None:
            return await self._begin(ctx, types.CallToolRequestParams.model_validate(given, by_name=False))
        return await call_next(ctx)

    async def _begin(self, ctx: Context, params: types.CallToolRequestParams) -> Json:
        tool = self._tool(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        if tool.as_task == "never":
            raise MCPError(types.METHOD_NOT_FOUND, f"{tool.name} is quick and becomes no task: call it without one")
        arguments = params.arguments or {}
        if (wrong := tool.problem(arguments)) is not None:
            block = wrong.content[0]
            raise MCPError(
                types.INVALID_PARAMS, block.text if isinstance(block, types.TextContent) else "wrong arguments"
            )
        exchange = ParkedExchange(None, capabilities_of(ctx), {}, client=client_of(ctx))
        call = RunningCall(tool.name, _whole(tool, arguments, exchange), exchange)
        task = self._tasks.begin(call, client_of(ctx), tool.name, arguments)
        return {"task": _older(task.state())}

    async def get(self, ctx: Context, params: TaskIdParams) -> Json:
        """The state of a task."""
        return _older(_state(self._tasks.find(client_of(ctx), params.task_id)))

    async def cancel(self, ctx: Context, params: TaskIdParams) -> Json:
        """End a task. MCPError if it is over."""
        task = self._tasks.find(client_of(ctx), params.task_id)
        if isinstance(task, TaskRow) or task.is_over:
            raise MCPError(
                types.INVALID_PARAMS, f"the task is {_state(task)['status']}: only one that runs is cancelled"
            )
        await self._tasks.end(task)
        return _older(task.state())

    async def result(self, ctx: Context, params: TaskIdParams) -> Json:
        """The result of a task once it is over; until then its requests go to the client on this stream."""
        task = self._tasks.find(client_of(ctx), params.task_id)
        if isinstance(task, ServerTask):
            await self._pass_on(ctx, task)
            task = self._tasks.find(client_of(ctx), params.task_id)
        state = _state(task)
        if state["status"] == "failed":
            raise MCPError.from_error_data(types.ErrorData.model_validate(state["error"]))
        if state["status"] != "completed":
            raise MCPError(types.INVALID_PARAMS, f"the task was {state['status']}, and has no result")
        result: Json = {**state["result"]}
        return result | {"_meta": {**(result.get("_meta") or {}), RELATED: {"taskId": params.task_id}}}

    async def _pass_on(self, ctx: Context, task: ServerTask) -> None:
        """Send the task's requests to the client and bring the answers, until the task is over."""
        call = task.call
        asking: dict[str, asyncio.Task[None]] = {}
        try:
            while not task.is_over:
                for key, request in call.requests().items():
                    if key not in asking:
                        asking[key] = asyncio.create_task(self._ask(ctx, task, key, request))
                for key in [key for key in asking if key not in call.exchange.pending]:  # answered in another way
                    asking.pop(key).cancel()
                call.exchange.moved.clear()
                moved = asyncio.ensure_future(call.exchange.moved.wait())
                done, _ = await asyncio.wait({moved, *asking.values()}, return_when="FIRST_COMPLETED")
                moved.cancel()
                for each in done - {moved}:
                    each.result()  # a client that cannot answer ends this request, and not the task
        finally:
            for each in asking.values():
                each.cancel()

    async def _ask(self, ctx: Context, task: ServerTask, key: str, request: Any) -> None:
        body = request.params.model_dump(by_alias=True, mode="json", exclude_none=True) if request.params else {}
        body["_meta"] = {**(body.get("_meta") or {}), RELATED: {"taskId": task.call.id}}
        related = whole(type(request).model_validate({"method": request.method, "params": body}))
        meta = ServerMessageMetadata(related_request_id=ctx.request_id)
        answer = await ctx.session.send_request(related, result_type(request), metadata=meta)
        self._tasks.bring(task, {key: answer})


async def _whole(tool: ServedTool, arguments: Json, exchange: ParkedExchange) -> types.CallToolResult:
    """The result of a tool, what it asks for first included."""
    if tool.prepare is not None:
        arguments = await tool.prepare(arguments, exchange)
    return await tool.result(arguments, exchange)


def _state(task: ServerTask | TaskRow) -> Json:
    return task.state() if isinstance(task, ServerTask) else row_state(task)


def _older(state: Json) -> Json:
    """A state as 2025-11-25 names its fields."""
    names = {"ttlMs": "ttl", "pollIntervalMs": "pollInterval"}
    kept = ("taskId", "status", "statusMessage", "createdAt", "lastUpdatedAt", *names)
    return {names.get(key, key): state[key] for key in kept if key in state}
