"""Reads replies of HTTP servers that are not trusted: uncompressed, and bounded in bytes, JSON values and time.

httpx unpacks each read whole, and as often as `Content-Encoding` says: 3 kB in `gzip, gzip` are gigabytes before they can be
counted. So nothing is unpacked, and of a redirect no body is read. Every client of ours reads by way of `ask` and its
siblings, or counts with `BodyCount` where an SDK reads. Clients are those of httpx or of httpx2.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from firsthand.errors import DataError
from firsthand.system.exchange_deadline import exchange_deadline
from firsthand.system.json_values import ValueCount

if TYPE_CHECKING:
    import httpx

MAX_VALUES = 200_000
"""JSON values of a reply; those of a page of search results or of a tool call are some thousand."""
_UNUSED_BYTES = 65_536


class Reply(NamedTuple):
    """A reply that was read."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The JSON value of the body; ValueError if it is none in UTF-8."""
        try:
            return json.loads(self.body.decode("utf-8"))
        except RecursionError:
            raise ValueError("it is nested too deep") from None

    @property
    def text(self) -> str:
        """The body as text, for an error."""
        return self.body.decode("utf-8", "replace")


class BodyCount:
    """Counts a body while it comes; DataError for a byte or a JSON value too many."""

    def __init__(self, max_bytes: int, max_values: int = MAX_VALUES):
        self._max_bytes, self._max_values = max_bytes, max_values
        self._bytes = 0
        self._values = ValueCount()

    def add(self, piece: bytes) -> None:
        """Count a piece."""
        self._bytes += len(piece)
        if self._bytes > self._max_bytes:
            raise DataError(f"it sent more than {self._max_bytes} bytes")
        if self._values.add(piece) > self._max_values:
            raise DataError(f"it sent more than {self._max_values:,} JSON values")


def check_uncompressed(headers: Mapping[str, str]) -> None:
    """DataError if a reply is compressed, for which nobody asked: a small one could expand without limit."""
    encoding = headers.get("content-encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        raise DataError(f"it compressed its reply as {encoding[:40]!r}, unrequested: turn compression off")


def ask(
    client: httpx.Client, request: httpx.Request, *, max_bytes: int, max_values: int = MAX_VALUES, within_s: float
) -> Reply:
    """Send a request, follow redirects if the client does, and read the reply; DataError if it is out of bounds.

    The time is that of the whole exchange, with its redirects. Errors of the connection are those of httpx.
    """
    until = time.monotonic() + within_s
    request.headers["Accept-Encoding"] = "identity"
    for _ in range(client.max_redirects + 1):
        with exchange_deadline(client, request.url, until - time.monotonic(), told_s=within_s):
            reply = client.send(request, stream=True, follow_redirects=False)
        try:
            if client.follow_redirects and reply.next_request is not None:
                request = reply.next_request
                continue
            check_uncompressed(reply.headers)
            count, body = BodyCount(max_bytes, max_values), bytearray()
            with exchange_deadline(client, request.url, until - time.monotonic(), told_s=within_s):
                for piece in reply.iter_bytes():
                    count.add(piece)
                    body += piece
                    if time.monotonic() > until:
                        raise DataError(f"its reply takes longer than {within_s:g} s")
            return Reply(reply.status_code, bytes(body))
        finally:
            reply.close()
    raise DataError(f"it redirects more than {client.max_redirects} times")


async def ask_async(
    client: httpx.AsyncClient, request: httpx.Request, *, max_bytes: int, max_values: int = MAX_VALUES, within_s: float
) -> Reply:
    """As `ask`, without redirects."""
    request.headers["Accept-Encoding"] = "identity"
    try:
        async with asyncio.timeout(within_s):
            reply = await client.send(request, stream=True, follow_redirects=False)
            try:
                check_uncompressed(reply.headers)
                count, body = BodyCount(max_bytes, max_values), bytearray()
                async for piece in reply.aiter_bytes():
                    count.add(piece)
                    body += piece
                return Reply(reply.status_code, bytes(body))
            finally:
                await reply.aclose()
    except TimeoutError:
        raise DataError(f"its reply takes longer than {within_s:g} s") from None


def answer_of(client: httpx.Client, request: httpx.Request, *, within_s: float) -> Reply:
    """Send a request, follow no redirect, and return the reply; DataError if its status does not come in time.

    The body is empty if it is packed, longer than 64 KiB, late or cut off: the status counts all the same.
    """
    request.headers["Accept-Encoding"] = "identity"
    with exchange_deadline(client, request.url, within_s):
        reply = client.send(request, stream=True, follow_redirects=False)
    body = bytearray()
    try:
        check_uncompressed(reply.headers)
        with exchange_deadline(client, request.url, within_s):
            for piece in reply.iter_bytes():  # read to its end, so that the connection can be used again
                body += piece
                if len(body) > _UNUSED_BYTES:
                    body.clear()
                    break
    except Exception:  # of the bounds, or of the connection
        body.clear()
    finally:
        reply.close()
    return Reply(reply.status_code, bytes(body))
