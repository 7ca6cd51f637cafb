"""Runs an McpServer over standard input and output, or as an app of an HTTP server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Receive, Scope, Send

from firsthand.serve.admission.active_request import request_of
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.mcp.mcp_server import McpServer
from firsthand.system.json_values import values_in

PREFIX = "/mcp"
LOCAL = ("127.0.0.1", "localhost", "::1")
MAX_VALUES = 100_000
"""The most values of one request."""
MAX_SESSIONS = 4_000
"""The most sessions that are open at a time; one that nobody uses ends after half an hour."""
MAX_OWN_SESSIONS = 500
"""The most of them that one client has."""
MAX_OPENING_BYTES = 65_536
MAX_OPENING_VALUES = 2_000
"""Bounds of the request that opens a session, whose capabilities are kept as long as it is open."""


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
    """The server as an app under /mcp. On a loopback host only requests that name it are taken (DNS rebinding).

    The sessions of 2025-11-25 and before belong to the client that opened them, who has so many at a time.
    """
    logging.getLogger("mcp").setLevel(logging.ERROR)
    made.server.streamable_http_app(host=host if host in LOCAL else "0.0.0.0", max_sessions=MAX_SESSIONS)
    manager = made.server.session_manager
    endpoint = StreamableHTTPASGIApp(manager)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope)
        client = request.client.name
        if _opens_session(scope):
            if (
                len(request.body) > MAX_OPENING_BYTES
                or values_in(request.body, MAX_OPENING_VALUES) > MAX_OPENING_VALUES
            ):
                raise Refusal(413, "the request that opens a session is kept with it: send less in it")
            owners = manager._session_owners.values()  # the SDK tells of a session's end nowhere else
            if sum(owner["client_id"] == client for owner in owners) >= MAX_OWN_SESSIONS:
                raise Refusal(429, f"{MAX_OWN_SESSIONS} sessions of yours are open: end one with DELETE, or wait")
        user = AuthenticatedUser(AccessToken(token="", client_id=client, scopes=[]))
        await endpoint({**scope, "user": user}, receive, send)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with manager.run():
            try:
                made.resume()
                yield
            finally:
                await made.close()

    return MountedApp(
        app,
        PREFIX,
        work_methods=frozenset({"POST"}),
        free_requests=frozenset({f"GET {PREFIX}"}),  # the stream that a session listens to: one for each session
        most_values=MAX_VALUES,
        lifespan=lifespan,
    )


def _opens_session(scope: Scope) -> bool:
    """True for a request by which the SDK opens a session."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    revision = headers.get(b"mcp-protocol-version")
    known = revision is None or revision in HANDSHAKE_PROTOCOL_VERSIONS
    return scope["method"] == "POST" and known and b"mcp-session-id" not in headers
