"""A server on this machine that gives ready answers, and the errors of tools in words."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand.errors import ConfigError, ToolError
from firsthand.tools.web.addresses import Rules


def refused(work: Callable[..., Any], *args: Any, **more: Any) -> str:
    """The words of the ToolError or ConfigError that a call raises."""
    with pytest.raises((ToolError, ConfigError)) as error:
        result = work(*args, **more)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    return str(error.value)


def served(answers: list[bytes], work: Callable[[int, Rules], Awaitable[Any]]) -> tuple[Any, list[str]]:
    """What work gives with a server on this machine that answers in turn, and the requests as they came."""

    async def main() -> tuple[Any, list[str]]:
        came: list[str] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head)
            came.append(head + (await reader.readexactly(int(length[1])) if length else b"").decode())
            writer.write(answers.pop(0) if len(answers) > 1 else answers[0])
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await work(port, Rules((ipaddress.ip_network("127.0.0.0/8"),), ports=frozenset((port,)))), came

    return asyncio.run(main())


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = {"content-length": str(len(body)), "connection": "close"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    return (
        f"HTTP/1.1 {status}\r\n{''.join(f'{k}: {v}' + chr(13) + chr(10) for k, v in lines.items())}\r\n".encode() + body
    )
