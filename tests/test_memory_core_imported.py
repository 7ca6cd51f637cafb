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
