"""A client of a served agent reads no error of a call that no guard has judged, and no reason of a guard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.listener import Began
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.safety.redact import redact
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.shown_steps import ShownSteps, step_line
from firsthand.tool import tool_from_function
from firsthand.trace import Call
from served_agent import within_sessions

CODE = "SECRET-4711"
CALLS = {
    "unknown": ToolCall("1", f"{CODE} belongs to Ann", {}),
    "no JSON": ToolCall("1", "look", {}, f'{{"word": {CODE} is what Ann said'),
    "twice": ToolCall("1", "look", {}, f'{{"{CODE}": 1, "{CODE}": 2}}'),
    "wrong": ToolCall("1", "look", {"word": "x", "page": 1}),
    "fails": ToolCall("1", "look", {"word": "nothing"}),
    "works": ToolCall("1", "look", {"word": "tea"}),
}


def look(word: str) -> str:
    """Look a word up."""
    if word == "nothing":
        raise ToolError("no such word in the book")
    return f"{word} is a drink"


def told(folder: Path, call: ToolCall, guards: Any) -> tuple[str, list[str]]:
    """What a client gets of an agent that makes one call, and what the model of the agent read."""
    lines: list[str] = []
    read: list[str] = []

    async def pattern(task: Any, ctx: Any) -> str:
        read.append((await ctx.call(call)).content)
        return "done"

    async def use(sessions: ServedSessions) -> None:
        tell = sessions._tell

        def kept(id: str, news: Any) -> None:
            lines.append(f"{step_line(news)} {news}")
            tell(id, news)

        sessions._tell = kept  # type: ignore[method-assign]
        turn = await sessions.settled(sessions.submit("ann", "q", context="one").id)
        lines.append(json.dumps(sessions.shown.trace(sessions.trace(turn.session))))

    tools = (tool_from_function(look, effect="read"),)
    within_sessions(Agent("a", Scripted(["x"]), pattern, {}, tools, guard=guards), folder, use)
    return "\n".join(lines), read


@pytest.mark.parametrize("border", ["call", "answer"])
@pytest.mark.parametrize("name", ["unknown", "no JSON", "twice"])
def test_a_refused_call_tells_a_client_nothing_that_the_model_wrote(tmp_path: Path, name: str, border: str) -> None:
    guards = redact(pattern=r"SECRET-\d+", borders=(border, "result"))
    text, (read,) = told(tmp_path, CALLS[name], guards)
    assert CODE in read, "the model reads its own mistake"
    assert CODE not in text and "Ann" not in text
    why = {"unknown": "a tool that there is not", "no JSON": "not valid JSON", "twice": "are ambiguous"}[name]
    *running, trace = text.splitlines()
    assert why in trace and why in "".join(running), "in the trace, and while it runs"


def test_without_guards_and_of_errors_that_passed_them_a_client_reads_all(tmp_path: Path) -> None:
    for name, call in CALLS.items():
        text, (read,) = told(tmp_path / name, call, None)
        assert json.dumps(read)[1:-1] in text and json.dumps(call.name) in text, name
    guards = redact(pattern=r"SECRET-\d+", borders=("call", "result", "answer"))
    for name, said in {
        "fails": "Error: no such word in the book",
        "works": "tea is a drink",
        "wrong": "Error: ",
    }.items():
        text, (read,) = told(tmp_path / f"{name} guarded", CALLS[name], guards)
        assert f"-> {said}" in text and CODE not in text and '"name": "look"' in text, name


class Blocks:
    """Blocks at one border, with a reason for the operator."""

    def __init__(self, border: str, error: bool = False):
        setattr(self, border, self._fails if error else self._blocked)

    def _blocked(self, view: Any, *about: Any) -> GuardVerdict:
        return GuardVerdict.blocked("debts", "Ann owes 500")

    def _fails(self, view: Any, *about: Any) -> GuardVerdict:
        raise ToolError("Ann owes 500")


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("border", ["call", "result"])
def test_the_reason_of_a_block_is_read_by_the_model_and_by_no_client(tmp_path: Path, border: str, error: bool) -> None:
    text, (read,) = told(tmp_path, CALLS["works"], Blocks(border, error))
    assert "Ann owes 500" in read and "Ann" not in text
    assert ("a guard blocked it (rule debts)" in text) == (not error)
    assert ("the call failed" in text) == error


def test_an_error_without_its_text_for_clients_is_not_told_where_there_are_guards() -> None:
    detail = {"name": "look", "result": "Error: Ann owes 500", "is_error": True}
    old = Call("1", "tool", None, 0.0, 0.0, "r", detail=detail, error="Error: Ann owes 500")
    guarded = ShownSteps((redact(pattern="x", borders=("result",)),))
    step = guarded.step(old)
    assert "Ann" not in str(step) and "Ann" not in str(guarded._call(old)) and "the call failed" in step_line(step)
    judged = replace(old, detail=detail | {"clients": {}})
    assert guarded._call(judged)["error"] == guarded._call(judged)["result"] == "Error: Ann owes 500"
    assert ShownSteps(()).step(old) == old
    assert guarded.step(Began("1", "tool", None, {"name": "nope"})) is None


def test_what_consult_was_refused_for_is_told_without_the_reason(tmp_path: Path) -> None:
    lines: list[str] = []

    async def pattern(task: Any, ctx: Any) -> str:
        async def ask(arguments: Any) -> list[Any]:
            return [{"text": "x"}]

        await ctx.consult(tool_from_function(look, effect="read"), {"word": "tea"}, ask)
        return "done"

    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "q", context="one").id)
        lines.append(json.dumps(sessions.shown.trace(sessions.trace(turn.session))))

    within_sessions(Agent("a", Scripted(["x"]), pattern, guard=Blocks("call")), tmp_path, use)
    assert "Ann" not in lines[0] and "look was not run: a guard blocked it (rule debts)" in lines[0]
