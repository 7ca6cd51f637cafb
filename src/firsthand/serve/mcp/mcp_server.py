"""The MCP server over the SDK's low-level one: lists in a fixed order, calls, resources, prompts, tasks, both revisions."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from pydantic import ValidationError

from firsthand.errors import FirsthandError, ToolError
from firsthand.message import Json
from firsthand.serve.admission.charged_steps import Charge, charge_nobody
from firsthand.serve.mcp.exchange import MODERN, DirectExchange, Exchange, ParkedExchange, capabilities_of, client_of
from firsthand.serve.mcp.older_tasks import REVISION as OLDER
from firsthand.serve.mcp.older_tasks import OlderTasks
from firsthand.serve.mcp.running_call import ParkedCalls, RunningCall
from firsthand.serve.mcp.served_tool import CallStore, ServedTool, failed
from firsthand.serve.mcp.server_tasks import (
    EXTENSION,
    ServerTasks,
    TaskIdParams,
    TaskUpdateParams,
    declares_tasks,
    expect_tasks,
)
from firsthand.serve.mcp.task_file import TaskFile
from firsthand.serve.mcp.whole_texts import whole

PAGE = 500
"""Entries of a list that one page holds."""
Contents = list[types.TextResourceContents | types.BlobResourceContents]
Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class ServedResource:
    """A resource, or a template of resources whose address has `{name}` in it."""

    uri: str
    name: str
    description: str
    read: Callable[[str, dict[str, str]], Awaitable[Contents]]
    """The contents at an address, given the parts of it that fill the template."""
    mime_type: str = "text/plain"

    @property
    def is_template(self) -> bool:
        """True if the address has parts to fill in."""
        return "{" in self.uri

    def parts_of(self, uri: str) -> dict[str, str] | None:
        """The parts of an address that fills this one; None if it does not."""
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.uri))
        found = re.fullmatch(pattern, uri)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


@dataclass(frozen=True)
class ServedPrompt:
    """A prompt, and the messages it gives for arguments."""

    name: str
    description: str
    get: Callable[[dict[str, str], Exchange], Coroutine[Any, Any, types.GetPromptResult]]
    arguments: tuple[types.PromptArgument, ...] = ()
    complete: Callable[[str, str], Sequence[str]] | None = None
    """Values for an argument that begin with a text."""


@dataclass
class Offer:
    """All that a server offers."""

    tools: list[ServedTool] = field(default_factory=list)
    resources: list[ServedResource] = field(default_factory=list)
    prompts: list[ServedPrompt] = field(default_factory=list)
    name: str = "firsthand"
    version: str = ""
    instructions: str | None = None
    charge: Charge = charge_nobody
    """Told the client of a call, and the tokens of what its models made."""
    ends: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Each is awaited once every call and task of the server has ended."""


class McpServer:
    """An offer behind the protocol. `server` is the SDK's, which the transports run."""

    def __init__(self, offer: Offer, tasks: TaskFile | None = None):
        self.offer = offer
        self.tasks = ServerTasks(tasks, self._calls_of)
        self._older_tasks = OlderTasks(self.tasks, lambda name: self._tools.get(name))
        self.bus = InMemorySubscriptionBus()
        self._tools = {tool.name: tool for tool in sorted(offer.tools, key=lambda each: each.name)}
        self._parked = ParkedCalls(self._after_input)
        self._listening = ListenHandler(self.bus)
        self._subscribed: set[str] = set()
        self.server: Server[Any] = Server(
            offer.name,
            version=offer.version,
            instructions=offer.instructions,
            lifespan=self._lifespan,
            get_tool_input_schema=lambda name: self._tools[name].schema if name in self._tools else None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_subscriptions_listen=self._listen,
        )
        handlers: Any = self.server  # handlers that return a dict of the wire
        older = self._older_tasks
        handlers.add_request_handler("tasks/get", TaskIdParams, _by_revision(older.get, self.tasks.get))
        handlers.add_request_handler("tasks/result", TaskIdParams, _by_revision(older.result, None))
        handlers.add_request_handler("tasks/update", TaskUpdateParams, _by_revision(None, self.tasks.update))
        handlers.add_request_handler("tasks/cancel", TaskIdParams, _by_revision(older.cancel, self.tasks.cancel))
        handlers.add_request_handler("logging/setLevel", types.SetLevelRequestParams, _set_level)
        self.server.extensions = {EXTENSION: {}}
        self.server.middleware.append(_hide_bugs)
        self.server.middleware.append(self._older_tasks.middleware)
        self.server.middleware.append(RequestStateBoundary(_sealing(), default_audience=offer.name))

    @asynccontextmanager
    async def _lifespan(self, _: Server[Any]) -> AsyncIterator[dict[str, Any]]:
        yield {}

    def add(self, *tools: ServedTool) -> None:
        """Offer more tools, in place of those of their names. Clients hear of it by a `ToolsListChanged` on `bus`."""
        known = self._tools | {tool.name: tool for tool in tools}
        self._tools = {name: known[name] for name in sorted(known)}

    def _calls_of(self, name: str) -> CallStore | None:
        return self._tools[name].calls if name in self._tools else None

    def resume(self) -> None:
        """Go on with the tasks that the server before this one left."""
        self.tasks.resume(self._tools)

    async def close(self) -> None:
        """End every call and task that is under way; tasks in a file go on when it is served again."""
        self._listening.close()
        await self._parked.close()
        await self.tasks.close()
        for end in self.offer.ends:
            await end()

    # -- tools --

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        page, cursor = _page(list(self._tools.values()), params)
        return types.ListToolsResult(tools=[tool.described() for tool in page], next_cursor=cursor)

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        knows_tasks = declares_tasks(ctx)
        if tool.as_task == "must" and not knows_tasks:
            if ctx.protocol_version == OLDER:
                raise MCPError(types.METHOD_NOT_FOUND, f"{tool.name} is called as a task: send `task` with the call")
            expect_tasks(ctx)
        if ctx.protocol_version >= MODERN:
            if tool.as_task != "never" and knows_tasks and tool.prepare is None:
                return await self._begin_task(tool, ctx, params)
            return await self._parked.call(tool, ctx, params)
        return await self._call_directly(tool, ctx, params.arguments or {})

    async def _begin_task(self, tool: ServedTool, ctx: Context, params: types.CallToolRequestParams) -> Any:
        arguments = params.arguments or {}
        if (wrong := tool.problem(arguments)) is not None:
            return wrong
        exchange = ParkedExchange(None, capabilities_of(ctx), params.input_responses or {}, client=client_of(ctx))
        call = RunningCall(tool.name, tool.result(arguments, exchange), exchange)
        return self.tasks.begin(call, client_of(ctx), tool.name, arguments).seed()

    async def _after_input(self, tool: ServedTool, call: RunningCall, ctx: Context, arguments: Json) -> Any:
        """The outcome of a call once it has all it asked for before: a task, or its result."""
        if tool.as_task != "never" and declares_tasks(ctx):
            return self.tasks.begin(call, client_of(ctx), tool.name, arguments).seed()
        try:
            await call.settled()
        except BaseException:  # the client has gone
            call.task.cancel()
            raise
        return await call.task

    async def _call_directly(self, tool: ServedTool, ctx: Context, arguments: Json) -> types.CallToolResult:
        if (wrong := tool.problem(arguments)) is not None:
            return wrong
        exchange = DirectExchange(ctx)
        try:
            if tool.prepare is not None:
                arguments = await tool.prepare(arguments, exchange)
        except FirsthandError as error:
            return failed(str(error))
        return await tool.result(arguments, exchange)

    # -- resources --

    async def _list_resources(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        page, cursor = _page([each for each in self.offer.resources if not each.is_template], params)
        found = [
            types.Resource(uri=each.uri, name=each.name, description=each.description, mime_type=each.mime_type)
            for each in page
        ]
        return types.ListResourcesResult(resources=found, next_cursor=cursor)

    async def _list_templates(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        page, cursor = _page([each for each in self.offer.resources if each.is_template], params)
        found = [
            types.ResourceTemplate(
                uri_template=each.uri, name=each.name, description=each.description, mime_type=each.mime_type
            )
            for each in page
        ]
        return types.ListResourceTemplatesResult(resource_templates=found, next_cursor=cursor)

    async def _read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        for resource in self.offer.resources:
            parts = resource.parts_of(uri) if resource.is_template else {} if resource.uri == uri else None
            if parts is None:
                continue
            try:
                return types.ReadResourceResult(contents=await resource.read(uri, parts))
            except ToolError as error:
                raise MCPError(types.INVALID_PARAMS, str(error), {"uri": uri}) from None
            except FirsthandError as error:
                raise MCPError(types.INTERNAL_ERROR, str(error), {"uri": uri}) from None
        code = types.INVALID_PARAMS if ctx.protocol_version >= MODERN else -32002
        raise MCPError(code, "there is no such resource", {"uri": uri})

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        return types.EmptyResult()  # nothing that is offered changes while the server runs

    async def _unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        return types.EmptyResult()

    # -- prompts --

    async def _list_prompts(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        page, cursor = _page(sorted(self.offer.prompts, key=lambda each: each.name), params)
        found = [
            types.Prompt(name=each.name, description=each.description, arguments=list(each.arguments)) for each in page
        ]
        return types.ListPromptsResult(prompts=found, next_cursor=cursor)

    async def _get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        prompt = next((each for each in self.offer.prompts if each.name == params.name), None)
        if prompt is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name[:100]!r}")
        if missing := [a.name for a in prompt.arguments if a.required and a.name not in (params.arguments or {})]:
            raise MCPError(types.INVALID_PARAMS, f"the prompt {prompt.name} needs {', '.join(missing)}")
        return await self._prompt_result(prompt, ctx, params)

    async def _prompt_result(self, prompt: ServedPrompt, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        if ctx.protocol_version < MODERN:
            return await prompt.get(params.arguments or {}, DirectExchange(ctx))
        # a prompt is quick: it is asked anew with the answers, and keeps no state
        exchange = ParkedExchange(ctx, capabilities_of(ctx), params.input_responses or {})
        call = RunningCall(prompt.name, prompt.get(params.arguments or {}, exchange), exchange)
        try:
            await call.settled()
            if call.task.done():
                return call.task.result()
            return types.InputRequiredResult(input_requests=call.requests(), request_state="prompt")
        finally:
            call.task.cancel()

    async def _complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        values: Sequence[str] = ()
        if isinstance(params.ref, types.PromptReference):
            name = params.ref.name
            prompt = next((each for each in self.offer.prompts if each.name == name), None)
            if prompt is not None and prompt.complete is not None:
                values = prompt.complete(params.argument.name, params.argument.value)
        return types.CompleteResult(
            completion=types.Completion(values=list(values[:100]), total=len(values), has_more=len(values) > 100)
        )

    # -- the rest --

    async def _listen(self, ctx: Context, params: types.SubscriptionsListenRequestParams) -> Any:
        wanted = (ctx.params or {}).get("notifications")
        if isinstance(wanted, dict) and wanted.get("taskIds"):
            expect_tasks(ctx)
        return await self._listening(ctx, params)


def _by_revision(older: Any, newer: Any) -> Any:
    """A handler that is another one for each revision; None where a revision has no such method."""

    async def chosen(ctx: Context, params: Any) -> Any:
        is_new = ctx.protocol_version >= MODERN
        handler = newer if is_new else older if ctx.protocol_version == OLDER else None
        if handler is None:
            raise MCPError(types.METHOD_NOT_FOUND, f"the revision {ctx.protocol_version} has no {ctx.method}")
        return await handler(ctx, params)

    return chosen


def _sealing() -> RequestStateSecurity:
    """State that travels through the client is encrypted with a key of this process, and bound to the client's key."""
    return RequestStateSecurity(keys=[secrets.token_bytes(32)], bind_principal=client_of)


async def _hide_bugs(ctx: Context, call_next: Any) -> Any:
    """Tells the client of a bug that there is one, and the log the rest: an exception may hold anything."""
    try:
        return whole(await call_next(ctx))
    except MCPError as error:
        told = whole(error.error)
        if told is error.error:
            raise
        raise MCPError.from_error_data(told) from None
    except ValidationError:
        raise
    except Exception:
        logging.getLogger("firsthand").exception("a bug in the answer to %s", ctx.method)
        raise MCPError(types.INTERNAL_ERROR, "the server failed for a reason of its own") from None


async def _set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    """Accepts a level. Messages are few, and all are sent to who asks for any."""
    return types.EmptyResult()


def _page(entries: list[Any], params: types.PaginatedRequestParams | None) -> tuple[list[Any], str | None]:
    """A page of a list and the cursor of the next. MCPError for a cursor that is none of ours."""
    cursor = None if params is None else params.cursor
    is_number = cursor is not None and cursor.isascii() and cursor.isdigit() and len(cursor) < 10
    if cursor is not None and not (is_number and int(cursor) <= len(entries)):
        raise MCPError(types.INVALID_PARAMS, "this cursor was not given by this server")
    begin = int(cursor or 0)
    end = begin + PAGE
    return entries[begin:end], str(end) if end < len(entries) else None
