"""Working memory: a window of tokens. What no longer fits is summarised by the model, and stays reachable by id.

When a conversation takes more than `window` tokens, its oldest messages become one summary, until the newest ones take at
most half the window. A tool call stays with its result. System messages, and the messages before the first answer if they
take at most half the window, are never summarised. Every summarised message is an item of the memory, and the summary names
them: the tools `memory_search` and `memory_read` show them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.memories.keeping.conversation_window import (
    Unit,
    entries_of,
    fitted_tail,
    is_shown,
    newest_units,
    shown_ids,
    shown_items,
    size_of,
    summarised,
    text_of,
    units_of,
)
from firsthand.memories.keeping.fenced_items import joined_origins
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.opened_file import bounds_of, opened_file
from firsthand.memories.keeping.reading_tools import reading_tools
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import Json, Message
from firsthand.tool import Tool

NOTE = "Summary of the earlier conversation (memory_read shows what was summarised, by id):"
LEAST_WINDOW = 64


@dataclass(frozen=True)
class WindowParts:
    """A conversation as a window sees it."""

    pinned: tuple[Message, ...]
    """Never summarised."""
    shown: Message | None
    """The message with the summary so far, if there is one."""
    units: list[Unit]
    """The rest, in units."""


def parts_of(ctx: Context, note: str) -> WindowParts:
    """The parts of a conversation whose summary, if it has one, stands under `note`."""
    messages = ctx.messages
    at = next((place for place, message in enumerate(messages) if is_shown(message, note)), None)
    if at is not None:
        return WindowParts(messages[:at], messages[at], units_of(messages[at + 1 :]))
    made = ctx.attempt.generated(ctx.node)
    opening = next((place for place, by_model in enumerate(made) if by_model), 0)
    return WindowParts(messages[:opening], None, units_of(messages[opening:]))


async def pinned_within(ctx: Context, parts: WindowParts, most: int) -> WindowParts:
    """The parts, of whose opening only the system messages are pinned if it takes more than `most` tokens."""
    if parts.shown is not None or not parts.pinned or await size_of(ctx, parts.pinned) <= most:
        return parts
    heads = sum(1 for message in parts.pinned if message.role == "system")
    return WindowParts(
        parts.pinned[:heads], None, units_of([*parts.pinned[heads:], *(m for u in parts.units for m in u)])
    )


async def window_parts(ctx: Context, note: str, window: int) -> WindowParts:
    """The parts of a conversation, whose opening is pinned whole if it takes at most half the window."""
    return await pinned_within(ctx, parts_of(ctx, note), window // 2)


class WorkingMemory(StoredMemory):
    """The window. Its snapshots are plain StoredMemories of the summarised messages."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "attempt",
        window: int = 4_000,
        summary: int = 200,
        offer_tools: bool = True,
    ):
        super().__init__(policy, file, owner=owner, lifetime=lifetime)
        self.window, self.summary, self.offer_tools = window, summary, offer_tools

    def tools(self, ctx: Context) -> Sequence[Tool]:
        """`memory_search` and `memory_read`."""
        return reading_tools(ctx) if self.offer_tools else ()

    async def fit(self, ctx: Context, tools: Sequence[Tool]) -> Context:
        """The Context from a conversation of at most `window` tokens."""
        if await ctx.tokens(tools) <= self.window:
            return ctx
        parts = await window_parts(ctx, NOTE, self.window)
        fixed = await size_of(ctx, parts.pinned, tools)
        room = max(1, min(self.window // 2, self.window - fixed - 2 * self.summary))
        kept = await newest_units(ctx, parts.units, room)
        out, stay = parts.units[: len(parts.units) - kept], parts.units[len(parts.units) - kept :]
        shown = parts.shown if not out else await self._summary(ctx, parts.shown, out)
        head = [*parts.pinned, *([shown] if shown is not None else [])]
        left = max(1, self.window - await size_of(ctx, head, tools))
        tail = await fitted_tail(ctx, [message for unit in stay for message in unit], left)
        ctx.note("compacted", messages=sum(map(len, out)), kept=len(tail), window=self.window)
        return ctx.restarted([*head, *tail])

    async def _summary(self, ctx: Context, shown: Message | None, out: Sequence[Unit]) -> Message:
        """The message with a new summary, of the one so far and the messages that go."""
        gone = [message for unit in out for message in unit]
        before = await ctx.recall("", k=1, ids=shown_ids(shown)[:1]) if shown is not None else []
        entries = entries_of(gone)
        ids = await ctx.remember_all(entries)
        said = "\n".join([*(item.text for item in before), *map(text_of, gone)])
        text = await summarised(ctx, said, tokens=self.summary, window=self.window)
        provenance: Json = {"store": "summary", "of": [*(item.id for item in before), *dict.fromkeys(ids)]}
        read = [*(item.provenance for item in before), *(given for _, given in entries), {"origin": ctx.origins}]
        provenance["origin"] = joined_origins(read)
        id = await ctx.remember(text or "(nothing)", **provenance)
        return shown_items([MemoryItem(id, text or "(nothing)", provenance)], NOTE)


def working(
    file: str = "",
    *,
    owner: str = "",
    lifetime: Lifetime = "attempt",
    window: int = 4_000,
    summary: int = 200,
    tools: bool = True,
    max_items: int = 100_000,
    max_mb: int = 256,
) -> WorkingMemory:
    """A window of `window` tokens with a `summary` of so many of what came before it.

    What was summarised is kept for one attempt unless `lifetime` says otherwise, in a `file` or in this process.
    """
    if window < LEAST_WINDOW or not 8 <= summary <= window // 4:
        raise ConfigError(
            f"window is {window} and summary {summary}: give a window of {LEAST_WINDOW} tokens or more, and "
            f"8 to a quarter of "
            "it for the summary"
        )
    policy = KeepingPolicy("working", bounds=bounds_of(max_items, max_mb))
    return WorkingMemory(
        policy, opened_file(file), owner=owner, lifetime=lifetime, window=window, summary=summary, offer_tools=tools
    )
