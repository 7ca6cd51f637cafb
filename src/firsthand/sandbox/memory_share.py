"""Bounds the memory of checks that run at once: their limits together are at most the machine's memory.

A check whose limit alone is larger runs when no other does. What other programs take is not counted.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firsthand.errors import SandboxError

POLL_S = 0.1
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


class MemoryShare:
    """Memory that checks take in the order in which they ask, from any thread."""

    def __init__(self, total_bytes: int):
        self.total_bytes = total_bytes
        self.taken_bytes = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size_bytes: int, stopped: Callable[[], bool]) -> Iterator[None]:
        """Wait until the memory is free, and hold it; SandboxError if `stopped` is true before."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(size_bytes):
                    if stopped():
                        raise SandboxError("this sandbox was closed before the code was run")
                    self._changed.wait(POLL_S)
                self.taken_bytes += size_bytes
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.taken_bytes -= size_bytes
                self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        return not self.taken_bytes or self.taken_bytes + size_bytes <= self.total_bytes


def machine_share() -> MemoryShare:
    """The share that all sandboxes of this process use."""
    return _machine_share(os.getpid())  # a forked child does not see the checks of its parent end


@functools.cache
def _machine_share(pid: int) -> MemoryShare:
    return MemoryShare(machine_bytes())


def machine_bytes(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The machine's memory, or what a container that we are in may take of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such version of cgroups, or "max"
            found.append(int((cgroups / name).read_text()))
    return min(found)
