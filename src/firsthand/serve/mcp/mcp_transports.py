"""Runs an McpServer over standard input and output, or as an app of an HTTP server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from starlette.types import Receive, Scope, Send

from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.mcp.mcp_server import McpServer

PREFIX = "/mcp"
LOCAL = ("127.0.0.1", "localhost", "::1")


async def serve_stdio(made: McpServer) -> None:
    """Serve one client until it closes our input. What handlers print goes to standard error."""
    logging.getLogger("mcp").setLevel(logging.ERROR)
    try:
        made.resume()
        async with stdio_server() as (read, write):
            await made.server.run(read, write, made.server.create_initialization_options())
    finally:
        await made.close()


def mcp_app(made: McpServer, host: str) -> MountedApp:
    """The server as an app under /mcp. On a loopback host only requests that name it are taken (DNS rebinding)."""
    logging.getLogger("mcp").setLevel(logging.ERROR)
    made.server.streamable_http_app(host=host if host in LOCAL else "0.0.0.0")
    manager = made.server.session_manager
    endpoint = StreamableHTTPASGIApp(manager)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await endpoint(scope, receive, send)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with manager.run():
            try:
                made.resume()
                yield
            finally:
                await made.close()

    return MountedApp(app, PREFIX, limited_methods=frozenset({"POST"}), lifespan=lifespan)
