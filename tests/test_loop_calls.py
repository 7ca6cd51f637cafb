"""One tool call of an attempt: what is refused and why, journalled, replayed, run again, or marked as from outside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.request_key import request_key
from firsthand.loop.tool_call import Ran, run_call, tool_request
from firsthand.message import Json, ToolCall, ToolResult, canonical
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.tool import marked, tool, usage

ran: list[str] = []


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    ran.append(text)
    if text == "bad":
        raise ToolError("it was refused there")
    return f"sent {text}"


class Strict:
    """Withholds what is forbidden."""

    def call(self, view: Any, tool: Any, arguments: Json) -> GuardVerdict:
        return GuardVerdict.blocked("r", "no") if arguments["text"] == "evil" else GuardVerdict.passed("r")

    def result(self, view: Any, tool: Any, result: ToolResult) -> GuardVerdict:
        return GuardVerdict.blocked("s", "why") if "secret" in result.content else GuardVerdict.passed("s")


def called(
    call: ToolCall,
    recorded: Json | None = None,
    *,
    made: Any = send,
    guard: Any = None,
    approval: Approval | None = None,
) -> tuple[Ran, dict[Any, Any], list[Any]]:
    """What came of it, the journal's entries, and the events."""
    ran.clear()
    journal = MemoryJournal()
    agent = Agent("a", Scripted([]), direct, guard=guard, approval=approval or Approval())
    attempt = Attempt(agent, (made,), journal, 0, task=Task("t", "?"))
    borders = Borders(attempt, ":0", None, Budget(Limits()))
    found = asyncio.run(run_call(attempt, call, borders=borders, request="k", recorded=recorded))
    assert found.told is None or found.result.is_error
    found = found._replace(told=None)  # see test_served_refusals.py
    return found, dict(journal.entries), [(event.kind, event.data) for event in attempt.events]


def refused(text: str, name: str = "send") -> ToolResult:
    return ToolResult("1", name, f"Error: {text}", True)


def test_a_call_that_cannot_be_is_refused_in_words_for_the_model() -> None:
    for name, said in (
        ("sen", "no tool 'sen'; did you mean 'send'? there are send"),
        ("functions.SEND", "no tool 'functions.SEND'; did you mean 'send'? there are send"),
        ("x" * 70, f"no tool {'x' * 64!r}; there are send"),
    ):
        found, journal, _ = called(ToolCall("1", name, {"text": "a"}))
        assert found == Ran(refused(said, name), {"text": "a"}) and journal == {} and ran == []
    broken = called(ToolCall("1", "send", {}, invalid="{text" + "x" * 300))[0]
    said = f"the arguments of send are not valid JSON: {'{text' + 'x' * 195}: write an object, {usage(send)}"
    assert broken == Ran(refused(said), {})
    found, journal, _ = called(ToolCall("1", "send", {"words": "a"}))
    assert found.result.is_error and found.arguments == {"words": "a"} and ran == []
    assert journal == {(":0", "k"): {"content": found.result.content, "is_error": True}}
    call = ToolCall("1", "send", {"text": "a"})
    assert tool_request(call) == request_key("tool", canonical(["send", {"text": "a"}, None]))
    assert (
        tool_request(replace(call, id="2"))
        == tool_request(call)
        != tool_request(ToolCall("1", "send", {}, invalid="{"))
    )


def test_a_call_is_run_once_its_intent_is_on_record_and_its_error_is_a_result() -> None:
    found, journal, _ = called(ToolCall("1", "send", {"text": "a"}))
    assert found == Ran(ToolResult("1", "send", "sent a"), {"text": "a"}) and ran == ["a"]
    assert journal == {(":0", "k"): {"content": "sent a", "is_error": False}}
    found, journal, _ = called(ToolCall("1", "send", {"text": "bad"}))
    assert found.result == refused("it was refused there") and journal[":0", "k"]["is_error"] is True
    outside = replace(send, origin="https://x")
    found, journal, _ = called(ToolCall("1", "send", {"text": "a"}), made=outside)
    assert found.result.content == marked("sent a", "https://x") != "sent a" and found.result.origin == "https://x"
    assert journal[":0", "k"] == {"content": "sent a", "is_error": False, "origin": "https://x"}
    failed = called(ToolCall("1", "send", {"text": "bad"}), made=outside)[0].result
    assert failed.content == f"Error: {marked('it was refused there', 'https://x')}" and failed.origin == "https://x"


def test_a_guard_or_a_person_may_refuse_a_call_and_a_guard_its_result() -> None:
    evil = ToolCall("1", "send", {"text": "evil"})
    found, journal, _ = called(evil, guard=Strict())
    assert found == Ran(refused("send was not run: no (rule r)"), {"text": "evil"}) and ran == []
    assert journal == {(":0", "k"): {"content": found.result.content, "is_error": True}}
    assert called(evil, {"content": "x", "is_error": True}, guard=Strict())[1] == {}
    found, journal, _ = called(ToolCall("1", "send", {"text": "secret"}), guard=Strict())
    assert found.result == refused("the result of send was withheld: why (rule s)") and ran == ["secret"]
    assert journal[":0", "k"]["content"] == "sent secret", "the journal holds what the tool gave"
    shown = called(
        ToolCall("1", "send", {"text": "a"}), {"content": "secret", "is_error": False, "shown": True}, guard=Strict()
    )
    assert shown[0].result == ToolResult("1", "send", "secret"), "a fork's record has passed already"

    for reason, said in (("", "it was not approved"), ("not now", "not now")):

        async def no(tool: Any, arguments: Json, reason: str = reason) -> Decision:
            return Decision(False, "me", reason)

        asks = Approval({"send": "ask"}, ask=no)
        found, journal, events = called(ToolCall("1", "send", {"text": "a"}), approval=asks)
        assert found.result == refused(f"send was not run: {said}") and ran == []
        decision = {"allowed": False, "by": "me", "reason": reason}
        noted = {"tool": "send", "arguments": {"text": "a"}, "effect": "external", "call": ":0", **decision}
        assert events == [("approval", noted)] and decision in journal.values() and len(journal) == 2
    denied, journal, _ = called(ToolCall("1", "send", {"text": "a"}), approval=Approval({"send": "deny"}))
    assert denied.result == refused("send was not run: send is not allowed here") and len(journal) == 1


def test_what_is_on_record_is_replayed_not_repeated_or_run_again_for_the_attempts_world() -> None:
    call = ToolCall("1", "send", {"text": "a"})
    kept: Json = {"content": "sent earlier", "is_error": False}
    found, journal, _ = called(call, kept)
    assert found == Ran(ToolResult("1", "send", "sent earlier"), {"text": "a"}) and ran == [] and journal == {}
    found = called(call, {**kept, "origin": "web"})[0]
    assert found.result == ToolResult("1", "send", marked("sent earlier", "web"), False, "web")
    interrupted = "send was interrupted while it ran; it may have taken effect, so it is not repeated"
    for effect, repeats in (("external", False), ("irreversible", False), ("read", True), ("write", True)):
        made: Any = replace(send, effect=effect)
        allowed = Approval({"send": "allow"})
        found, _, _ = called(call, {"started": True}, made=made, approval=allowed)
        assert found.result == (ToolResult("1", "send", "sent a") if repeats else refused(interrupted))
        assert ran == (["a"] if repeats else [])
        found, _, _ = called(call, {"waiting": True}, made=made, approval=allowed)
        assert found.result == ToolResult("1", "send", "sent a") and ran == ["a"], "it had not acted yet"
    world: Any = replace(send, effect="write")
    found, journal, _ = called(call, kept, made=world)
    assert found.result == ToolResult("1", "send", "sent earlier") and ran == ["a"] and journal == {}
    found, journal, _ = called(call, {"content": "Error: x", "is_error": True}, made=world)
    assert found.result == ToolResult("1", "send", "sent a") and journal[":0", "k"] == {
        "content": "sent a",
        "is_error": False,
    }
