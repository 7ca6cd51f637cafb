"""The outbox of a worker or a replica: messages wait in it until the other side takes them."""

from __future__ import annotations

import asyncio

from firsthand.message import Json

PATIENCE_S = 1.0
"""Seconds that `take` waits for a message. Then it returns none, which the other side takes as a sign of life."""


class Outbox:
    """Messages in the order they were put in, all from one event loop."""

    def __init__(self) -> None:
        self._messages: list[Json] = []
        self._has_some = asyncio.Event()

    def put(self, message: Json) -> None:
        """Add a message; whoever waits in `take` gets it at once."""
        self._messages.append(message)
        self._has_some.set()

    async def take(self, patience_s: float = PATIENCE_S) -> list[Json]:
        """The messages since the last call, after a short wait for the first of them; empty if none came."""
        try:
            async with asyncio.timeout(patience_s):
                await self._has_some.wait()
        except TimeoutError:
            return []
        messages, self._messages = self._messages, []
        self._has_some.clear()
        return messages
