"""The owner of model requests made by the running code, so that a local engine shares its steps, and checks of remote
answers their processes, fairly.

A run sets its id, and within it each attempt its agent's name; a server enters the client of a request. A Model shared by
several attempts reads it. It decides scheduling and never an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_CHARS = 256
"""Longest owner name; the end of a longer one is replaced by a hash."""
_owner: ContextVar[str] = ContextVar("firsthand_request_owner", default="")


def current() -> str:
    """Returns the owner of requests made by the running code; empty if none was set."""
    return _owner.get()


def enter(name: str) -> None:
    """Make `name` the owner for the running task and the tasks it starts."""
    _owner.set(_bounded(name))


@contextmanager
def set_owner(name: str) -> Iterator[None]:
    """Set the owner to `name`, below the current owner, inside the context and in tasks started there."""
    token = _owner.set(_bounded(f"{current()}/{name}" if current() else name))
    try:
        yield
    finally:
        _owner.reset(token)


def _bounded(name: str) -> str:
    if len(name) <= MAX_CHARS:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{name[: MAX_CHARS - len(digest) - 1]}~{digest}"
