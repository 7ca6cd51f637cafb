"""An MCP server's requests during a tool call: the call, a person who answers as told, and what the trace keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types

from firsthand.agent import Agent
from firsthand.loop.approval import Decision
from firsthand.loop.calling import caller
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import RequestAnswers

SERVER = ServerDeclaration("peer", command="x")


class Person:
    """Decides and fills in forms as told, and keeps what it was asked."""

    def __init__(self, allowed: bool = True, answers: Any = None, error: BaseException | None = None) -> None:
        self.allowed, self.answers, self.error = allowed, answers, error
        self.asked: list[Any] = []

    async def __call__(self, tool: Tool, arguments: Any) -> Decision:
        self.asked.append((tool.name, tool.effect, tool.spec.description, arguments))
        return Decision(self.allowed, "test", "" if self.allowed else "not today")

    async def fill(self, tool: Tool, message: str, fields: Any) -> Any:
        self.asked.append((tool.name, message, [each.name for each in fields]))
        if self.error is not None:
            raise self.error
        return self.answers


def during_a_call(
    work: Callable[[RequestAnswers], Awaitable[Any]], server: ServerDeclaration = SERVER, **agent: Any
) -> tuple[Any, Any]:
    """What work gives inside of a tool call, and the trace of the attempt."""
    given: list[Any] = []

    async def peer__ask() -> str:
        """Asks."""
        given.append(await work(RequestAnswers(server, caller)))
        return "done"

    async def pattern(task: Task, ctx: Any) -> str:
        result = await ctx.call(ToolCall("call", "peer__ask", {}))
        return str(result.content)

    model = agent.pop("model", None) or Scripted(["teal"] * 20)
    tool = tool_from_function(peer__ask, effect="read")
    trace = asyncio.run(rollout(Agent("a", model, pattern, tools=(tool,), **agent), Task("t", "q")))
    assert trace.answer == "done" and trace.error is None, trace
    return given[0], trace


def notes(trace: Any, kind: str) -> list[Any]:
    return [event.data for event in trace.events if event.kind == kind]


def said(role: Any, *blocks: Any) -> types.SamplingMessage:
    made = [types.TextContent(type="text", text=each) if isinstance(each, str) else each for each in blocks]
    return types.SamplingMessage(role=role, content=made[0] if len(made) == 1 else made)


def form(message: str = "M") -> types.ElicitRequestFormParams:
    schema: Any = {"type": "object", "properties": {"seat": {"type": "string"}, "n": {"type": "integer"}}}
    return types.ElicitRequestFormParams(message=message, requested_schema=schema)
