"""A client of a served agent gets nothing that a guard withheld: not while it runs, and not from the session's trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from firsthand.agent import Agent
from firsthand.errors import FirsthandError, ModelError
from firsthand.guard import GuardVerdict, guard_name, watches
from firsthand.loop.listener import Began, Piece
from firsthand.message import ToolCall, user
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.safety.redact import redact
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import Caller, SessionModel, caller
from firsthand.serve.agents.shown_steps import ShownSteps, step_line
from firsthand.tool import tool_from_function
from firsthand.trace import Call
from served_agent import within_sessions

CODE = "SECRET-4711"


def look(word: str) -> str:
    """Look a word up."""
    return f"{word} is {CODE}"


async def looks_and_answers(task: Any, ctx: Any) -> str:
    """Call a tool, write an answer, and note it as patterns do."""
    found = await ctx.call(ToolCall("1", "look", {"word": task.question}))
    ctx = await ctx.say(f"{task.question}: {found.content}").generate()
    ctx.note("vote", **{ctx.text: 1})
    return str(ctx.text)


class Refuses:
    """Blocks at one border, with a reason that quotes what it saw, after it has asked a model about it."""

    def __init__(self, border: str):
        setattr(self, border, self._blocked)

    async def _blocked(self, view: Any, *about: Any) -> GuardVerdict:
        await view.ask(f"May this pass? {about[-1]}")
        return GuardVerdict.blocked("secrets", f"it holds {CODE}", {"found": str(about[-1])})


def served(folder: Path, guards: Any, question: str = "q") -> tuple[str, list[Any]]:
    """All that a client gets of one turn, and the steps of the turn."""
    told: list[str] = []
    steps: list[Any] = []

    async def use(sessions: ServedSessions) -> None:
        tell = sessions._tell

        def kept(id: str, news: Any) -> None:
            steps.append(news)
            tell(id, news)

        sessions._tell = kept  # type: ignore[method-assign]
        caller.set(Caller("ann"))
        try:
            async for each in SessionModel(sessions).stream([user(question)], Sampling()):
                told.append(each.text)
        except FirsthandError as error:
            told.append(str(error))
        (row,) = sessions.store.sessions()
        told.append(json.dumps(sessions.shown.trace(sessions.trace(row.id))))
        told.extend(map(step_line, steps))

    model = Scripted([f"The code is {CODE}."] * 9)
    tools = (tool_from_function(look, effect="read"),)
    within_sessions(Agent("a", model, looks_and_answers, {}, tools, guard=guards), folder, use)
    return "".join(told), steps


@pytest.mark.parametrize("border", ["prompt", "call", "result", "answer"])
def test_a_client_reads_nothing_that_a_guard_replaced_or_blocked(tmp_path: Path, border: str) -> None:
    others = redact(pattern=r"SECRET-\d+", borders=("prompt", "call", "result", "answer"))
    asked = f"{CODE}?" if border == "call" else "q"  # as the model's arguments
    told, _ = served(tmp_path / "replaced", others, asked)
    assert "[redacted]" in told and CODE not in told.replace(json.dumps(asked), "")
    told, _ = served(tmp_path / "blocked", (Refuses(border), others), asked)
    assert "it holds" not in told and CODE not in told.replace(json.dumps(asked), "")
    assert ("a guard blocked it (rule secrets)" in told) == (border in ("call", "result"))


def test_pieces_and_notes_are_told_where_no_guard_watches_what_the_model_writes(tmp_path: Path) -> None:
    for number, guards in enumerate((None, redact(pattern="sk-x"))):
        told, steps = served(tmp_path / str(number), guards)
        assert any(isinstance(each, Piece) for each in steps) and '"vote"' in told and '"data": {"The code' in told
        assert 'look({"word":"q"})' in told and f"-> q is {CODE}" in told
    told, steps = served(tmp_path / "answer", redact(pattern="sk-x", borders=("answer",)))
    assert not any(isinstance(each, Piece) for each in steps) and '{"kind": "vote", "data": {}}' in told
    assert 'look({"word":"q"})' in told and f"The code is {CODE}." in told


def test_arguments_are_told_as_the_guards_left_them_and_not_before() -> None:
    import asyncio

    from firsthand.rollout import rollout
    from firsthand.task import Task

    def heard(guard: Any) -> list[Any]:
        steps: list[Any] = []
        tools = (tool_from_function(look, effect="read"),)
        agent = Agent("a", Scripted(["x"] * 9), looks_and_answers, {}, tools, guard=guard)
        asyncio.run(rollout(agent, Task("1", "sk-1"), listener=steps.append))
        return [each.detail for each in steps if isinstance(each, Began) and each.kind == "tool"]

    assert heard(None) == [{"name": "look", "arguments": {"word": "sk-1"}}]
    redacted = redact(pattern=r"sk-\d", borders=("call",))
    assert heard(redacted) == [{"name": "look"}, {"name": "look", "arguments": {"word": "[redacted]"}}]
    assert heard(Refuses("call")) == [{"name": "look"}]


def test_a_guard_watches_the_borders_it_has_methods_for_or_names() -> None:
    at = {border: watches((redact(pattern="x", borders=("call",)),), border) for border in ("prompt", "call", "answer")}
    assert at == {"prompt": False, "call": True, "answer": False}
    assert watches((Refuses("answer"),), "answer") and not watches((Refuses("answer"),), "call")
    odd = Refuses("answer")
    odd.borders = ("north",)  # type: ignore[attr-defined]
    assert watches((odd,), "answer") and not watches((), "answer")


def test_the_name_of_a_guard_tells_the_options_that_were_changed() -> None:
    @dataclass
    class Bound:
        name: ClassVar[str] = "bound"
        most: int = 3
        words: Sequence[str] = ("a",)
        mark: str = "x"
        held: str = field(default="", repr=False)
        seen: int = field(default=0, init=False)

    assert guard_name(Bound()) == "bound"
    assert guard_name(Bound(0, [], "", "secret")) == "bound:most=0:words=:mark="
    counted = Bound(3, ["a", "b"], "yz")
    counted.seen = 4
    assert guard_name(counted) == "bound:words=a+b:mark=yz"
    assert guard_name(Refuses("answer")) == "Refuses"


def test_a_line_of_a_step_is_a_call_its_result_or_text() -> None:
    assert step_line(Began("1", "tool", None, {"name": "look", "arguments": {"word": "é"}})) == 'look({"word":"é"})'
    assert step_line(Began("1", "tool", None, {"name": "look"})) == step_line(Began("1", "generate", None)) == ""
    assert step_line(Call("1", "tool", None, 0.0, 0.0, "r", detail={"result": "y" * 600})) == "-> " + "y" * 500


def test_an_error_that_quotes_a_draft_is_not_told_where_a_guard_watches_answers(tmp_path: Path) -> None:
    async def judges(task: Any, ctx: Any) -> str:
        said = await ctx.say(task.question).generate()
        raise ModelError(f"the judge wrote {said.text!r}, and a verdict was expected")

    told: list[str] = []

    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "q", context="one").id)
        told.append(f"{turn.error} {json.dumps(sessions.shown.trace(sessions.trace(turn.session)))}")

    for number, guards in enumerate((None, redact(pattern=r"SECRET-\d+", borders=("answer",)))):
        agent = Agent("a", Scripted([f"The code is {CODE}."]), judges, guard=guards)
        within_sessions(agent, tmp_path / str(number), use)
    assert told[0].startswith(f"the judge wrote 'The code is {CODE}.'"), "as before where nothing is judged"
    assert told[1].startswith("the attempt failed with a ModelError, whose text") and CODE not in told[1]


def test_of_calls_a_client_reads_named_fields_and_none_that_a_guard_made(tmp_path: Path) -> None:
    told, steps = served(tmp_path / "call", (Refuses("prompt"), redact(pattern="x", borders=("call",))))
    assert '"kind": "guard", "name"' not in told and not any(isinstance(each, Piece) for each in steps)
    told, steps = served(tmp_path / "passes", redact(pattern="x", borders=("call",)))
    assert not any(isinstance(each, Piece) for each in steps), "written actions hold the arguments of calls"
    ended = [each for each in steps if isinstance(each, Call)]
    assert [sorted(each.detail) for each in ended] == [["is_error", "name", "result"], []]
    broken = Call("1", "generate", None, 0.0, 0.0, "r", error=f"no JSON: {CODE}")
    assert ShownSteps((redact(pattern="x", borders=("answer",)),))._call(broken)["error"] == "it failed"
    assert ShownSteps(())._call(broken)["error"] == broken.error
