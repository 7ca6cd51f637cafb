"""The MCP server under HTTP and over standard input, without a socket and without a process."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx
import mcp_types as types

from firsthand import __version__
from firsthand.serve.admission.active_request import ActiveRequest, attach, request_of
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.mcp import mcp_transports
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.mcp_server import McpServer, Offer
from firsthand.serve.mcp.mcp_transports import mcp_app, serve_stdio
from firsthand.serve.mcp.running_call import RunningCall
from firsthand.serve.mcp.served_tool import ServedTool
from firsthand.serve.mcp.server_tasks import ServerTask
from firsthand.serve.mcp.session_door import session_door
from firsthand.serve.mcp.task_file import TASKS_FILE, TaskFile, TaskRow
from mcp_contexts import ASK, chose, context
from served_agent import Desk, clerk

HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
}}  # fmt: skip
KIND = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def made_server() -> McpServer:
    async def run(arguments: Any, exchange: Any) -> str:
        return f"{exchange.client} said {arguments['text']}"

    shape = {"type": "object", "properties": {"text": {"type": "string"}}}
    return McpServer(Offer([ServedTool("say", "Says.", shape, run)], name="peer", version="7", instructions="Be kind."))


def over_http(host: str, use: Callable[[Callable[..., Awaitable[httpx.Response]], Any], Awaitable[Any]]) -> Any:
    """What `use` makes of a function that asks the mounted app as a client."""
    app = mcp_app(made_server(), host)

    async def admitted(scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope["headers"]).get(b"x-who", b"ann").decode()
        content = await receive()
        attach(scope, ActiveRequest("r", Client(name, ClientLimits()), "/mcp", "application/json", content["body"]))
        pending = [content]

        async def again() -> Any:
            return pending.pop() if pending else await receive()

        await app.app(scope, again, send)

    async def main() -> Any:
        assert app.lifespan is not None
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(admitted), base_url="http://x") as client,
        ):

            async def ask(body: Any, *, method: str = "POST", **headers: str) -> httpx.Response:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                shown = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(
                    method, "/mcp", content=content, headers={"host": "localhost:1"} | KIND | shown
                )

            return await use(ask, app)

    return asyncio.run(main())


def event(answer: httpx.Response) -> Any:
    (line,) = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return json.loads(line.removeprefix("data: "))


def test_a_session_over_http_belongs_to_the_client_that_opened_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_transports, "MAX_OWN_SESSIONS", 2)

    async def use(ask: Any, app: Any) -> None:
        assert (app.prefix, app.work_methods, app.most_values) == ("/mcp", {"POST"}, 100_000)
        opened = await ask(HELLO)
        session = opened.headers["mcp-session-id"]
        result = event(opened)["result"]
        assert opened.status_code == 200 and result["serverInfo"] == {"name": "peer", "version": "7"}
        assert result["instructions"] == "Be kind." and result["protocolVersion"] == "2025-06-18"
        call = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "say", "arguments": {"text": "hi"}},
        }
        mine = {"mcp_session_id": session, "mcp_protocol_version": "2025-06-18"}
        await ask({"jsonrpc": "2.0", "method": "notifications/initialized"}, **mine)
        said = event(await ask(call, **mine))
        assert said["result"]["content"] == [{"type": "text", "text": "ann said hi"}]
        assert (await ask(call, **mine, x_who="bob")).status_code == 404, "another client's session"
        await ask(HELLO)
        with pytest.raises(Refusal, match=r"^2 sessions of yours are open: end one with DELETE, or wait$") as caught:
            await ask(HELLO)
        assert caught.value.status == 429 and (await ask(HELLO, x_who="bob")).status_code == 200
        assert (await ask(b"", method="DELETE", **mine)).status_code == 200
        assert (await ask(HELLO)).status_code == 200, "one has ended"

    over_http("127.0.0.1", use)


def test_what_opens_a_session_is_bounded_and_hosts_are_checked_on_this_machine_alone() -> None:
    async def local(ask: Any, app: Any) -> None:
        assert (await ask(HELLO, host="evil.example")).status_code == 421
        size = len(json.dumps(HELLO))
        fits = json.dumps(HELLO).encode() + b" " * (65_536 - size)
        assert (await ask(fits)).status_code == 200
        many = HELLO | {"params": HELLO["params"] | {"capabilities": {"experimental": {"x": {"y": [0] * 2_000}}}}}  # type: ignore[operator]
        for body in (fits + b" ", many):
            with pytest.raises(
                Refusal, match=r"^the request that opens a session is kept with it: send less in it$"
            ) as caught:
                await ask(body)
            assert caught.value.status == 413
        other = await ask(fits + b" ", mcp_session_id="none", mcp_protocol_version="2025-06-18")
        assert other.status_code == 404, "within a session there is another bound"

    over_http("localhost", local)

    async def public(ask: Any, app: Any) -> None:
        assert (await ask(HELLO, host="any.example")).status_code == 200

    over_http("0.0.0.0", public)


def test_one_client_is_served_over_standard_input_until_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "say", "arguments": {"text": "é"}}}
    lines = [HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call]
    given = io.TextIOWrapper(io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode()))
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", given)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told))
    made = made_server()
    life: list[str] = []
    resume, close = made.resume, made.close

    def resumed() -> None:
        life.append("resumed")
        resume()

    async def closed() -> None:
        life.append("closed")
        await close()

    made.resume, made.close = resumed, closed  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(serve_stdio(made), 10))
    answers = {
        each["id"]: each["result"] for each in map(json.loads, told.getvalue().decode().splitlines()) if "id" in each
    }
    assert answers[1]["serverInfo"]["name"] == "peer" and life == ["resumed", "closed"]
    assert answers.get(2, {"content": [{"text": "None said é"}]})["content"][0]["text"] == "None said é"
    assert logging.getLogger("mcp").level == logging.ERROR


@pytest.mark.parametrize("step", ["resume", "serve", "cancel"])
def test_a_server_is_closed_once_however_its_serving_ends(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    made, life = made_server(), list[str]()
    close = made.close

    def resumed() -> None:
        life.append("resumed")
        if step == "resume":
            raise OSError("no room for the tasks")

    async def ran(*_: Any) -> None:
        life.append("ran")
        if step == "serve":
            raise OSError("the client is gone")
        await asyncio.sleep(30)

    async def closed() -> None:
        life.append("closed")
        await close()

    async def main() -> None:
        serving = asyncio.create_task(serve_stdio(made))
        while "ran" not in life and not serving.done():
            await asyncio.sleep(0)
        if step == "cancel":
            serving.cancel()
        await serving

    made.resume, made.close, made.server.run = resumed, closed, ran  # type: ignore[method-assign, assignment]
    with pytest.raises((OSError, ExceptionGroup, asyncio.CancelledError)) as ended:
        asyncio.run(asyncio.wait_for(main(), 10))
    why = ended.value
    while isinstance(why, ExceptionGroup):
        (why,) = why.exceptions
    assert (
        repr(why)
        == {
            "resume": "OSError('no room for the tasks')",
            "serve": "OSError('the client is gone')",
            "cancel": "CancelledError()",
        }[step]
    )
    assert life == (["resumed", "closed"] if step == "resume" else ["resumed", "ran", "closed"])


def test_the_door_of_an_agent_keeps_its_tasks_in_the_folder_of_its_run(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        door = session_door(sessions, "127.0.0.1", "Clerks.")
        assert door.prefix == "/mcp" and (sessions.run.path / TASKS_FILE).is_file()

        async def main() -> Any:
            assert door.lifespan is not None
            async with door.lifespan():
                listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {}}}}  # fmt: skip

                async def admitted(scope: Any, receive: Any, send: Any) -> None:
                    attach(
                        scope,
                        ActiveRequest("r", Client("ann", ClientLimits()), "/mcp", None, json.dumps(HELLO).encode()),
                    )
                    assert request_of(scope).client.name == "ann"
                    await door.app(scope, receive, send)

                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(admitted), base_url="http://localhost:1"
                ) as client:
                    more = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
                    hello = event(await client.post("/mcp", json=HELLO, headers=KIND))["result"]["serverInfo"]
                    return hello, await client.post("/mcp", json=listed, headers=KIND | more)

        about, answer = asyncio.run(main())
        assert about == {"name": "clerk", "version": __version__}
        body = answer.json() if answer.headers["content-type"].startswith("application/json") else event(answer)
        (tool,) = body["result"]["tools"]
        assert (tool["name"], tool["description"]) == ("ask", "Clerks.")


def test_a_call_whose_client_has_gone_is_ended_and_one_that_asks_waits_for_input() -> None:
    ended: list[str] = []

    async def slow(arguments: Any, exchange: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("ended")
            raise
        return "never"

    async def main() -> None:
        made = McpServer(Offer([ServedTool("slow", "", {"type": "object"}, slow)]))
        calling = asyncio.ensure_future(made._call_tool(context(), types.CallToolRequestParams(name="slow")))
        await asyncio.sleep(0.001)
        calling.cancel()
        await asyncio.wait({calling})
        await asyncio.sleep(0)
        assert calling.cancelled() and ended == ["ended"] and made._parked._calls == {}
        await made.close()

    asyncio.run(main())


def test_a_parked_call_reports_to_the_request_that_is_under_way_and_to_none_without_one() -> None:
    async def main() -> None:
        ctx = context(client="ann")
        exchange = ParkedExchange(ctx, {}, {}, client="another")
        assert exchange.client == "ann", "the client is that of the request"
        await exchange.progress(1, 4, "one")
        await exchange.progress(2)
        await exchange.log("error", "hot")
        session: Any = ctx.session
        assert session.told == [(1, 4, "one"), (2, None, None)] and session.logged == [("error", "hot", 7)]
        exchange.ctx = None
        exchange.moved.clear()
        await exchange.progress(3, None, "x")
        await exchange.log("error", "lost")
        assert (
            exchange.status == "3 x" and exchange.moved.is_set() and len(session.told) == 2 == len(session.logged) + 1
        )

    asyncio.run(main())


def test_the_app_goes_on_with_tasks_that_were_left_and_closes_their_file(tmp_path: Path) -> None:
    file = TaskFile(tmp_path)
    file.add(TaskRow("1", "ann", "gone", {}, {}, {}, "", "working", None, "t0", "t1", time.time() + 60))
    made = McpServer(Offer(), file)
    app = mcp_app(made, "127.0.0.1")

    async def main() -> None:
        assert app.lifespan is not None
        async with app.lifespan():
            row = file.find("1")
            assert row is not None and row.status == "failed" and made.tasks.file is file

    asyncio.run(main())
    assert made.tasks.file is None


def test_a_call_that_asks_again_waits_anew_and_a_task_tells_when_it_changed() -> None:
    async def twice(arguments: Any, exchange: Any) -> str:
        return " ".join([(await exchange.ask(key, ASK)).content["w"] for key in ("a", "b")])

    async def main() -> None:
        made = McpServer(Offer([ServedTool("twice", "", {"type": "object"}, twice)]))
        ctx = context(client="ann")

        async def called(**more: Any) -> Any:
            return await made._call_tool(ctx, types.CallToolRequestParams(name="twice", **more))

        first = await called()
        made._parked._calls[first.request_state].since -= 599.0
        second = await called(request_state=first.request_state, input_responses={"a": chose(w="x")})
        assert second.request_state == first.request_state and list(second.input_requests) == ["b"]
        assert time.monotonic() - made._parked._calls[first.request_state].since < 60
        last = await called(request_state=first.request_state, input_responses={"b": chose(w="y")})
        assert last.content[0].text == "x y"

        exchange = ParkedExchange(None, {"elicitation": {}}, {})
        task = ServerTask(RunningCall("t", exchange.ask("k", ASK), exchange), "ann")
        await task.call.settled()
        await asyncio.sleep(0.003)
        asked = task.state()
        assert asked["createdAt"] == task.created < asked["lastUpdatedAt"]
        await asyncio.sleep(0.003)
        assert task.state() == asked, "nothing changed"
        await exchange.progress(1, None, "one")
        told = task.state()
        assert told["statusMessage"] == "1 one" and told["lastUpdatedAt"] > asked["lastUpdatedAt"]
        await asyncio.sleep(0.003)
        await task.call.cancel()
        ended = task.state()
        assert ended["status"] == "cancelled" and ended["lastUpdatedAt"] > told["lastUpdatedAt"]
        await asyncio.sleep(0.003)
        assert task.state() == ended, "nothing changes any more"
        await made.close()

    asyncio.run(main())


def test_a_tool_that_is_added_takes_the_place_of_one_of_its_name_in_the_order_of_names() -> None:
    def saying(text: str) -> Any:
        async def run(arguments: Any, exchange: Any) -> str:
            return text

        return run

    async def main() -> None:
        shape = {"type": "object"}
        made = McpServer(Offer([ServedTool(name, "old", shape, saying(f"old {name}")) for name in ("m", "c")]))
        made.add(ServedTool("m", "new", shape, saying("new m")), ServedTool("a", "new", shape, saying("new a")))
        listed = await made._list_tools(context(), None)
        assert [(tool.name, tool.description) for tool in listed.tools] == [("a", "new"), ("c", "old"), ("m", "new")]
        for name, text in (("a", "new a"), ("c", "old c"), ("m", "new m")):
            result = await made._call_tool(context(), types.CallToolRequestParams(name=name))
            assert result.content[0].text == text
        await made.close()

    asyncio.run(main())
