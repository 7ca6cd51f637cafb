"""An HTTP client for one MCP endpoint: the endpoint itself and public addresses may be reached, and nothing else.

The user named the endpoint, so it may be on this machine. Where a server sends the client on to (redirects, the metadata and
the authorization server of OAuth) is the server's choice, and passes the address rules of `tools/web/addresses.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from firsthand.errors import ToolError
from firsthand.system.json_values import values_in
from firsthand.system.line_buffer import ASCII_LIKE, LineBuffer
from firsthand.tools.mcp.failed_responses import McpHttpClient
from firsthand.tools.mcp.message_flow import MAX_VALUES, TOO_DENSE, TOO_OFTEN, MessageFlow
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.unpaired_surrogates import without_halves
from firsthand.tools.web.addresses import Resolver, checked_addresses, parse_rules, read_host, resolve

MAX_BODY = 16_000_000
"""The most bytes of one JSON response."""
_TOO_LARGE = f"the response has more than {MAX_BODY:,} bytes, which is the limit"


class EndpointBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to the endpoint, and to addresses that the rules let pass, each checked in the same step."""

    def __init__(self, declaration: ServerDeclaration, resolver: Resolver = resolve):
        parts = urlsplit(declaration.url)
        self._endpoint = (str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80))
        self._rules = parse_rules(declaration.allow, "80+443")
        self._resolver = resolver
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the host."""
        if (host.strip("[]").lower(), port) == (self._endpoint[0].lower(), self._endpoint[1]):
            return await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        rules = self._rules
        if self._is_allowed(host):  # what is allowed by name or address is allowed on every port
            rules = replace(rules, ports=rules.ports | {port})
        failure: Exception | None = None
        for address in (await checked_addresses(host, port, rules, self._resolver))[:4]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    def _is_allowed(self, host: str) -> bool:
        read = read_host(host)
        if isinstance(read, str):
            return read in self._rules.hosts
        return any(read in each for each in self._rules.networks)

    async def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        """Always a ToolError."""
        raise ToolError("a socket file may not be reached")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Sends requests over an `EndpointBackend`; bodies beyond what a message may hold end with an error."""

    def __init__(self, declaration: ServerDeclaration, resolver: Resolver = resolve):
        super().__init__(trust_env=False)
        self._listening = MessageFlow()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            network_backend=EndpointBackend(declaration, resolver),
            max_connections=64,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its body counted while it is read."""
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            await response.aclose()  # 16 MB of gzip may be 16 GB
            raise httpx2.ReadError("the response is compressed, which was not asked for")
        if "text/event-stream" in response.headers.get("content-type", ""):
            if (charset := (response.charset_encoding or "utf-8").lower()) not in ASCII_LIKE:
                await response.aclose()  # the SDK would decode other bytes than those that are counted
                raise httpx2.ReadError(f"the events are in {charset[:40]!r}: UTF-8 was expected")
            # the answers to a request have an allowance of their own; a stream that only listens is opened again and again
            flow = self._listening if request.method == "GET" else MessageFlow()
            response.stream = _Events(response.stream, flow)
        else:
            response.stream = _Counted(response.stream)
        return response


class _Events(httpx2.AsyncByteStream):
    """A stream of events, which is passed on by lines that were counted against an allowance; what the SDK decodes as one
    event is counted as one. The SDK limits its bytes.
    """

    def __init__(self, inner: httpx2.AsyncByteStream, flow: MessageFlow):
        self._inner = inner
        self._flow = flow
        self._values = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        buffer = LineBuffer()
        async for piece in self._inner:
            if lines := buffer.add(piece):
                self._count(lines)
                yield without_halves(lines)
            if len(buffer) > MAX_BODY:
                raise httpx2.ReadError(_TOO_LARGE)
        if lines := buffer.rest():
            self._count(lines)
            yield without_halves(lines)

    def _count(self, lines: bytes) -> None:
        for line in lines.splitlines():
            self._values = (
                self._values + values_in(line, MAX_VALUES, few=0) if line else 0
            )  # a blank line ends an event
            if self._values > MAX_VALUES:
                raise httpx2.ReadError(TOO_DENSE)
            if not self._flow.charge(line):
                raise httpx2.ReadError(TOO_OFTEN)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    """A JSON body, which is passed on once its size and the number of its values are known."""

    def __init__(self, inner: httpx2.AsyncByteStream):
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        kept = bytearray()
        async for piece in self._inner:
            kept += piece
            if len(kept) > MAX_BODY:
                raise httpx2.ReadError(_TOO_LARGE)
        if values_in(bytes(kept), MAX_VALUES) > MAX_VALUES:
            raise httpx2.ReadError(TOO_DENSE)
        yield without_halves(bytes(kept))

    async def aclose(self) -> None:
        await self._inner.aclose()


def http_client(declaration: ServerDeclaration, auth: httpx2.Auth | None = None) -> McpHttpClient:
    """The client of a declared endpoint; it reads no proxy and no password from the environment."""
    return McpHttpClient(
        transport=BoundedTransport(declaration),
        headers={"Accept-Encoding": "identity", **dict(declaration.headers)},
        auth=auth,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(declaration.opening_s, read=max(declaration.opening_s, declaration.timeout_s)),
    )
