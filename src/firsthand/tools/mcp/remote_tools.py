"""The tools of an MCP server as a ToolSource: opened for an attempt, offered in a fixed order, closed with all they started.

Definitions and results are untrusted input. A tool whose definition changed after it was in use is offered as changed, and a
person is asked before it is called. Of a server with many tools only a search is offered, and what it found.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any

import mcp_types as types
from mcp import Client

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, OutcomeUnknown, ToolError
from firsthand.loop.calling import CallPosition, caller
from firsthand.message import Json
from firsthand.tool import Effect, Tool, as_text, tool_from_function, usage
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.definition_changes import MAX_QUESTIONS, decided
from firsthand.tools.mcp.definitions import ArgumentChecker, ToolDefinition, UnusableDefinition, spec_of, tool_name
from firsthand.tools.mcp.oauth_sign_in import SignIn
from firsthand.tools.mcp.result_text import contents_text, messages_text, text_of_result
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.tool_search import ranked

MAX_TOOLS = 5_000
MAX_SCHEMA_CHARS = 1_000_000
"""Of all schemas of a server: those of a hostile one take 20 to 40 s of a processor to check, once."""
MAX_PAGES = 200
"""The most pages of a list that are read."""
MAX_LIST = 16_000_000
"""The most characters of a list, all its pages together."""
MAX_ERROR = 4_000
"""The most characters of a server's error that are shown."""
MAX_REOPENED = 1_000
"""The most times that the lost connection of a shared server is opened anew."""
MAX_PROGRESS = 50
"""The most progress reports of one call that are recorded; the last is always."""


class RemoteTools:
    """The tools of one server, for one attempt or, if it is declared shared, for all of a run."""

    def __init__(
        self,
        declaration: ServerDeclaration,
        approved: ApprovedDefinitions | None = None,
        sign_in: Callable[[], SignIn] | None = None,
    ):
        self.declaration = declaration
        self.name = f"mcp:{declaration.name}"
        self.server = declaration.name
        self.shared = declaration.shared
        self.version = 0
        """Grows whenever the tools changed."""
        self.left_out: dict[str, str] = {}
        """Tools of the server that cannot be offered, and why."""
        self.changes: dict[str, Json] = {}
        """Tools whose definition is not the approved one, and what changed."""
        self._sign_in = sign_in
        self._approved = approved or ApprovedDefinitions(declaration)
        self._connection: McpConnection | None = None
        self._definitions: dict[str, ToolDefinition] = {}
        self._all: dict[str, Tool] = {}
        self._chosen: set[str] = set()
        self._is_opened = False
        self._is_large = False
        self._search = self._own(self._search_tools, "search_tools", "write")
        self._extra: tuple[Tool, ...] = ()
        """The tools for resources and prompts."""
        self._own_names: set[str] = set()
        """Names of our tools that were offered; the server's tools cannot take them from then on."""
        self._reading = asyncio.Lock()
        self._noted: set[int] = set()
        self._reopened = 0
        self._context = copy_context()

    @property
    def connection(self) -> McpConnection:
        """The open connection. ToolError without one."""
        if self._connection is None:
            raise ToolError(f"{self.declaration.origin} is not connected")
        return self._connection

    @property
    def definitions(self) -> Mapping[str, ToolDefinition]:
        """The tools as the server defines them, by its own names."""
        return self._definitions

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools by name: all of a small server; a search, and what was found, of a large one."""
        offered = [self._all[name] for name in sorted(self._all) if not self.is_large or name in self._chosen]
        return (*offered, *((self._search,) if self.is_large else ()), *self._extra)

    @property
    def is_large(self) -> bool:
        """True if the tools are found by a search."""
        return self._is_large

    async def open(self) -> None:
        """Connect, and read the definitions of the tools. ToolError if that fails."""
        self._context = copy_context()
        self._connection = McpConnection(self.declaration, self._sign_in)
        await self._connection.open()
        await self._read_tools()
        if self.is_large and self.shared:
            raise ConfigError(
                f"the MCP server {self.server} has {len(self._all)} tools, and what a search finds belongs to one attempt: "
                f"declare it with shared = false, or with lazy_above = {len(self._all)}"
            )
        self._extra = tuple(await self._extra_tools())
        self._own_names |= {tool.name for tool in self._extra}
        self._is_opened = True

    async def reopen(self) -> None:
        """Connect anew if the connection of a shared server was lost, and read its tools. ToolError if that fails."""
        async with self._reading:
            await self._reopen_lost()

    async def _reopen_lost(self) -> None:
        if not (self.shared and self.connection.is_lost):
            return
        if self._reopened >= MAX_REOPENED:
            raise ToolError(f"{self.connection.ending()}; it was lost more than {MAX_REOPENED:,} times")
        self._reopened += 1
        await self.connection.close()
        self._connection = made = McpConnection(self.declaration, self._sign_in)
        try:
            # what the server asks later is not of the call that connects anew
            await asyncio.create_task(made.open(), context=self._context)
            await self._read_tools()
        except BaseException:
            made.changed.add("tools")  # they are read before the next call
            raise

    async def close(self) -> None:
        """End the connection, and the process of the server."""
        if self._connection is not None:
            await self._connection.close()

    # -- definitions --

    async def _read_tools(self) -> None:
        """Take in the server's list of tools."""
        self.connection.changed.discard("tools")
        if self.connection.client.server_capabilities.tools is None:
            return
        found: dict[str, ToolDefinition] = {}
        for each in await self._pages(lambda client, cursor: client.list_tools(cursor=cursor), "tools", MAX_TOOLS):
            hints = each.annotations.model_dump(by_alias=True, exclude_none=True) if each.annotations else {}
            if self.declaration.offers(each.name):
                found[each.name] = ToolDefinition(each.name, each.description or "", each.input_schema, hints)
        before, self.left_out = self.left_out, {}
        named: dict[str, str] = {}
        for name in sorted(found):
            if tool_name(self.server, name) in self._own_names:
                self.left_out[name] = "its name here is that of a tool for the server's tools, resources or prompts"
                del found[name]
            elif (first := named.setdefault(tool_name(self.server, name), name)) != name:
                self.left_out[name] = f"its name here would be that of {first[:100]!r}"
                del found[name]
        self.changes = self._approved.changes(found)
        tools: dict[str, Tool] = {}
        chars = 0
        for name in sorted(found):
            chars += len(json.dumps(found[name].schema))
            if chars > MAX_SCHEMA_CHARS:
                self.left_out[name] = f"the schemas of this server have more than {MAX_SCHEMA_CHARS:,} characters"
                continue
            try:
                tool = self._tool(found[name])
            except UnusableDefinition as error:
                self.left_out[name] = str(error)
                continue
            tools[tool.name] = tool
        self._limit(found, tools)
        if self.left_out != before:
            self._noted.clear()  # attempts record it again
        if tools.keys() != self._all.keys() or found != self._definitions:
            self.version += 1
        self._definitions, self._all = found, tools

    def _limit(self, found: dict[str, ToolDefinition], tools: dict[str, Tool]) -> None:
        """Decide how many tools are offered, and take out those that cannot be: what was offered before stays.

        A list that grows is searched from then on. What a search finds belongs to one attempt, so in a
        shared source the first `lazy_above` stay, and no search begins.
        """
        most = self.declaration.lazy_above
        kept = list(tools)
        if self.shared and self._is_opened:
            kept = sorted(tools, key=lambda name: (name not in self._all, name))[:most]
            why = f"a shared server offers at most lazy_above = {most} tools once it is open"
        elif not self.is_large:
            self._chosen = set(self._all)
        self._is_large = len(kept) > most
        if self.is_large:
            self._own_names.add(self._search.name)
            kept = [name for name in kept if name != self._search.name]
            why = "its name here is that of the search for the server's tools"
        for name in [name for name in found if tool_name(self.server, name) in tools.keys() - set(kept)]:
            self.left_out[name] = why
            del found[name], tools[tool_name(self.server, name)]

    async def _pages(self, send: Any, part: str, most: int) -> list[Any]:
        """All entries of a list that comes in pages."""
        found: list[Any] = []
        cursor: str | None = None
        size = 0
        for _ in range(MAX_PAGES):
            asking = partial(send, cursor=cursor)
            page: Any = await self.connection.request(asking, timeout_s=self.declaration.opening_s)
            found += getattr(page, part)
            size += sum(len(repr(each)) for each in getattr(page, part))
            if size > MAX_LIST:
                raise ToolError(
                    f"{self.declaration.origin} lists its {part} in more than {MAX_LIST:,} characters, which is the limit"
                )
            cursor = page.next_cursor
            if cursor is None:
                return found
            if len(found) > most:
                raise ToolError(f"{self.declaration.origin} lists more than {most:,} {part}, which is the limit")
        raise ToolError(
            f"{self.declaration.origin} lists its {part} on more than {MAX_PAGES} pages, which is the limit"
        )

    def _tool(self, definition: ToolDefinition) -> Tool:
        spec = spec_of(definition, self.declaration, fenced=definition.name in self.changes or None)

        async def call(**arguments: Any) -> str:
            return await self._call(definition.name, arguments)

        return Tool(
            spec,
            self.declaration.effect_of(definition.name),
            call,
            ArgumentChecker(spec),
            self.declaration.timeout_s + 5.0,
            origin=None if self.declaration.trusted else self.declaration.origin,
            declares=self.declaration.declares(definition.name),
            defaults=definition.defaults,
            over=self.declaration.target,
        )

    # -- calls --

    async def _call(self, name: str, arguments: Json) -> str:
        """The result of a call as text. ToolError with the server's words as data."""
        await self._refresh_unsent()
        while (definition := self._definitions.get(name)) is not None and name in self.changes:
            await self._ask_again(definition)
            await self._refresh_unsent()  # while the person read, it may have changed again
        if definition is None:
            raise ToolError(f"{self.declaration.origin} does not offer {name!r} any more")
        at = caller()
        self._note_server()
        count = 0

        async def heard(progress: float, total: float | None, message: str | None) -> None:
            nonlocal count
            count += 1
            if at is not None and (count <= MAX_PROGRESS or (total is not None and progress >= total)):
                at.context.note("mcp_progress", server=self.server, tool=name, done=progress, total=total,
                                message=(message or "")[:200])  # fmt: skip

        async def send(client: Client) -> types.CallToolResult:
            # by 2025-11-25 progress is sent only to who asked for it
            return await client.call_tool(name, arguments, progress_callback=heard if at is not None else None)

        try:
            result = await self.connection.request(send)
        except ToolError as error:
            self._check_answered(at)
            raise type(error)(as_text(str(error), MAX_ERROR)) from None
        self._check_answered(at)
        text = text_of_result(result)
        try:
            if not self.connection.is_lost:  # the answer is here; the next call connects anew
                await self.refresh()
        except ToolError as error:  # of the list: the call was made
            raise OutcomeUnknown(str(error)) from None
        if result.is_error:
            said = as_text(text or f"{name} failed without a message", MAX_ERROR)
            # most SDKs make this of whatever the tool raised, before or after it acted
            raise OutcomeUnknown(said, answered=True)
        return text

    async def _refresh_unsent(self) -> None:
        """Refresh before a call is sent. A plain ToolError if that fails: nothing was done."""
        try:
            await self.refresh()
        except OutcomeUnknown as error:  # of the list
            raise ToolError(str(error)) from None

    def _check_answered(self, at: CallPosition | None) -> None:
        if at is not None:
            self.connection.answers.check_answered(at.effect)

    def _note_server(self) -> None:
        """Record once in each attempt which server answers, and what of it cannot be offered."""
        at = caller()
        if at is None or id(at.context.attempt) in self._noted:
            return
        self._noted.add(id(at.context.attempt))
        client = self.connection.client
        info = client.server_info
        at.context.note(
            "mcp_server", server=self.server, target=self.declaration.target, revision=client.protocol_version,
            said=None if info is None else {"name": info.name[:100], "version": info.version[:100]},
            tools=len(self._all), left_out=self.left_out, changed=sorted(self.changes),
        )  # fmt: skip

    async def refresh(self) -> None:
        """Read the tools again if the server said that they changed, or was lost."""
        async with self._reading:
            await self._reopen_lost()
            if "tools" in self.connection.changed:
                await self._read_tools()

    async def _ask_again(self, definition: ToolDefinition) -> None:
        """Ask a person to approve a definition that changed. ToolError unless they do."""
        change = self.changes[definition.name]
        name = tool_name(self.server, definition.name)
        at = caller()
        if at is None:
            raise ToolError(f"{name} changed after it was approved, and nobody can be asked here")
        attempt = at.context.attempt
        if (decision := await decided(attempt.agent.approval.ask, self.declaration, definition, change)) is None:
            raise ToolError(
                f"{name} was not run: its definition changed after it was approved, in more than {MAX_QUESTIONS} questions "
                f"can show; if you trust the server, delete {self._approved.path} to take its tools as they are now"
            )
        attempt.note("tool_changed", tool=name, change=change, allowed=decision.allowed, by=decision.by,
                     reason=decision.reason)  # fmt: skip
        if not decision.allowed:
            raise ToolError(
                f"{name} was not run: its definition changed after it was approved, and the change was not approved"
            )
        self._approved.approve(definition)
        if self._definitions.get(definition.name) == definition:
            self.changes.pop(definition.name, None)
            self._all[name] = self._tool(definition)
            self.version += 1

    # -- what is offered besides --

    async def _extra_tools(self) -> list[Tool]:
        found: list[Tool] = []
        capabilities = self.connection.client.server_capabilities
        taken = set(self._all)
        if self.declaration.resources and capabilities.resources is not None and await self._has("resources"):
            found += [self._own(self._list_resources, "list_resources"), self._sending(self._read, "read_resource")]
        if self.declaration.prompts and capabilities.prompts is not None and await self._has("prompts"):
            found += [self._own(self._list_prompts, "list_prompts"), self._sending(self._get_prompt, "get_prompt")]
        return [each for each in found if each.name not in taken]

    async def _has(self, part: str) -> bool:
        """True if the server lists any of them now, or may later."""
        if getattr(getattr(self.connection.client.server_capabilities, part), "list_changed", False):
            dynamic = self.connection.client.protocol_version < "2026"  # later ones say so of whatever they serve
            if dynamic:
                return True
        names = ("list_resources", "list_resource_templates") if part == "resources" else ("list_prompts",)
        for name in names:
            try:
                asking = partial(_first_page, name)
                page: Any = await self.connection.request(asking, timeout_s=self.declaration.opening_s)
            except ToolError:
                continue
            if getattr(page, name.removeprefix("list_")):
                return True
        return False

    def _own(self, function: Any, name: str, effect: Effect = "read", facts: Declaration | None = None) -> Tool:
        origin = None if self.declaration.trusted else self.declaration.origin
        facts = facts or Declaration(readers="user", tells=self.declaration.origin)
        made = tool_from_function(function, effect=effect, name=f"{self.server}__{name}", origin=origin, declares=facts)
        return replace(made, timeout_s=self.declaration.timeout_s + 5.0, over=self.declaration.target)

    def _sending(self, function: Any, name: str) -> Tool:
        """A tool of ours whose arguments the server reads."""
        return self._own(
            function, name, self.declaration.effect_of_sending(name), self.declaration.declares_sending(name)
        )

    async def _search_tools(self, query: str, most: int = 5) -> str:
        """Finds tools of this server for a task and makes them available from now on.

        Args:
            query: Words for what a tool should do.
            most: The most tools to find, 1 to 10.
        """
        await self.refresh()
        found = ranked(query, {name: self._all[name] for name in sorted(self._all)}, max(1, min(most, 10)))
        if not found:
            return f"None of the {len(self._all)} tools fits; try other words."
        fresh = [name for name in found if name not in self._chosen]
        self._chosen |= set(fresh)
        self.version += bool(fresh)
        shown = [f"{name} {usage(self._all[name])}\n{self._described(name)[:300]}" for name in found]
        return "These tools are available now:\n" + "\n".join(shown)

    def _described(self, name: str) -> str:
        """A description without its marks: the result of the search is between marks as a whole."""
        return re.sub(r"</?untrusted[^>]*>\n?", "", self._all[name].spec.description).strip()

    async def _list_resources(self) -> str:
        """Lists the resources of this server: the address of each, and what it is."""
        send = lambda client, cursor: client.list_resources(cursor=cursor)  # noqa: E731
        found = await self._pages(send, "resources", MAX_TOOLS)
        send = lambda client, cursor: client.list_resource_templates(cursor=cursor)  # noqa: E731
        templates: list[Any] = []
        with suppress(ToolError):  # a server may have none, and say so with an error
            templates = await self._pages(send, "resource_templates", MAX_TOOLS)
        lines = [f"{each.uri}: {each.title or each.name}. {each.description or ''}".strip() for each in found]
        lines += [f"{each.uri_template} (a template): {each.description or each.name}" for each in templates]
        return "\n".join(lines) or "There are none."

    async def _read(self, uri: str) -> str:
        """Reads a resource of this server.

        Args:
            uri: The address of the resource, as in the list.
        """
        return contents_text(await self._fetched("read_resource", lambda client: client.read_resource(uri)))

    async def _list_prompts(self) -> str:
        """Lists the prompts of this server, with their arguments."""
        send = lambda client, cursor: client.list_prompts(cursor=cursor)  # noqa: E731
        found = await self._pages(send, "prompts", MAX_TOOLS)
        lines = []
        for each in found:
            given = ", ".join(f"{a.name}{'' if a.required else '?'}" for a in each.arguments or ())
            lines.append(f"{each.name}({given}): {each.description or each.title or ''}".strip())
        return "\n".join(lines) or "There are none."

    async def _get_prompt(self, name: str, arguments: dict[str, str] | None = None) -> str:
        """Gets a prompt of this server, filled in.

        Args:
            name: The prompt's name.
            arguments: Its arguments.
        """
        return messages_text(await self._fetched("get_prompt", lambda client: client.get_prompt(name, arguments)))

    async def _fetched(self, tool: str, send: Callable[[Client], Awaitable[Any]]) -> Any:
        """The reply to a request that reads by the protocol. A failed one has sent its arguments and changed nothing, so the
        model reads its words alone, unless the declaration says that the tool does more.
        """
        try:
            return await self.connection.request(send)
        except OutcomeUnknown as error:
            reads = self.declaration.effect_of_sending(tool) == "external"
            raise OutcomeUnknown(str(error), answered=reads) from None


class EachAttempt:
    """Makes the source of a server for each attempt; what an Agent holds among its tools."""

    def __init__(self, declaration: ServerDeclaration):
        self.declaration = declaration
        self.name = f"mcp:{declaration.name}"

    def __call__(self) -> RemoteTools:
        """A source for one attempt."""
        return RemoteTools(self.declaration)


async def _first_page(name: str, client: Client) -> Any:
    """The first page of a list, by the name of the client's method."""
    return await getattr(client, name)()
