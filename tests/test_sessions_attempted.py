"""Turns of a served agent attempted one by one: every end of one, what is told and kept of it, and what a stop leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import AnswerPending, ConfigError, ModelError, StoreError, UnknownName
from firsthand.guard import GuardVerdict
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began, Piece
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.model import Sampling, Usage
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.agent_doors import agent_models, opened_sessions, sessions_run, speaks_a2a, speaks_mcp
from firsthand.serve.agents.parked_approval import PARKED, ParkedApproval
from firsthand.serve.agents.served_sessions import _MOST_NEWS, ServedSessions, TurnOver
from firsthand.serve.agents.session_model import Caller, SessionModel, caller
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.tool import tool_from_function
from firsthand.trace import Call, Failure, Trace
from served_agent import Desk, clerk

BUG = "the agent met a bug of its own; the server's log has it"


def within(agent: Agent, folder: Path, use: Callable[[ServedSessions], Awaitable[Any]], **settings: Any) -> Any:
    """What `use` makes of an agent's sessions while they run."""

    async def main() -> Any:
        limits = SessionSettings(**{"poll_s": 0.01} | settings)
        with opened_sessions(agent, folder, folder / "s", limits, seed=40) as sessions:
            async with sessions.running():
                return await use(sessions)

    return asyncio.run(main())


class Blocks:
    """A guard that blocks these prompts and answers."""

    def prompt(self, view: Any, messages: Any) -> GuardVerdict:
        blocked = messages[-1].text.startswith("bad")
        return GuardVerdict.blocked("rule", "not that") if blocked else GuardVerdict.passed("rule")

    def answer(self, view: Any, text: str) -> GuardVerdict:
        return GuardVerdict.blocked("rule", "not so") if "worse" in text else GuardVerdict.passed("rule")


def test_a_question_that_a_guard_refuses_is_rejected_and_leaves_no_history(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        for prompt, state, answer, error in (
            ("hi", "completed", "You said hi, after 0 others.", None),
            ("bad", "rejected", None, "a guard of the agent refused the question"),
            ("worse", "failed", None, "the attempt was ended by guard"),
            ("yo", "completed", "You said yo, after 1 others.", None),
        ):
            turn = await sessions.settled(sessions.submit("ann", prompt, context="c").id)
            assert (turn.state, turn.answer, turn.error) == (state, answer, error)
        trace = sessions.trace(turn.session)
        assert trace is not None
        assert [(part["number"], part["state"]) for part in trace.final_state["turns"]] == [
            (1, "completed"), (2, "rejected"), (3, "failed"), (4, "completed"),
        ]  # fmt: skip

    within(replace(clerk(Desk()), guard=Blocks()), tmp_path, use)


def test_an_attempt_that_cannot_be_made_fails_its_turn_with_a_trace_of_what_was_heard(tmp_path: Path) -> None:
    bugs: list[str] = []
    agent = clerk(Desk())
    with opened_sessions(agent, tmp_path, tmp_path / "s", seed=40) as sessions, sessions.run.working():
        sessions.on_bug = bugs.append
        sessions.store.add_turn(sessions.store.open_session("ann", "a").id, "zero")
        first = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "one")
        second = sessions.store.add_turn(first.session, "two")
        empty = sessions._empty(first, "it was cancelled")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(empty.started_at)).total_seconds()) < 60
        assert empty == Trace(
            empty.id, "served", first.session, agent.to_json(), 0, 41, empty.started_at, 0.0,
            stop_reason="it was cancelled", place=sessions._place(first.session).id,
        )  # fmt: skip
        nothing = sessions._empty(second, "")
        assert (nothing.seed, nothing.stop_reason) == (42, "error") and nothing.id != empty.id
        asyncio.run(sessions._fail(first, StoreError("the disk is full"), empty, ()))
        asyncio.run(sessions._fail(second, KeyError("k"), replace(nothing, duration_s=2.0), (user("h"),)))
        states = [(turn.state, turn.answer, turn.error) for turn in sessions.store.turns(first.session)]
        assert states == [("failed", None, "the disk is full"), ("failed", None, BUG)]
        trace = sessions.trace(first.session)
        assert trace is not None and trace.error is not None and trace.stop_reason == "error"
        assert (trace.error.kind, trace.error.message) == ("KeyError", "'k'")
        assert [(part["id"], part["seconds"]) for part in trace.final_state["turns"]] == [
            (first.id, 0.0),
            (second.id, 2.0),
        ]
        assert len(bugs) == 1 and bugs[0].endswith("KeyError: 'k'\n")
        asyncio.run(sessions._fail(second, KeyError("a" * 9000 + "b"), nothing, ()))
        assert bugs[1] == "a" * 7997 + "b'\n", "the end of a long traceback"
        assert sessions.store.turns(sessions.store.sessions()[0].id)[0].state == "submitted"
        assert not sessions._move(first, "completed"), "a state that is final stays"
    assert ShownSteps(()).error(Failure("E", "why")) == "why"
    assert ShownSteps(()).error(Failure("E", "secret", "trace")) == BUG


def test_a_slow_follower_misses_steps_beyond_a_number_and_no_state(tmp_path: Path) -> None:
    async def use() -> None:
        with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
            turn = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "q")
            other = sessions.store.add_turn(turn.session, "r")
            news = sessions.follow(turn.id, "ann")
            assert await anext(news) == turn and sessions.is_followed(turn.id) and not sessions.is_followed(other.id)
            for at in range(_MOST_NEWS + 3):
                sessions._tell(turn.id, Piece("0:0", str(at)))
                sessions._tell(other.id, Piece("0:0", "other"))
            working = replace(turn, state="working")
            done = replace(turn, state="completed", answer="a")
            sessions._tell(turn.id, working)
            sessions._tell(turn.id, done)
            heard = [each async for each in news]
            assert [each.text for each in heard if isinstance(each, Piece)] == [str(at) for at in range(1000)]
            assert heard[1000:] == [working, done] and sessions._followers == {}
            asked = sessions.store.asked(other.id, ":0", "pay", "read", {}, "?")
            sessions.store.move(other.id, "input_required")
            assert [each.state async for each in sessions.follow(other.id)] == ["input_required"]  # type: ignore[union-attr]
            sessions.store.answer(asked.id, True, by="b")
            waits = sessions.follow(other.id)
            assert await anext(waits) == replace(other, state="input_required")
            going = asyncio.ensure_future(anext(waits))  # its questions have answers: it goes on, and so does this
            await asyncio.sleep(0)
            assert not going.done()
            sessions._tell(other.id, replace(other, state="failed"))
            assert (await going).state == "failed"  # type: ignore[union-attr]
            await waits.aclose()

    asyncio.run(use())


def test_turns_that_a_stop_leaves_go_on_with_the_next_server_and_answers_elsewhere_are_noticed(tmp_path: Path) -> None:
    desk = Desk()

    async def first(sessions: ServedSessions) -> None:
        asked = sessions.submit("ann", "pay 5", context="p", id="paying")
        assert (asked.id, asked.number, asked.owner, asked.context) == ("paying", 1, "ann", "p")
        await sessions.settled(asked.id)
        sessions.submit("ann", "wait", context="w", id="waits")
        sessions.submit("ann", "hi", context="w", id="later")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(ConfigError, match="3 turns are open already: answer or cancel some of them first"):
            sessions.submit("ann", "x", context="z")
        assert sessions.store.find_session("ann", "z") is None
        sessions.submit("bob", "hi", context="w")

    within(clerk(desk), tmp_path, first, open_turns=3)
    with SessionStoreOf(tmp_path / "s") as store:
        states = [(turn.id, turn.state) for turn in store.unfinished()]
        assert states[:3] == [("paying", "input_required"), ("waits", "working"), ("later", "submitted")]
    desk.go.set()

    async def second(sessions: ServedSessions) -> None:
        done = [await sessions.settled(id) for id in ("waits", "later")]
        assert [turn.answer for turn in done] == ["Done: it is over", "You said hi, after 1 others."]
        assert desk.waited == 2 and sessions.store.turn("paying").state == "input_required"
        with SessionStoreOf(tmp_path / "s") as elsewhere:
            (asked,) = elsewhere.pending("paying")
            assert elsewhere.answer(asked.id, False, by="boss", reason="too much")
        while not sessions.store.turn("paying").is_over:
            await asyncio.sleep(0.002)
        assert sessions.store.turn("paying").answer == "Done: Error: pay was not run: too much" and desk.paid == []
        trace = sessions.trace(sessions.store.turn("paying").session)
        assert (
            trace is not None
            and trace.stop_reason == "done"
            and trace.answer == "Done: Error: pay was not run: too much"
        )

    within(clerk(desk), tmp_path, second)


class SessionStoreOf:
    """A store of another process."""

    def __init__(self, folder: Path):
        self.store = SessionStore(folder)

    def __enter__(self) -> SessionStore:
        return self.store

    def __exit__(self, *error: object) -> None:
        self.store.close()


def test_a_turn_that_waits_or_has_not_begun_is_cancelled_with_a_record(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        asked = await sessions.settled(sessions.submit("ann", "pay 5", context="c").id)
        later = sessions.submit("ann", "hi", context="c")
        with pytest.raises(UnknownName, match="no turn"):
            await sessions.cancel(asked.id, "bob")
        canceled = await sessions.cancel(asked.id)
        assert (canceled.id, canceled.state, canceled.answer, canceled.error) == (asked.id, "canceled", None, None)
        assert (await sessions.settled(later.id)).answer == "You said hi, after 0 others."
        assert sessions.store.pending() == [] and desk.paid == []
        trace = sessions.trace(asked.session)
        assert trace is not None
        assert [(part["number"], part["state"]) for part in trace.final_state["turns"]] == [
            (1, "canceled"),
            (2, "completed"),
        ]
        with pytest.raises(TurnOver, match=f"the turn {asked.id} is canceled: only an open one can be cancelled"):
            await sessions.cancel(asked.id, "ann")

        running = sessions.submit("ann", "wait", context="d")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        assert list(sessions._attempts) == [running.id]
        await sessions.cancel(running.id)
        assert sessions._attempts == {} and sessions._canceled == set()
        trace = sessions.trace(running.session)
        assert trace is not None and trace.stop_reason == "canceled" and trace.duration_s > 0
        assert (trace.calls[0].id, trace.calls[0].kind) == ("1.0:0", "generate")
        assert [node.message.role for node in trace.nodes][:2] == ["user", "assistant"]
        assert sessions._driving == {} or await asyncio.sleep(0.01) is None

    within(clerk(desk), tmp_path, use)


# -- approvals --


def fill() -> str:
    """Fills."""
    return ""


def test_a_form_waits_for_its_fields_and_the_attempt_ends_where_nothing_else_runs(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    tool = tool_from_function(fill, effect="external")
    fields = (FormField("n", "integer", required=True),)

    async def asked(answer: Any) -> Any:
        heard = HeardSteps()
        parked = ParkedApproval(store, turn, heard)
        began = Began(f":{answer}", "tool", 0, {"name": "fill"})
        heard.hear(began)
        parked.hear(began)
        asking = asyncio.create_task(parked.fill(tool, "How many?", fields))
        while not parked.waiting:
            await asyncio.sleep(0.001)
        ((call, waiting),) = parked.waiting.items()
        assert (call, waiting.call, waiting.tool, waiting.effect) == (f":{answer}", f":{answer}", "fill", "external")
        assert (waiting.arguments, waiting.form, waiting.state) == ({"message": "How many?"}, fields, "pending")
        assert waiting.question == "Fills.\n  How many?\n  n: n (integer)\nFill it in?"
        if answer is not None:
            store.answer(waiting.id, answer > 0, by="bob", content={"n": answer} if answer > 0 else None)
        return await asking, parked.waiting

    assert asyncio.run(asked(4)) == ({"n": 4}, {}) and asyncio.run(asked(0)) == (None, {})
    with pytest.raises(AnswerPending) as caught:
        asyncio.run(asked(None))
    assert caught.value.limit == PARKED == "approval"
    (open_one,) = store.pending()
    assert str(caught.value) == f"fill waits for an answer to {open_one.id}"

    async def beside() -> list[str]:
        heard = HeardSteps()
        parked = ParkedApproval(store, turn, heard)
        for step in (Began(":8", "tool", 0, {"name": "fill"}), Began(":9", "tool", 0, {"name": "other"})):
            heard.hear(step)
        parked.hear(Began(":8", "tool", 0, {"name": "fill"}))
        asking = asyncio.create_task(parked.fill(tool, "How many?", fields))
        await asyncio.sleep(0.06)
        told = ["waits" if not asking.done() else "ended"]
        over = Call(":9", "tool", 0, 0.0, 0.1, "r")
        heard.hear(over)
        parked.hear(over)
        await asyncio.wait({asking})
        return [*told, type(asking.exception()).__name__]

    assert asyncio.run(beside()) == ["waits", "AnswerPending"], "an effect under way is not cut off"
    store.close()


# -- as a model, and the doors --


def test_a_chat_streams_its_steps_as_a_thought_and_its_answer_or_what_it_waits_for(tmp_path: Path) -> None:
    desk = Desk()

    def speaks(messages: Any, sampling: Sampling, index: int) -> str | Message:
        if messages[-1].role == "tool":
            return "Done </think> now"
        if messages[-1].text.startswith("fail"):
            raise ConfigError("it cannot")
        return assistant("Paying</think>", ToolCall("c0", "pay", {"amount": 5}))

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        me = Caller("ann")
        caller.set(me)

        async def streamed(prompt: Any) -> list[Any]:
            return [delta async for delta in model.stream(prompt, Sampling())]

        deltas = await streamed([user("pay")])
        (asked,) = sessions.store.pending()
        texts = [delta.text for delta in deltas if delta.text]
        assert texts == ["<think>", "Paying< /think>", '\npay({"amount":5})\n', "</think>"]
        name, arguments, last = deltas[-3:]
        assert (name.call.index, name.call.id, name.call.name, name.call.arguments) == (0, asked.id, "approval", "")
        whole = last.completion
        (call,) = whole.message.tool_calls
        assert arguments.call.index == 0 and arguments.call.id == "" and whole.finish_reason == "tool_calls"
        assert arguments.call.arguments == (
            f'{{"approval": "{asked.id}", "tool": "pay", "effect": "irreversible", "arguments": {{"amount": 5}}, '
            f'"question": "{asked.question.replace(chr(10), chr(92) + "n")}"}}'
        )
        assert (call.id, call.name) == (asked.id, "approval") and whole.usage.prompt_tokens > 0
        assert me.session == sessions.store.session(sessions.store.turn(asked.turn).session).context
        sessions.answer(asked.id, True, by="boss")
        await sessions.settled(asked.turn)
        again = await streamed([user("pay"), whole.message, Message("tool", (ToolResult(call.id, call.name, "yes"),))])
        assert [delta.text for delta in again] == ["<think>", "</think>", "Done </think> now", ""], "a retry finds it"
        trace = sessions.trace(sessions.store.turn(asked.turn).session)
        assert trace is not None and again[-1].completion.usage == sum((call.usage for call in trace.calls), Usage())
        assert again[-1].completion.finish_reason == "stop" and desk.paid == [5]
        fresh = await streamed([user("pay")])
        assert fresh[-1].completion.finish_reason == "tool_calls", "what was delivered is no longer retried"
        with pytest.raises(ModelError, match=r"^the turn failed: it cannot$"):
            await streamed([user("fail")])

    agent = replace(clerk(desk), model=Scripted(speaks, name="scripted:s"))
    within(agent, tmp_path, use)


def test_sessions_are_opened_in_a_sessions_run_or_the_one_that_is_there(tmp_path: Path) -> None:
    agent = replace(clerk(Desk()), name="Ann Lee")
    with opened_sessions(agent, tmp_path, None, seed=7) as sessions:
        run = sessions.run
        assert run.path.parent == tmp_path / "runs" and "served-ann-lee" in run.id and sessions._seed == 7
        assert run.config == {"served": agent.to_json()} and sessions.settings == SessionSettings()
        models = agent_models(sessions)
        assert models.name == "Ann Lee" and isinstance(models.model, SessionModel)
        turn = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "q")
    settings = SessionSettings(max_turns=3)
    with opened_sessions(agent, tmp_path, run.path, settings) as again:
        assert again.run.id == run.id and again.store.turn(turn.id) == turn and again.settings is settings
        assert again.slots.most == 3
        same = opened_sessions(agent, tmp_path, run.path)
        with again.run.working(), pytest.raises(ConfigError, match="is being run by process"), same:
            pass
    with sessions_run(agent, tmp_path, tmp_path / "own") as own:
        assert own.path == tmp_path / "own"
    assert speaks_a2a() in (True, False) and speaks_mcp() in (True, False)
