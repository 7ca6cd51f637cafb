"""HTTP/1.1 for uvicorn with bounds: on a head's size and time, on the chunks and the time of a body, and on connections."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from firsthand.serve.http.connection_room import ConnectionRoom
from firsthand.system.recognised import RECOGNISED

HEADER_BYTES = 32 << 10
"""Most bytes of a request's first line and headers, with the blank line after them."""
FREE_CHUNKS = 256
CHUNK_BYTES = 64
"""A chunked body may have FREE_CHUNKS chunks, and one more for each CHUNK_BYTES of it."""
UNREAD_BYTES = 16 << 20
"""A body that goes on after its answer is read so far, so that the client gets the answer; then the connection is closed."""


class BoundedConnection(h11.Connection):
    """h11's parser with bounds of its own.

    h11 bounds only heads that have not arrived whole: a long one may come in a single packet. And it takes some 90 us for
    each chunk of a body, however small: the 43,000 chunks of one byte in a read of 256 KiB would stop the server for 4 s.
    """

    _num_chunks = 0
    _num_bytes = 0
    _is_chunked = False

    def next_event(self) -> Any:
        """Returns the next event; RemoteProtocolError for a head of more than HEADER_BYTES, for a body with two lengths or
        of tiny chunks, and for one that goes on long after its request was answered."""
        before = len(self.trailing_data[0]) if self.their_state is h11.IDLE else 0
        event = super().next_event()
        if isinstance(event, h11.Request):
            if before - len(self.trailing_data[0]) > HEADER_BYTES:
                raise h11.RemoteProtocolError("the head is too long")
            self._num_chunks = self._num_bytes = 0
            names = {name for name, _ in event.headers}
            self._is_chunked = b"transfer-encoding" in names
            if self._is_chunked and b"content-length" in names:  # RFC 9112, 6.1: a proxy may have read it the other way
                raise h11.RemoteProtocolError("the body has two lengths")
        elif isinstance(event, h11.Data):
            self._num_chunks += 1
            self._num_bytes += len(event.data)
            if self._is_chunked and self._num_chunks > FREE_CHUNKS + self._num_bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("the chunks are too small")
            if self.our_state is h11.DONE and self._num_bytes > UNREAD_BYTES:
                raise h11.RemoteProtocolError("the body of an answered request does not end")
        return event


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 on a BoundedConnection; a client that takes too long for its head, or for its body, is hung up on.

    An app calls `recognise` on the scope of a request whose client has shown who it is; see `connection_room.py`.
    """

    head_within_s = 30.0
    """For a head, and again for the body of its request."""
    answered_within_s = 5.0
    """For the rest of a body whose request was answered. A late body has as much more: the app answers 408."""
    room: ConnectionRoom | None = None
    _deadline: asyncio.TimerHandle | None = None
    _owes_body = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = BoundedConnection(h11.SERVER, HEADER_BYTES)

    def connection_made(self, transport: Any) -> None:
        """A client has connected: its head has to come in time."""
        super().connection_made(transport)
        # `flow.drain` then waits until the client has taken what was sent. Not 0: asyncio's TLS would wait for ever.
        transport.set_write_buffer_limits(high=1)
        self._set_deadline(self.head_within_s)
        if self.room is not None:
            self.room.opened(self, self._address, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end_deadline()
        if self.room is not None:
            self.room.closed(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; the first of a later request set its own deadline."""
        if self.conn.their_state is h11.IDLE and self._deadline is None:  # a later request on this connection
            self._set_deadline(self.head_within_s)
        super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come, and note whether the rest of a body is owed."""
        super().handle_events()
        scope: Any = self.scope  # None until the first request
        if scope is not None and self.room is not None:
            scope.setdefault("extensions", {})[RECOGNISED] = self._recognised
        owes_body = self.conn.their_state is h11.SEND_BODY
        if owes_body and not self._owes_body:
            self._set_deadline(self.head_within_s + self.answered_within_s)
        elif not owes_body and (self._owes_body or self.conn.their_state is not h11.IDLE):
            self._end_deadline()
        self._owes_body = owes_body

    def on_response_complete(self) -> None:
        """A request was answered: if its body has not come, the rest of it has to come soon."""
        super().on_response_complete()
        if self._owes_body and self.conn.our_state is h11.DONE:
            self._set_deadline(min(self.answered_within_s, self.head_within_s))

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _recognised(self) -> None:
        if self.room is not None:
            self.room.recognised(self, self._address)

    def _set_deadline(self, within_s: float) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(within_s, self._late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        if self._owes_body and self.flow.read_paused and self.conn.our_state is not h11.DONE:
            self._set_deadline(self.head_within_s)  # it waits for the app, and not for the client
        elif self._owes_body or self.conn.their_state is h11.IDLE:
            self.transport.abort()
