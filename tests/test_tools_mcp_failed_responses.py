"""A tool call of an MCP server that may have acted is never told as refused, whatever the reply over HTTP is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import anyio
import httpx2
import mcp_types as types

from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.tools.mcp.failed_responses import McpHttpClient
from firsthand.tools.mcp.http_endpoint import _Counted, _Events
from firsthand.tools.mcp.message_flow import MessageFlow
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.stdio_frames import ServerProcess, _answered, _pass_on
from firsthand.tools.mcp.unpaired_surrogates import without_halves

URL = "http://bank.example/mcp"
HALF = rb'"half an emoji \ud83d"'
ERROR = {"code": -32602, "message": "no such account"}


class Bank:
    """A server of one tool, which acts and then replies as it is told."""

    def __init__(self, reply: Callable[[object], httpx2.Response], session: str = ""):
        self.reply, self.acts, self.sessions = reply, 0, {"mcp-session-id": session} if session else {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return httpx2.Response(405)
        body = json.loads(request.content)
        results = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                           "serverInfo": {"name": "bank", "version": "1"}},
            "tools/list": {"tools": [{"name": "pay", "inputSchema": {"type": "object"}}]},
        }  # fmt: skip
        if body["method"] in results:
            result = {"jsonrpc": "2.0", "id": body["id"], "result": results[body["method"]]}
            return httpx2.Response(200, json=result, headers=self.sessions)
        if "id" not in body:
            return httpx2.Response(202)
        self.acts += 1
        return self.reply(body["id"])


def paid(bank: Bank, monkeypatch: pytest.MonkeyPatch, home: Path) -> tuple[type[Exception] | None, str, bool]:
    """The kind of error of a call, its words or the result, and whether the connection has ended."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))

    def transport(declaration: object) -> httpx2.AsyncBaseTransport:
        return httpx2.MockTransport(bank)

    monkeypatch.setattr("firsthand.tools.mcp.http_endpoint.BoundedTransport", transport)

    async def main() -> tuple[type[Exception] | None, str, bool]:
        source = RemoteTools(ServerDeclaration("bank", url=URL, revision="2025-11-25", timeout_s=3.0))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(source.close)
            await source.open()
            try:
                kind, said = None, await source._call("pay", {})
            except ToolError as error:
                kind, said = type(error), str(error)
            return kind, said, source.connection._dead.is_set()

    return asyncio.run(main())


def bare(status: int, kind: str = "text/html", body: bytes = b"<p>Gateway") -> Callable[[object], httpx2.Response]:
    return lambda id: httpx2.Response(status, headers={"content-type": kind}, content=body)


def error_at(status: int) -> Callable[[object], httpx2.Response]:
    return lambda id: httpx2.Response(status, json={"jsonrpc": "2.0", "id": id, "error": ERROR})


@pytest.mark.parametrize(("reply", "said"), [
    (bare(502), "HTTP 502 Bad Gateway, without an answer to the call"), (bare(504), "HTTP 504 Gateway Timeout"),
    (bare(500, "application/json", b"{}"), "HTTP 500 Internal Server Error"), (bare(429), "HTTP 429"),
    (bare(400, "application/json", b'{"jsonrpc":"2.0","id":1,"result":{}}'), "HTTP 400"),
    (bare(404), "HTTP 404"), (bare(401), "HTTP 401"), (bare(599), "HTTP 599, without"), (bare(303), ""), (bare(200), ""),
    (bare(200, "application/json", b""), ""), (bare(200, "application/json", b'{"jsonrpc"'), ""), (bare(202), ""),
    (bare(200, "text/event-stream", b'data: {"jsonrpc"\n\n'), ""), (bare(200, "text/event-stream", b""), ""),
])  # fmt: skip
def test_a_call_without_an_answer_may_have_taken_effect_whatever_status_or_body_came(
    reply: Any, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bank = Bank(reply)
    kind, words, _ = paid(bank, monkeypatch, tmp_path)
    assert kind is OutcomeUnknown and said in words and bank.acts == 1


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_refusal_of_the_server_is_one_at_any_status(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = "MCP server bank refused the request (code -32602): no such account"
    assert paid(Bank(error_at(status)), monkeypatch, tmp_path) == (ToolError, told, False)


@pytest.mark.parametrize("revision", ["auto", "2025-11-25"])
def test_a_server_that_refuses_the_first_message_is_told_with_its_status_and_what_to_do(
    revision: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    replies: list[httpx2.Response] = []
    monkeypatch.setattr(
        "firsthand.tools.mcp.http_endpoint.BoundedTransport", lambda _: httpx2.MockTransport(lambda _: replies[0])
    )

    def refused(reply: httpx2.Response, **declared: Any) -> str:
        async def main() -> str:
            source = RemoteTools(ServerDeclaration("bank", url=URL, revision=revision, timeout_s=3.0, **declared))
            with pytest.raises(ToolError) as raised:
                await source.open()
            await source.close()
            return str(raised.value).removeprefix("MCP server bank ")

        replies[:] = [reply]
        return asyncio.run(main())

    key = {"headers": {"Authorization": "Bearer wrong"}}
    said = "refused the key that its headers hold (HTTP 401 Unauthorized): give it one that it takes"
    assert refused(bare(401)(0), **key) == said
    assert refused(bare(403)(0), **key) == said.replace("401 Unauthorized", "403 Forbidden")
    assert refused(bare(401)(0)) == (
        'wants a key (HTTP 401 Unauthorized): declare it as in headers = {Authorization = "Bearer ${TOKEN}"}, or sign in '
        "with firsthand mcp --sign-in"
    )
    assert refused(bare(404)(0)) == "is not at its url (HTTP 404 Not Found): check the address"
    assert refused(bare(500)(0)) == "answered HTTP 500 Internal Server Error"
    for status, reason in ((403, "Forbidden"), (404, "Not Found"), (405, "Method Not Allowed")):
        why = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "this host is not allowed"}}
        for declared in ({}, key):
            told = f"answered HTTP {status} {reason}: this host is not allowed"
            assert refused(httpx2.Response(status, json=why), **declared) == told, (
                "its own words, and no advice on keys"
            )
    assert refused(bare(200, "application/json", b'{"jsonrpc"')(0)).startswith("broke the protocol: "), (
        "no failed status"
    )


def test_the_status_of_the_last_message_is_kept_if_it_failed() -> None:
    statuses = iter([500, 404, 200, 401, 405])

    async def main() -> list[str]:
        found = []
        async with McpHttpClient(transport=httpx2.MockTransport(lambda _: bare(next(statuses))(0))) as client:
            for method in ("POST", "GET", "POST", "POST", "DELETE"):
                await client.request(method, URL)
                found.append(client.failed)
        return found

    wrong, refused = "HTTP 500 Internal Server Error", "HTTP 401 Unauthorized"
    assert asyncio.run(main()) == [wrong, wrong, "", refused, refused]


def test_the_client_knows_a_lost_session_and_leaves_other_requests_as_they_are() -> None:
    async def main() -> None:
        sent: dict[str, Any] = {"json": {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {}}}
        async with McpHttpClient(transport=httpx2.MockTransport(lambda request: bare(404)(0))) as client:
            for other in ({"json": {"id": 1, "method": "ping", "params": "tools/call"}}, {"content": b"tools"}):
                assert (await client.post(URL, **other)).content == b"<p>Gateway"
            assert (await client.put(URL, **sent)).content == b"<p>Gateway"
            assert (await client.post(URL, **sent)).json()["id"] == "a" and not client.session_lost
            for other in ("GET", "DELETE"):  # a server without a stream, or without an end of sessions
                await client.request(other, URL, headers={"Mcp-Session-Id": "s"})
            assert not client.session_lost
            await client.post(URL, headers={"Mcp-Session-Id": "s"}, **sent)
            assert client.session_lost
        async with McpHttpClient(transport=httpx2.MockTransport(lambda request: bare(500)(0))) as client:
            reply = await client.post(URL, headers={"Mcp-Session-Id": "s"}, **sent)
            assert not client.session_lost and reply.status_code == 500

    asyncio.run(main())


# -- answers with half a pair of surrogates --


@pytest.mark.parametrize(("body", "whole"), [
    (HALF, rb'"half an emoji \ufffd"'), (rb'"\uDE00\uD83D"', rb'"\ufffd\ufffd"'), (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
    (rb'"\uD83D\uD83D\uDE00"', rb'"\ufffd\uD83D\uDE00"'), (rb'"\\ud83d"', rb'"\\ud83d"'), (rb'"\\\ud83d"', rb'"\\\ufffd"'),
    (rb'"\udfff\ud7ff\ue000\udbff"', rb'"\ufffd\ud7ff\ue000\ufffd"'), (b'"\\ud83', b'"\\ud83'), (b"\\", b"\\"),
])  # fmt: skip
def test_half_a_pair_of_surrogates_is_the_character_for_what_cannot_be_shown(body: bytes, whole: bytes) -> None:
    assert without_halves(body) == whole and len(whole) == len(body)


def test_an_answer_with_half_an_emoji_is_read_over_http_and_over_standard_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = b'{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":' + HALF + b"}]}}"

    async def read(kind: type[Any], body: bytes, *more: Any) -> bytes:
        async def pieces() -> Any:
            yield body

        return b"".join([piece async for piece in kind(pieces(), *more)])

    for event in (b"data: " + HALF + b"\n", b"data: " + HALF):
        assert asyncio.run(read(_Events, event, MessageFlow())).count(rb"\ufffd") == 1
    assert asyncio.run(read(_Counted, HALF)) == without_halves(HALF)

    async def main() -> None:
        inbound, lines = anyio.create_memory_object_stream[Any](4)
        server = ServerProcess(SimpleNamespace())  # type: ignore[arg-type]
        with inbound, lines:
            server.awaited |= {7, 8, "9"}
            await _pass_on(server, result % b"7", inbound)
            text = lines.receive_nowait().message.result["content"][0]["text"]
            assert text == "half an emoji �" and server.awaited == {8, "9"}
            for id in (b"8", b'"9"'):
                await _pass_on(server, b'{"jsonrpc":"2.0","id":%s,"result":{"n":%s}}' % (id, b"9" * 5_000), inbound)
                told = lines.receive_nowait().message
                assert json.dumps(told.id).encode() == id and told.error.code == types.PARSE_ERROR
                assert told.error.message == "its answer cannot be read"
            assert server.awaited == set() and server.noise == 0
            await _pass_on(server, b'{"jsonrpc":"2.0","id":8,"result":{"n":%s}}' % (b"9" * 5_000), inbound)
            assert server.noise == 1, "it was answered before"

    asyncio.run(main())


@pytest.mark.parametrize(("line", "id"), [
    (b'{"id":7,"result":1}', 7), (b'{"id":"a","error":1}', "a"), (b'{"id":7,"method":"x"}', ""),
    (b'{"id":true,"result":1}', ""),
    (b'{"id":[7],"result":1}', ""), (b'{"result":1}', ""), (b"[7]", ""), (b"no message", ""), (b'{"id":\xff}', ""),
    (b"[" * 100_000, ""), (b'{"result":1,"id":' + b"1" * 5_000 + b"}", ""),
    (b'{"result":1,"id":' + b"1" * 19 + b"}", int("1" * 19)),
    (b'{"result":1,"id":' + b"1" * 20 + b"}", ""),
])  # fmt: skip
def test_a_line_that_is_no_message_may_still_say_which_request_it_answers(line: bytes, id: Any) -> None:
    assert _answered(line) == id
