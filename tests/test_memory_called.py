"""Tools of memories as a model calls them: what is stored bears the origins of what the conversation held by then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.memories.memgpt import memgpt
from firsthand.memories.semantic import semantic
from firsthand.message import Message, ToolCall, assistant
from firsthand.model import Sampling
from firsthand.patterns.heartbeats import heartbeats
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Trace


@tool(effect="read", origin="the web")
def page() -> str:
    """Read a page."""
    return "Ann moved to Rome."


@tool(effect="read", origin="mail")
def letter() -> str:
    """Read a letter."""
    return "Ann has a dog."


def native(steps: int) -> Any:
    async def native_react(task: Task, ctx: Context) -> str:
        return await react(task, ctx, max_steps=steps, native=True)

    return native_react


def called(memory: Any, pattern: Any, *calls: tuple[str, dict[str, Any]], ends: Message) -> Trace:
    """An attempt in which the model makes those calls one after another."""
    turns = [*(assistant("", ToolCall(str(n), name, given)) for n, (name, given) in enumerate(calls)), ends]

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> Message:
        return turns[sum(message.role == "assistant" for message in messages)]

    agent = Agent("a", Scripted(reply), pattern, memory=memory, tools=(page, letter))
    trace = asyncio.run(rollout(agent, Task("t", "Where does Ann live?")))
    assert trace.error is None, trace.error
    return trace


def stored(trace: Trace) -> list[tuple[str, Any]]:
    """Text and origins of what was remembered, in order."""
    items = [call.detail["item"] for call in trace.calls if call.detail.get("item")]
    return [(each["text"], each["provenance"].get("origin")) for each in items]


def test_a_passage_and_a_block_bear_the_origins_of_what_was_read_before_them() -> None:
    beat = {"request_heartbeat": True}
    trace = called(
        memgpt(window=2_000, block_chars=90), heartbeats,
        ("archival_memory_insert", {"content": "first", **beat}), ("page", {}),
        ("archival_memory_insert", {"content": "second", **beat}),
        ("core_memory_append", {"name": "human", "content": "Rome", **beat}), ("letter", {}),
        ("archival_memory_insert", {"content": "third", **beat}),
        ("core_memory_replace", {"name": "human", "old_content": "Rome", "new_content": "a dog", **beat}),
        ("archival_memory_search", {"query": "third"}),
        ends=assistant("", ToolCall("9", "send_message", {"message": "Rome"})),
    )  # fmt: skip
    assert stored(trace) == [
        ("first", None), ("second", ["the web"]), ("human: Rome", ["the web"]), ("third", ["the web", "mail"]),
        ("human: a dog", ["the web", "mail"]),
    ]  # fmt: skip
    found = [call.detail["result"] for call in trace.calls if call.detail.get("name") == "archival_memory_search"]
    assert len(found) == 1 and "Showing 1 of 1 results (page 0/0):" in found[0]
    assert "origin: the web, mail" in found[0] and "third" in found[0]


def test_a_fact_bears_the_origins_of_what_was_read_before_it_alone() -> None:
    fact = {"subject": "Ann", "attribute": "home"}
    trace = called(
        semantic(tools=True), native(9), ("remember_fact", {**fact, "value": "Oslo"}), ("letter", {}),
        ("remember_fact", {**fact, "value": "Rome"}), ("page", {}),
        ("remember_fact", {**fact, "value": "Rome", "withdrawn": True}), ("memory_search", {"query": "home Ann"}),
        ends=assistant("The answer is none"),
    )  # fmt: skip
    assert stored(trace) == [
        ("The home of Ann is Oslo.", None), ("The home of Ann is Rome.", ["mail"]),
        ("The home of Ann is no longer Rome.", ["mail", "the web"]),
    ]  # fmt: skip
    assert [call.detail["result"] for call in trace.calls if call.detail.get("name") == "memory_search"] == [
        '<untrusted from="memory">\nNothing was found.\n</untrusted>'
    ], "what was withdrawn is not found"
