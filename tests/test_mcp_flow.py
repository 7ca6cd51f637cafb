"""What a hostile MCP server may make this process decode and keep, over pipes and over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx2

from firsthand.errors import ToolError
from firsthand.system.json_values import values_in
from firsthand.tools.mcp import message_flow
from firsthand.tools.mcp.http_endpoint import http_client
from firsthand.tools.mcp.message_flow import ALLOWANCE, MAX_VALUES, MessageFlow
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration

HOSTILE = str(Path(__file__).parent / "mcp_peers" / "hostile_server.py")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def called(mode: str) -> str:
    """The error of a call of a tool of the hostile server."""

    async def call() -> str:
        source = RemoteTools(ServerDeclaration("peer", command=sys.executable, args=(HOSTILE, mode)))
        await source.open()
        try:
            return str(await source.tools[0].function(text="hello"))
        except ToolError as error:
            return str(error)
        finally:
            await source.close()

    return asyncio.run(call())


def test_values_are_counted_outside_of_texts() -> None:
    assert values_in(b'{"a":[1,2,{}]}', 9) == 5
    dense = b"[" + b"{}," * (MAX_VALUES + 1) + b"{}]"
    assert values_in(dense, MAX_VALUES) > MAX_VALUES
    text = b'{"a":"' + b',{[\\",' * MAX_VALUES + b'","b":[1,2]}'
    assert values_in(text, MAX_VALUES) == 4
    assert values_in(b'["' + b"\\\\" * 10 + b'"' + b",{}" * (MAX_VALUES + 1), MAX_VALUES) > MAX_VALUES
    assert values_in(b'"open\n' + b"{}," * (MAX_VALUES + 1), MAX_VALUES) > MAX_VALUES  # a text ends with its line


def test_an_allowance_is_spent_by_messages_bytes_and_values_and_comes_back(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(message_flow.time, "monotonic", lambda: now)
    flow = MessageFlow()
    assert sum(flow.charge(b"x" * 1_000) for _ in range(20_000)) == ALLOWANCE / 2
    now += 4.0
    assert not flow.charge(b"")  # what was refused is owed all the same
    flow.refill()
    assert sum(flow.charge(b"," * 20) for _ in range(20_000)) == int(ALLOWANCE / 2.02)
    flow.refill()
    assert not flow.charge(b"x" * int(1_000 * ALLOWANCE))
    flow.refill()
    now += 1_000.0
    assert sum(flow.charge(b"") for _ in range(30_000)) == ALLOWANCE  # it never grows beyond that
    flow = MessageFlow()
    assert sum(flow.charge(b"") for _ in range(20_000)) == ALLOWANCE
    now += 2.0
    assert sum(flow.charge(b"") for _ in range(2_000)) == 1_000


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "told"), [("dense", "more than 200,000 values"), ("pings", "than are taken")])
def test_a_server_that_costs_too_much_is_cut_off(mode: str, told: str) -> None:
    assert told in called(mode)


def test_an_answer_of_many_bytes_is_no_message_unasked() -> None:
    assert "x" * 1_000 in called("long")


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[str]:
    """The address of a server that answers each request in this way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"


def read(answer: Answer, method: str = "POST") -> bytes:
    """The body that our client reads."""

    async def ask() -> bytes:
        async with peer(answer) as url, http_client(ServerDeclaration("peer", url=url)) as client:
            return (await client.request(method, url)).content

    return asyncio.run(ask())


def reply(kind: str, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{more}connection: close\r\n\r\n".encode() + body


def test_a_compressed_body_is_refused_before_it_is_unpacked() -> None:
    async def bomb(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("application/json", gzip.compress(b" " * 40_000_000), "content-encoding: gzip\r\n"))

    with pytest.raises(httpx2.ReadError, match="compressed"):
        read(bomb)


def test_a_body_of_too_many_values_is_refused_and_a_long_one_is_read() -> None:
    async def dense(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("application/json", b"[" + b"{}," * (MAX_VALUES + 1) + b"{}]"))

    async def long(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("application/json", b'["' + b"a," * 1_000_000 + b'"]'))

    with pytest.raises(httpx2.ReadError, match="values"):
        read(dense)
    assert len(read(long)) == 2_000_004


def test_a_stream_of_events_without_end_is_cut_off() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("text/event-stream", b""))
        while True:
            writer.write(b": nothing\n" * 1_000)
            await writer.drain()

    async def dense(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("text/event-stream", b"data: [" + b"{}," * (MAX_VALUES + 1) + b"{}]\n\n"))

    async def few(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("text/event-stream", b'data: {"a": 1}\n\n' * 100))

    with pytest.raises(httpx2.ReadError, match="than are taken"):
        read(endless)
    with pytest.raises(httpx2.ReadError, match="values"):
        read(dense)
    assert len(read(few)) == 1_600


def test_streams_that_listen_share_one_allowance() -> None:
    async def some(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("text/event-stream", b"data: 1\n" * 8_000))

    async def ask() -> int:
        async with peer(some) as url, http_client(ServerDeclaration("peer", url=url)) as client:
            for count in range(5):
                try:
                    await client.request("GET", url)
                except httpx2.ReadError:
                    return count
                assert (await client.request("POST", url)).content
        return -1

    assert asyncio.run(ask()) == 2
