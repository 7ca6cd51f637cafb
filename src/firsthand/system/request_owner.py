"""The request owner: a context variable by which a local model shares its steps fairly between owners.

A Run enters its id, and each of its attempts its agent's name. A Model with concurrent requests reads it. It affects waiting
time only, never an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_CHARS = 256
"""The longest name an engine accepts; the end of a longer one is replaced by a hash."""
_asker: ContextVar[str] = ContextVar("firsthand_asker", default="")


def current() -> str:
    """The owner of requests made by the running code; empty if none was entered."""
    return _asker.get()


@contextmanager
def asking(name: str) -> Iterator[None]:
    """Make `name`, below the current owner, the owner of requests made inside, and in tasks started there."""
    token = _asker.set(_bounded(f"{current()}/{name}" if current() else name))
    try:
        yield
    finally:
        _asker.reset(token)


def _bounded(name: str) -> str:
    if len(name) <= MAX_CHARS:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{name[: MAX_CHARS - len(digest) - 1]}~{digest}"
