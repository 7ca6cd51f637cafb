"""What an attempt remembers, and what a source outside it gives: records, order, replays, guards and refusals."""

from __future__ import annotations

import asyncio
from typing import Any

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.attempt_memory import changes_of, commit, learn
from firsthand.loop.concurrency import group
from firsthand.loop.journal import MemoryJournal
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.message import Json, ToolResult
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Trace

TASK = Task("t", "?")


def test_what_branches_write_is_seen_after_them_in_their_order_and_kept_with_its_origin() -> None:
    seen: list[Any] = []

    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.remember("the cat sat", by="me")
        seen.append([each.text for each in await ctx.recall("cat", k=5)])

        async def branch(number: int) -> list[str]:
            await asyncio.sleep(0.002 * (2 - number))
            await ctx.remember(f"cat {number}")
            return [each.text for each in await ctx.recall("cat", k=5)]

        seen.append(await group(branch(number) for number in range(2)))
        await ctx.remember_all([("cat many one", {"n": 1}), ("cat many two", {"n": 2})])
        await ctx.forget(first)
        seen.append(sorted(each.text for each in await ctx.recall("cat", k=9)))
        seen.append(len(await ctx.recall("cat", k=1)))
        assert await ctx.remember_all([]) == []
        return first

    memory: Any = notes(lifetime="run")
    journal = MemoryJournal()
    agent = Agent("a", Scripted([]), pattern, memory=memory)
    trace = asyncio.run(rollout(agent, TASK, journal=journal, epoch=2))
    assert trace.error is None, trace.error
    assert seen[0] == ["the cat sat"]
    assert [sorted(each) for each in seen[1]] == [["cat 0", "the cat sat"], ["cat 1", "the cat sat"]]
    assert seen[2] == ["cat 0", "cat 1", "cat many one", "cat many two"] and seen[3] == 1
    changes = changes_of(trace)
    texts = ["the cat sat", "cat 0", "cat 1", "cat many one", "cat many two", None]
    assert [each.item and each.item.text for each in sorted(changes, key=lambda each: each.order)] == texts
    forgotten = next(each for each in changes if each.item is None)
    assert forgotten.forgotten == trace.answer and len({each.order for each in changes}) == 6
    origin = {"agent": "a", "benchmark": trace.benchmark, "task": "t", "epoch": 2}
    first = next(each.item for each in changes if each.item is not None and each.item.text == "the cat sat")
    assert first == MemoryItem.of("the cat sat", {"by": "me", **origin, "effect": ":0"})
    calls = {call.id: call for call in trace.calls}
    assert calls[":0"].detail == {"operation": "remember", "item": first.to_json(), "order": [0, 1], "reply": first.id}
    assert calls[":1"].detail == {"operation": "recall", "query": "cat", "k": 5, "reply": [first.to_json()]}
    assert {call.kind for call in trace.calls} == {"memory"} and not any(call.error for call in trace.calls)

    seen_first = list(seen)
    seen.clear()
    replayed = asyncio.run(rollout(agent, TASK, journal=journal, epoch=2))
    assert seen == seen_first and all(call.replayed for call in replayed.calls)
    assert [call.detail for call in replayed.calls] == [call.detail for call in trace.calls]

    kept: Any = notes(lifetime="run")
    asyncio.run(commit(kept, trace))
    asyncio.run(commit(kept, trace))
    found = asyncio.run(kept.search("cat", 9))
    assert sorted(each.text for each in found) == ["cat 0", "cat 1", "cat many one", "cat many two"]

    class Kind:
        def learn(self, made: Trace) -> list[MemoryItem]:
            return [MemoryItem.of(f"learnt {made.task_id}", {})]

    asyncio.run(learn(kept, trace, Kind()))
    asyncio.run(learn(kept, trace, object()))
    assert [each.text for each in asyncio.run(kept.search("learnt", 1))] == ["learnt t"]


def test_an_agent_without_a_memory_says_so() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return await ctx.remember("x")

    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern), TASK))
    assert trace.error is not None and trace.calls == ()
    assert trace.error.message == "the agent a has no memory: give it one, as in Agent(memory=notes())"

    async def wrong(task: Task, ctx: Context) -> str:
        return str(await ctx.recall("x", colour="red"))

    trace = asyncio.run(rollout(Agent("a", Scripted([]), wrong, memory=notes()), TASK))
    assert trace.error is not None and trace.error.message.startswith("this memory's search takes no colour: ")
    (call,) = trace.calls
    assert call.error == "it was broken off before it was done" and call.detail["how"] == {"colour": "red"}


@tool(effect="external", name="look_up")
def look_up(query: str) -> str:
    """Look a query up."""
    raise AssertionError("its items come from elsewhere")


class Censor:
    """Withholds results with a secret, and asks in capitals."""

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        if arguments["query"] == "forbidden":
            return GuardVerdict.blocked("words", "it is forbidden")
        return GuardVerdict.replaced("capitals", {"query": arguments["query"].upper()})

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        if "secret" in result.content:
            return GuardVerdict.blocked("secrets", "a secret")
        return GuardVerdict.replaced("mark", ToolResult(result.call_id, result.name, result.content + "!"))


def test_items_of_a_source_are_approved_journalled_and_guarded_one_by_one() -> None:
    asked: list[Any] = []

    async def give(arguments: Json) -> list[Json]:
        asked.append(arguments)
        return [{"text": "one", "at": 1}, {"text": "a secret", "at": 2}, {"text": "three", "at": 3}]

    def attempted(query: str, journal: MemoryJournal, **agent: Any) -> tuple[Any, Trace]:
        got: list[Any] = []

        async def pattern(task: Task, ctx: Context) -> str:
            got.append(await ctx.consult(look_up, {"query": query}, give))
            return "done"

        trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern, **agent), TASK, journal=journal))
        return (got[0] if got else None), trace

    journal = MemoryJournal()
    passed = [{"text": "one!", "at": 1}, {"text": "three!", "at": 3}]
    items, trace = attempted("q", journal, guard=Censor())
    assert items == passed and asked == [{"query": "Q"}]
    withheld = [event.data for event in trace.events if event.kind == "withheld"]
    assert [(each["tool"], each["item"], each["reason"]) for each in withheld] == [
        ("look_up", 1, "the result of look_up was withheld: a secret (rule secrets)")
    ]
    assert attempted("q", journal, guard=Censor())[0] == passed and len(asked) == 1, "a resumed attempt asks nothing"
    items, _ = attempted("q", MemoryJournal())
    assert (
        items == [{"text": "one", "at": 1}, {"text": "a secret", "at": 2}, {"text": "three", "at": 3}]
        and len(asked) == 2
    )

    async def never(tool: Tool, arguments: Json) -> Decision:
        return Decision(False, "me", "no thanks")

    denied = MemoryJournal()
    rules = Approval({"look_up": "ask"}, ask=never)
    for guard, query in ((Censor(), "forbidden"), (None, "q")):
        for _ in range(2):
            items, trace = attempted(query, denied, guard=guard, approval=rules)
            assert not items and len(asked) == 2
