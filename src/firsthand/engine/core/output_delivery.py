"""Delivers engine outputs from the engine's thread to callers' event loops."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from firsthand.engine.core.outputs import Output

Item = Output | Exception


class OutputQueue:
    """The undelivered outputs of one request: filled from the engine's thread, read in the caller's event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._items: deque[Item] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.request_id: int | None = None

    def put(self, item: Item) -> None:
        """Add an item. Call it in the caller's event loop."""
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> list[Output]:
        """Returns the outputs since the last call, or raises the error that came instead."""
        if not self._items:
            self._reader = self.loop.create_future()
            await self._reader
        outputs: list[Output] = []
        while self._items:
            item = self._items[0]
            if isinstance(item, Exception):
                if outputs:
                    break
                raise item
            outputs.append(item)
            self._items.popleft()
        return outputs


def deliver(items: Sequence[tuple[OutputQueue, Item]]) -> list[OutputQueue]:
    """Put items from another thread into their queues, with one call per event loop, since each call wakes the loop.

    Returns the queues whose event loop is closed.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OutputQueue, Item]]] = {}
    for queue, item in items:
        by_loop.setdefault(queue.loop, []).append((queue, item))
    gone: list[OutputQueue] = []
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, own)
        except RuntimeError:
            gone += dict.fromkeys(queue for queue, _ in own)
    return gone


def _put_all(items: Sequence[tuple[OutputQueue, Item]]) -> None:
    for queue, item in items:
        queue.put(item)
