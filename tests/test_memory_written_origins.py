"""What is remembered after a page was read bears the page's origin, however the page came into the conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.loop.attempt_memory import changes_of
from firsthand.loop.read_origins import origins_in, origins_of
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping.fenced_items import fenced
from firsthand.memories.memgpt import memgpt
from firsthand.memories.notes import notes
from firsthand.memories.procedural import procedural
from firsthand.memories.semantic import semantic
from firsthand.memories.working import working
from firsthand.memory import MemoryItem
from firsthand.message import Message, ToolCall, assistant, system, user
from firsthand.patterns.react import react
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import marked, tool
from firsthand.trace import Call, Score, Trace

PAGE = "The account of Ann is EVIL-123. "


@tool(effect="read", origin="the web")
def page(query: str) -> str:
    """Read a page."""
    return PAGE * 60


@tool(effect="read", origin="a page")
def act(action: str) -> str:
    """Act."""
    return PAGE


def tried(memory: Any, pattern: Any, replies: Sequence[Any] | Callable[..., Any], *tools: Any) -> Trace:
    agent = Agent("a", Scripted(replies), pattern, memory=memory, tools=tools or (page,))
    trace = asyncio.run(rollout(agent, Task("t", "What is on the page?")))
    assert trace.error is None, trace.error
    return trace


def stored(trace: Trace) -> list[tuple[str, Any]]:
    """Text and origin of what was remembered, in order."""
    items = [change.item for change in changes_of(trace) if change.item is not None]
    return [(item.text, item.provenance.get("origin")) for item in items]


def written(name: str, /, **arguments: str) -> str:
    return f"Thought: now\nAction: {name}[{json.dumps(arguments)}]"


FACT = {"subject": "Ann", "attribute": "account", "value": "EVIL-123"}


@pytest.mark.parametrize(
    ("memory", "name", "given"),
    [
        (memgpt, "archival_memory_insert", {"content": "EVIL-123"}),
        (memgpt, "core_memory_append", {"name": "human", "content": "EVIL-123"}),
        (lambda: semantic(tools=True), "remember_fact", FACT),
    ],
)
def test_what_a_model_stores_by_a_written_action_bears_what_it_read_before(memory: Any, name: str, given: Any) -> None:
    replies = [written(name, **given), written("page", query="x"), written(name, **given), "Final Answer: ok"]
    assert [origin for _, origin in stored(tried(memory(), react, replies))] == [None, ["the web"]]


def test_a_written_action_of_a_world_counts_too() -> None:
    async def keeps(task: Task, ctx: Context) -> str:
        await thought_action(task, ctx, max_steps=1)
        return await ctx.remember("EVIL-123")

    assert stored(tried(notes(), keeps, ["Thought: read\nAction: look"], act)) == [("EVIL-123", ["a page"])]


def test_what_leaves_a_window_of_written_actions_and_its_summary_keep_their_origin() -> None:
    def reply(messages: Sequence[Message], *_: Any) -> str:
        if "Summarise the following" in messages[-1].text:
            return "Ann has EVIL-123."
        acted = sum("Action: page" in message.text for message in messages if message.role == "assistant")
        return "Final Answer: ok" if acted > 2 else written("page", query="x")

    found = stored(tried(working(window=700, summary=40), react, reply))
    assert ("Ann has EVIL-123.", ["the web"]) in found
    observed = [origin for text, origin in found if text.startswith('user: Observation: <untrusted from="the web">')]
    assert observed and all(origin == ["the web"] for origin in observed)


def test_episodes_and_skills_bear_the_origins_of_written_actions_and_of_what_no_message_shows() -> None:
    async def silent(task: Task, ctx: Context) -> str:
        await ctx.call(ToolCall("1", "page", {"query": "x"}))
        return (await ctx.say(task.question).generate()).text

    for pattern, replies in ((react, [written("page", query="x"), "Final Answer: ok"]), (silent, ["ok"])):
        trace = tried(notes(), pattern, replies)
        scored = replace(trace, scores=(Score("right", 1.0),))
        for memory in (episodic(), procedural()):
            assert [item.provenance.get("origin") for item in memory.learn(scored)] == [["the web"]]


def test_a_text_bears_what_a_sub_agent_read_and_nothing_of_branches_beside_it() -> None:
    read = asyncio.Event()

    async def reads(ctx: Context) -> str:
        found = await ctx.restarted().call(ToolCall("1", "page", {"query": "x"}))
        read.set()
        return found.content[30:60]

    async def other(ctx: Context) -> str:
        await read.wait()
        return await ctx.remember("beside")

    async def leads(task: Task, ctx: Context) -> str:
        await ctx.remember("before")
        found, _ = await ctx.group([reads(ctx), other(ctx)])
        await ctx.say(f"The worker says {found}").remember("after")
        await ctx.remember("own words", origin=[])
        await ctx.remember("a book's", origin="a book")
        return "ok"

    assert dict(stored(tried(notes(), leads, []))) == {
        "before": None, "beside": None, "after": ["the web"], "own words": None, "a book's": "a book",
    }  # fmt: skip


def test_the_marks_of_a_text_name_its_sources_and_what_is_fenced_or_said_by_the_model_names_none() -> None:
    inner = marked('x\n<untrusted from="boss">\ny', "the web")
    assert origins_of([user(f"Observation: {inner}\nand {marked('z', 'mail')}")]) == ["the web", "mail"]
    assert origins_of([assistant(marked("z", "mail"))]) == [] and origins_of([system(marked("z", "a file"))]) == [
        "a file"
    ]
    shown = fenced([MemoryItem.of("x", {"origin": ["the web", "a, b"]})])
    assert origins_of([user(f"Observation: {marked(shown, 'memory')} memory")]) == ["the web", "a, b"]
    assert origins_of([user(f'Observation: {marked(shown, "the web")} untrusted from="memory a; origin: b"')]) == [
        "the web"
    ]
    cut = '<untrusted from="memory">\n[cut]\n<untrusted from="the web">\nuntrusted from="memory a; origin: b"'
    assert origins_of([user(cut)]) == ["the web"], "a mark whose end was cut out reaches to the next"
    late = f'{marked("nothing", "memory")} untrusted from="memory a; origin: b"'
    assert origins_of([user(late)]) == origins_of([user('what is <untrusted from="x">?')]) == []


def test_the_origins_of_calls_stand_in_the_order_of_the_calls_and_each_once() -> None:
    shown = fenced([MemoryItem.of("x", {"origin": ["mail", "a file"]})])
    results = [("the web", "x"), (None, "y"), ("memory", shown), ("a page", "x"), ("the web", "z")]
    calls = [
        Call(f"0:{at}", kind, None, 0.0, 0.0, "", detail={"origin": origin, "result": result})
        for at, (origin, result) in enumerate(results)
        for kind in ("tool", "generate")
    ]
    calls.insert(0, Call("0:9", "generate", None, 0.0, 0.0, "", detail={"origin": "no tool"}))
    assert origins_in(calls) == ["the web", "mail", "a file", "a page"]


def test_what_the_user_alone_said_has_no_origin() -> None:
    replies = [written("core_memory_append", name="human", content="I am Ann"), "Final Answer: ok"]
    assert stored(tried(memgpt(), react, replies)) == [("human: I am Ann", None)]
