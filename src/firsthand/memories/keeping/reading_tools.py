"""Tools by which a model reads its memory: search, and read by id. Results name the origin of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.loop.calling import caller
from firsthand.memories.keeping.fenced_items import ORIGIN, fenced
from firsthand.tool import Tool, tool


def here(ctx: Context) -> Context:
    """The Context whose tool call is being run, or else the one that the tools were made for."""
    position = caller()
    return ctx if position is None else cast(Context, position.conversation)


def reading_tools(ctx: Context) -> Sequence[Tool]:
    """The tools `memory_search` and `memory_read` over the memory of the attempt."""

    @tool(effect="write", origin=ORIGIN, declares=Declaration(readers="user"))
    async def memory_search(query: str, k: int = 5) -> str:
        """Search your memory of earlier messages and facts.

        Args:
            query: Words to look for.
            k: The most results.
        """
        return fenced(await here(ctx).recall(query, k=min(max(k, 1), 20))) or "Nothing was found."

    @tool(effect="write", origin=ORIGIN, declares=Declaration(readers="user"))
    async def memory_read(id: str) -> str:
        """Read an item of your memory by its id; of a summary, what it summarises follows.

        Args:
            id: The id, as shown after the word memory.
        """
        found = await here(ctx).recall("", k=1, ids=[id])
        if not found:
            return f"There is no item {id[:64]!r}."
        of = found[0].provenance.get("of")
        parts = [str(each) for each in of[:50]] if isinstance(of, list) else []
        return fenced([*found, *(await here(ctx).recall("", k=len(parts), ids=parts) if parts else ())])

    return memory_search, memory_read
