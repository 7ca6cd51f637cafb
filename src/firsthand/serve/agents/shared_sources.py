"""The shared tool sources of an agent that is served: opened by the first attempt, and closed when the server ends.

Attempts of a server overlap, and begin when clients ask; a source that was declared shared is open once for all of them.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from firsthand.agent import Agent
from firsthand.loop.open_sources import SourceKeeper
from firsthand.tool_source import ToolSource, is_shared


class SharedSources:
    """Keeps the shared sources of an agent open from the first attempt until `close`."""

    def __init__(self, agent: Agent):
        self._keeper = SourceKeeper([source for source in agent.sources if is_shared(source)])
        self._context = copy_context()
        """Later questions of a source are asked in this context, not in that of the client who came first."""

    async def opened(self) -> tuple[ToolSource, ...]:
        """The sources, open; raises what their opening raised, and the next attempt tries again."""
        keeper = self._keeper
        if not keeper.sources:
            return ()
        try:
            await asyncio.create_task(keeper.open(), context=self._context)
        except Exception:
            if self._keeper is keeper:
                self._keeper = SourceKeeper(keeper.sources)
            raise
        return keeper.sources

    async def close(self) -> None:
        """Close what was opened."""
        await self._keeper.close()
