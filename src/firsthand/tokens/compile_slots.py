"""Shares slots between owners: who has fewest goes first, and nobody takes them all."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from firsthand.errors import TransientError

MAX_WAITING = 32
_MAX_WAITING_EACH = 8


class CompileSlots:
    """A number of slots, of which one owner holds all but one at most. Thread-safe."""

    def __init__(self, count: int):
        self._count = count
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, object]] = []
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, owner: str, what: str, most_s: float) -> Iterator[None]:
        """Hold a slot. TransientError if none comes free in time, or too many wait; `what` begins the message."""
        self._take(owner, what, most_s)
        try:
            yield
        finally:
            with self._changed:
                self._running[owner] -= 1
                self._running += Counter()  # forgets owners without a slot
                self._changed.notify_all()

    def _take(self, owner: str, what: str, most_s: float) -> None:
        ticket = (owner, object())
        with self._changed:
            if len(self._waiting) >= MAX_WAITING or self._num_waiting(owner) >= _MAX_WAITING_EACH:
                raise TransientError(f"{what} was not compiled: {len(self._waiting)} others wait for it; try again")
            self._waiting.append(ticket)
            try:
                ends = time.monotonic() + most_s
                while self._next() is not ticket:
                    if not self._changed.wait(max(ends - time.monotonic(), 0)) and time.monotonic() >= ends:
                        raise TransientError(
                            f"{what} waited {most_s:g} s for {self._running.total()} others that are being compiled: "
                            "try again"
                        )
                self._running[owner] += 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _num_waiting(self, owner: str) -> int:
        return sum(each == owner for each, _ in self._waiting)

    def _next(self) -> tuple[str, object] | None:
        """Returns the waiting one that may go; None if no slot is free for any."""
        if self._running.total() >= self._count:
            return None
        most = max(self._count - 1, 1)
        ready = [ticket for ticket in self._waiting if self._running[ticket[0]] < most]
        return min(ready, key=lambda ticket: self._running[ticket[0]], default=None)
