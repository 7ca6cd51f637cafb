"""MemGPT's tools over its two stores: messages that left the window, and passages that the model archives.

Search results come in pages of ten, as in the paper's code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.memories.keeping.fenced_items import ORIGIN, fenced
from firsthand.memories.keeping.reading_tools import here
from firsthand.tool import Tool, tool

PAGE = 10
MOST = 500


def paging_tools(ctx: Context) -> Sequence[Tool]:
    """The tools `conversation_search`, `archival_memory_insert` and `archival_memory_search`."""

    @tool(effect="write", origin=ORIGIN, declares=Declaration(readers="user"))
    async def conversation_search(query: str, page: int = 0, request_heartbeat: bool = True) -> str:
        """Search the messages that left the conversation.

        Args:
            query: Words to look for.
            page: The page of results, from 0.
            request_heartbeat: True to be called again at once after this call.
        """
        return await _page(here(ctx), "recall", query, page)

    @tool(effect="write", declares=Declaration(readers="user"))
    async def archival_memory_insert(content: str, request_heartbeat: bool = False) -> str:
        """Store a passage in archival memory, which has no limit.

        Args:
            content: The text to store.
            request_heartbeat: True to be called again at once after this call.
        """
        return f"Stored as {await here(ctx).remember(content, store='archival')}."

    @tool(effect="write", origin=ORIGIN, declares=Declaration(readers="user"))
    async def archival_memory_search(query: str, page: int = 0, request_heartbeat: bool = True) -> str:
        """Search archival memory.

        Args:
            query: Words to look for.
            page: The page of results, from 0.
            request_heartbeat: True to be called again at once after this call.
        """
        return await _page(here(ctx), "archival", query, page)

    return conversation_search, archival_memory_insert, archival_memory_search


async def _page(ctx: Context, store: str, query: str, page: int) -> str:
    """A page of results, with the number of all."""
    found = await ctx.recall(query, k=MOST, where={"store": store})
    if not found:
        return "No results found."
    first = max(0, page) * PAGE
    pages = math.ceil(len(found) / PAGE) - 1
    shown = found[first : first + PAGE]
    return f"Showing {len(shown)} of {len(found)} results (page {max(0, page)}/{pages}):\n{fenced(shown)}"
