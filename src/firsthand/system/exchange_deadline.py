"""A deadline for what a synchronous httpx client reads and writes: connecting, informational heads, the head and the body.

httpx's own timeouts begin anew with each read, so a server that sends a byte, or `102 Processing`, in time keeps a client
for ever. The look-up of a name is the system's, and has the system's time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from firsthand.errors import DataError

_deadline: ContextVar[tuple[float, float] | None] = ContextVar("firsthand_exchange_deadline", default=None)
"""The time by which the exchange of this thread has to end, and the seconds to name in the error."""


@contextmanager
def exchange_deadline(client: Any, url: Any, within_s: float, *, told_s: float | None = None) -> Iterator[None]:
    """What `client` reads from `url` in this block has to come in time; DataError, which tells `told_s`, if it does not."""
    pool: Any = getattr(client._transport_for_url(url), "_pool", None)  # None: a transport that opens no connection
    backend = getattr(pool, "_network_backend", None)
    if backend is not None and not isinstance(backend, _Backend):
        pool._network_backend = _Backend(backend)
    until, told_s = time.monotonic() + within_s, within_s if told_s is None else told_s
    token = _deadline.set((until, told_s))
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if time.monotonic() >= until and "Timeout" in type(error).__name__:
            raise _late(told_s) from None
        raise
    finally:
        _deadline.reset(token)


def _left(timeout: float | None) -> float | None:
    """The seconds that one read or write may take; DataError if there are none left."""
    now, given = time.monotonic(), _deadline.get()
    if given is None:
        return timeout
    until, told_s = given
    if now >= until:
        raise _late(told_s)
    return until - now if timeout is None else min(timeout, until - now)


def _late(told_s: float) -> DataError:
    return DataError(f"its reply takes longer than {told_s:g} s")


class _Backend:
    """A network backend of httpcore whose streams keep to the deadline."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **more: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(host, port, timeout=_left(timeout), **more))


class _Stream:
    """A connection that keeps to the deadline."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return bytes(self._inner.read(max_bytes, timeout=_left(timeout)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=_left(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))
