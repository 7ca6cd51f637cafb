"""The turns of a served agent's sessions without a wire: how each ends, what is kept of it, and what a client reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, ModelError, ToolError, UnknownName
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Began
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Sampling, ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.served_sessions import MAX_PROMPT_CHARS, ServedSessions, TurnOver
from firsthand.serve.agents.session_model import (
    ASK,
    Caller,
    SessionModel,
    _lines,
    _said,
    _tail,
    _transcript,
    _usage,
    caller,
)
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.system import conversation_owner
from firsthand.trace import Call, Trace
from served_agent import Desk, clerk, scripted
from served_agent import within_sessions as within


def test_a_turn_is_an_attempt_at_the_conversation_so_far_with_its_own_seed(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def pattern(task: Any, ctx: Any) -> str:
        seen.append((task.id, task.question, task.conversation, task.metadata))
        if task.question == "fail":
            raise ModelError("it is away")
        if task.question == "bug":
            raise KeyError("secret")
        return f"A{len(seen)}"

    async def use(sessions: ServedSessions) -> None:
        begun: list[SessionTurn] = []
        sessions.on_begin.append(begun.append)
        opening = (system("S"), user("before"))
        turns = []
        for prompt in ("one", "fail", "bug", "two"):
            turn = sessions.submit("ann", prompt, context="c", conversation=opening)
            turns.append(await sessions.settled(turn.id))
        states = [(turn.number, turn.state, turn.answer, turn.error) for turn in turns]
        assert states == [
            (1, "completed", "A1", None),
            (2, "failed", None, "it is away"),
            (3, "failed", None, "the agent met a bug of its own; the server's log has it"),
            (4, "completed", "A4", None),
        ]
        assert len(sessions.bugs) == 1 and "secret" in sessions.bugs[0]  # type: ignore[attr-defined]
        session = turns[0].session
        history = (*opening, user("one"), assistant("A1"))
        assert [each[2] for each in seen] == [opening, history, history, history]
        assert {each[0] for each in seen} == {session}
        assert [each[3] for each in seen] == [{"owner": "ann", "turn": number} for number in (1, 2, 3, 4)]
        assert [turn.id for turn in begun] == [turn.id for turn in turns]
        trace = sessions.trace(session)
        assert trace is not None and trace.task_id == session and trace.benchmark == "served" and trace.seed == 44
        assert [part["state"] for part in trace.final_state["turns"]] == ["completed", "failed", "failed", "completed"]
        assert sessions.trace("nobody's") is None
        assert sessions.history(turns[3]) == history and not sessions.is_followed(turns[3].id)

    within(Agent("a", clerk(Desk()).model, pattern), tmp_path, use)


def test_a_turn_ends_by_a_limit_a_cancel_or_a_question_that_is_answered(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        asked = sessions.submit("ann", "pay 5", context="c")
        waiting = await sessions.settled(asked.id)
        assert waiting.state == "input_required" and desk.paid == []
        (approval,) = sessions.store.pending(asked.id)
        assert (approval.tool, approval.arguments) == ("pay", {"amount": 5})
        with pytest.raises(UnknownName):
            sessions.answer(approval.id, True, owner="bob", by="bob")
        assert sessions.answer(approval.id, True, owner="ann", by="ann", reason="fine").id == asked.id
        with pytest.raises(TurnOver, match="was allowed before: it is answered once"):
            sessions.answer(approval.id, False, owner="ann", by="ann")
        done = await sessions.settled(asked.id)
        assert (done.state, done.answer, desk.paid) == ("completed", "Done: paid 5", [5])
        with pytest.raises(TurnOver, match="is completed: only an open one can be cancelled"):
            await sessions.cancel(asked.id, "ann")

        running = sessions.submit("ann", "wait", context="d")
        queued = sessions.submit("ann", "later", context="d")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(UnknownName):
            await sessions.cancel(running.id, "bob")
        assert (await sessions.cancel(queued.id, "ann")).state == "canceled"
        assert (await sessions.cancel(running.id, "ann")).state == "canceled"
        trace = sessions.trace(running.session)
        assert trace is not None
        assert [part["state"] for part in trace.final_state["turns"]] == ["canceled"], "one was never begun"
        assert trace.stop_reason == "canceled" and trace.task_id == running.session
        after = await sessions.settled(sessions.submit("ann", "hi", context="d").id)
        assert after.answer == "You said hi, after 0 others."

    within(clerk(desk), tmp_path, use)

    async def limited(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "wait", context="c").id)
        assert (turn.state, turn.error) == ("failed", "the attempt was ended by calls")

    within(replace(clerk(Desk()), limits=Limits(calls=1)), tmp_path / "b", limited)


@pytest.mark.parametrize("own", [None, "A"])
@pytest.mark.parametrize("given", [None, "S"])
def test_each_turn_goes_on_from_what_opened_the_session_however_the_ones_before_it_ended(
    own: str | None, given: str | None, tmp_path: Path
) -> None:
    desk = Desk()

    def said(messages: Sequence[Message], sampling: Sampling, index: int) -> str | Message:
        if messages[-1].text.startswith("fail"):
            raise ModelError("it is away")
        return scripted(messages, sampling, index)

    opening = (*((system(given),) if given else ()), user("before"), assistant("then"))
    begun = [*([own or given] if own or given else []), "before", "then"]
    agent = replace(clerk(desk), model=Scripted(said, name="scripted:clerk"), system=own)

    async def use(sessions: ServedSessions) -> None:
        ends: list[tuple[str, int]] = []

        def look(turn: SessionTurn, nodes: int, *answered: str) -> None:
            """The session's trace has that many nodes more, and its conversation is the opening and what was answered."""
            trace = sessions.trace(turn.session)
            assert trace is not None
            ends.append((turn.state, (ends[-1][1] if ends else len(begun)) + nodes))
            parts = trace.final_state["turns"]
            assert [(part["state"], part["nodes"]) for part in parts] == ends and len(trace.nodes) == ends[-1][1]
            texts = [message.text for message in trace.messages(parts[-1]["tip"])]
            assert texts == [*begun, *answered], turn.state

        async def settled(prompt: str) -> SessionTurn:
            return await sessions.settled(sessions.submit("ann", prompt, context="c", conversation=opening).id)

        look(await settled("fail"), 1)  # the prompt
        first = ("hi", "You said hi, after 1 others.")
        look(await settled("hi"), 4, *first)  # the prompt and the answer; the question and the answer
        asked = await settled("pay 5")
        look(asked, 2, *first)  # the prompt and the call
        del ends[-1]
        sessions.answer(sessions.store.pending(asked.id)[0].id, True, owner="ann", by="ann")
        second = (*first, "pay 5", "Done: paid 5")
        look(await sessions.settled(asked.id), 6, *second)
        waiting = sessions.submit("ann", "wait", context="c")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        look(await sessions.cancel(waiting.id, "ann"), 2, *second)
        look(await settled("fail"), 1, *second)
        look(await settled("yo"), 4, *second, "yo", "You said yo, after 3 others.")
        assert [each[0] for each in ends] == ["failed", "completed", "completed", "canceled", "failed", "completed"]

    within(agent, tmp_path, use)


class Line:
    """A shared source that fails to open `failures` times, and must not be opened twice."""

    name, shared, tools = "the line", True, ()

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.opened, self.closed, self.reopened, self.most = 0, 0, 0, 0
        self.owners: list[str] = []

    async def open(self) -> None:
        self.opened += 1
        self.owners.append(conversation_owner.current())
        self.most = max(self.most, self.opened - self.closed)
        await asyncio.sleep(0.01)
        if self.opened <= self.failures:
            raise ToolError("the line is busy")

    async def reopen(self) -> None:
        self.reopened += 1

    async def close(self) -> None:
        task = asyncio.current_task()
        self.closed += task is not None and not task.cancelling()


def test_a_shared_source_is_open_once_for_all_turns_and_is_tried_again_if_it_did_not_open(tmp_path: Path) -> None:
    async def meets(task: Any, ctx: Any) -> str:
        inside.append(task.id)
        while len(set(inside)) < 2:
            await asyncio.sleep(0.005)
        return f"{line.opened - line.closed} open"

    async def use(sessions: ServedSessions) -> None:
        first = [sessions.submit("ann", "x", context=name) for name in "ab"]
        ended = [await sessions.settled(turn.id) for turn in first]
        assert [(turn.state, turn.error) for turn in ended] == [("failed", "the line is busy")] * 2
        assert sessions.trace(ended[0].session).error.message == "the line is busy"  # type: ignore[union-attr]
        second = [sessions.submit("ann", "y", context=name) for name in "ab"]
        for turn in second:
            assert (await sessions.settled(turn.id)).answer == "1 open"
        third = sessions.submit("ann", "z", context="a")
        assert (await sessions.settled(third.id)).answer == "1 open"
        assert (line.opened, line.closed, line.reopened) == (2, 1, 3)
        assert sessions.bugs == []  # type: ignore[attr-defined]

    line, inside = Line(1), list[str]()
    within(Agent("clerk", Scripted([]), meets, tools=(line,)), tmp_path, use)
    assert (line.opened, line.closed, line.most) == (2, 2, 1) and line.owners == [conversation_owner.current()] * 2


@pytest.mark.parametrize(
    ("error", "guarded", "told"),
    [
        (ToolError("SECRET"), True, "the attempt failed with a ToolError, whose text is in the operator's record"),
        (KeyError("SECRET"), False, "the agent met a bug of its own; the server's log has it"),
    ],
)
def test_a_client_reads_of_a_shared_source_what_it_may_read_of_a_failed_attempt(
    tmp_path: Path, error: Exception, guarded: bool, told: str
) -> None:
    class Broken(Line):
        async def open(self) -> None:
            raise error

    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "x", context="a").id)
        assert (turn.state, turn.error) == ("failed", told)
        kept = sessions.trace(turn.session)
        assert kept is not None and kept.error is not None and "SECRET" in kept.error.message
        bugs: list[str] = sessions.bugs  # type: ignore[attr-defined]
        assert ["KeyError: 'SECRET'" in each for each in bugs] == [True] * (not guarded)

    guard = catalog.guards(("policy",)) if guarded else ()
    within(Agent("clerk", Scripted([]), scripted, tools=(Broken(),), guard=guard), tmp_path, use)  # type: ignore[arg-type]


def test_a_shared_source_that_nobody_asked_for_is_not_opened(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        assert line.opened == 0

    line = Line()
    within(Agent("clerk", Scripted([]), lambda task, ctx: ctx, tools=(line,)), tmp_path, use)
    assert (line.opened, line.closed) == (0, 0)


def test_open_turns_and_prompts_are_bounded_by_client(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        for context in ("a", "b"):
            sessions.submit("ann", "wait", context=context)
        with pytest.raises(ConfigError, match="2 turns are open already"):
            sessions.submit("ann", "hi", context="c")
        assert sessions.submit("bob", "hi", context="a").number == 1
        for chars, fine in ((MAX_PROMPT_CHARS + 1, False), (MAX_PROMPT_CHARS, True)):
            if fine:
                sessions.submit("eve", "x" * chars, context="a")
            else:
                with pytest.raises(
                    ConfigError, match="the message has 1,000,001 characters: at most 1,000,000 are taken"
                ):
                    sessions.submit("eve", "x" * chars, context="a")
        desk.go.set()

    within(clerk(desk), tmp_path, use, open_turns=2)


def test_who_follows_a_turn_hears_its_steps_once_and_its_states(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "pay 5", context="c")

        async def heard() -> list[str]:
            return [
                each.state if isinstance(each, SessionTurn) else f"{type(each).__name__} {each.kind}"
                for each in [news async for news in sessions.follow(turn.id, "ann")]
                if not hasattr(each, "text")
            ]  # type: ignore[union-attr]

        first = await heard()
        assert first == ["submitted", "working", "Began generate", "Call generate", "Began tool", "input_required"]
        assert await heard() == ["input_required"] and not sessions.is_followed(turn.id)
        sessions.answer(sessions.store.pending(turn.id)[0].id, True, by="ann")
        again = await heard()
        assert again[-1] == "completed" and again.count("Call tool") == 1 and "Call generate" in again
        assert again.index("Call tool") < again.index("Call generate"), "what was done before is not told again"
        with pytest.raises(UnknownName):
            async for _ in sessions.follow(turn.id, "bob"):
                pass
        assert sessions._followers == {}

    within(clerk(desk), tmp_path, use)


# -- as a model --


def test_a_chat_is_a_turn_of_the_session_that_it_goes_on_with(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        assert model.name == "clerk" and model.thinks and len(model.fingerprint) == len("served:") + 16

        async def chat(*messages: Message, who: str = "ann") -> Any:
            me = Caller(who)
            caller.set(me)
            (completion,) = await model.complete(list(messages), Sampling())
            return completion, me.session

        first, context = await chat(system("S"), user("hi"))
        assert first.message.text == "You said hi, after 0 others." and first.finish_reason == "stop"
        assert context.startswith("chat-") and first.usage.prompt_tokens > 0
        said = assistant(f"<think>x</think>\n {first.message.text} ")
        second, same = await chat(system("S"), user("hi"), said, user("yo"))
        assert second.message.text == "You said yo, after 1 others." and same == context
        session = sessions.store.find_session("ann", context)
        assert session is not None and [turn.prompt for turn in sessions.store.turns(session.id)] == ["hi", "yo"]
        assert session.conversation == (system("S"),)
        other, elsewhere = await chat(system("S"), user("hi"), said, user("yo"), who="bob")
        assert elsewhere != context and other.message.text == "You said yo, after 1 others."
        _changed, apart = await chat(system("S"), user("hi"), assistant("Something else"), user("yo"))
        assert apart not in (context, elsewhere)
        asked, paying = await chat(user("pay 5"))
        calls = asked.message.tool_calls
        assert asked.finish_reason == "tool_calls" and [call.name for call in calls] == [ASK]
        assert [call.arguments["arguments"] for call in calls] == [{"amount": 5}]
        assert set(calls[0].arguments) == {"approval", "tool", "effect", "arguments", "question"}
        assert calls[0].id == calls[0].arguments["approval"]

        def result(call: ToolCall, text: str) -> Message:
            return Message("tool", (ToolResult(call.id, ASK, text),))

        with pytest.raises(ConfigError, match="the result of approval is 'well': send yes or no"):
            await chat(user("pay 5"), asked.message, result(calls[0], "well"))
        answers = (result(calls[0], json.dumps({"allowed": True})),)
        paid, there = await chat(user("pay 5"), asked.message, *answers)
        assert there == paying and desk.paid == [5] and paid.finish_reason == "stop"
        again, _ = await chat(user("pay 5"), asked.message, *answers)
        assert again.message.text == paid.message.text and desk.paid == [5], "a retry gets what was kept"
        for messages, said_ in (
            ((user("q"), assistant("a")), "the last message is neither a user's"),
            ((result(ToolCall("x", ASK, {}), "yes"),), "no approval ''"),
        ):
            with pytest.raises((ConfigError, UnknownName), match=said_):
                await chat(*messages)
        with pytest.raises(ConfigError, match="n is 2: an agent gives one answer"):
            await model.complete([user("q")], Sampling(), n=2)
        with pytest.raises(ConfigError, match="clerk is an agent with tools and a form of its own"):
            await model.complete([user("q")], Sampling(), tools=[ToolSpec("t", "", {})])
        with pytest.raises(ConfigError, match="has no log-probs"):
            await model.score("q", ["a"])
        (plain,) = await model.complete("hi", Sampling())
        assert plain.message.text == "You said hi, after 0 others."

    within(clerk(desk), tmp_path, use)


def test_what_is_read_of_a_conversation() -> None:
    asks = assistant("", ToolCall("1", ASK, {}))
    result = Message("tool", (ToolResult("1", ASK, "yes"),))
    assert _transcript([system("s"), user(" q "), asks, result, assistant("<think>a</think>\n b ")]) == [
        ("system", "s"), ("user", "q"), ("assistant", "b"),
    ]  # fmt: skip
    assert _tail([user("q"), asks, result, result]) == [result, result]
    assert _tail([result]) == [result] and _tail([result, user("q")]) == []
    for text, expected in (
        ("yes", (True, None)), ('"no"', (False, None)), ("well", (None, None)), ("true", (True, None)), ("{}", (None, None)),
        ('{"allowed": true, "content": {"n": 1}}', (True, {"n": 1})), ('{"allowed": "no", "content": 3}', (False, None)),
        ('{"allowed": 1}', (None, None)),
    ):  # fmt: skip
        assert _said(text) == expected, text
    assert _lines(Began("0:0", "tool", 0, {"name": "pay", "arguments": {"b": 1, "a": "é"}})) == [
        '\npay({"a":"é","b":1})\n'
    ]
    assert _lines(Began("0:0", "generate", 0)) == []
    for detail, error, shown in (
        ({"result": "ok"}, "x", "-> ok\n"),
        ({}, "bad", "-> bad\n"),
        ({"result": "y" * 501}, None, f"-> {'y' * 500}\n"),
    ):
        assert _lines(Call("0:0", "tool", 0, 0.0, 0.1, "r", detail=detail, error=error)) == [shown]
    calls = tuple(
        Call(id, "generate", 0, 0.0, 0.1, "r", usage=Usage(number, 0, 1))
        for number, id in ((1, "1.0:0"), (2, "1.0/0.1:0"), (4, "11.0:0"), (8, "2.0:0"), (16, "1.1:0"))
    )
    trace = Trace("t", "served", "s", {"name": "a"}, 0, 0, "then", 1.0, calls=calls)
    assert _usage(trace, 1) == Usage(3, 0, 2) and _usage(trace, 11) == Usage(4, 0, 1) and _usage(trace, 3) == Usage()
    assert _usage(None, 1) == Usage()
