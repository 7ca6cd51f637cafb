"""Core blocks out of imported files: an item that is none of the blocks is passed over, whatever it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.context import Context
from firsthand.memories.memgpt import memgpt
from firsthand.memory import MemoryItem
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout


async def asks(task: Task, ctx: Context) -> str:
    """A pattern that answers after one question."""
    return (await ctx.say(task.prompt).generate()).text


@pytest.mark.parametrize(
    "odd", [{}, {"block": 5}, {"block": ["x"]}, {"block": None}, {"block": "other"}, {"block": {"a": 1}}]
)
def test_an_attempt_goes_on_with_core_items_that_are_no_blocks(odd: dict[str, Any]) -> None:
    memory = memgpt()
    for text, given in [
        ("human: Ann", {"block": "human"}),
        ("odd one", odd),
        ("odd two", odd),
        ("persona: P", {"block": "persona"}),
    ]:
        asyncio.run(memory.write(MemoryItem.of(text, {"store": "core", **given})))
    asyncio.run(memory.write(MemoryItem.of("human: Bo", {"store": "core", "block": "human"})))
    trace = asyncio.run(rollout(Agent("a", Scripted(["ok"]), asks, memory=memory), Task("1", "Who?")))
    assert trace.error is None and trace.answer == "ok"
    prompt = "\n".join(node.message.text for node in trace.nodes)
    assert "odd" not in prompt and "Ann" not in prompt
    assert 0 < prompt.index("persona: P") < prompt.index("human: Bo")


def edits(memory: Any, old: str, new: str) -> None:
    """An attempt of one task whose model replaces a text of the block human."""

    async def works(task: Task, ctx: Context) -> str:
        edit = {tool.spec.name: tool for tool in memory.tools(ctx)}["core_memory_replace"]
        return str(await edit.run({"name": "human", "old_content": old, "new_content": new}))

    trace = asyncio.run(rollout(Agent("a", Scripted(["ok"]), works, memory=memory), Task("1", "Who?")))
    assert trace.error is None, trace.error


def block(memory: Any) -> MemoryItem:
    (found,) = asyncio.run(memory.search("", 1, where={"store": "core", "block": "human"}))
    return found


def test_an_edit_that_is_taken_back_holds_and_so_is_every_later_one() -> None:
    memory = memgpt()
    asyncio.run(memory.write(MemoryItem.of("human: Ann", {"store": "core", "block": "human"})))
    for version, (old, new) in enumerate([("Ann", "Bo"), ("Bo", "Ann")] * 3, 2):
        edits(memory, old, new)
        assert block(memory).text == f"human: {new}" and block(memory).provenance["version"] == version


@pytest.mark.parametrize("forged", ["x", None, [1], {"a": 1}, True, 1.5, 1e300, -3, 0, 1 << 53, "7"])
def test_a_forged_version_of_a_block_stops_no_edit(forged: Any) -> None:
    memory = memgpt()
    asyncio.run(memory.write(MemoryItem.of("human: Ann", {"store": "core", "block": "human", "version": forged})))
    edits(memory, "Ann", "Bo")
    assert block(memory).text == "human: Bo" and block(memory).provenance["version"] == 2
