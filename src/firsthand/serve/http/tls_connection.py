"""TLS for the server's connections, which are counted and have a deadline before their handshake.

asyncio's own listening with TLS tells nobody of a connection until its handshake is done, and takes 256 KiB for each:
clients that connect and say nothing would be counted by nobody, and fill the memory.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.utils import get_remote_addr

from firsthand.serve.http.bounded_protocol import BoundedProtocol

HANDSHAKE_S = 10.0
"""From the connection to the end of its handshake."""
READ_BYTES = 32 << 10
"""The buffer of a connection: the longest record of TLS has some 16 KiB."""
MOST_STRANGERS = 2048
"""Connections whose clients have not shown who they are: each takes some 130 kB, the most of it in OpenSSL."""


class TlsConnection(asyncio.Protocol):
    """An accepted connection that stands in its server's room while it shakes hands, and speaks HTTP afterwards."""

    def __init__(self, http: BoundedProtocol, context: ssl.SSLContext):
        self._http, self._context = http, context
        self._socket: Any = None
        self._address = ""

    def connection_made(self, transport: Any) -> None:
        """A client has connected: it counts. TLS begins a moment later, unless a crowd has taken its place by then."""
        self._socket = transport
        transport.pause_reading()
        client = get_remote_addr(transport)
        self._address = client[0] if client else ""
        self._open_connections.add(self)
        if self._http.room is not None:
            self._http.room.opened(self._http, self._address, transport.abort)
        self._http.loop.call_soon(self._begin)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, with its handshake done or not."""
        self._open_connections.discard(self)
        if self._http.room is not None:
            self._http.room.closed(self._http, self._address)

    def shutdown(self) -> None:
        """The server stops: one that has asked for nothing yet is closed. HTTP sees to the others."""
        spoken: Any = self._http.transport  # None until the handshake is done
        if spoken is None:
            self._socket.abort()

    def _begin(self) -> None:
        if self._socket.is_closing():
            return
        tls = _Tls(self._http, self._context, self.connection_lost)
        self._socket.set_protocol(tls)
        tls.connection_made(self._socket)
        self._socket.resume_reading()

    @property
    def _open_connections(self) -> set[Any]:
        """Returns the connections that uvicorn shuts down and awaits when it stops."""
        return self._http.connections


class _Tls(SSLProtocol):
    """asyncio's TLS with a small buffer, and a deadline for the handshake."""

    max_size = READ_BYTES

    def __init__(self, http: BoundedProtocol, context: ssl.SSLContext, lost: Callable[[BaseException | None], None]):
        super().__init__(http.loop, http, context, None, server_side=True, ssl_handshake_timeout=HANDSHAKE_S)  # type: ignore[arg-type]
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost(exc)
        super().connection_lost(exc)


def over_tls(protocol: type[BoundedProtocol], context: ssl.SSLContext) -> Callable[..., asyncio.BaseProtocol]:
    """Returns a factory of the protocol for an accepted connection, for uvicorn."""
    return lambda **given: TlsConnection(protocol(**given), context)
