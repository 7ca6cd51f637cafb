"""Streams of A2A as every reader can read them: no line ends inside JSON, and a comment wherever nothing else is sent.

The SDK's client gives up after 5 s of silence unless it is told otherwise, and a model or a tool may work for longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Send

from firsthand.system.line_separators import escape_separators

PING_S = 2.0
"""Seconds of silence after which a stream sends a comment, which readers of server-sent events pass over."""
_PING = b": ping\r\n\r\n"


@asynccontextmanager
async def readable_events(send: Send, ping_s: float = PING_S) -> AsyncIterator[Send]:
    """A `send` for an app inside the block: an event stream is escaped and kept alive, and other responses are as they are.

    The app sends whole events.
    """
    stream = _EventStream(send, ping_s)
    try:
        yield stream.send
    finally:
        await stream.close()


class _EventStream:
    """The response of an app, if it is an event stream: what it sends, and the comments in between."""

    def __init__(self, send: Send, ping_s: float):
        self._send, self._ping_s = send, ping_s
        self._sending = asyncio.Lock()
        self._num_sent = 0
        self._pinging: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Send a message of the app."""
        async with self._sending:
            if self._pinging is not None and message["type"] == "http.response.body":
                message = {**message, "body": escape_separators(message.get("body", b""))}
                if not message.get("more_body", False):
                    self._pinging.cancel()
            self._num_sent += 1
            await self._send(message)
            if message["type"] == "http.response.start" and _is_event_stream(message):
                self._pinging = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        """Send a comment whenever the app has sent nothing for a while."""
        while True:
            before = self._num_sent
            await asyncio.sleep(self._ping_s)
            if self._num_sent == before:
                async with self._sending:
                    await self._send({"type": "http.response.body", "body": _PING, "more_body": True})

    async def close(self) -> None:
        """Send no more comments."""
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)


def _is_event_stream(start: Message) -> bool:
    headers = dict(start.get("headers", ()))
    return bytes(headers.get(b"content-type", b"")).startswith(b"text/event-stream")
