"""Connections to a TLS address count, and have a deadline, from the moment that they are accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from firsthand.serve.http import tls_connection
from firsthand.serve.http.connection_room import ConnectionRoom
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import Server
from firsthand.serve.http.tls_connection import TlsConnection
from test_serve_http_server import made, served

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the scheme, and the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{scope['scheme']} {size}".encode()})


def over_tls(folder: Path, use: Callable[[Server, ConnectionRoom], Awaitable[Any]], most: int = 4) -> None:
    """Call `use` with a server that has a certificate, and room for `most` connections."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    room = ConnectionRoom(most)

    async def with_room(server: Server) -> None:
        server.config.http.room = room  # type: ignore[union-attr]
        await use(server, room)

    served(
        made(echo, folder), with_room, ListenAddress(port=0, tls_cert=folder / "cert.pem", tls_key=folder / "key.pem")
    )


async def connected(server: Server) -> Stream:
    """A TCP connection that has said nothing."""
    return await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def counted(room: ConnectionRoom, number: int) -> None:
    """Wait until so many strangers are counted."""
    async with asyncio.timeout(10):
        while room._num_strangers != number:
            await asyncio.sleep(0.001)


async def ended(stream: Stream) -> bool:
    """Wait until the server has closed it."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            return await stream[0].read(1) == b""
    return True


async def asked(server: Server, folder: Path, body: bytes = b"") -> str:
    trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    async with httpx.AsyncClient(base_url=server.url, verify=trusted, timeout=10) as client:
        return (await client.post("/a/", content=body)).text


def test_connections_that_never_begin_the_handshake_take_their_place_in_the_room(tmp_path: Path) -> None:
    async def use(server: Server, room: ConnectionRoom) -> None:
        silent = [await connected(server)]
        await counted(room, 1)
        for _ in range(3):  # one byte of a handshake is none
            silent.append(await connected(server))
            silent[-1][1].write(b"\x16")
        assert await ended(silent[0]) and await ended(silent[1]), "the oldest give way: half of four are strangers'"
        await counted(room, 2)
        assert await asked(server, tmp_path) == "https 0", "a newcomer has its moment"
        assert await ended(silent[2])
        silent[3][1].close()
        await counted(room, 0)
        assert room._strangers == {} and room._known == set()
        for _, writer in silent:
            writer.close()

    over_tls(tmp_path, use)


def test_a_handshake_has_a_deadline_that_no_byte_puts_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tls_connection.HANDSHAKE_S == 10.0
    monkeypatch.setattr(tls_connection, "HANDSHAKE_S", 0.02)

    async def use(server: Server, room: ConnectionRoom) -> None:
        silent, slow = await connected(server), await connected(server)

        async def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in b"\x16\x03\x01\x02\x00\x01" + b"\0" * 500:
                    slow[1].write(bytes([byte]))
                    await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        assert await ended(silent) and await ended(slow) and not dripping.done()
        dripping.cancel()
        await counted(room, 0)
        for _, writer in (silent, slow):
            writer.close()

    over_tls(tmp_path, use)


def test_a_connection_counts_once_before_and_after_its_handshake(tmp_path: Path) -> None:
    async def use(server: Server, room: ConnectionRoom) -> None:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        reader, writer = await connected(server)
        await counted(room, 1)
        (before,) = room._strangers["127.0.0.1"]
        await writer.start_tls(trusted, server_hostname="127.0.0.1")
        async with asyncio.timeout(10):
            while before.transport is None:
                await asyncio.sleep(0.001)
        assert list(room._strangers["127.0.0.1"]) == [before] and room._num_strangers == 1
        writer.write(b"GET /a/ HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"https 0")).startswith(b"HTTP/1.1 200")
        assert room._known == {before} and room._num_strangers == 0, "it stays, as it does without TLS"
        writer.close()
        async with asyncio.timeout(10):
            while room._known:
                await asyncio.sleep(0.001)

    over_tls(tmp_path, use)


def test_large_bodies_and_many_clients_at_once_come_whole_over_tls(tmp_path: Path) -> None:
    async def use(server: Server, room: ConnectionRoom) -> None:
        sizes = [0, 1, tls_connection.READ_BYTES - 1, tls_connection.READ_BYTES + 1, 700_000]
        told = await asyncio.gather(*(asked(server, tmp_path, b"x" * size) for size in sizes))
        assert told == [f"https {size}" for size in sizes]

    over_tls(tmp_path, use, 64)


def test_a_client_that_speaks_no_tls_is_hung_up_on_and_forgotten(tmp_path: Path) -> None:
    async def use(server: Server, room: ConnectionRoom) -> None:
        plain = await connected(server)
        plain[1].write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in await plain[0].read()
        await counted(room, 0)
        plain[1].close()
        assert await asked(server, tmp_path) == "https 0"

    over_tls(tmp_path, use)


def test_a_server_that_stops_does_not_wait_for_a_handshake(tmp_path: Path) -> None:
    streams: list[Stream] = []

    async def use(server: Server, room: ConnectionRoom) -> None:
        streams.append(await connected(server))
        await counted(room, 1)
        assert len(server.server_state.connections) == 1
        await server.shutdown()
        assert server.server_state.connections == set() and room._num_strangers == 0
        assert await ended(streams[0])
        streams[0][1].close()

    over_tls(tmp_path, use)


def test_connections_of_tls_take_little_memory_before_their_clients_are_known(tmp_path: Path) -> None:
    app = made(echo, tmp_path)
    named = ListenAddress(port=0, tls_cert=Path(__file__), tls_key=Path(__file__))  # opened when the server is
    assert Server(app, named).config.http.room.most_strangers == tls_connection.MOST_STRANGERS == 2048  # type: ignore
    plain = Server(app, ListenAddress(port=0)).config.http.room  # type: ignore[union-attr]
    assert plain.most_strangers == plain.most // 2 and ConnectionRoom(6, 3).most_strangers == 3
    assert tls_connection._Tls.max_size == tls_connection.READ_BYTES == 32 << 10
    closed: list[int] = []
    room = ConnectionRoom(100, 2)
    for each in range(3):
        room.opened(each, "a", lambda each=each: closed.append(each))  # type: ignore[misc]
    assert closed == [0]


def test_nothing_is_read_before_tls_has_begun() -> None:
    begun: list[Callable[[], None]] = []
    log: list[str] = []
    transport: Any = SimpleNamespace(
        pause_reading=lambda: log.append("paused"),
        resume_reading=lambda: log.append("resumed"),
        set_protocol=lambda protocol: log.append("tls"),
        get_extra_info=lambda name: None,
        is_closing=lambda: False,
        abort=lambda: None,
    )
    loop = SimpleNamespace(call_soon=begun.append)
    http: Any = SimpleNamespace(room=None, transport=None, connections=set(), loop=loop)
    connection = TlsConnection(http, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    connection.connection_made(transport)
    assert (log, http.connections, len(begun)) == (["paused"], {connection}, 1)

    async def begin() -> None:
        http.loop = asyncio.get_running_loop()
        with contextlib.suppress(AttributeError, TypeError):  # of the handshake, for which this is no socket
            begun[0]()

    asyncio.run(begin())
    assert log[:2] == ["paused", "tls"]
