"""Opens tool sources and closes them again, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from firsthand.loop.max_wait import awaited, max_wait_s
from firsthand.tool_source import ToolSource


@asynccontextmanager
async def opened(sources: Sequence[ToolSource]) -> AsyncIterator[None]:
    """Opens the sources in order and closes them in reverse order. The first error is raised, after all are closed.

    WorldFailed for one that takes longer than its `max_wait_s` to open or close.
    """
    if not sources:
        yield
        return
    first, *rest = sources
    bound_s = max_wait_s(first)
    try:
        await awaited(bound_s, first.open(), first, "open")
        async with opened(rest):
            yield
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            await awaited(bound_s, first.close(), first, "close")
        raise
    await awaited(bound_s, first.close(), first, "close")


async def reopen(sources: Iterable[ToolSource]) -> None:
    """Have sources that are kept open for several attempts open anew what they lost; raises the first error."""
    for source in sources:
        if callable(again := getattr(source, "reopen", None)):
            await awaited(max_wait_s(source), again(), source, "reopen")


class SourceKeeper:
    """Keeps shared sources open in a task of its own, so that whoever comes first may open them and anybody close them."""

    def __init__(self, sources: Sequence[ToolSource]):
        self.sources = tuple(sources)
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._is_open = False

    async def open(self) -> None:
        """Open the sources, or wait until they are open; raises what their opening raised."""
        if not self.sources:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._keep())
        await self._ready.wait()
        if not self._is_open:
            await self._task

    async def close(self) -> None:
        """Close the sources, or break their opening off; raises what their closing raised."""
        if self._task is None:
            return
        self._stop.set()
        if not self._ready.is_set():
            self._task.cancel()
        await asyncio.wait({self._task})
        if self._is_open:
            self._task.result()

    async def _keep(self) -> None:
        try:
            async with opened(self.sources):
                self._is_open = True
                self._ready.set()
                await self._stop.wait()
        finally:
            self._ready.set()
