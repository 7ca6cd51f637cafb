"""Hierarchical memory: summaries of chunks, and summaries of summaries, with drill-down (after RAPTOR, Sarthi et al., 2024).

For histories: what leaves the window becomes a chunk, and each chunk a summary of level 1. When `fanout` summaries of one
level stand in the window they become one of the next level, so that the window holds fewer than `fanout` summaries of each
level whatever the length of the history. System messages, and the messages before the first answer if they take at most
half the window, are never summarised. For documents: `await memory.build(ctx, text)` makes the same tree of a text, in
one go. `memory_read` shows what a summary was made of, down to the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.memories.keeping.conversation_window import (
    entries_of,
    fitted_tail,
    newest_units,
    shown_ids,
    shown_items,
    size_of,
    summarised,
    text_of,
    text_pieces,
)
from firsthand.memories.keeping.fenced_items import joined_origins
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.opened_file import bounds_of, opened_file
from firsthand.memories.keeping.reading_tools import reading_tools
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memories.working import LEAST_WINDOW, window_parts
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import Json
from firsthand.task import Task
from firsthand.tool import Tool

NOTE = "Summaries of what came before, the oldest first (memory_read shows what each was made of, by id):"
DOCUMENT_NOTE = "The documents, summarised (memory_read shows what each summary was made of, by id):"
MAX_SHOWN = 64


class HierarchicalMemory(StoredMemory):
    """Summaries in levels. Its snapshots are plain StoredMemories of chunks and summaries."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "agent",
        window: int = 4_000,
        summary: int = 100,
        fanout: int = 4,
        chunk: int = 1_000,
    ):
        super().__init__(policy, file, owner=owner, lifetime=lifetime)
        self.window, self.summary, self.fanout, self.chunk = window, summary, fanout, chunk

    def tools(self, ctx: Context) -> Sequence[Tool]:
        """`memory_search` and `memory_read`."""
        return reading_tools(ctx)

    async def brief(self, ctx: Context, task: Task) -> Context:
        """The Context after the summaries of the documents that were built, if there are any."""
        roots = await ctx.recall("", k=MAX_SHOWN, where={"root": True})
        return ctx.say(shown_items(roots, DOCUMENT_NOTE)) if roots else ctx

    async def build(self, ctx: Context, text: str, **provenance: object) -> str:
        """The id of the root of a document's tree: its chunks are remembered, summarised, and their summaries again.

        `provenance`, such as `origin`, goes to every node.
        """
        pieces = text_pieces(text, 4 * self.chunk)  # about 4 characters for each token
        ids = await ctx.remember_all(
            [(piece, {**provenance, "level": 0, "chunk": at}) for at, piece in enumerate(pieces)]
        )
        level = await ctx.recall("", k=len(ids), ids=ids)
        height = 0
        while height == 0 or len(level) > 1:
            height += 1
            groups = [level[first : first + self.fanout] for first in range(0, len(level), self.fanout)]
            last = len(groups) == 1
            level = [await self._merged(ctx, group, height, rest={"root": last, **provenance}) for group in groups]
        return level[0].id

    async def fit(self, ctx: Context, tools: Sequence[Tool]) -> Context:
        """The Context from a conversation of at most `window` tokens."""
        if await ctx.tokens(tools) <= self.window:
            return ctx
        parts = await window_parts(ctx, NOTE, self.window)
        ids = shown_ids(parts.shown) if parts.shown is not None else []
        live = await ctx.recall("", k=len(ids), ids=ids) if ids else []
        beside = self.window - await size_of(ctx, parts.pinned) - 2 * self.summary
        kept = await newest_units(ctx, parts.units, max(1, min(self.window // 3, beside)))
        out, stay = parts.units[: len(parts.units) - kept], parts.units[len(parts.units) - kept :]
        if out:
            gone = [message for unit in out for message in unit]
            entries = entries_of(gone, level=0)
            chunks = [
                MemoryItem(id, text, given)
                for id, (text, given) in zip(await ctx.remember_all(entries), entries, strict=True)
            ]
            said = "\n".join(map(text_of, gone))
            live.append(await self._merged(ctx, chunks, 1, text=said, rest={"origin": ctx.origins}))
        live = await self._within(ctx, live)
        head = [*parts.pinned, *([shown_items(live, NOTE)] if live else [])]
        while len(live) > 1 and await size_of(ctx, head, tools) > self.window * 2 // 3:
            first = live[0].provenance["level"]
            live = [await self._merged(ctx, live[:2], first + 1), *live[2:]]
            head = [*parts.pinned, shown_items(live, NOTE)]
        left = max(1, self.window - await size_of(ctx, head, tools))
        tail = await fitted_tail(ctx, [message for unit in stay for message in unit], left)
        ctx.note("compacted", messages=sum(map(len, out)), kept=len(tail), summaries=len(live), window=self.window)
        return ctx.restarted([*head, *tail])

    async def _within(self, ctx: Context, live: list[MemoryItem]) -> list[MemoryItem]:
        """The summaries, the `fanout` oldest of a level merged into one of the next while there are so many."""
        while True:
            levels = [item.provenance["level"] for item in live]
            full = next((level for level in sorted(set(levels)) if levels.count(level) >= self.fanout), None)
            if full is None:
                return live
            first = levels.index(full)
            group = [item for item in live if item.provenance["level"] == full][: self.fanout]
            merged = await self._merged(ctx, group, full + 1)
            live = [*live[:first], merged, *(item for item in live[first:] if item not in group)]

    async def _merged(
        self, ctx: Context, parts: Sequence[MemoryItem], level: int, *, text: str = "", rest: Json | None = None
    ) -> MemoryItem:
        """The remembered summary of some items."""
        said = text or "\n".join(item.text for item in parts)
        summary = await summarised(ctx, said, tokens=self.summary, window=self.window) or "(nothing)"
        given: Json = {"store": "summary", "level": level, "of": [*dict.fromkeys(item.id for item in parts)]}
        given |= rest or {}
        if origin := joined_origins([*(item.provenance for item in parts), given]):
            given["origin"] = origin
        return MemoryItem(await ctx.remember(summary, **given), summary, given)


def hierarchical(
    file: str = "",
    *,
    owner: str = "",
    lifetime: Lifetime = "agent",
    window: int = 4_000,
    summary: int = 100,
    fanout: int = 4,
    chunk: int = 1_000,
    max_items: int = 100_000,
    max_mb: int = 256,
) -> HierarchicalMemory:
    """Summaries of `summary` tokens, each of `fanout` below it, over chunks of about `chunk` tokens; a window of `window`
    tokens.

    Kept for one `owner`, in a `file` or in this process.
    """
    if window < 2 * LEAST_WINDOW or not 8 <= summary <= window // 8 or not 2 <= fanout <= 32 or chunk < 16:
        raise ConfigError(
            f"window is {window}, summary {summary}, fanout {fanout} and chunk {chunk}: give a window of {2 * LEAST_WINDOW} "
            "tokens or more, 8 to an eighth of it for a summary, a fanout of 2 to 32, and chunks of 16 tokens or more"
        )
    policy = KeepingPolicy("hierarchical", bounds=bounds_of(max_items, max_mb))
    return HierarchicalMemory(
        policy,
        opened_file(file),
        owner=owner,
        lifetime=lifetime,
        window=window,
        summary=summary,
        fanout=fanout,
        chunk=chunk,
    )
