"""Turns of a served agent that race with cancels, answers, rules of approval and broken files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.loop.approval import Approval
from firsthand.loop.calling import calling
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import ASK, Caller, SessionModel
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.session_trace import joined, restated
from firsthand.tool import tool_from_function
from firsthand.trace import Call, Node, Trace
from served_agent import Desk, clerk


def within(agent: Agent, folder: Path, use: Callable[[ServedSessions], Awaitable[Any]], **settings: Any) -> Any:
    """What `use` makes of an agent's sessions while they run."""

    async def main() -> Any:
        limits = SessionSettings(**{"poll_s": 0.01} | settings)
        with opened_sessions(agent, folder, folder / "s", limits, seed=40) as sessions:
            async with sessions.running():
                return await use(sessions)

    return asyncio.run(main())


def test_a_turn_that_is_cancelled_while_it_waits_for_a_place_is_not_attempted(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        begun: list[str] = []
        sessions.on_begin.append(lambda turn: begun.append(turn.id))
        first = sessions.submit("ann", "wait", context="a", id="first")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        queued = sessions.submit("ann", "hi", context="b", id="queued")
        other = sessions.submit("ann", "yo", context="c", id="other")
        await asyncio.sleep(0.01)
        assert begun == ["first"] and sessions.store.turn("other").state == "submitted", "one turn at a time"
        assert (await sessions.cancel(queued.id)).state == "canceled"
        desk.go.set()
        assert (await sessions.settled(other.id)).answer == "You said yo, after 0 others."
        assert (await sessions.settled(first.id)).answer == "Done: it is over"
        assert begun == ["first", "other"] and sessions.store.turn("queued").answer is None
        trace = sessions.trace(queued.session)
        assert trace is not None and trace.stop_reason == "canceled" and trace.calls == () and trace.duration_s == 0.0
        assert [event.data for event in trace.events] == [
            {"number": 1, "id": "queued", "state": "canceled", "prompt": "hi"},
        ]  # fmt: skip

    within(clerk(desk), tmp_path, use, max_turns=1)


def test_a_call_that_a_rule_allows_or_denies_is_not_asked_about(tmp_path: Path) -> None:
    for rule, answer, paid in (("allow", "Done: paid 5", [5]), ("deny", "Done: Error: pay was not run", [])):
        desk = Desk()

        async def use(sessions: ServedSessions, answer: str = answer) -> None:
            done = await sessions.settled(sessions.submit("ann", "pay 5", context="c").id)
            assert done.state == "completed" and str(done.answer).startswith(answer) and sessions.store.pending() == []

        agent = replace(clerk(desk), approval=Approval({"irreversible": rule}))  # type: ignore[dict-item]
        within(agent, tmp_path / rule, use)
        assert desk.paid == paid


def test_a_cancel_holds_where_the_agent_went_on_to_an_answer(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def stubborn(task: Any, ctx: Any) -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "q", context="c")
        await begun.wait()
        canceled = await sessions.cancel(turn.id, "ann")
        assert (canceled.state, canceled.answer, canceled.error) == ("canceled", None, None)
        assert sessions._canceled == set() and sessions._attempts == {}
        trace = sessions.trace(turn.session)
        assert trace is not None and trace.stop_reason == "canceled"
        assert sessions.history(replace(turn, number=9)) == (), "nothing of it is history"

    within(Agent("a", clerk(Desk()).model, stubborn), tmp_path, use)


def test_a_question_that_is_answered_while_its_attempt_ends_is_gone_on_with(tmp_path: Path) -> None:
    desk = Desk()
    opened: list[ServedSessions] = []
    answered: list[str] = []

    async def pattern(task: Any, ctx: Any) -> str:
        try:
            return str((await ctx.call(ToolCall("c", "pay", {"amount": 5}))).content)
        finally:
            for asked in opened[0].store.pending():  # as another process would, before the turn waits
                answered.append(asked.id)
                opened[0].store.answer(asked.id, True, by="boss")

    async def use(sessions: ServedSessions) -> None:
        opened.append(sessions)
        states: list[str] = []
        turn = sessions.submit("ann", "q", context="c")
        async for news in sessions.follow(turn.id):
            states += [news.state] if hasattr(news, "state") else []
        assert states == ["submitted", "working", "submitted", "working", "completed"]
        assert sessions.store.turn(turn.id).answer == "paid 5" and desk.paid == [5] and len(answered) == 1

    within(replace(clerk(desk), pattern=pattern, options={}), tmp_path, use, poll_s=60)


def test_a_file_that_cannot_be_read_ends_the_driving_of_its_session_and_is_told(tmp_path: Path) -> None:
    bugs: list[str] = []

    async def drive(sessions: ServedSessions) -> dict[str, Any]:
        sessions.on_bug = bugs.append
        with sessions.store.database.write() as connection:
            connection.execute("DROP TABLE turns")
        sessions._wake("s")
        sessions._wake("s")
        assert list(sessions._driving) == ["s"]
        await asyncio.wait(sessions._driving.values())
        return sessions._driving

    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        assert asyncio.run(drive(sessions)) == {} and len(bugs) == 1 and "turns" in bugs[0]


def test_the_history_of_a_turn_ends_before_it_and_begins_with_what_its_client_brought(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        store = sessions.store
        session = store.open_session("ann", "c", (user("before"),))
        turns = [store.add_turn(session.id, prompt) for prompt in ("one", "two", "three", "four")]
        for turn, state, answer in zip(turns, ("completed", "failed", "completed", "working"), ("A", "x", None, None),
                                       strict=True):  # fmt: skip
            store.move(turn.id, state, answer=answer)  # type: ignore[arg-type]
        brought = (user("before"),)
        first = (*brought, user("one"), assistant("A"))
        assert [sessions.history(turn) for turn in turns] == [
            brought, first, first, (*first, user("three"), assistant("")),
        ]  # fmt: skip
        assert sessions._place(session.id).id != sessions._place("other").id == sessions._place("other").id


def test_what_cannot_be_recorded_fails_its_turn_with_what_was_heard_and_the_next_goes_on(tmp_path: Path) -> None:
    async def pattern(task: Any, ctx: Any) -> str:
        await ctx.generate()
        if task.question == "full":
            raise StoreError("the disk is full")
        return "fine"

    async def use(sessions: ServedSessions) -> None:
        bugs: list[str] = []
        sessions.on_bug = bugs.append
        turn = await sessions.settled(sessions.submit("ann", "full", context="c").id)
        assert (turn.state, turn.answer, turn.error) == ("failed", None, "the disk is full") and bugs == []
        trace = sessions.trace(turn.session)
        assert trace is not None and trace.error is not None and trace.stop_reason == "error" and trace.duration_s > 0
        assert (trace.error.kind, trace.error.message) == ("StoreError", "the disk is full")
        assert [(each.id, each.kind) for each in trace.calls] == [("1.0:0", "generate")] and trace.seed == 41
        after = await sessions.settled(sessions.submit("ann", "more", context="c").id)
        assert (after.state, after.answer) == ("completed", "fine") and sessions._attempts == {}

    within(Agent("a", Scripted(lambda *given: "x"), pattern), tmp_path, use)


def test_a_tools_own_question_is_about_the_call_whose_connection_asks() -> None:
    def named(name: str) -> Any:
        def run() -> str:
            """Runs."""
            return ""

        return tool_from_function(run, effect="read", name=name)

    @dataclass(frozen=True)
    class Here:
        node: int | None
        fitted: bool = True

    async def main() -> None:
        subjects = QuestionSubjects()
        with calling(Here(3), "0:4"):
            assert [subjects.of(named(name)) for name in ("ask", "ask", "other")] == [
                "0:4 ask 1", "0:4 ask 2", "0:4 other 1",
            ]  # fmt: skip
        assert subjects.of(named("ask")) == " ask 1", "outside of a call it belongs to none"
        subjects.hear(Began("0:9", "tool", 0, {"name": "run"}))
        with calling(Here(3), "0:4"):
            assert subjects.of(named("ask")) == "0:9 ask 1" and subjects.of(named("run")) == "0:9"

    asyncio.run(main())


def test_results_that_answer_no_approval_are_refused_in_the_clients_words(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        model, store = SessionModel(sessions), sessions.store
        turn = store.add_turn(store.open_session("ann", "c").id, "q")
        asked = store.asked(turn.id, ":0", "pay", "read", {}, "?")
        calls = assistant(
            "", ToolCall("k", ASK, {"approval": asked.id}), ToolCall("l", "other", {"approval": asked.id})
        )

        def answered(*results: ToolResult, who: str = "ann") -> str:
            messages = [user("q"), calls, Message("tool", results)] if results else [user("q"), Message("tool", ())]
            with pytest.raises((ConfigError, UnknownName)) as caught:
                asyncio.run(model._turn(Caller(who), "", messages))
            return str(caught.value)

        assert answered() == "the last message answers no call of approval: send its result, yes or no"
        assert answered(ToolResult("k", ASK, "x" * 50)) == f"the result of approval is {'x' * 40!r}: send yes or no"
        assert answered(ToolResult("l", ASK, "yes")) == "no approval ''"
        assert answered(ToolResult("k", ASK, "yes"), who="bob") == f"no approval '{asked.id}'"
        assert store.approval(asked.id).state == "pending"
        form = store.asked(turn.id, ":1", "fill", "read", {}, "?", (FormField("n", "integer", required=True),))
        call = assistant("", ToolCall("m", ASK, {"approval": form.id}))
        given = Message("tool", (ToolResult("m", ASK, '{"allowed": true, "content": {"n": 4}}'),))
        sessions._closing = True  # nothing is attempted here
        assert asyncio.run(model._turn(Caller("ann"), "", [user("q"), call, given])).id == turn.id
        assert store.approval(form.id).content == {"n": 4} and store.approval(form.id).answered_by == "ann"
        with pytest.raises(ConfigError, match="the last message is neither a user's nor the result of an approval"):
            asyncio.run(model._turn(Caller("ann"), "", [user("q"), assistant("a")]))


def test_a_turn_that_is_cancelled_while_it_waits_keeps_the_record_of_what_it_did(tmp_path: Path) -> None:
    async def pattern(task: Any, ctx: Any) -> str:
        await ctx.generate()
        return str((await ctx.call(ToolCall("c", "pay", {"amount": 5}))).content) if task.question == "pay" else "fine"

    async def use(sessions: ServedSessions) -> None:
        await sessions.settled(sessions.submit("ann", "first", context="c", id="one").id)
        waits = await sessions.settled(sessions.submit("ann", "pay", context="c", id="two").id)
        before = sessions.trace(waits.session)
        assert before is not None and [call.id for call in before.calls] == ["1.0:0", "2.0:0", "2.0:1"]
        await sessions.cancel("two")
        after = sessions.trace(waits.session)
        assert after is not None and after.stop_reason == "canceled" and after.id != before.id
        assert (after.nodes, after.calls, after.tools) == (before.nodes, before.calls, before.tools)
        assert after.events[:-1] == before.events and after.duration_s == before.duration_s and after.answer is None
        assert after.events[-1].data == {"number": 2, "id": "two", "state": "canceled", "prompt": "pay"}
        one, two = before.final_state["turns"]
        assert after.final_state["turns"] == [one, {**two, "state": "canceled", "events": two["events"] + 1}]
        last = await sessions.settled(sessions.submit("ann", "last", context="c", id="three").id)
        trace = sessions.trace(last.session)
        assert trace is not None and [part["state"] for part in trace.final_state["turns"]] == [
            "completed", "canceled", "completed",
        ]  # fmt: skip
        assert [call.id for call in trace.calls] == ["1.0:0", "2.0:0", "2.0:1", "3.0:0"]

    desk = Desk()
    agent = replace(clerk(desk), model=Scripted(lambda *given: "x"), pattern=pattern, options={})
    within(agent, tmp_path, use)
    assert desk.paid == []


def test_a_trace_is_restated_up_to_the_turn_whose_state_is_another() -> None:
    def turn(number: int, state: Any) -> SessionTurn:
        return SessionTurn(f"i{number}", "s", number, state, f"q{number}", None, None, "o", "c")

    def attempt(seconds: float, *texts: str) -> Trace:
        nodes = tuple(Node(None, user(text)) for text in texts)
        calls = tuple(Call(f":{at}", "generate", at, 0.0, 0.1, "r") for at in range(len(texts)))
        return Trace("t", "served", "s", {"name": "a"}, 0, 0, "then", seconds, nodes=nodes, calls=calls)

    first = joined(None, attempt(1.0, "a"), turn(1, "input_required"), [])
    both = joined(first, attempt(2.0, "b", "c"), turn(2, "failed"), [])
    made = restated(both, turn(1, "canceled"))
    assert made is not None and [node.message.text for node in made.nodes] == ["a"] and made.duration_s == 1.0
    assert [call.id for call in made.calls] == ["1.0:0"] and [event.data["state"] for event in made.events] == [
        "input_required", "canceled",
    ]  # fmt: skip
    (part,) = made.final_state["turns"]
    assert part == {**first.final_state["turns"][0], "state": "canceled", "events": 2} and made.events[1].at_s == 1.0
    assert restated(both, turn(3, "canceled")) is None
    failed = restated(both, turn(2, "failed"))
    assert failed is not None and len(failed.nodes) == 3 and failed.stop_reason == both.stop_reason
