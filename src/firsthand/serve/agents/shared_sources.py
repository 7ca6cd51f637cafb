"""The shared tool sources of an agent that is served: opened by the first attempt, and closed when the server ends.

Attempts of a server overlap, and begin when clients ask; a source that was declared shared is open once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from firsthand.agent import Agent
from firsthand.loop.open_sources import SourceKeeper, reopen
from firsthand.tool import Tool
from firsthand.tool_source import ToolSource, is_shared, is_source, source_name


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


class HeldSource:
    """A shared source that whoever uses it may open and close: it opens once, and stays open until `end`.

    Attempts of several agents and runs hold it at a time, none of which knows of the others.
    """

    shared = True

    def __init__(self, source: ToolSource):
        self._source = source
        self._keeper = SourceKeeper([source])
        self._context = copy_context()

    def __getattr__(self, name: str) -> Any:
        """Whatever else the source has, such as its version."""
        return getattr(self._source, name)

    @property
    def name(self) -> str:
        """The source's own."""
        return source_name(self._source)

    @property
    def tools(self) -> Sequence[Tool]:
        """The source's tools."""
        return self._source.tools

    async def open(self) -> None:
        """Open the source, or what it lost; raises what that raised, and the next attempt tries again."""
        keeper = self._keeper
        try:
            await asyncio.create_task(keeper.open(), context=self._context)
        except Exception:
            if self._keeper is keeper:
                self._keeper = SourceKeeper([self._source])
            raise
        await reopen([self._source])

    async def close(self) -> None:
        """Leave it open for others."""

    async def end(self) -> None:
        """Close the source if it was opened."""
        keeper, self._keeper = self._keeper, SourceKeeper([self._source])
        with suppress(Exception):  # nobody is left to tell
            await keeper.close()


def with_held_sources(agents: Sequence[Agent]) -> tuple[list[Agent], list[HeldSource]]:
    """The agents with each of their shared sources held, once for all agents that have it; and what is held."""
    held = {id(source): HeldSource(source) for agent in agents for source in agent.sources if is_shared(source)}
    found = []
    for agent in agents:
        tools = [held.get(id(tool), tool) if is_source(tool) else tool for tool in agent.tools]
        found.append(replace(agent, tools=tuple(tools)))
    return found, list(held.values())
