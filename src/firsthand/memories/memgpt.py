"""MemGPT's paging: core blocks, recall and archival stores, a queue that is evicted, tools by which the model moves data.

After Packer et al. (2023): the main context is the core blocks, a recursive summary and a queue of messages. At
`warn_percent` of the window the model is told once to save what matters; when the window is full half of the queue is
evicted: its messages go to the recall store and into the summary, with the summary before. The last `keep` messages stay.
Core blocks have limits, and every version of a block is kept. The pattern `heartbeats` chains calls as the paper does;
other patterns work as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.memories.keeping.conversation_window import (
    entries_of,
    fitted_tail,
    is_shown,
    shown_ids,
    shown_items,
    size_of,
    summarised,
    text_of,
    units_of,
)
from firsthand.memories.keeping.core_blocks import BLOCKS, blocks_note, core_tools, edits_core, newest_block
from firsthand.memories.keeping.fenced_items import joined_origins
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.opened_file import bounds_of, opened_file
from firsthand.memories.keeping.paging_tools import paging_tools
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memory import Lifetime, MemoryItem
from firsthand.message import Json, Message, user
from firsthand.task import Task
from firsthand.tool import Tool

NOTE = "Summary of the messages that were evicted (conversation_search finds them):"
WARNING = (
    "System alert: memory pressure. The conversation takes {used} of {window} tokens and will soon be evicted: save what "
    "matters with core_memory_append, core_memory_replace or archival_memory_insert."
)
LEAST_WINDOW = 256


class MemGPTMemory(StoredMemory):
    """The paged memory. Its snapshots are plain StoredMemories of blocks, messages, passages and summaries."""

    acts = True
    """The model moves data itself, so that listeners ask it after each session."""

    def __init__(
        self,
        policy: KeepingPolicy,
        file: ItemFile | None = None,
        *,
        owner: str = "",
        lifetime: Lifetime = "agent",
        window: int = 4_000,
        summary: int = 200,
        block_chars: int = 2_000,
        warn_percent: int = 70,
        keep: int = 3,
    ):
        super().__init__(policy, file, owner=owner, lifetime=lifetime)
        self.window, self.summary, self.block_chars = window, summary, block_chars
        self.warn_percent, self.keep = warn_percent, keep

    async def brief(self, ctx: Context, task: Task) -> Context:
        """The Context after the core blocks."""
        return ctx.say(await self._core(ctx))

    def tools(self, ctx: Context) -> Sequence[Tool]:
        """The tools of the paper: core blocks, recall and archival stores."""
        return (*core_tools(ctx, self.block_chars), *paging_tools(ctx))

    async def fit(self, ctx: Context, tools: Sequence[Tool]) -> Context:
        """The Context with the core blocks as they are now, warned of pressure, and evicted where the window is full."""
        if edits_core(ctx.messages):
            ctx = await self._with_core(ctx)
        used = await ctx.tokens(tools)
        if used > self.window:
            ctx = await self._evicted(ctx, tools)
            used = await ctx.tokens(tools)
        warned = any(map(is_alert, ctx.messages))
        if used * 100 > self.window * self.warn_percent and not warned:
            warning = WARNING.replace("{used}", str(used)).replace("{window}", str(self.window))
            warned_ctx = ctx.say(user(warning))
            if await warned_ctx.tokens(tools) <= self.window:
                ctx.note("memory_pressure", used=used, window=self.window)
                return warned_ctx
        return ctx

    async def _core(self, ctx: Context) -> Message:
        """The message with the core blocks."""
        found = [await newest_block(ctx, name) for name in BLOCKS]
        return shown_items([item for item in found if item is not None], blocks_note(self.block_chars))

    async def _with_core(self, ctx: Context) -> Context:
        """The Context with the core blocks read again."""
        core, note = await self._core(ctx), blocks_note(self.block_chars)
        messages = [core if is_shown(message, note) else message for message in ctx.messages]
        return ctx.restarted(messages)

    async def _evicted(self, ctx: Context, tools: Sequence[Tool]) -> Context:
        """The Context after half of the queue, and more while that is not enough, went to recall store and summary."""
        note = blocks_note(self.block_chars)
        heads = [message for message in ctx.messages if message.role == "system" or is_shown(message, note)]
        shown = next((message for message in ctx.messages if is_shown(message, NOTE)), None)
        queue = [m for m in ctx.messages if m is not shown and m not in heads and not is_alert(m)]
        units = units_of(queue)
        sizes = [await size_of(ctx, unit) for unit in units]
        room = self.window - await size_of(ctx, heads, tools) - 2 * self.summary
        goal, out = min(sum(sizes) // 2, room), 0
        while len(units) - out > self.keep and sum(sizes[out:]) > goal:
            out += 1
        while out < len(units) - 1 and sum(sizes[out:]) > max(1, room):
            out += 1  # the last messages alone do not fit
        gone, stay = [m for unit in units[:out] for m in unit], [m for unit in units[out:] for m in unit]
        said = (at for at, m in enumerate(queue) if m.role == "user" and not m.text.startswith("Observation:"))
        asked = max(said, default=len(queue))
        if asked < len(gone):
            stay.insert(0, queue[asked])  # what the user said last is not summarised before it is answered
        head = [*heads, *([await self._summary(ctx, shown, gone)] if gone else [shown] if shown is not None else [])]
        left = max(1, self.window - await size_of(ctx, head, tools))
        tail = await fitted_tail(ctx, stay, left)
        ctx.note("evicted", messages=len(gone), kept=len(tail), window=self.window)
        return ctx.restarted([*head, *tail])

    async def _summary(self, ctx: Context, shown: Message | None, gone: Sequence[Message]) -> Message:
        """The recursive summary: of the one so far and the messages that go."""
        before = await ctx.recall("", k=1, ids=shown_ids(shown)[:1]) if shown is not None else []
        entries = entries_of(gone)
        ids = await ctx.remember_all(entries)
        said = "\n".join([*(item.text for item in before), *map(text_of, gone)])
        text = await summarised(ctx, said, tokens=self.summary, window=self.window) or "(nothing)"
        given: Json = {"store": "summary", "of": [*(item.id for item in before), *dict.fromkeys(ids)], "hidden": True}
        read = [*(item.provenance for item in before), *(each for _, each in entries), {"origin": ctx.origins}]
        given["origin"] = joined_origins(read)
        return shown_items([MemoryItem(await ctx.remember(text, **given), text, given)], NOTE)


def is_alert(message: Message) -> bool:
    """True if the message is the warning of memory pressure."""
    return message.role == "user" and message.text.startswith(WARNING.partition(".")[0])


def _block_key(item: MemoryItem) -> str | None:
    """Versions of one core block replace each other."""
    return f"core:{item.provenance.get('block')}" if item.provenance.get("store") == "core" else None


def memgpt(
    file: str = "",
    *,
    owner: str = "",
    lifetime: Lifetime = "agent",
    window: int = 4_000,
    summary: int = 200,
    block_chars: int = 2_000,
    warn_percent: int = 70,
    keep: int = 3,
    max_items: int = 100_000,
    max_mb: int = 256,
) -> MemGPTMemory:
    """Core blocks of at most `block_chars` characters each, a queue within a window of `window` tokens, and two stores.

    A warning comes at `warn_percent` of the window; an eviction leaves at least `keep` messages if they fit. Kept for one
    `owner`, in a `file` or in this process.
    """
    if window < LEAST_WINDOW or not 8 <= summary <= window // 8 or not 16 <= block_chars <= window:
        raise ConfigError(
            f"window is {window}, summary {summary} and block_chars {block_chars}: give a window of "
            f"{LEAST_WINDOW} tokens or "
            "more, 8 to an eighth of it for the summary, and blocks of 16 to as many characters as the window has tokens"
        )
    if not 1 <= warn_percent <= 100 or keep < 1:
        raise ConfigError(f"warn_percent is {warn_percent} and keep {keep}: give 1 to 100, and 1 message or more")
    policy = KeepingPolicy("memgpt", _block_key, bounds=bounds_of(max_items, max_mb))
    return MemGPTMemory(
        policy, opened_file(file), owner=owner, lifetime=lifetime, window=window, summary=summary, block_chars=block_chars,
        warn_percent=warn_percent, keep=keep,
    )  # fmt: skip
