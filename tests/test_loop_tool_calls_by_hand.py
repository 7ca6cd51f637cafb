"""Tool calls, approvals, borders and views of guards, each on a case where every part of the answer differs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import AnswerPending, GuardBlocked, ToolError
from firsthand.guard import AttemptView, Border, GuardVerdict
from firsthand.loop.approval import Approval, Decision, approval_key
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders, Sent, _refusal, _take, _View
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.request_key import request_key
from firsthand.loop.tool_call import Ran, _no_tool, approve, run_call, tool_request
from firsthand.message import Json, Message, Text, ToolCall, ToolResult, assistant, user
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.tool import Tool, marked, tool, usage
from firsthand.trace import Call
from open_calls import attempt_of, within

ran: list[str] = []


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    ran.append(text)
    if text == "later":
        raise AnswerPending("calls", "somebody must answer")
    if text == "bad":
        raise ToolError("no")
    return f"sent {text}"


@tool(effect="read")
def find(text: str) -> str:
    """Find a text."""
    return text


class Guard:
    """Shouts arguments, marks results, and blocks what is red."""

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        if arguments["text"] == "red":
            return GuardVerdict.blocked("c", "it is red")
        return GuardVerdict.replaced("c", {"text": arguments["text"].upper()})

    async def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        if "RED" in result.content:
            return GuardVerdict.blocked("r", "redder")
        return GuardVerdict.replaced("r", replace(result, content=f"{result.content}!"))


def called(
    text: Any, recorded: Json | None = None, *, of: Tool = send, journal: MemoryJournal | None = None, **agent: Any
) -> tuple[Ran, dict[Any, Any], list[Any]]:
    """The call's end, what it added to the journal, and the events that are no verdict of a guard."""
    ran.clear()
    given = agent.pop("given", None) or ToolCall("7", of.name, {"text": text})
    kept = journal or MemoryJournal()
    before = dict(kept.entries)
    attempt = Attempt(Agent("a", Scripted(), direct, **agent), (of, find), kept, 0, task=Task("t", "?"))
    borders = Borders(attempt, ":3", None, Budget(Limits()))
    found = within(lambda: run_call(attempt, given, borders=borders, request="k", recorded=recorded))
    added = {key: value for key, value in kept.entries.items() if before.get(key) != value}
    assert found.told is None or found.result.is_error
    found = found._replace(told=None)  # see test_served_refusals.py
    return found, added, [(each.kind, each.data) for each in attempt.events if each.kind != "guard"]


def error(text: str, name: str = "send") -> ToolResult:
    return ToolResult("7", name, f"Error: {text}", True)


def test_a_call_is_told_apart_by_what_its_arguments_tool_and_record_say() -> None:
    found, added, _ = called("a", guard=Guard())
    assert found == Ran(ToolResult("7", "send", "sent A!"), {"text": "A"}) and ran == ["A"]
    assert added == {(":3", "k"): {"content": "sent A", "is_error": False}}
    mended = ToolCall("7", "send", {}, invalid='```json\n{"text": "b"}\n```')
    assert called("", given=mended, guard=Guard())[0] == Ran(ToolResult("7", "send", "sent B!"), {"text": "B"})
    broken = ToolCall("7", "send", {"text": "kept"}, invalid="[1]" + "é" * 300)
    said = f"the arguments of send are not valid JSON: [1]{'é' * 197}: write an object, {usage(send)}"
    assert called("", given=broken, guard=Guard())[:2] == (Ran(error(said), {"text": "kept"}), {})
    blocked = "send was not run: it is red (rule c)"
    assert called("red", guard=Guard())[:2] == (
        Ran(error(blocked), {"text": "red"}), {(":3", "k"): {"content": f"Error: {blocked}", "is_error": True}},
    )  # fmt: skip
    unread = ToolCall("7", "send", {"text": "unread"}, invalid='{"text": "red"}')
    assert called("", given=unread, guard=Guard())[0] == Ran(error(blocked), {"text": "red"})
    withheld = "the result of send was withheld: redder (rule r)"
    found, added, _ = called("infra-red", guard=Guard())
    assert found == Ran(error(withheld), {"text": "INFRA-RED"}) and added[":3", "k"]["content"] == "sent INFRA-RED"
    assert _no_tool("b", []) == "no tool 'b'; there are none"
    asked = ToolCall("7", "send", {"text": "é", "n": {"b": 1, "a": None}})
    text = '["send",{"n":{"a":null,"b":1},"text":"é"},%s]'
    key = request_key("tool", text % "null")
    other = ToolCall("8", "send", {"n": {"a": None, "b": 1}, "text": "é"})
    assert tool_request(asked) == tool_request(other) == key, "neither its id nor the order of its arguments counts"
    assert tool_request(replace(asked, invalid="{")) == request_key("tool", text % '"{"')
    assert len({key, *(tool_request(replace(asked, **each)) for each in ({"name": "s"}, {"arguments": {}}))}) == 3
    assert _no_tool("x.Sent", ["zeta", "send"]) == "no tool 'x.Sent'; did you mean 'send'? there are send, zeta"
    assert called("a", given=ToolCall("7", "q" * 70, {"x": 1}))[0] == Ran(
        error(f"no tool {'q' * 64!r}; there are find, send", "q" * 70), {"x": 1}
    )


def test_what_is_on_record_stands_for_outside_effects_and_the_world_is_built_again() -> None:
    kept: Json = {"content": "sent x", "is_error": False, "origin": "web"}
    shown = ToolResult("7", "send", marked("sent x!", "web"), False, "web")
    assert called("x", kept, guard=Guard()) == (Ran(shown, {"text": "X"}), {}, []) and ran == []
    seen = replace(shown, content=marked("sent x", "web"))
    assert called("x", kept | {"shown": True}, guard=Guard())[0].result == seen
    failed: Json = {"content": "Error: gone", "is_error": True, "origin": "web"}
    assert called("x", failed)[0].result == ToolResult("7", "send", f"Error: {marked('gone', 'web')}", True, "web")
    for effect in ("read", "irreversible"):
        other: Any = replace(send, effect=effect)
        assert called("x", {"content": "kept", "is_error": False}, of=other)[0].result.content == "kept" and ran == []
    interrupted = "send was interrupted while it ran; it may have taken effect, so it is not repeated"
    assert called("x", {"started": True}, guard=Guard())[:2] == (Ran(error(interrupted), {"text": "X"}), {})
    again, added, _ = called("x", {"waiting": True})
    assert again.result.content == "sent x" and list(added.values()) == [{"content": "sent x", "is_error": False}]
    world = replace(send, effect="write")
    stands, added, _ = called("x", {"content": "sent earlier", "is_error": False}, of=world)
    assert (stands.result.content, ran, added) == ("sent earlier", ["x"], {})
    changed, added, _ = called("bad", {"content": "sent earlier", "is_error": False}, of=world)
    assert changed.result == error("no") and added[":3", "k"] == {"content": "Error: no", "is_error": True}
    late, added, _ = called("x", {"started": True}, of=world)
    assert late.result.content == "sent x" and added[":3", "k"]["content"] == "sent x"


def test_a_call_that_waits_for_an_answer_says_so_in_the_journal_and_invalid_ones_ask_nobody() -> None:
    journal = MemoryJournal()
    with pytest.raises(AnswerPending):
        called("later", journal=journal)
    assert journal.entries == {(":3", "k"): {"waiting": True}} and ran == ["later"]
    asked: list[Any] = []

    async def ask(tool: Tool, arguments: Json) -> Decision:
        asked.append((tool.name, arguments))
        return Decision(len(asked) > 1, "nobody" if len(asked) == 1 else "me", "because")

    rules = Approval({"external": "ask"}, ask=ask)
    found, added, events = called("x", given=ToolCall("7", "send", {"word": "x"}), approval=rules)
    assert found.result.is_error and asked == [] and events == [] and list(added) == [(":3", "k")]
    key = approval_key(":3", send, {"text": "x"})
    journal = MemoryJournal()
    found, added, events = called("x", approval=rules, journal=journal)
    noted = {"tool": "send", "arguments": {"text": "x"}, "effect": "external", "call": ":3", "reason": "because"}
    assert found.result == error("send was not run: because") and events == [
        ("approval", noted | {"allowed": False, "by": "nobody"})
    ]
    assert list(added) == [(":3", "k")], "that nobody answered is no decision"
    for _ in range(2):
        found, added, events = called("x", approval=rules, journal=journal)
        assert found.result.content == "sent x" and events == [("approval", noted | {"allowed": True, "by": "me"})]
    assert len(asked) == 2 and len(journal.entries[key].pop("once")) == 32
    assert journal.entries[key] == {"allowed": True, "by": "me", "reason": "because"}
    ruled = attempt_of(Scripted(), approval=Approval({"send": "deny"}, ask=ask))
    with pytest.raises(ToolError, match="send was not run: send is not allowed here"):
        asyncio.run(approve(ruled, send, {"text": "x"}, ":3"))
    assert ruled.journal.entries == {} and ruled.events[0].data["by"] == "rule"  # type: ignore[attr-defined]
    asyncio.run(approve(attempt_of(Scripted()), send, {"text": "x"}, ":3"))
    asked.append("before")
    for rule, kept, said in (
        ("deny", {"allowed": True, "by": "me", "reason": ""}, "send was not run: send is not allowed here"),
        ("ask", {"allowed": False, "by": "me", "reason": ""}, "send was not run: it was not approved"),
        ("ask", {"allowed": False, "by": "me", "reason": "no, it is late"}, "send was not run: no, it is late"),
        ("ask", {"allowed": True, "by": "me", "reason": ""}, ""),
        ("allow", {"allowed": False, "by": "me", "reason": "no"}, ""),
    ):
        journal = MemoryJournal()
        journal.record(*key, kept)
        found, added, events = called("x", approval=Approval({"send": rule}, ask=ask), journal=journal)
        assert found.result == (error(said) if said else ToolResult("7", "send", "sent x")), (
            "the rule of today goes first"
        )
        assert ran == ([] if said else ["x"]) and key not in added and journal.entries[key] == kept
        decided = {"allowed": False, "by": "rule", "reason": "send is not allowed here"} if rule == "deny" else kept
        noted = {"tool": "send", "arguments": {"text": "x"}, "effect": "external", "call": ":3", **decided}
        assert events == ([] if rule == "allow" else [("approval", noted)])
    assert asked[-1] == "before", "nobody is asked again"


# -- borders --


class Prompts:
    """Replaces messages by a table of texts, or blocks one."""

    def __init__(self, **changes: str) -> None:
        self.changes = changes

    def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        if any(each.text == "stop" for each in messages):
            return GuardVerdict.blocked("p", "stopped")
        if not any(each.text in self.changes for each in messages):
            return GuardVerdict.passed("p", "looked", {"n": len(messages)} if "noted" in self.changes else {})
        changed = [replace(each, parts=(Text(self.changes[each.text]),)) if each.text in self.changes else each
                   for each in messages]  # fmt: skip
        return GuardVerdict.replaced("p", changed, "swapped")

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        return GuardVerdict.replaced("q", answer * 2) if answer == "ab" else GuardVerdict.passed("q")


def test_a_prompt_keeps_its_nodes_and_equal_messages_are_told_apart_by_place() -> None:
    attempt = attempt_of(Scripted(), guard=(Prompts(three="3"),))
    same = user("one two")
    attempt.add_node(1, same)  # equal to node 0
    attempt.add_node(2, user("four"))
    borders = Borders(attempt, ":4", 3, Budget(Limits()), as_of=":2")
    sent = within(lambda: borders.prompt(None))
    three = replace(assistant("three"), parts=(Text("3"),))
    assert sent == Sent((user("one two"), three, same, user("four")), {"messages": [0, three.to_json(), 2, 3]})
    (event,) = attempt.events
    looked = {"guard": "Prompts", "border": "prompt", "rule": "p", "action": "pass", "reason": "looked", "effect": ":4"}
    assert event.data == looked | {"action": "replace", "reason": "swapped", "at": 3, "original": [1]}
    assert within(lambda: replace(borders, node=0).prompt(None)) == Sent((user("one two"),), {})
    assert attempt.events[1].data == looked | {"at": 0}
    assert within(lambda: borders.prompt("three")) == Sent("3", {"prompt": "3"})
    assert attempt.events[2].data["original"] == [user("three").to_json()], "a text is no node"
    with pytest.raises(GuardBlocked) as blocked:
        within(lambda: borders.prompt("stop"))
    assert str(blocked.value) == "the prompt was blocked: stopped (rule p)"
    assert attempt.events[3].data["original"] == [user("stop").to_json()]
    assert within(lambda: borders.answer("ab")) == "abab" and within(lambda: borders.answer("b")) == "b"
    assert attempt.events[4].data["original"] == "ab" and attempt.guard_passes == Counter({"q answer": 1})

    class Copies(Prompts):
        def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
            return GuardVerdict.replaced("p", [user("new"), *(replace(each) for each in messages[1:])])

    copied = attempt_of(Scripted(), guard=(Copies(),))
    assert within(lambda: Borders(copied, ":4", 1, Budget(Limits())).prompt(None)).prompt[1] == assistant("three")
    assert copied.events[0].data["original"] == [0], "an equal message has passed"
    noted = attempt_of(Scripted(), guard=(Prompts(noted="x"),))
    within(lambda: Borders(noted, ":4", 1, Budget(Limits())).prompt(None))
    assert noted.events[0].data["detail"] == {"n": 2} and "tool" not in noted.events[0].data
    unguarded = Borders(attempt_of(Scripted()), ":4", 0, Budget(Limits()))
    assert within(lambda: unguarded.prompt("x")) == Sent("x", {"prompt": "x"})
    verdict = GuardVerdict.blocked("r", "")
    borders: dict[Border, tuple[Any, ...]] = {"call": (send,), "result": (send,), "prompt": (), "answer": ()}
    assert [str(_refusal(border, about, verdict)) for border, about in borders.items()] == [
        "send was not run: no reason was given (rule r)",
        "the result of send was withheld: no reason was given (rule r)",
        "the prompt was blocked: no reason was given (rule r)", "the answer was blocked: no reason was given (rule r)",
    ]  # fmt: skip


def test_a_view_has_what_had_ended_before_in_the_order_of_places_and_once_is_once() -> None:
    attempt = attempt_of(Scripted())
    attempt.offer([send, find])
    for effect in (":2", ":0", ":1"):
        attempt.calls.append(Call(effect, "tool", None, 0.0, 1.0, ""))
        attempt.order[effect] = (3 - int(effect[1:]), 1)
    view = _View(Borders(attempt, ":5", 0, Budget(Limits()), as_of=":2"), ":5 guard 2 call")
    made = view.made()
    assert (made.task, made.agent, made.node, made.messages) == (Task("t", "?"), "a", 0, (user("one two"),))
    assert [each.id for each in made.calls] == [":1", ":0"] and [each.name for each in made.tools] == ["find", "send"]
    assert [each.id for each in _View(Borders(attempt, ":2", 0, Budget(Limits())), "x").calls()] == [":0", ":1"]
    assert [view.next_effect() for _ in range(2)] == [":5 guard 2 call 0", ":5 guard 2 call 1"]
    acted: list[int] = []

    async def once(at: _View, request: Json, nested: bool = False) -> Json:
        async def act() -> Json:
            acted.append(len(acted))
            if nested:
                await at.once({"inner": 1}, act_inner)
            return {"n": len(acted)}

        async def act_inner() -> Json:
            return {"inner": True}

        return await at.once(request, act)

    first = [within(lambda: once(view, {"a": 1}, True)), within(lambda: once(view, {"a": 1}))]
    assert first == [{"n": 1}, {"n": 2}]
    effects = [effect for effect, _ in attempt.journal.entries]  # type: ignore[attr-defined]
    assert effects == [f":5 guard 2 call {n}" for n in (3, 2, 3)]
    later = _View(view.borders, ":5 guard 2 call")
    later.count = 2
    assert [within(lambda: once(later, {"a": 1})) for _ in range(2)] == first and len(acted) == 2
    claims: dict[str, dict[str, float]] = {}
    for key, amount, item, at in (
        ("k", 2, "", ""), ("k", 1.5, "", ""), ("k", 3, "i", "p 1"), ("k", 4, "i", "p 2"), ("m", 1, "", "p 1"),
        ("m", 2, "", "p 1"), ("m", 5, "", "p 2"),
    ):  # fmt: skip
        _take(claims, {"claim": key, "amount": amount, "item": item, "at": at})
    assert claims == {"k": {"": 3.5, "i": 4}, "m": {"p 1": 2, "p 2": 5}}
