"""The HTTP client of a remote agent over A2A, whose responses are bounded before the SDK decodes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from firsthand.errors import ModelError
from firsthand.system.json_values import values_in
from firsthand.system.line_buffer import ASCII_LIKE, LineBuffer
from firsthand.system.line_separators import escape_separators

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 8 << 20
"""Most bytes of one response, streamed or not."""
MAX_VALUES = 200_000
"""Most JSON values of an event, or of a response that is no stream: about a second, in which nothing else goes on."""
MAX_ANSWER_VALUES = 4_000_000
"""Most JSON values of all responses of an answer, however often its task is looked up."""


def bounded_client(key: str, idle_s: float, url: str) -> httpx.AsyncClient:
    """An HTTP client that follows no redirect, and reads no more than MAX_BYTES of a response."""
    import httpx

    all_values = 0

    class _Bounded(httpx.AsyncByteStream):
        def __init__(self, inner: httpx.AsyncByteStream, is_stream: bool):
            self._inner, self._is_stream = inner, is_stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = values = 0
            buffer = LineBuffer()

            def count(lines: bytes) -> None:
                nonlocal values, all_values
                if b"\0" in lines:  # UTF-16, of which other bytes would be counted than are decoded
                    raise ModelError(f"a2a:{url} sent text that is not in UTF-8, so it is not read")
                for line in lines.splitlines():
                    # a blank line ends an event; of strings, no comma counts
                    of_line = values_in(line, MAX_ANSWER_VALUES, few=0)
                    values, all_values = (values + of_line if line or not self._is_stream else 0), all_values + of_line
                    if all_values > MAX_ANSWER_VALUES:
                        raise ModelError(
                            f"a2a:{url} sent more than {MAX_ANSWER_VALUES:,} JSON values in the replies to one question"
                        )
                    if values > MAX_VALUES:
                        raise ModelError(
                            f"a2a:{url} sent more than {MAX_VALUES:,} JSON values at once, so they are not read"
                        )

            async for piece in self._inner:
                size += len(piece)
                if size > MAX_BYTES:
                    raise ModelError(
                        f"a2a:{url} sent more than {MAX_BYTES >> 20} MiB in one response, so it is not read"
                    )
                if lines := buffer.add(piece):  # nothing is passed on, and so decoded, before it was counted
                    count(lines)
                    yield escape_separators(lines) if self._is_stream else lines
            if lines := buffer.rest():
                count(lines)
                yield escape_separators(lines) if self._is_stream else lines

        async def aclose(self) -> None:
            await self._inner.aclose()

    class _Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                await response.aclose()  # 8 MiB of gzip may be 8 GiB
                raise ModelError(f"a2a:{url} sent a compressed response, which was not asked for")
            if (response.charset_encoding or "utf-8").lower() not in ASCII_LIKE:
                await response.aclose()
                raise ModelError(f"a2a:{url} sent text that is not in UTF-8, so it is not read")
            is_stream = "event-stream" in response.headers.get("content-type", "")
            response.stream = _Bounded(response.stream, is_stream)
            return response

    headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.AsyncClient(
        transport=_Transport(), headers=headers, timeout=httpx.Timeout(idle_s, connect=10.0), follow_redirects=False
    )
