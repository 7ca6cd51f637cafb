"""Shares slots between owners: who has fewest goes first, nobody takes all, and none keeps one long while others wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition

from firsthand.errors import TransientError

MAX_WAITING = 32
QUICK_S = 3.0
"""Seconds after which the holder of a slot is ended if another waits."""
_MAX_WAITING_EACH = 16
_LOOK_S = 0.1


@dataclass(eq=False)
class HeldSlot:
    """A slot that is held or waited for."""

    owner: str
    began: float = 0.0
    end: Callable[[], None] | None = None
    """Ends what holds the slot; set it once there is something to end."""
    is_ended: bool = field(default=False, init=False)


class CompileSlots:
    """A number of slots, of which one owner holds all but one at most. Thread-safe."""

    def __init__(self, count: int, *, quick_s: float = QUICK_S):
        self._count, self._quick_s = count, quick_s
        self._most = max(count - 1, 1)
        self._running: list[HeldSlot] = []
        self._waiting: list[HeldSlot] = []
        self._changed = Condition()

    @contextmanager
    def taken(self, owner: str, what: str, most_s: float) -> Iterator[HeldSlot]:
        """Hold a slot. TransientError if none comes free in time, or too many wait; `what` begins the message."""
        slot = HeldSlot(owner)
        with self._changed:
            if len(self._waiting) >= MAX_WAITING or self._num(self._waiting, owner) >= _MAX_WAITING_EACH:
                raise TransientError(f"{what} was not compiled, because {len(self._waiting)} others wait: try again")
            self._waiting.append(slot)
            try:
                self._wait(slot, what, most_s)
                slot.began = time.monotonic()
                self._running.append(slot)
            finally:
                self._waiting.remove(slot)
        try:
            yield slot
        finally:
            with self._changed:
                self._running.remove(slot)
                self._changed.notify_all()

    def _wait(self, slot: HeldSlot, what: str, most_s: float) -> None:
        ends = time.monotonic() + most_s
        while self._next() is not slot:
            if time.monotonic() >= ends:
                raise TransientError(f"{what} waited {most_s:g} s for others that are being compiled: try again")
            self._end_slow(slot.owner)
            self._changed.wait(min(_LOOK_S, max(ends - time.monotonic(), 0)))

    def _next(self) -> HeldSlot | None:
        """Returns the waiting one that may go; None if no slot is free for any."""
        if len(self._running) >= self._count:
            return None
        ready = [slot for slot in self._waiting if self._num(self._running, slot.owner) < self._most]
        return min(ready, key=lambda slot: self._num(self._running, slot.owner), default=None)

    def _end_slow(self, owner: str) -> None:
        """End what has held a slot for long, if that lets the owner go on."""
        is_full = self._num(self._running, owner) >= self._most
        before = time.monotonic() - self._quick_s
        for slot in self._running:
            if slot.began < before and slot.end is not None and (not is_full or slot.owner == owner):
                if not slot.is_ended:
                    slot.is_ended = True
                    slot.end()
                return

    @staticmethod
    def _num(slots: list[HeldSlot], owner: str) -> int:
        return sum(slot.owner == owner for slot in slots)
