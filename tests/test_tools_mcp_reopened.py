"""A shared MCP server that was lost is connected anew: for the next call, and before the next attempt."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand import Agent, Task
from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tools.mcp import remote_tools
from firsthand.tools.mcp.connection import McpConnection
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration

CALL = ContextVar("call", default="")
WEB = ServerDeclaration("web", url="http://127.0.0.1:9/mcp")


class Connection:
    """A connection whose server offers one tool more each time that it is connected to."""

    made: list[Any] = []  # noqa: RUF012
    down = False
    failed_lists = 0

    def __init__(self, declaration: ServerDeclaration, sign_in: Any = None) -> None:
        self.is_lost, self.closed, self.changed = False, 0, set[str]()
        self.names = ["a", "b", "c"][: len(Connection.made) + 1]
        capabilities = SimpleNamespace(tools=object(), resources=None, prompts=None)
        self.client = SimpleNamespace(server_capabilities=capabilities)
        Connection.made.append(self)
        self.opened_for = ""

    async def open(self) -> None:
        self.opened_for = CALL.get()
        if Connection.down:
            self.is_lost = True
            raise ToolError("it cannot be reached")

    async def close(self) -> None:
        self.closed += 1

    def ending(self) -> str:
        return "it went away"

    async def request(self, send: Any, *, timeout_s: float | None = None) -> Any:
        if timeout_s is None:  # a call
            self.is_lost = True
            return types.CallToolResult(content=[types.TextContent(text="done")])
        if Connection.failed_lists:
            Connection.failed_lists -= 1
            raise OutcomeUnknown("the list was late")
        tools = [types.Tool(name=name, input_schema={"type": "object"}) for name in self.names]
        return SimpleNamespace(tools=tools, next_cursor=None)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[Any]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setattr(Connection, "made", [])
    monkeypatch.setattr(Connection, "down", False)
    monkeypatch.setattr(Connection, "failed_lists", 0)
    monkeypatch.setattr(remote_tools, "McpConnection", Connection)
    return Connection.made


@pytest.mark.parametrize("way", ["reopen", "refresh"])
def test_a_shared_server_that_was_lost_is_connected_anew_and_its_tools_are_read_again(
    connections: list[Any], way: str
) -> None:
    async def main() -> None:
        source = RemoteTools(ServerDeclaration("s", command="serve", shared=True))
        await source.open()
        await getattr(source, way)()
        assert len(connections) == 1, "it was not lost"
        connections[0].is_lost = True
        await asyncio.gather(getattr(source, way)(), getattr(source, way)())
        assert [each.closed for each in connections] == [1, 0] and source.connection is connections[1]
        assert [each.name for each in source.tools] == ["s__a", "s__b"] and source.version == 2
        connections[1].is_lost = Connection.down = True
        for _ in range(2):
            with pytest.raises(ToolError, match=r"^it cannot be reached$"):
                await getattr(source, way)()
        Connection.down = False
        await getattr(source, way)()
        assert not source.connection.is_lost and [each.closed for each in connections] == [1, 1, 1, 1, 0]

    asyncio.run(main())


def test_a_connection_that_a_call_makes_anew_is_not_of_that_call(connections: list[Any]) -> None:
    async def main() -> None:
        source = RemoteTools(ServerDeclaration("s", command="serve", shared=True))
        CALL.set("the run")
        await source.open()
        CALL.set("a call")
        connections[0].is_lost = True
        await source.refresh()
        assert [each.opened_for for each in connections] == ["the run"] * 2

    asyncio.run(main())


def test_tools_that_could_not_be_read_of_a_new_connection_are_read_before_the_next_call(connections: list[Any]) -> None:
    async def main() -> None:
        source = RemoteTools(ServerDeclaration("s", command="serve", shared=True))
        await source.open()
        connections[0].is_lost, Connection.failed_lists = True, 1
        with pytest.raises(ToolError, match=r"^the list was late$") as caught:
            await source._call("a", {})
        assert type(caught.value) is ToolError, "the call was not sent"
        assert [each.name for each in source.tools] == ["s__a"]
        await source.refresh()
        assert [each.name for each in source.tools] == ["s__a", "s__b"] and len(connections) == 2

    asyncio.run(main())


def test_an_answer_stands_though_its_server_ends_and_cannot_be_reached_again(connections: list[Any]) -> None:
    async def main() -> None:
        source = RemoteTools(ServerDeclaration("s", command="serve", shared=True))
        await source.open()
        Connection.down = True
        assert await source._call("a", {}) == "done" and len(connections) == 1
        with pytest.raises(ToolError, match=r"^it cannot be reached$"):
            await source._call("a", {})

    asyncio.run(main())


def test_an_answer_of_another_form_is_told_in_few_words() -> None:
    async def odd(client: Any) -> Any:
        return types.CallToolResult.model_validate({"content": 7})

    async def main() -> None:
        made = McpConnection(WEB)
        made._client = SimpleNamespace()  # type: ignore[assignment]
        with pytest.raises(
            OutcomeUnknown, match=r"^MCP server web broke the protocol: content: Input should be a valid list$"
        ):
            await made.request(odd)

    asyncio.run(main())


def test_a_server_is_connected_anew_so_many_times_and_one_of_a_single_attempt_never(
    connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_tools, "MAX_REOPENED", 2)

    async def main() -> None:
        source = RemoteTools(ServerDeclaration("s", command="serve", shared=True))
        await source.open()
        for _ in range(2):
            connections[-1].is_lost = True
            await source.reopen()
        connections[-1].is_lost = True
        with pytest.raises(ToolError, match=r"^it went away; it was lost more than 2 times$"):
            await source.reopen()
        assert len(connections) == 3
        own = RemoteTools(ServerDeclaration("s", command="serve"))
        await own.open()
        connections[-1].is_lost = True
        await own.reopen()
        await own.refresh()
        assert len(connections) == 4

    asyncio.run(main())


def test_a_shared_source_is_opened_anew_before_an_attempt_which_fails_where_that_does() -> None:
    class Source:
        shared, reopened, tools, error = True, 0, (), None

        async def open(self) -> None:
            raise AssertionError("it is open")

        async def close(self) -> None:
            raise AssertionError("it stays open")

        async def reopen(self) -> None:
            self.reopened += 1
            if self.error is not None:
                raise self.error

    async def pattern(task: Any, ctx: Any) -> str:
        return "done"

    async def main() -> None:
        source, other = Source(), Source()
        agent = Agent("a", Scripted([]), pattern, tools=(source,))
        trace = await rollout(agent, Task("t", "x"), opened_sources=[source, other])
        assert trace.answer == "done" and (source.reopened, other.reopened) == (1, 0)
        source.error = ToolError("it cannot be reached")
        trace = await rollout(agent, Task("t", "x"), opened_sources=[source])
        assert trace.answer is None and trace.error is not None and trace.error.message == "it cannot be reached"

    asyncio.run(main())


def test_a_connection_whose_session_the_server_ended_is_lost() -> None:
    async def main() -> None:
        async def refused(client: Any) -> None:
            raise MCPError(types.INVALID_REQUEST, "Session not found")

        for lost in (False, True):
            made = McpConnection(WEB)
            made._client, made._http = SimpleNamespace(), SimpleNamespace(session_lost=lost)  # type: ignore[assignment]
            with pytest.raises(OutcomeUnknown, match=r"failed the request \(code -32600\): Session not found$"):
                await made.request(refused)
            assert made.is_lost is lost
        assert made.ending() == "MCP server web ended the session"

    asyncio.run(main())


def test_a_connection_whose_process_has_ended_is_lost() -> None:
    made = McpConnection(WEB)
    assert not made.is_lost
    for code, lost in ((None, False), (0, True), (3, True)):
        made._process = SimpleNamespace(process=SimpleNamespace(returncode=code))  # type: ignore[assignment]
        assert made.is_lost is lost
