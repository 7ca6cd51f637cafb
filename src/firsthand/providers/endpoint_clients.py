"""SDK clients for models behind an endpoint: one for each event loop, over connections that bound their replies.

`httpx` and its successor `httpx2` have one interface, and each SDK takes a client of one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from firsthand.errors import ModelError
from firsthand.loop.concurrency import first_error
from firsthand.providers.openai_wire import clip

T = TypeVar("T")
Opener = Callable[[], tuple[Any, Callable[[], Awaitable[None]]]]

opened_replies: ContextVar[list[Any] | None] = ContextVar("opened_replies", default=None)
"""Collects the replies of this task that begin, for one whose SDK does not close them."""
CONNECT_TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 64 << 20


class LoopClients:
    """The clients of one model: connections belong to the event loop they were opened in."""

    def __init__(self, opener: Opener):
        """`opener` returns a new client, and what closes it."""
        self._opener = opener
        self.open: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}

    async def current(self) -> Any:
        """Returns the client for the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self.open:
            for old in [old for old in self.open if old.is_closed()]:
                del self.open[old]
            lifetime = self._lifetime(loop)
            self.open[loop] = await anext(lifetime), lifetime
        return self.open[loop][0]

    async def _lifetime(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        """Yields a client, once. A loop that ends closes its async generators, and so the client's connections."""
        client, close = self._opener()
        try:
            yield client
        finally:
            self.open.pop(loop, None)
            await close()


def bounded_client(
    library: Any,
    *,
    timeout_s: float,
    max_reply_bytes: int,
    follow_redirects: bool,
    unsent_headers: Sequence[str] = (),
    only_origin: str = "",
) -> Any:
    """Returns an AsyncClient of `library` (httpx or httpx2) whose replies are uncompressed and bounded.

    `unsent_headers` are taken from every request, whoever put them there. With `only_origin`, a URL, no request leaves its
    host and port but for https, so that a redirect takes no prompt to a service that only this machine reaches.
    """

    class BoundedReply(library.AsyncByteStream):  # type: ignore[misc]
        """Limits the bytes of a reply."""

        def __init__(self, inner: Any):
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size_bytes = 0
            async for chunk in self._inner:
                size_bytes += len(chunk)
                if size_bytes > max_reply_bytes:
                    raise ModelError(
                        f"it sent more than {max_reply_bytes} bytes: ask for less, or raise max_reply_bytes"
                    )
                yield chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def bound(response: Any) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":  # a small compressed body could expand without limit
            raise ModelError(f"it compressed its reply as {clip(encoding, 40)!r}, unrequested: turn compression off")
        response.stream = BoundedReply(response.stream)
        if (opened := opened_replies.get()) is not None:
            opened.append(response)

    async def strip(request: Any) -> None:
        url, own = request.url, library.URL(only_origin)
        is_own = (url.scheme, url.port) in ((own.scheme, own.port), ("https", None)) and url.host == own.host
        if only_origin and not is_own:
            raise ModelError(f"it redirects to {clip(str(url), 80)!r}: give that address, if you trust it")
        for name in unsent_headers:
            request.headers.pop(name, None)

    return library.AsyncClient(
        timeout=library.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        limits=library.Limits(max_connections=1000, max_keepalive_connections=100),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"request": [strip], "response": [bound]},
        follow_redirects=follow_redirects,
    )


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Returns the results of requests sent together. They are one effect of the attempt, so they open no branches."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [task.result() for task in running]
