"""Effects on a memory and on a source outside are recorded whole: details, order, refusals, and what was withheld."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.attempt_memory import AttemptMemory, MemoryChange, apply, changes_of, commit
from firsthand.loop.journal import JournalPart, MemoryJournal, part_of
from firsthand.loop.open_sources import SourceKeeper, opened
from firsthand.loop.prompt_size import estimated_size, prompt_size, size_key
from firsthand.loop.reply_body import Continued, ReplyChain, from_body, shared, to_body
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.message import Json, Sampled, ToolCall, ToolResult, assistant, user
from firsthand.model import Completion, ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import Tool, tool
from firsthand.trace import Call, Trace

TASK = Task("t", "?")


def attempted(pattern: Any, *, journal: MemoryJournal | None = None, **agent: Any) -> Trace:
    return asyncio.run(rollout(Agent("a", Scripted([]), pattern, **agent), TASK, journal=journal))


@tool(effect="read", name="look_up")
def look_up(query: str) -> str:
    """Look a query up."""
    raise AssertionError("its items come from elsewhere")


class Censor:
    """Withholds every text with a secret."""

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        if "secret" in result.content:
            return GuardVerdict.blocked("r", "no")
        return GuardVerdict.replaced("up", ToolResult(result.call_id, result.name, result.content.upper()))


def test_each_withheld_item_is_noted_by_its_own_number() -> None:
    given = [{"text": text, "at": at} for at, text in enumerate(("secret a", "b", "secret c", "secret d", "e"))]

    async def give(arguments: Json) -> list[Json]:
        return given

    async def pattern(task: Task, ctx: Context) -> str:
        return str(await ctx.consult(look_up, {"query": "q"}, give))

    journal = MemoryJournal()
    for _ in range(2):  # the second one is answered by the journal, and guarded again
        trace = attempted(pattern, guard=Censor(), journal=journal)
        passed = [{"text": "B", "at": 1}, {"text": "E", "at": 4}]
        assert trace.answer == str(passed) and given[1]["text"] == "b"
        why = "the result of look_up was withheld: no (rule r)"
        assert [event.data for event in trace.events if event.kind == "withheld"] == [
            {"tool": "look_up", "item": item, "reason": why, "effect": ":0"} for item in (0, 2, 3)
        ]
        (call,) = trace.calls
        assert call.detail == {
            "name": "look_up", "arguments": {"query": "q"}, "result": "B\n\nE", "is_error": False, "items": passed,
        }  # fmt: skip
    assert call.replayed and call.error is None


def test_what_is_done_to_a_memory_is_recorded_with_its_order_and_made_again() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.remember("the cat", by="me")
        two = await ctx.remember_all([("dog one", {"n": 1}), ("dog two", {"n": 2})])
        found = await ctx.recall("dog", k=1)
        await ctx.forget(first)
        left = await ctx.recall("cat dog one", k=9)
        assert await ctx.remember_all([]) == []
        return f"{first} {' '.join(two)} | {[each.id for each in found]} | {sorted(each.text for each in left)}"

    journal = MemoryJournal()
    trace = attempted(pattern, memory=notes(), journal=journal)
    assert trace.error is None
    about = {"agent": "a", "benchmark": "adhoc", "task": "t", "epoch": 0}
    cat = MemoryItem.of("the cat", {"by": "me", **about, "effect": ":0"}).to_json()
    dogs = [
        MemoryItem.of(f"dog {text}", {"n": n, **about, "effect": ":1"}).to_json()
        for n, text in ((1, "one"), (2, "two"))
    ]
    details = [call.detail for call in trace.calls]
    assert details[0] == {"operation": "remember", "item": cat, "order": [0, 1], "reply": cat["id"]}
    assert details[1] == {
        "operation": "remember", "items": dogs, "order": [1, 1], "reply": [each["id"] for each in dogs],
    }  # fmt: skip
    assert {name: details[2][name] for name in ("operation", "query", "k")} == {
        "operation": "recall",
        "query": "dog",
        "k": 1,
    }
    assert details[2]["reply"][0] in dogs and len(details[2]["reply"]) == 1 and "how" not in details[2]
    assert details[3] == {"operation": "forget", "id": cat["id"], "order": [3, 1], "reply": None}
    assert trace.answer is not None and trace.answer.endswith("| ['dog one', 'dog two']")
    assert [call.kind for call in trace.calls] == ["memory"] * 5 and all(call.error is None for call in trace.calls)
    again = attempted(pattern, memory=notes(), journal=journal)
    assert again.answer == trace.answer and all(call.replayed for call in again.calls)
    assert [call.detail for call in again.calls] == details
    assert changes_of(trace) == [
        MemoryChange(":0", (0, 1), MemoryItem(**cat)), MemoryChange(":1", (1, 1, 0), MemoryItem(**dogs[0])),
        MemoryChange(":1", (1, 1, 1), MemoryItem(**dogs[1])), MemoryChange(":3", (3, 1), None, cat["id"]),
    ]  # fmt: skip

    async def kept() -> list[str]:
        memory = notes()
        for _ in range(2):  # what is committed twice is there once
            await commit(memory, trace)
        await apply(memory, [MemoryChange("x", (9,), None, dogs[0]["id"]), MemoryChange("w", (8,), MemoryItem(**cat))])
        return sorted(each.text for each in await memory.search("cat dog", 9))

    assert asyncio.run(kept()) == ["dog two", "the cat"]


def test_a_memory_asked_for_nothing_or_not_there_is_an_error_in_words() -> None:
    async def none(task: Task, ctx: Context) -> str:
        return str(await ctx.recall("x", k=0))

    async def missing(task: Task, ctx: Context) -> str:
        return await ctx.remember("x")

    for pattern, told in (
        (none, "recall was asked for k=0 items: ask for 1 or more"),
        (missing, "the agent a has no memory: give it one, as in Agent(memory=notes())"),
    ):
        trace = attempted(pattern, memory=notes() if pattern is none else None)
        assert trace.error is not None and trace.error.message == told


# -- journals and replies --


def test_a_part_of_a_journal_keeps_its_replies_apart() -> None:
    journal = MemoryJournal()
    part = JournalPart(journal, "1|judge")
    journal.record(":0", "r", {"a": 1})
    part.record(":0", "r", {"b": 2})
    assert (journal.find(":0", "r"), part.find(":0", "r"), part.find(":0", "s")) == ({"a": 1}, {"b": 2}, None)
    assert journal.replies() == [{"a": 1}] and part.replies() == [{"b": 2}] == journal.replies("1|judge")
    assert [part_of(each) for each in (":0", "judge|:0", "1|judge|:0")] == ["", "judge", "1|judge"]


def test_a_prompts_ids_are_kept_as_what_they_add_and_found_again() -> None:
    def said(*ids: int) -> Completion:
        return Completion(assistant("x"), "stop", Usage(1, 0, 1), prompt_ids=ids)

    pairs: Any = (((1, 2, 3), (1, 2)), ((1, 2), (1, 2, 3)), ((1, 9), (1, 2)), ((), (1,)), ((5,), (6,)))
    assert [shared(*each) for each in pairs] == [2, 2, 1, 0, 0]
    body = to_body([said(1, 2, 3, 4), said(1, 2, 3, 4)], Continued("KEY", 7, [1, 2, 9]))
    assert {name: body["prompt"][name] for name in ("ids", "after", "sample", "kept")} == {
        "ids": [3, 4], "after": "KEY", "sample": 7, "kept": 2,
    }  # fmt: skip
    asked: list[Any] = []

    def earlier(request: str, sample: int) -> list[int]:
        asked.append((request, sample))
        return [1, 2, 9]

    assert [each.prompt_ids for each in from_body(body, earlier)] == [(1, 2, 3, 4)] * 2 and asked == [("KEY", 7)]
    assert [each.prompt_ids for each in from_body(body, lambda *_: [1, 8, 9])] == [None] * 2, "another reply than then"
    assert [each.prompt_ids for each in from_body(body, lambda *_: None)] == [None] * 2
    whole = to_body([said(5, 6)], Continued("KEY", 0, [9]))
    assert whole["prompt"].keys() == {"ids", "check"} and from_body(whole, earlier)[0].prompt_ids == (5, 6)
    named = {**whole, "prompt": {**whole["prompt"], "after": "KEY", "sample": 0}}  # it keeps nothing of what it names
    for kept in ({}, {"kept": 0}):
        body = {**named, "prompt": {**named["prompt"], **kept}}
        assert [each.prompt_ids for each in from_body(body, earlier)] == [(5, 6)]
    plain = Completion(assistant("x"), "stop", Usage(1, 0, 1))
    assert to_body([plain]).keys() == {"completions"} and from_body(to_body([plain]), earlier) == [plain]
    assert to_body([]) == {"completions": []}


def test_the_ids_of_a_conversation_are_put_together_turn_by_turn_until_one_does_not_fit() -> None:
    def said(prompt: tuple[int, ...], *answers: tuple[int, ...]) -> list[Completion]:
        messages = [replace(assistant("x"), sampled=Sampled(each, (0.0,) * len(each))) for each in answers]
        return [Completion(each, "stop", Usage(1, 0, 1), prompt_ids=prompt) for each in messages]

    first = to_body(said((1, 2), (3,), (4, 5)))
    second = to_body(said((1, 2, 4, 5, 6), (7,)), Continued("A", 1, (1, 2, 4, 5)))
    other = to_body(said((1, 2, 8), (9,)), Continued("A", 1, (1, 2, 4, 5)))  # it keeps the beginning alone

    def chain(*turns: tuple[Json, int]) -> list[int] | None:
        made = ReplyChain(())
        for body, sample in turns:
            made.go_on(body, sample)
        return None if made.ids is None else list(made.ids)

    assert chain((first, 0)) == [1, 2, 3] and chain((first, 1)) == [1, 2, 4, 5]
    assert chain((first, 1), (second, 0)) == [1, 2, 4, 5, 6, 7]
    assert chain((first, 1), (other, 0)) == [1, 2, 8, 9]
    assert chain((first, 0), (second, 0)) is None, "the second turn goes on from the other answer"
    assert chain((first, -1)) is None and chain((first, 2)) is None, "there is no such answer"
    plain = to_body([Completion(assistant("x"), "stop", Usage(1, 0, 1))])
    assert chain((plain, 0)) is None and chain((first, 0), (plain, 0)) is None
    unknown = ReplyChain(None)
    unknown.go_on(first, 0)
    assert unknown.ids is None


def test_the_size_of_a_prompt_is_kept_for_its_model_tools_and_continuations() -> None:
    spec = ToolSpec("look_up", "Look it up.", {})
    asked: list[Any] = [("f", "Q"), ("g", "Q"), ("f", "R"), ("f", "Q", (spec,))]
    asked += [("f", "Q", (), texts) for texts in (("a",), ("b",), ("a", "b"))]
    keys = [size_key(*each) for each in asked]
    assert len(set(keys)) == len(keys) and keys == [size_key(*each) for each in asked]
    assert all(each.startswith("size:") for each in keys)


def test_an_unknown_endpoints_prompt_is_counted_by_bytes() -> None:
    assert [estimated_size(text) for text in ("", "a", "abcd", "abcde", "ää", "ääa")] == [0, 1, 1, 2, 1, 2]
    assert estimated_size([user("abcd"), assistant("abcde")]) == 4 * 3 + 3  # 9 bytes are 3 tokens
    call = assistant("", ToolCall("1", "look", {"q": 1}))
    assert estimated_size([call]) == 4 * 2 + 3, 'look{"q":1} has 11 bytes'

    class Bare:
        name = fingerprint = "bare"

    model: Any = Bare()
    assert asyncio.run(prompt_size(model, "abcde", (), ("a", "abcdef"))) == (2 + 1) + (2 + 2)
    assert asyncio.run(prompt_size(model, "abcde")) == 2


# -- sources --


class Source:
    """Notes when it is opened and closed, and fails where it is told to."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name, self.log, self.fails = name, log, fails

    async def open(self) -> None:
        self.log.append(f"open {self.name}")
        if self.fails == "open":
            raise ConfigError(f"{self.name} does not open")

    async def close(self) -> None:
        self.log.append(f"close {self.name}")
        if self.fails == "close":
            raise ConfigError(f"{self.name} does not close")


@pytest.mark.parametrize(
    ("fails", "told", "logged"),
    [
        ({}, None, "open a, open b, open c, close c, close b, close a"),
        ({"b": "open"}, "b does not open", "open a, open b, close b, close a"),
        ({"b": "close"}, "b does not close", "open a, open b, open c, close c, close b, close a"),
        ({"a": "close", "b": "open"}, "b does not open", "open a, open b, close b, close a"),
    ],
)
def test_sources_close_in_reverse_whatever_happens_and_the_first_error_is_told(
    fails: dict[str, str], told: str | None, logged: str
) -> None:
    log: list[str] = []
    sources: Any = [Source(name, log, fails.get(name, "")) for name in "abc"]

    async def use() -> None:
        async with opened(sources):
            pass

    async def keep() -> None:
        keeper = SourceKeeper(sources)
        await keeper.open()
        await keeper.open()
        await keeper.close()

    for way in (use, keep):
        log.clear()
        if told is None:
            asyncio.run(way())
        else:
            with pytest.raises(ConfigError, match=told):
                asyncio.run(way())
        assert ", ".join(log) == logged
    nobody = SourceKeeper(())
    asyncio.run(nobody.open()), asyncio.run(nobody.close())


def test_changes_are_made_by_their_order_whatever_its_numbers_and_seen_by_what_comes_after() -> None:
    old, new, more = (MemoryItem.of(f"cat {name}", {}) for name in ("old", "new", "more"))

    async def texts(memory: Any) -> list[str]:
        return sorted(each.text for each in await memory.search("cat", 9))

    async def main() -> None:
        for order in ((0,), (3, 0), (0, 0), (1,), (2, 5), ()):
            memory = notes()
            await apply(memory, [MemoryChange(":0", order, old)])
            await apply(memory, [MemoryChange(":0", order, None, old.id), MemoryChange(":0", order, None, "unknown")])
            assert await texts(memory) == [], order
        for place in range(3):  # written, forgotten and written again, in whatever order they are listed
            steps = [
                MemoryChange(":0", (0, 1), old), MemoryChange(":1", (1, 0), None, old.id), MemoryChange(":2", (2,), new),
            ]  # fmt: skip
            memory = notes()
            await apply(memory, iter([*steps[place:], *steps[:place]]))
            assert await texts(memory) == ["cat new"]
            again = [*steps, MemoryChange(":3", (1, 0, 0), old)]
            await apply(memory, [*again[place:], *again[:place]])
            assert await texts(memory) == ["cat new", "cat old"]
        base = notes()
        await base.write(old)
        attempt = AttemptMemory(base, {"task": "t"})
        await base.write(MemoryItem.of("cat later", {}))
        assert attempt.origin == {"task": "t"} and attempt.changes == []
        for change, seen in (
            (MemoryChange(":1", (1, 1), new),
             {":1": "old", ":2": "new old", "0.0:0": "new old", "0.1/3.0:0": "new old"}),
            (MemoryChange("0.0:1", (2, 0, 1, 1), more),
             {":2": "more new old", "0.0:1": "new old", "0.0:2": "more new old", "0.0/0.1:0": "more new old",
              "0.1:9": "new old", "1.0:0": "more new old"}),
            (MemoryChange(":3", (3, 1), None, old.id), {":3": "more new old", ":4": "more new", "1.5:0": "more new"}),
        ):  # fmt: skip
            attempt.changes.append(change)
            found = {effect: await texts(await attempt.as_of(effect)) for effect in seen}
            assert found == {effect: [f"cat {name}" for name in names.split()] for effect, names in seen.items()}
        assert await texts(attempt.base) == ["cat old"], "the snapshot stays as it was"

    asyncio.run(main())


def test_changes_are_read_from_calls_that_ended_well_and_have_an_order() -> None:
    one, two = MemoryItem.of("one", {"n": 1}), MemoryItem.of("two", {})

    def call(effect: str, kind: Any = "memory", error: str | None = None, /, **detail: Any) -> Call:
        return Call(effect, kind, None, 0.0, 0.0, "k", detail=detail, error=error)

    trace = attempted(lambda task, ctx: asyncio.sleep(0, "x"))
    calls = (
        call(":0", item=one.to_json(), order=[0, 0]), call(":1", items=[two.to_json(), one.to_json()], order=[1]),
        call(":2", id=7, order=[2, 0]), call(":3", order=[]), call(":4", item=one.to_json()),
        call(":5", "memory", "", item=one.to_json(), order=[5]), call(":6", "tool", item=one.to_json(), order=[6]),
        call(":7", items=[two.to_json()], order=[7, 1]),
    )  # fmt: skip
    assert changes_of(replace(trace, calls=calls)) == [
        MemoryChange(":0", (0, 0), one), MemoryChange(":1", (1, 0), two), MemoryChange(":1", (1, 1), one),
        MemoryChange(":2", (2, 0), None, "7"), MemoryChange(":3", (), None, ""), MemoryChange(":7", (7, 1, 0), two),
    ]  # fmt: skip
    assert changes_of(replace(trace, calls=())) == []
