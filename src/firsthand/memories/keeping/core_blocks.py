"""Core memory blocks: short texts that always stand in the prompt, which the model edits within their limits."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.memories.keeping.fenced_items import joined_origins
from firsthand.memories.keeping.reading_tools import here
from firsthand.memory import MemoryItem
from firsthand.message import Json, Message, ToolResult
from firsthand.tool import Tool, tool

BLOCKS = ("persona", "human")
_EDITS = ("core_memory_append", "core_memory_replace")


def blocks_note(limit: int) -> str:
    """The sentence above the blocks."""
    return f"Core memory: the blocks {' and '.join(BLOCKS)}, at most {limit} characters each."


def edits_core(messages: Sequence[Message]) -> bool:
    """True if a result of an edit of a block came since the model's last answer."""
    for message in reversed(messages):
        if message.role == "assistant":
            return False
        if any(isinstance(part, ToolResult) and part.name in _EDITS and not part.is_error for part in message.parts):
            return True
    return False


def core_tools(ctx: Context, limit: int) -> Sequence[Tool]:
    """The tools `core_memory_append` and `core_memory_replace` over blocks of at most `limit` characters."""

    @tool(effect="write", declares=Declaration(readers="user"))
    async def core_memory_append(name: str, content: str, request_heartbeat: bool = False) -> str:
        """Append to a block of core memory.

        Args:
            name: The block, persona or human.
            content: The text to append.
            request_heartbeat: True to be called again at once after this call.
        """
        block = await _block(here(ctx), name)
        text = content if block is None else f"{_text(block)}\n{content}"
        return await _stored(here(ctx), name, text, limit, block)

    @tool(effect="write", declares=Declaration(readers="user"))
    async def core_memory_replace(
        name: str, old_content: str, new_content: str, request_heartbeat: bool = False
    ) -> str:
        """Replace text in a block of core memory; an empty new text deletes it.

        Args:
            name: The block, persona or human.
            old_content: The text as it stands there.
            new_content: The text in its place.
            request_heartbeat: True to be called again at once after this call.
        """
        block = await _block(here(ctx), name)
        text = "" if block is None else _text(block)
        if not old_content or old_content not in text:
            raise ToolError(f"the block {name} does not contain {old_content[:80]!r}: give text as it stands there")
        return await _stored(here(ctx), name, text.replace(old_content, new_content, 1), limit, block)

    return core_memory_append, core_memory_replace


async def newest_block(ctx: Context, name: str) -> MemoryItem | None:
    """The newest version of a block, if there is one; items of the core store that are no blocks are passed over."""
    found = await ctx.recall("", k=1, where={"store": "core", "block": name})
    return found[0] if found else None


def _text(block: MemoryItem) -> str:
    return block.text.partition(": ")[2]


def _version(provenance: Json) -> int:
    """The version of a block, whatever a file of somebody else may hold in its place."""
    given = provenance.get("version")
    return given if type(given) is int and 0 < given < 1 << 53 else 1


async def _block(ctx: Context, name: str) -> MemoryItem | None:
    """The newest version of a block. ToolError for another name."""
    if name not in BLOCKS:
        raise ToolError(f"there is no block {name[:80]!r}: name one of {', '.join(BLOCKS)}")
    return await newest_block(ctx, name)


async def _stored(ctx: Context, name: str, text: str, limit: int, before: MemoryItem | None) -> str:
    """Store a new version of a block, with the origins of what the model had read."""
    if len(text) > limit:
        raise ToolError(
            f"the block {name} would have {len(text)} characters and its limit is {limit}: shorten it, or archive"
        )
    kept = {} if before is None else before.provenance
    origin = joined_origins([{"origin": ctx.origins}, kept])
    again = {} if before is None else {"version": _version(kept) + 1}  # an edit taken back is a new version
    await ctx.remember(f"{name}: {text}", store="core", block=name, length=len(text), origin=origin, **again)
    return f"The block {name} has {len(text)} of {limit} characters."
