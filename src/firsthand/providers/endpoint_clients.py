"""SDK clients for models behind an endpoint: one for each event loop, over connections that bound their replies.

`httpx` and its successor `httpx2` have one interface, and each SDK takes a client of one of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from firsthand.errors import ConfigError, DataError, ModelError, TransientError
from firsthand.loop.concurrency import first_error
from firsthand.loop.kept_replies import current
from firsthand.model import Completion, Usage, add_lost_usage, lost_usage
from firsthand.providers.openai_wire import Unreadable
from firsthand.system.bounded_reply import BodyCount, check_uncompressed

Q = TypeVar("Q")
T = TypeVar("T")
Opener = Callable[[], tuple[Any, Callable[[], Awaitable[None]]]]

opened_replies: ContextVar[list[Any] | None] = ContextVar("opened_replies", default=None)
"""Collects the replies of this task that begin, for one whose SDK does not close them."""
CONNECT_TIMEOUT_S = 10.0
MAX_REPLY_BYTES, MAX_REPLY_VALUES = 64 << 20, 2_000_000
"""Bounds of a reply, or of a whole stream: 100,000 events of 20 values."""
asked_values: ContextVar[int] = ContextVar("asked_values", default=0)
"""JSON values beyond the bound that this task's request asked for: log-probs and token ids."""


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
    max_reply_values: int = MAX_REPLY_VALUES,
    follow_redirects: bool,
    unsent_headers: Sequence[str] = (),
    only_origin: str = "",
) -> Any:
    """Returns an AsyncClient of `library` (httpx or httpx2) whose replies are uncompressed and bounded.

    `unsent_headers` are taken from every request, whoever put them there. With `only_origin`, a URL, no request leaves its
    host and port but for https, so that a redirect takes no prompt to a service that only this machine reaches. ConfigError
    for proxies and certificates of the environment that it cannot use.
    """

    class BoundedReply(library.AsyncByteStream):  # type: ignore[misc]
        """Limits the bytes of a reply and its JSON values, which an SDK decodes before we see them."""

        def __init__(self, inner: Any):
            self._inner = inner
            self._count = BodyCount(max_reply_bytes, max_reply_values + asked_values.get())

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._inner:
                try:
                    self._count.add(chunk)
                except DataError as error:
                    hint = ", or raise max_reply_bytes" if "bytes" in str(error) else " at once"
                    raise ModelError(f"{error}: ask for less{hint}") from None
                yield chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def bound(response: Any) -> None:
        try:
            check_uncompressed(response.headers)
        except DataError:
            kind = response.headers.get("content-encoding", "")
            raise Unreadable("it compressed its reply as '", kind, "', unrequested: turn compression off", 40) from None
        response.encoding = "utf-8"  # in another one the values could not be counted
        response.stream = BoundedReply(response.stream)
        if (opened := opened_replies.get()) is not None:
            opened.append(response)

    async def strip(request: Any) -> None:
        url, own = request.url, library.URL(only_origin)
        is_own = (url.scheme, url.port) in ((own.scheme, own.port), ("https", None)) and url.host == own.host
        if only_origin and not is_own:
            raise Unreadable("it redirects to '", str(url), "': give that address, if you trust it", 80)
        for name in unsent_headers:
            request.headers.pop(name, None)

    try:
        return library.AsyncClient(
            timeout=library.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=library.Limits(max_connections=1000, max_keepalive_connections=100),
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [strip], "response": [bound]},
            follow_redirects=follow_redirects,
        )
    except (ImportError, OSError, ValueError, library.InvalidURL) as error:
        raise ConfigError(_environment_fault(error, library.__name__)) from None


def _environment_fault(error: Exception, library: str) -> str:
    """Name the variable whose proxy or certificates cannot be used, without its value, which may hold a password."""
    if isinstance(error, OSError):
        given = _given(("SSL_CERT_FILE", "SSL_CERT_DIR"))
        return f"the certificates of {given} cannot be read: {error.strerror or error}"
    given = _given([name for kind in ("ALL", "HTTP", "HTTPS") for name in (f"{kind}_PROXY", f"{kind.lower()}_proxy")])
    if isinstance(error, ImportError):
        return f"{given} names a SOCKS proxy, which needs a package: `pip install '{library}[socks]'`, or unset it"
    return f"{given} holds no address of a proxy: give http://HOST:PORT, or unset it"


def _given(names: Iterable[str]) -> str:
    return " or ".join(name for name in names if os.environ.get(name)) or "the environment"


def environment_headers(variable: str) -> list[str]:
    """Returns the names of the headers in such a variable, which an SDK sends everywhere: they may hold another key."""
    lines = os.environ.get(variable, "").split("\n")
    return [name.strip() for name, colon, _ in (line.partition(":") for line in lines) if colon]


async def together(
    ask: Callable[[Q], Coroutine[Any, Any, T]], requests: Sequence[Q], cost: Callable[[T], Usage]
) -> list[T]:
    """Returns the results of requests sent together. They are one effect of the attempt, so they open no branches.

    In a call that is retried, a transient fault of one lets the others end, and the next try sends only those that failed:
    `ask` and the requests must equal those of the try before. Elsewhere the first error has the cost of those that ended.
    """
    kept = current()
    results = [kept.take((ask, request)) if kept is not None else None for request in requests]
    faults: list[TransientError] = []

    async def one(index: int) -> None:
        try:
            results[index] = (await ask(requests[index]),)
        except TransientError as fault:
            faults.append(fault)
            if kept is None:
                raise

    running: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            running += [tasks.create_task(one(index)) for index, result in enumerate(results) if result is None]
        if faults:  # the endpoint is asked again when the last of them may be
            raise max(faults, key=lambda fault: fault.retry_after_s or 0.0)
    except BaseException as error:
        first = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(first, ModelError):
            failures = [task.exception() for task in running if not task.cancelled()]
            others = {id(each): each for each in [*failures, *faults] if each is not None and each is not first}
            add_lost_usage(first, sum(map(lost_usage, others.values()), Usage()))
        ended = [(each, result[0]) for each, result in zip(requests, results, strict=True) if result is not None]
        set_aside(first, ask, ended, cost)
        raise first from None
    return [result[0] for result in results if result is not None]


def set_aside(
    error: BaseException,
    ask: Callable[[Q], Coroutine[Any, Any, T]],
    ended: Sequence[tuple[Q, T]],
    cost: Callable[[T], Usage],
) -> None:
    """Keep the replies of requests that ended beside an error for the next try of the call, or add their cost to it."""
    kept = current()
    for request, result in ended:
        if kept is not None:
            kept.keep((ask, request), result, cost(result))
        elif isinstance(error, ModelError):
            add_lost_usage(error, cost(result))


@contextmanager
def paid(usage: Callable[[], Usage]) -> Iterator[None]:
    """Adds to a ModelError of the block what the endpoint states that the request cost, asked for when it fails."""
    try:
        yield
    except ModelError as error:
        add_lost_usage(error, usage())
        raise


def usage_of(completions: Iterable[Completion]) -> Usage:
    """Returns the usage of answers together."""
    return sum((each.usage for each in completions), Usage())
