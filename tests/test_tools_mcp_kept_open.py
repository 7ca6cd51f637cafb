"""The connection with an MCP server in this process: kept open, asked, told of changes, given up, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx2
import mcp_types as types
from mcp import MCPError
from mcp.client.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.server import MCPServer

from firsthand import __version__
from firsthand.errors import FirsthandError, ModelError, OutcomeUnknown, StoreError, ToolError
from firsthand.loop.calling import CallPosition
from firsthand.tools.mcp.connection import McpConnection, _validator_of
from firsthand.tools.mcp.remote_tasks import TasksOfServer
from firsthand.tools.mcp.server_declaration import ServerDeclaration

PEER = ServerDeclaration("peer", command="x", timeout_s=0.08, opening_s=5.0)
WEB = ServerDeclaration("web", url="http://127.0.0.1:9/mcp")


class InProcess(McpConnection):
    """A connection whose transport is a server in this process, or an error, or None for one that never comes."""

    def __init__(self, server: Any, declaration: ServerDeclaration = PEER) -> None:
        super().__init__(declaration)
        self.server = server

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.server is None:
            await asyncio.sleep(3_600)
        if isinstance(self.server, BaseException):
            raise self.server
        return self.server


def adding() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("demo", version="7")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    return server


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    found = [logging.getLogger(name) for name in ("mcp", "client")]
    levels = [each.level for each in found]
    for each in found:
        each.setLevel(logging.INFO)
    yield found
    for each, level in zip(found, levels, strict=True):
        each.setLevel(level)


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_a_connection_is_open_until_it_is_closed_and_leaves_no_task(
    loggers: list[logging.Logger], revision: Any
) -> None:
    async def main() -> None:
        made = InProcess(adding(), replace(PEER, revision=revision, timeout_s=5.0))
        await made.open()
        assert [each.level for each in loggers] == [logging.CRITICAL] * 2
        assert made._task is not None and made._task.get_name() == "firsthand-mcp-peer"
        assert made._opened.is_set() and not made._dead.is_set() and not made._stop.is_set()
        client = made.client
        assert client.protocol_version == revision
        assert client.session._output_schema_validator is _validator_of  # type: ignore[comparison-overlap]
        result = await made.request(lambda it: it.call_tool("add", {"a": 2, "b": 3}))
        assert result.content[0].text == "5" and made.calls == []  # type: ignore[union-attr]
        assert len(asyncio.all_tasks()) > 2
        await made.close()
        assert made._stop.is_set() and made._dead.is_set() and made._task.done() and made._failure is None
        await made.close()
        with pytest.raises(ToolError, match=r"^MCP server peer is not connected$"):
            _ = made.client
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_connection_that_is_known_to_be_dead_ends_its_task_by_itself() -> None:
    async def main() -> None:
        made = InProcess(adding())
        await made.open()
        made._dead.set()
        assert made._task is not None
        done, _ = await asyncio.wait({made._task}, timeout=2.0)
        assert done == {made._task} and made._task.exception() is None and not made._stop.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_connection_that_cannot_be_opened_says_why() -> None:
    async def failed(made: McpConnection) -> FirsthandError:
        with pytest.raises(FirsthandError) as raised:
            await made.open()
        assert made._dead.is_set() == made._task.done() is True  # type: ignore[union-attr]
        return raised.value

    async def main() -> None:
        store, tool, model = StoreError("damaged"), ToolError("not today"), ModelError("no model")
        assert await failed(InProcess(store)) is store, "the store's own error ends the run"
        for error, said in (
            (tool, "not today"),
            (model, "no model"),
            (OSError("no route"), "MCP server peer cannot be reached: no route"),
            (ExceptionGroup("all", [KeyError("k")]), "MCP server peer broke the protocol: 'k'"),
        ):
            raised = await failed(InProcess(error))
            assert (type(raised), str(raised)) == (ToolError, said)
        again = InProcess(OSError("second"))
        again._failure = OSError("first")
        assert str(await failed(again)) == "MCP server peer cannot be reached: first"
        loop = asyncio.get_running_loop()
        began = loop.time()
        late = await failed(InProcess(None, replace(PEER, opening_s=0.05)))
        assert str(late) == "MCP server peer did not answer within 0.05 s" and loop.time() - began < 5.0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_connection_that_ends_as_soon_as_it_was_opened_is_not_open() -> None:
    class Brief(McpConnection):
        async def _keep(self) -> None:
            self._opened.set()
            self._failure = ToolError("it went away")
            self._dead.set()

    with pytest.raises(ToolError, match=r"^it went away$"):
        asyncio.run(Brief(PEER).open())


def test_a_request_is_answered_within_its_time_for_the_call_that_runs() -> None:
    at = CallPosition(None, "tool:0", None, None)  # type: ignore[arg-type]
    client = SimpleNamespace(name="the client")

    async def main() -> None:
        made = McpConnection(PEER)
        made._client = client  # type: ignore[assignment]
        cancelled: list[bool] = []

        async def reply(given: Any) -> Any:
            assert given is client
            return list(made.calls)

        async def silent(given: Any) -> Any:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def dies(given: Any) -> Any:
            made._failure = ToolError("the peer has died")
            made._dead.set()
            await asyncio.sleep(3_600)

        def raising(error: Exception) -> Any:
            async def send(given: Any) -> Any:
                raise error

            return send

        async def said(send: Any, kind: type[ToolError] = OutcomeUnknown, **more: Any) -> str:
            with pytest.raises(ToolError) as raised:
                await made.request(send, **more)
            assert type(raised.value) is kind and made.calls == []
            return str(raised.value)

        assert await made.request(reply) == []
        with at.active():
            assert await made.request(reply) == [at] and made.calls == []
            made.calls.append(None)  # type: ignore[arg-type]
            assert await made.request(reply) == [None, at] and made.calls == [None]
            made.calls.clear()
            assert await said(silent) == "MCP server peer did not answer within 0.08 s"
            assert await said(silent, timeout_s=0.015) == "MCP server peer did not answer within 0.015 s"
            assert await said(silent, timeout_s=0.0) == "MCP server peer did not answer within 0.08 s"
            assert cancelled == [True] * 3
            for code in (types.METHOD_NOT_FOUND, types.INVALID_PARAMS, -32_020, -32_021, -32_022, -32_042):
                refused = f"MCP server peer refused the request (code {code}): no"
                assert await said(raising(MCPError(code, "no")), ToolError) == refused
            for code in (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT, types.INTERNAL_ERROR, types.INVALID_REQUEST,
                         types.PARSE_ERROR, 0, -5):  # fmt: skip
                failed = f"MCP server peer failed the request (code {code}): no"
                assert await said(raising(MCPError(code, "no"))) == failed
            for unsent in (httpx2.ConnectError("no"), httpx2.ConnectTimeout("no")):
                assert "cannot be reached" in await said(raising(unsent), ToolError)
            assert "cannot be reached" in await said(raising(httpx2.ReadError("no")))
            assert await said(raising(ValueError("odd"))) == "MCP server peer broke the protocol: odd"
            assert await said(raising(ConnectionError("cut"))) == "MCP server peer cannot be reached: cut"
            ours = ModelError("ours")
            with pytest.raises(ModelError) as raised:
                await made.request(raising(ours))
            assert raised.value is ours and made.calls == []
            assert await said(dies, timeout_s=5.0) == "the peer has died"
            assert await said(reply, ToolError) == "the peer has died"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_the_sdks_client_is_told_what_was_declared() -> None:
    made = McpConnection(replace(PEER, revision="2025-11-25", sampling=False, roots=("/",)))
    client = made._make_client("transport")
    assert (client.server, client.mode, client.cache) == ("transport", "legacy", None)
    assert client.client_info == types.Implementation(name="firsthand", version=__version__)
    answers = made.answers
    assert client.sampling_callback is None and client.elicitation_callback == answers.elicit
    assert client.list_roots_callback == answers.roots and client.message_handler == made._heard
    (tasks,) = client.extensions or ()
    assert isinstance(tasks, TasksOfServer) and tasks._answers is answers
    for revision in ("auto", "2026-07-28"):
        other = McpConnection(replace(PEER, revision=revision, elicitation=False))
        client = other._make_client("t")
        assert client.mode == "auto", "the server is asked what it offers"
        assert client.sampling_callback == other.answers.sample
        assert client.elicitation_callback is client.list_roots_callback is None


def test_an_address_is_reached_by_http_and_signed_in_to_where_that_is_declared() -> None:
    class SignIn:
        redirect_uri = "http://127.0.0.1:5/callback"
        registers_anew = False
        closed = 0

        async def redirect(self, url: str) -> None: ...

        async def answer(self) -> Any: ...

        def close(self) -> None:
            self.closed += 1

    async def main() -> None:
        made: list[SignIn] = []

        def sign_in() -> Any:
            made.append(SignIn())
            return made[-1]

        for signs in (False, True):
            async with AsyncExitStack() as stack:
                connection = McpConnection(replace(WEB, oauth=signs, scopes=("read",)), sign_in)
                transport = await connection._transport(stack)
                http = transport.kwds["http_client"]
                assert transport.args == (WEB.url,) and not http.is_closed and len(made) == signs
                assert connection._process is None
                if signs:
                    assert (http.auth.context.server_url, http.auth.context.client_metadata.scope) == (WEB.url, "read")
                    assert made[0].closed == 0
                else:
                    assert http.auth is None
            assert http.is_closed and [each.closed for each in made] == [1] * signs

    asyncio.run(main())


def test_the_lists_of_a_newer_server_are_listened_to_until_it_says_no_more() -> None:
    heard: list[dict[str, Any]] = []

    def client(*events: Any, **capabilities: Any) -> Any:
        async def say() -> AsyncIterator[Any]:
            for each in events:
                if isinstance(each, Exception):
                    raise each
                yield each

        @asynccontextmanager
        async def listen(**wanted: Any) -> AsyncIterator[Any]:
            heard.append(wanted)
            yield say()

        offered = {"tools": None, "resources": None, "prompts": None, **capabilities}
        return SimpleNamespace(server_capabilities=SimpleNamespace(**offered), listen=listen)

    async def listened(*events: Any, **capabilities: Any) -> set[str]:
        made = McpConnection(PEER)
        await made._listen(client(*events, **capabilities))
        return made.changed

    both = {"tools": object(), "prompts": object()}
    assert asyncio.run(listened(ToolsListChanged(), **both)) == {"tools"}
    assert heard == [{"tools_list_changed": True, "prompts_list_changed": True}]
    assert asyncio.run(listened(PromptsListChanged(), OSError("cut"), ToolsListChanged(), **both)) == {"prompts"}
    for error in (MCPError(1, "x"), RuntimeError(), TimeoutError()):
        assert asyncio.run(listened(error, resources=object())) == set()
    assert heard[-1] == {"resources_list_changed": True}
    with pytest.raises(KeyError):
        asyncio.run(listened(KeyError("a mistake of ours"), **both))
