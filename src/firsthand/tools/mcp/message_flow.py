"""Bounds what a server's messages cost before they are decoded: the values of one, and what comes unasked.

A message of 8 MB that is `{},` again and again takes two seconds, in which no other attempt goes on, and 800 MB.
Notifications and requests of the server, each of which is a task of ours, are paid from an allowance that grows with time
and is full again with each request that we send.
"""

from __future__ import annotations

import time

from firsthand.system.json_values import values_in

MAX_VALUES = 200_000
"""The most values of one message: 0.1 s, and 60 MB as objects."""
ALLOWANCE = 20_000.0
"""The most that may come unasked at once. A message costs 1, and 1 more for each 1,000 bytes and each 20 values."""
GROWTH = 500.0
"""The part of the allowance that comes back in a second."""
TOO_DENSE = f"sent a message of more than {MAX_VALUES:,} values, which is the limit"
TOO_OFTEN = "sends more notifications and requests than are taken"


class MessageFlow:
    """The allowance of one connection."""

    def __init__(self) -> None:
        self._left = ALLOWANCE
        self._at = time.monotonic()

    def refill(self) -> None:
        """A request of ours is sent: the server may speak again."""
        self._left = ALLOWANCE

    def charge(self, raw: bytes) -> bool:
        """Pay for a message; False if the allowance is used up."""
        now = time.monotonic()
        self._left = min(ALLOWANCE, self._left + GROWTH * (now - self._at))
        self._at = now
        self._left -= 1 + len(raw) / 1_000 + values_in(raw, MAX_VALUES) / 20
        return self._left >= 0
