"""For whom the running code asks models: a model that runs here shares its steps fairly between those who ask.

Whoever makes attempts enters a name: a Run its id, and within it each attempt its agent's name. A Model that is asked by
several at once reads it. It decides who waits, and no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from firsthand._moved import old_names

MAX_CHARS = 256
"""An engine takes names of that length; of a longer one the end is replaced by a hash."""
_asker: ContextVar[str] = ContextVar("firsthand_asker", default="")


def current() -> str:
    """For whom the running code asks; empty if nobody said so."""
    return _asker.get()


@contextmanager
def set_owner(name: str) -> Iterator[None]:
    """Inside it, and in the tasks that are started there, models are asked for `name`, a part of whoever asks outside."""
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


__getattr__ = old_names(__name__, {"asking": "set_owner"})
