"""Keeps the replies of a call's requests that ended well while another one failed, so that a retry sends only that one.

An endpoint that gives one answer a request is sent several for one call. Each reply is used once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from firsthand.model import Usage


class KeptReplies:
    """The paid replies that no try of a call has used yet."""

    def __init__(self) -> None:
        self._kept: list[tuple[object, Any, Usage]] = []

    @property
    def usage(self) -> Usage:
        """The usage of the replies that are still kept."""
        return sum((usage for _, _, usage in self._kept), Usage())

    def keep(self, request: object, reply: Any, usage: Usage) -> None:
        """Keep the reply to a request, for one that equals it."""
        self._kept.append((request, reply, usage))

    def take(self, request: object) -> tuple[Any] | None:
        """Returns a reply to such a request, alone in a tuple, and forgets it; None if there is none."""
        for index, (answered, reply, _) in enumerate(self._kept):
            if answered == request:
                del self._kept[index]
                return (reply,)
        return None


_current: ContextVar[KeptReplies | None] = ContextVar("firsthand_kept_replies", default=None)


def current() -> KeptReplies | None:
    """The replies kept for the call that is being made; None outside of one that is retried."""
    return _current.get()


@contextmanager
def kept_replies() -> Iterator[KeptReplies]:
    """Shares kept replies between the tries of one call, which are made within this context."""
    kept = KeptReplies()
    before = _current.set(kept)
    try:
        yield kept
    finally:
        _current.reset(before)
