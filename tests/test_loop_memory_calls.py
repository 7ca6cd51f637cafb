"""Operations on a memory and questions to a source outside, called by hand: changes, calls, journal, refusals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.attempt import Attempt
from firsthand.loop.attempt_memory import AttemptMemory, MemoryChange, changes_of
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.consultation import Consulted, run_consultation
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.memory_calls import forget_item, recall_items, remember_text, remember_texts
from firsthand.loop.request_key import request_key
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.message import Json, ToolResult, canonical
from firsthand.model import Usage
from firsthand.providers.scripted import Scripted
from firsthand.tool import Tool, tool
from firsthand.trace import Call, Trace
from open_calls import attempt_of, open_call, untimed, within

ORIGIN = {"benchmark": "b", "task": "t"}


@tool(effect="external", name="look_up")
def look_up(query: str) -> str:
    """Look a query up."""
    raise AssertionError("its items come from elsewhere")


# -- memory --


def remembering(journal: MemoryJournal | None = None) -> Attempt:
    attempt = attempt_of(Scripted(), journal=journal)
    attempt.memory = AttemptMemory(notes(), ORIGIN)
    return attempt


def test_each_operation_on_a_memory_is_one_change_one_call_and_one_reply_in_the_journal() -> None:
    attempt = remembering()
    memory: Any = attempt.memory

    async def effects(attempt: Attempt = attempt, budget: Budget | None = None) -> list[Any]:
        def at(effect: str) -> Any:
            return open_call(attempt, effect, budget=budget)

        first = await remember_text(at(":0"), "red cat", {"by": "me", "task": "mine"})
        two = await remember_texts(at(":1"), [("red dog", {"n": 1}), ("blue dog", {"n": 2})])
        found = await recall_items(at(":2"), "red dog", 2, {})
        await forget_item(at(":3"), first)
        left = await recall_items(at(":4"), "red", 5, {})
        return [first, two, found, left]

    cat = MemoryItem.of("red cat", {"by": "me", **ORIGIN, "effect": ":0"})
    dogs = [MemoryItem.of(text, {"n": n, **ORIGIN, "effect": ":1"}) for n, text in ((1, "red dog"), (2, "blue dog"))]
    shared = sorted((cat, dogs[1]), key=lambda item: item.id)
    found = within(effects)
    assert found == [cat.id, [each.id for each in dogs], [dogs[0], shared[0]], [dogs[0]]]
    assert memory.changes == [
        MemoryChange(":0", (0, 1), cat), MemoryChange(":1", (1, 1, 0), dogs[0]),
        MemoryChange(":1", (1, 1, 1), dogs[1]), MemoryChange(":3", (3, 1), None, cat.id),
    ]  # fmt: skip
    asked: list[Json] = [
        {"operation": "remember", "item": cat.to_json(), "order": [0, 1]},
        {"operation": "remember", "items": [each.to_json() for each in dogs], "order": [1, 1]},
        {"operation": "recall", "query": "red dog", "k": 2},
        {"operation": "forget", "id": cat.id, "order": [3, 1]},
        {"operation": "recall", "query": "red", "k": 5},
    ]
    replies = [cat.id, [each.id for each in dogs], [dogs[0].to_json(), shared[0].to_json()], None, [dogs[0].to_json()]]
    requests = [request_key("memory", canonical(each)) for each in asked]
    made = [
        Call(f":{n}", "memory", 1, 0, 0, request, detail=detail | {"reply": reply})
        for n, (request, detail, reply) in enumerate(zip(requests, asked, replies, strict=True))
    ]
    assert untimed(attempt.calls) == made
    kept: Any = attempt.journal
    assert kept.entries == {
        (f":{n}", request): {"memory": reply} for n, (request, reply) in enumerate(zip(requests, replies, strict=True))
    }
    trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 1.0, calls=tuple(attempt.calls))
    assert changes_of(trace) == memory.changes
    broken = tuple(replace(call, error="x") for call in attempt.calls)
    other = (*broken, replace(attempt.calls[0], kind="tool"))
    assert changes_of(replace(trace, calls=other)) == []

    budget = Budget(Limits(calls=5))
    within(lambda: effects(remembering(), budget=budget))
    assert (budget.calls, budget.reserved_tokens, budget.spent) == (5, 0, Usage())
    resumed = Budget(Limits(calls=2))
    resumed.hold(0, 3)  # what the try before has spent: three of its five are counted already, and none is refused
    within(lambda: effects(remembering(kept), budget=resumed))
    assert (resumed.calls, resumed.held_calls, resumed.reserved_tokens) == (5, 0, 0)
    with pytest.raises(LimitExceeded, match="call budget exhausted: 2 calls made"):
        within(lambda: remember_text(open_call(remembering(kept), ":9", budget=resumed), "new", {}))
    again = remembering(kept)
    assert within(lambda: effects(again)) == found
    assert untimed(again.calls) == [replace(call, replayed=True) for call in made]
    assert again.memory is not None and again.memory.changes == memory.changes


def test_what_a_branch_recalls_is_what_had_ended_before_it_began() -> None:
    attempt = remembering()
    memory: Any = attempt.memory
    asyncio.run(memory.base.write(MemoryItem("0", "red base")))

    async def effects() -> list[str]:
        await remember_text(open_call(attempt, ":0"), "red first", {})
        await remember_text(open_call(attempt, ":2"), "red later", {})
        return [each.text for each in await recall_items(open_call(attempt, ":1"), "red", 9, {})]

    assert sorted(within(effects)) == ["red base", "red first"]
    assert [each.text for each in asyncio.run(memory.base.list())] == ["red base"], (
        "the snapshot itself is left as it is"
    )


def test_an_operation_that_fails_is_paid_and_recorded_and_changes_nothing() -> None:
    class Picky:
        lifetime = "attempt"

        def snapshot(self) -> Picky:
            return self

        def admit(self, item: MemoryItem) -> None:
            if item.text == "bad":
                raise ConfigError("no such items")

        async def search(self, query: str, k: int) -> list[MemoryItem]:
            raise TypeError("an own error")

    attempt = attempt_of(Scripted())
    memory = attempt.memory = AttemptMemory(Picky(), {})  # type: ignore[arg-type]
    budget = Budget(Limits(calls=5))
    broken = "it was broken off before it was done"
    for effects, kind, told in (
        (lambda call: remember_text(call, "bad", {}), ConfigError, "no such items"),
        (lambda call: remember_texts(call, [("good", {}), ("bad", {})]), ConfigError, "no such items"),
        (lambda call: recall_items(call, "q", 1, {}), TypeError, "an own error"),
        (
            lambda call: recall_items(call, "q", 1, {"at": (3, 4), "by": "x"}),
            ConfigError,
            "this memory's search takes no at, by: ",
        ),
    ):
        with pytest.raises(kind) as failed:
            within(lambda effects=effects: effects(open_call(attempt, ":0", budget=budget)))
        assert str(failed.value).startswith(told)
        assert (attempt.calls[-1].error, "reply" in attempt.calls[-1].detail) == (broken, False)
    assert attempt.calls[-1].detail["how"] == {"at": [3, 4], "by": "x"} and attempt.journal.entries == {}  # type: ignore[attr-defined]
    assert (memory.changes, budget.calls, budget.reserved_tokens) == ([], 4, 0)
    within(lambda: remember_text(open_call(attempt, ":1", budget=budget), "good", {"a": 1}))
    assert memory.changes == [MemoryChange(":1", (1, 1), MemoryItem.of("good", {"a": 1, "effect": ":1"}))]
    with pytest.raises(LimitExceeded):
        within(lambda: remember_text(open_call(attempt, ":2", budget=budget), "good", {}))
    assert len(attempt.calls) == 5
    none = attempt_of(Scripted())
    for make in (
        lambda: forget_item(open_call(none), "id"),
        lambda: remember_text(open_call(none), "text", {"a": 1}),
        lambda: remember_texts(open_call(none), [("text", {"a": 1})]),
        lambda: recall_items(open_call(none), "q", 1, {}),
    ):
        with pytest.raises(ConfigError) as failed:
            within(make)
        assert str(failed.value) == "the agent a has no memory: give it one, as in Agent(memory=notes())"
    assert none.calls == [] and none.journal.entries == {}  # type: ignore[attr-defined]


# -- consultation --


class Marks:
    """Asks in capitals, withholds what holds an x, and marks the rest."""

    def call(self, view: Any, tool: Tool, arguments: Json) -> GuardVerdict:
        if arguments["query"] == "no":
            return GuardVerdict.blocked("r", "not that")
        return GuardVerdict.replaced("up", {"query": arguments["query"].upper()})

    def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
        marked = f"{result.call_id} {result.name} {result.origin} {result.content}"
        return (
            GuardVerdict.blocked("s", "x")
            if "x" in result.content
            else GuardVerdict.replaced("m", replace(result, content=marked))
        )


def consulted(
    query: str, recorded: Json | None = None, items: Any = (), effect: str = ":3", **agent: Any
) -> tuple[Consulted, list[Json], dict[Any, Any], Attempt]:
    attempt, asked = attempt_of(Scripted(), **agent), list[Json]()

    async def ask(arguments: Json) -> Any:
        asked.append(arguments)
        return items

    borders = Borders(attempt, effect, 1, Budget(Limits()))
    source = replace(look_up, origin="web")
    found = within(
        lambda: run_consultation(
            attempt, source, {"query": query}, ask, borders=borders, request="k", recorded=recorded
        )
    )
    assert found.told is None or found.refusal
    found = found._replace(told=None)  # see test_served_refusals.py
    return found, asked, attempt.journal.entries, attempt  # type: ignore[attr-defined]


def test_a_source_is_asked_once_and_each_of_its_items_passes_the_guards_by_itself() -> None:
    items = ({"text": "ab", "n": 1}, {"text": "x", "n": 2}, {"text": 5, "n": 3})
    found, asked, entries, attempt = consulted("q", None, items, guard=Marks())
    passed = [{"text": "item-0 look_up web ab", "n": 1}, {"text": "item-2 look_up web 5", "n": 3}]
    assert found == Consulted(passed, {"query": "Q"}, None, 1) and asked == [{"query": "Q"}]
    assert entries == {(":3", "k"): {"items": list(items)}}
    notes_ = [(event.kind, event.data) for event in attempt.events]
    reason = "the result of look_up was withheld: x (rule s)"
    assert [data for kind, data in notes_ if kind == "withheld"] == [
        {"tool": "look_up", "item": 1, "reason": reason, "effect": ":3"}
    ]
    assert [(data["border"], data["effect"]) for kind, data in notes_ if kind == "guard"] == [
        ("call", ":3"), ("result", ":3 item 0"), ("result", ":3 item 1"), ("result", ":3 item 2"),
    ]  # fmt: skip
    kept = {"items": list(items)}
    assert consulted("q", kept, guard=Marks())[:3] == (found, [], {}), "a replayed one asks and writes nothing"
    whole = Consulted(list(items), {"query": "Q"})
    assert consulted("q", kept | {"shown": True}, guard=Marks())[0] == whole
    assert consulted("q", None, items)[0] == whole._replace(arguments={"query": "q"})
    assert consulted("q", {"items": [], "refusal": "it was"}, guard=Marks())[0] == Consulted(
        [], {"query": "Q"}, "it was"
    )


def test_an_item_that_a_guard_turns_into_an_error_is_withheld_with_its_text_and_the_next_one_is_read() -> None:
    class Errors:
        def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
            assert result.call_id == f"item-{result.content[-1]}"
            error = replace(result, content=f"{result.content} is broken", is_error=True)
            return GuardVerdict.replaced("e", error) if result.content < "c" else GuardVerdict.passed("e")

    items = [{"text": "d0", "n": 7}, {"text": "a1"}, {"text": "b2"}, {"text": "c3", "n": 0}]
    found, _, _, attempt = consulted("q", None, items, effect=":5", guard=Errors())
    assert found == Consulted([items[0], items[3]], {"query": "q"}, None, 2)
    assert [event.data for event in attempt.events if event.kind == "withheld"] == [
        {"tool": "look_up", "item": number, "reason": f"{text} is broken", "effect": ":5"}
        for number, text in ((1, "a1"), (2, "b2"))
    ]


def test_a_guard_sees_the_calls_before_the_effect_that_an_item_was_asked_for_at() -> None:
    seen: list[tuple[str, list[str]]] = []

    class Looks:
        def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
            seen.append((result.content, [call.id for call in view.calls]))
            return GuardVerdict.passed("looks")

    async def ask(arguments: Json) -> Any:
        return [{"text": "a"}, {"text": "b"}]

    for as_of, known in (("", [":0", ":1", ":2"]), (":2", [":0", ":1"]), (":1", [":0"])):
        attempt = attempt_of(Scripted(), guard=Looks())
        borders = Borders(attempt, ":3", 1, Budget(Limits()), as_of=as_of)

        async def asked(attempt: Attempt = attempt, borders: Borders = borders) -> Consulted:
            for effect in (":2", ":0", ":1", ":3"):
                attempt.record("score", effect, 1, 0.0, "k")
            return await run_consultation(
                attempt, look_up, {"query": "q"}, ask, borders=borders, request="k", recorded=None
            )

        seen.clear()
        assert within(asked).items == [{"text": "a"}, {"text": "b"}] and seen == [("a", known), ("b", known)]


def test_a_source_that_may_not_be_asked_is_refused_and_the_refusal_is_kept() -> None:
    refusal = "look_up was not run: not that (rule r)"
    found, asked, entries, _ = consulted("no", guard=Marks())
    assert found == Consulted([], {"query": "no"}, refusal, 0) and asked == []
    assert entries == {(":3", "k"): {"items": [], "refusal": refusal}}
    assert consulted("no", {"items": [{"text": "a"}]}, guard=Marks())[:3] == (found, [], {})
    denied = Approval({"external": "deny"})
    found, asked, entries, attempt = consulted("q", guard=Marks(), approval=denied)
    assert found == Consulted([], {"query": "Q"}, "look_up was not run: look_up is not allowed here") and asked == []
    assert entries[":3", "k"]["refusal"] == found.refusal and attempt.events[-1].kind == "approval"
    kept = {"items": [{"text": "a"}]}
    assert consulted("q", kept, approval=denied)[0].items == [{"text": "a"}], "what is on record was approved"


def test_guards_of_items_see_the_calls_that_those_of_the_question_see() -> None:
    class Sees:
        def call(self, view: Any, tool: Tool, arguments: Json) -> GuardVerdict:
            seen.append(("call", [call.id for call in view.calls], view.node))
            return GuardVerdict.passed("s")

        def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
            seen.append((result.content, [call.id for call in view.calls], view.node))
            return GuardVerdict.passed("s")

    async def ask(arguments: Json) -> list[Json]:
        return [{"text": "a"}, {"text": "b", "more": 1}]

    async def main(as_of: str) -> Consulted:
        attempt = attempt_of(Scripted(), guard=Sees())
        for effect in (":2", ":0", ":1", ":3", ":4"):
            attempt.record("tool", effect, 1, 0.0, "key")
        borders = Borders(attempt, ":3", 0, Budget(Limits()), as_of=as_of)
        found = await run_consultation(
            attempt, look_up, {"query": "q"}, ask, borders=borders, request="k", recorded=None
        )
        assert attempt.guard_passes == {"s call": 1, "s result": 2}
        return found

    for as_of, ids in (("", [":0", ":1", ":2"]), (":1", [":0"])):
        seen: list[tuple[str, list[str], int | None]] = []
        found = within(lambda as_of=as_of: main(as_of))
        assert found == Consulted([{"text": "a"}, {"text": "b", "more": 1}], {"query": "q"})
        assert seen == [(what, ids, 0) for what in ("call", "a", "b")]
