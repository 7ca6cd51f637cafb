"""A socket whose reads end at a bound of time and of bytes, for the replies to statements of an agent.

A driver that waits for a whole reply, row by row or a row of any size, waits and holds no longer than is allowed here.
"""

from __future__ import annotations

import socket
import time
from typing import Any


class BoundedSocket(socket.socket):
    """A Unix socket to read from after `allow`; a read beyond it is an OSError, and `reached` says in words which bound."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.allow(0.0, 0)

    def allow(self, limit_s: float, max_bytes: int) -> None:
        """Begin anew: from now on, so many seconds and bytes."""
        self._limit_s, self._max_bytes, self.reached = limit_s, max_bytes, ""
        self._ends_s, self._left_bytes = time.monotonic() + limit_s, max_bytes
        self.settimeout(limit_s)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As of a socket; TimeoutError or OSError at a bound."""
        left_s = self._ends_s - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            self.settimeout(left_s)
            count = super().recv_into(buffer, nbytes, flags)
        except TimeoutError:
            self.reached = f"there was no whole reply within {self._limit_s:g} s: ask for less"
            raise TimeoutError(self.reached) from None
        self._left_bytes -= count
        if self._left_bytes < 0:
            self.reached = f"the reply has more than {self._max_bytes:,} bytes: ask for less"
            raise OSError(self.reached)
        return count
