"""A tool as the MCP server offers it: a description for clients, and a function of arguments and an Exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import mcp_types as types

from firsthand.errors import FirsthandError, ToolError
from firsthand.message import Json
from firsthand.serve.mcp.exchange import Exchange
from firsthand.tool import Tool

Outcome = types.CallToolResult | str
"""The outcome of a served tool; a text becomes one block of text."""
AsTask = Literal["never", "may", "must"]
_SUPPORT: dict[str, Literal["optional", "required"]] = {"may": "optional", "must": "required"}


@dataclass(frozen=True)
class CallStore:
    """A tool's own store of its calls, so that a file of tasks holds no second copy of what they ask and answer."""

    take: Callable[[str, Json, str | None], str]
    """Keeps the call that a task begins with, given its id, arguments and client; returns a note that finds it again."""
    result: Callable[[str, str | None], types.CallToolResult | None]
    """The result of the call that a note and a client find; None if it has none yet. UnknownName once it was deleted."""


@dataclass(frozen=True)
class ServedTool:
    """A tool of the MCP server. An error of the user becomes a result with `isError`; any other is one of the protocol."""

    name: str
    description: str
    schema: Json
    run: Callable[[Json, Exchange], Awaitable[Outcome]]
    as_task: AsTask = "never"
    """`may`: a client that knows the Tasks extension gets a task at once. `must`: any other client is refused."""
    prepare: Callable[[Json, Exchange], Coroutine[Any, Any, Json]] | None = None
    """Asks for what is missing before a task is made of the call; returns the arguments to run with."""
    resumes: bool = False
    """True if a run that gets the `task` of an interrupted one goes on with it, and repeats nothing that was done."""
    annotations: types.ToolAnnotations | None = None
    title: str | None = None
    output_schema: Json | None = None
    check: Callable[[Json], Any] | None = None
    """Raises ToolError for arguments that do not fit, before anything runs; without it the schema is applied."""
    calls: CallStore | None = None
    """Keeps the arguments and results of its tasks in place of their file; a resumed run is given no arguments then."""

    def described(self) -> types.Tool:
        """The tool as `tools/list` gives it."""
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.schema,
            output_schema=self.output_schema,
            annotations=self.annotations,
            execution=None if self.as_task == "never" else types.ToolExecution(task_support=_SUPPORT[self.as_task]),
        )

    def problem(self, arguments: Json) -> types.CallToolResult | None:
        """The result that says why the arguments do not fit; None if they do."""
        try:
            if self.check is not None:
                self.check(arguments)
            elif (wrong := next(self._validator.iter_errors(arguments), None)) is not None:
                place = ".".join(map(str, wrong.absolute_path)) or "arguments"
                return failed(f"{self.name} cannot take these arguments: {place}: {wrong.message[:300]}")
        except ToolError as error:
            return failed(str(error))
        return None

    @cached_property
    def _validator(self) -> Any:
        from jsonschema import Draft202012Validator
        from referencing import Registry

        return Draft202012Validator(self.schema, registry=Registry())

    async def result(self, arguments: Json, exchange: Exchange) -> types.CallToolResult:
        """The result of a run; errors that are no bugs become results."""
        try:
            outcome = await self.run(arguments, exchange)
        except FirsthandError as error:
            return failed(str(error))
        return outcome if isinstance(outcome, types.CallToolResult) else text_result(outcome)


def text_result(text: str) -> types.CallToolResult:
    """A result of one text."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def failed(text: str) -> types.CallToolResult:
    """A result that says what went wrong."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def served(tool: Tool) -> ServedTool:
    """A Tool of this package as the server offers it. Its client decides which calls to approve."""

    async def run(arguments: Json, exchange: Exchange) -> str:
        return await tool(arguments)

    return ServedTool(
        tool.name,
        tool.spec.description,
        tool.spec.parameters,
        run,
        annotations=types.ToolAnnotations(
            read_only_hint=tool.effect == "read",
            destructive_hint=tool.effect == "irreversible",
            idempotent_hint=tool.effect == "read",
            open_world_hint=tool.effect in ("external", "irreversible") or tool.origin is not None,
        ),
        check=tool.validate,
    )
