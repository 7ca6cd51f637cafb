"""What the far side of a wire has to say until it is asked: the one protocol of a run's workers and a server's replicas."""

from __future__ import annotations

import asyncio

from firsthand.message import Json

PATIENCE_S = 1.0
"""How long one that has nothing to say lets the other side wait: it may have news, or want a sign of life."""


class Outbox:
    """Messages in the order they were said, all from one event loop."""

    def __init__(self) -> None:
        self._messages: list[Json] = []
        self._to_say = asyncio.Event()

    def say(self, message: Json) -> None:
        """Put a message in; whoever waits for one gets it at once."""
        self._messages.append(message)
        self._to_say.set()

    async def said(self, patience_s: float = PATIENCE_S) -> list[Json]:
        """What has come up since it was asked last, waiting a little for the first of it; empty if nothing has."""
        try:
            async with asyncio.timeout(patience_s):
                await self._to_say.wait()
        except TimeoutError:
            return []
        said, self._messages = self._messages, []
        self._to_say.clear()
        return said
