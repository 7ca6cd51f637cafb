"""Ends of the turns of a served agent in unusual cases: guards, stops, full disks, slow followers, early answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, GuardBlocked, StoreError, UnknownName
from firsthand.loop.listener import Piece
from firsthand.message import system
from firsthand.serve.agents import parked_approval
from firsthand.serve.agents.parked_approval import ParkedApproval
from firsthand.serve.agents.served_sessions import _MOST_NEWS, ServedSessions, TurnOver
from firsthand.serve.agents.session_store import SessionStore, SessionTurn
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.trace import Event
from served_agent import Desk, clerk, within_sessions


def agent_of(pattern: Any) -> Agent:
    return Agent("a", clerk(Desk()).model, pattern)


async def ended(sessions: ServedSessions, prompt: str, context: str = "c") -> tuple[Any, ...]:
    turn = await sessions.settled(sessions.submit("ann", prompt, context=context).id)
    return turn.state, turn.answer, turn.error


def test_a_question_is_rejected_only_where_the_agent_had_done_nothing(tmp_path: Path) -> None:
    async def pattern(task: Any, ctx: Any) -> Any:
        if task.question != "empty":
            if task.question == "late":
                await ctx.say("hm").generate()
            raise GuardBlocked("no")
        return ""

    async def use(sessions: ServedSessions) -> None:
        found = [await ended(sessions, prompt) for prompt in ("early", "late", "empty")]
        assert found == [
            ("rejected", None, "a guard of the agent refused the question"),
            ("failed", None, "the attempt was ended by guard"),
            ("completed", "", None),
        ]
        assert sessions.bugs == []  # type: ignore[attr-defined]
        trace = sessions.trace(sessions.store.sessions()[0].id)
        assert trace is not None and trace.answer == "" and trace.stop_reason == "done"
        assert [each["number"] for each in trace.final_state["turns"]] == [1, 2, 3] and trace.seed == 3

    within_sessions(agent_of(pattern), tmp_path, use, seed=0)


def test_an_attempt_that_cannot_be_made_is_a_failed_turn_and_only_a_bug_is_told(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        session = sessions.store.open_session("ann", "c")
        bug_of_ours = "the agent met a bug of its own; the server's log has it"
        failures = ((StoreError("the disk is full"), "the disk is full"), (OSError(5, "odd"), bug_of_ours))
        for number, (error, told) in enumerate(failures, 1):
            turn = sessions.store.add_turn(session.id, f"q{number}")
            await sessions._fail(turn, error, sessions._empty(turn, "why"), [])
            found = sessions.store.turn(turn.id)
            assert (found.state, found.answer, found.error) == ("failed", None, told)
            trace = sessions.trace(session.id)
            assert trace is not None and trace.error is not None
            assert (trace.error.kind, trace.error.message) == (type(error).__name__, str(error))
            assert (trace.stop_reason, trace.seed, trace.task_id) == ("error", 40 + number, session.id)
        (bug,) = sessions.bugs  # type: ignore[attr-defined]
        assert bug.endswith("OSError: [Errno 5] odd\n") and len(bug) <= 8000

    within_sessions(clerk(Desk()), tmp_path, use)


def test_a_record_that_cannot_be_written_stops_the_session_and_is_told(tmp_path: Path) -> None:
    async def pattern(task: Any, ctx: Any) -> str:
        if task.question == "full":
            sessions_of[0].run.append = refuse
        return "A"

    def refuse(trace: Any) -> None:
        raise StoreError("no space left")

    sessions_of: list[Any] = []

    async def use(sessions: ServedSessions) -> None:
        sessions_of.append(sessions)
        turn = sessions.submit("ann", "full", context="c")
        later = sessions.submit("ann", "hi", context="c")
        while not sessions.bugs:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert sessions.bugs == ["no space left"]  # type: ignore[attr-defined]
        assert [sessions.store.turn(each.id).state for each in (turn, later)] == ["working", "submitted"]
        assert sessions._driving == {} and sessions._attempts == {}

    within_sessions(agent_of(pattern), tmp_path, use)


def test_a_server_that_stops_ends_its_attempts_and_leaves_their_turns_open(tmp_path: Path) -> None:
    said: list[str] = []

    async def pattern(task: Any, ctx: Any) -> str:
        said.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.005)
            said.append("ended")
        return "A"

    async def use(sessions: ServedSessions) -> ServedSessions:
        for context in ("c", "d"):
            sessions.submit("ann", "hi", context=context)
        while len(said) < 2:
            await asyncio.sleep(0.001)
        return sessions

    async def after(sessions: ServedSessions) -> None:
        assert [(turn.context, turn.state) for turn in sessions.store.unfinished()] == [
            ("c", "working"),
            ("d", "working"),
        ]
        while len(said) < 6:
            await asyncio.sleep(0.001)
        assert said[4:] == ["begun", "begun"], "both go on with the next server, and neither has ended"

    left = within_sessions(agent_of(pattern), tmp_path, use)
    assert said == ["begun", "begun", "ended", "ended"] and left._attempts == {} and left._driving == {}
    left._wake("x")
    assert left._driving == {}, "nothing begins any more"
    within_sessions(agent_of(pattern), tmp_path, after)


def test_a_canceled_turn_is_forgotten_and_its_record_has_what_was_done(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def pattern(task: Any, ctx: Any) -> str:
        if task.question != "slow":
            return "A"
        await ctx.say("hm").generate()
        begun.set()
        await asyncio.sleep(60)
        return "B"

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "slow", context="c")
        await begun.wait()
        canceled = await sessions.cancel(turn.id)
        assert (canceled.state, canceled.answer, canceled.error) == ("canceled", None, None)
        trace = sessions.trace(turn.session)
        assert trace is not None and (trace.stop_reason, trace.error, trace.seed) == ("canceled", None, 41)
        assert [call.kind for call in trace.calls] == ["generate"] and 0 < trace.duration_s < 30
        (part,) = trace.final_state["turns"]
        assert (part["state"], part["calls"], part["seconds"]) == ("canceled", 1, trace.duration_s)
        assert sessions._canceled == set() and sessions._followers == {} and sessions.bugs == []  # type: ignore[attr-defined]
        assert await ended(sessions, "quick") == ("completed", "A", None)
        with pytest.raises(TurnOver, match=f"the turn {turn.id} is canceled: only an open one can be cancelled"):
            await sessions.cancel(turn.id)

    within_sessions(agent_of(pattern), tmp_path, use)


def test_a_cancel_that_comes_when_the_answer_is_there_already_says_which_won(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def pattern(task: Any, ctx: Any) -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "A"  # what cannot be stopped any more
        return "B"

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "slow", context="c")
        await begun.wait()
        assert (await sessions.cancel(turn.id)).state == "canceled"
        trace = sessions.trace(turn.session)
        assert trace is not None and trace.stop_reason == "canceled" and sessions._canceled == set()

    within_sessions(agent_of(pattern), tmp_path, use)


def test_a_slow_follower_misses_steps_beyond_a_thousand_and_no_state(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        turn = sessions.store.add_turn(sessions.store.open_session("ann", "c").id, "hi")
        fast, slow, other = (asyncio.Queue[Any]() for _ in range(3))
        sessions._followers |= {turn.id: {fast, slow}, "another": {other}}
        slow.put_nowait("before")
        for at in range(_MOST_NEWS + 1):
            sessions._tell(turn.id, Piece("0:0", str(at)))
        assert (fast.qsize(), slow.qsize(), other.qsize()) == (_MOST_NEWS, _MOST_NEWS, 0) and _MOST_NEWS == 1000
        assert sessions._move(turn, "working") and fast.qsize() == slow.qsize() == _MOST_NEWS + 1
        told = [slow.get_nowait() for _ in range(_MOST_NEWS + 1)]
        assert told[1].text == "0" and told[-1].state == "working" and told[-2].text == str(_MOST_NEWS - 2)
        sessions._move(sessions.store.turn(turn.id), "canceled")
        assert not sessions._move(turn, "working") and other.qsize() == 0 and slow.qsize() == 1
        sessions._followers.clear()

    within_sessions(clerk(Desk()), tmp_path, use)


def test_who_follows_stays_told_when_another_follower_leaves(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "wait", context="c")
        first, second = sessions.follow(turn.id), sessions.follow(turn.id, "ann")
        assert (await anext(first)).state == (await anext(second)).state == "submitted"  # type: ignore[union-attr]
        await first.aclose()
        assert sessions.is_followed(turn.id)
        desk.go.set()
        heard = [news async for news in second if isinstance(news, SessionTurn)]
        assert [each.state for each in heard] == ["working", "completed"] and not sessions.is_followed(turn.id)
        with pytest.raises(UnknownName):
            await anext(sessions.follow(turn.id, "bob"))
        assert not sessions.is_followed(turn.id), "not even where there was nothing to follow"

    within_sessions(clerk(desk), tmp_path, use)


def test_a_turn_that_waits_is_canceled_with_its_record_and_one_that_never_began_with_an_empty_one(
    tmp_path: Path,
) -> None:
    async def use(sessions: ServedSessions) -> None:
        asked = sessions.submit("ann", "pay 5", context="c")
        await sessions.settled(asked.id)
        before = sessions.trace(asked.session)
        assert (await sessions.cancel(asked.id, "ann")).state == "canceled" and sessions.store.pending() == []
        trace = sessions.trace(asked.session)
        assert before is not None and trace is not None and trace.calls == before.calls and trace.calls
        assert (trace.stop_reason, trace.answer, trace.nodes) == ("canceled", None, before.nodes)
        assert [each.data["state"] for each in trace.events if each.kind == "turn"] == ["input_required", "canceled"]
        row = sessions.store.open_session("ann", "d")
        bare = sessions.store.add_turn(row.id, "hi")
        await sessions._end_waiting(bare)
        assert sessions.store.turn(bare.id).state == "canceled"
        empty = sessions.trace(row.id)
        assert empty is not None and (empty.nodes, empty.calls, empty.duration_s) == ((), (), 0.0)
        assert (empty.benchmark, empty.task_id, empty.epoch, empty.seed) == ("served", row.id, 0, 41)
        assert empty.agent_name == "clerk" and empty.stop_reason == "canceled" and empty.started_at.endswith("+00:00")
        assert sessions._empty(bare, "").stop_reason == "error" and sessions._empty(bare, "why").stop_reason == "why"

    within_sessions(clerk(Desk()), tmp_path, use)


def test_as_many_turns_run_at_a_time_as_there_are_slots_and_those_of_a_session_in_order(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        turns = [sessions.submit("ann", "wait", context=context) for context in ("a", "b", "a", "c")]
        while desk.waited < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        assert [sessions.store.turn(turn.id).state for turn in turns] == [
            "working",
            "working",
            "submitted",
            "submitted",
        ]
        desk.go.set()
        assert [(await sessions.settled(turn.id)).answer for turn in turns] == ["Done: it is over"] * 4
        assert [turn.number for turn in turns] == [1, 1, 2, 1] and desk.waited == 4

    within_sessions(clerk(desk), tmp_path, use, max_turns=2)


def test_a_question_that_is_answered_as_the_attempt_ends_goes_on_at_once(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        pending, states = sessions.store.pending, []

        def answers_first(turn: str | None = None) -> Any:
            found = pending(turn)
            if found and not states:
                states.append(sessions.store.turn(found[0].turn).state)
                sessions.store.answer(found[0].id, True, by="eve", reason="fine")
                return pending(turn)
            return found

        sessions.store.pending = answers_first  # type: ignore[method-assign]
        assert await ended(sessions, "pay 7") == ("completed", "Done: paid 7", None)
        assert desk.paid == [7] and states == ["working"] and sessions.bugs == []  # type: ignore[attr-defined]

    within_sessions(clerk(desk), tmp_path, use)


def test_sessions_are_woken_for_answers_of_another_process_even_after_the_store_was_away(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "pay 3", context="c").id)
        while sessions._driving:
            await asyncio.sleep(0)
        looked, elsewhere = [], sessions.store.answered_elsewhere

        def away() -> list[str]:
            looked.append(1)
            if len(looked) < 3:
                raise StoreError("it is locked")
            return elsewhere()

        sessions.store.answered_elsewhere = away  # type: ignore[method-assign]
        assert sessions.store.answer(sessions.store.pending(turn.id)[0].id, False, by="eve", reason="too much")
        done = await sessions.settled(turn.id)
        while not done.is_over:
            await asyncio.sleep(0.002)
            done = sessions.store.turn(turn.id)
        assert (done.state, desk.paid) == ("completed", []) and "too much" in (done.answer or "") and len(looked) >= 3

    within_sessions(clerk(desk), tmp_path, use, poll_s=0.002)


def test_a_history_has_the_answers_of_completed_turns_before_the_turn(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        store = sessions.store
        session = store.open_session("ann", "c", (system("S"),))
        turns = [store.add_turn(session.id, f"q{at}") for at in range(5)]
        for turn, state, answer in zip(
            turns, ("completed", "failed", "completed", "completed"), ("a", None, "", "d"), strict=False
        ):
            store.move(turn.id, state, answer=answer)  # type: ignore[arg-type]
        told = [[each.text for each in sessions.history(turn)] for turn in turns]
        assert told == [
            ["S"],
            *[["S", "q0", "a"]] * 2,
            ["S", "q0", "a", "q2", ""],
            ["S", "q0", "a", "q2", "", "q3", "d"],
        ]
        assert [each.role for each in sessions.history(turns[4])[:3]] == ["system", "user", "assistant"]
        store.move(turns[4].id, "canceled")

    within_sessions(clerk(Desk()), tmp_path, use)


def test_an_answer_to_a_form_is_kept_and_content_without_a_form_is_refused(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "pay 3", context="c").id)
        (asked,) = sessions.store.pending(turn.id)
        with pytest.raises(ConfigError, match=f"{asked.id} asks for leave and has no form: answer it without content"):
            sessions.answer(asked.id, True, by="ann", content={"n": 1})
        sessions.answer(asked.id, False, by="eve", reason="too much")
        kept = sessions.store.approval(asked.id)
        assert (kept.state, kept.answered_by, kept.reason, kept.content) == ("denied", "eve", "too much", None)
        with pytest.raises(TurnOver, match=f"{asked.id} was denied before: it is answered once"):
            sessions.answer(asked.id, True, by="ann")
        assert (await sessions.settled(turn.id)).state == "completed"

    within_sessions(clerk(Desk()), tmp_path, use)


def test_a_question_ends_its_attempt_once_all_that_runs_beside_it_waits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_approval, "_STILL_S", 0.001)
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    heard = HeardSteps()
    ask = ParkedApproval(store, turn, heard)

    async def main() -> None:
        heard.open = {":0", ":1", ":2"}
        ask.waiting = dict.fromkeys((":0",))  # type: ignore[assignment]
        still = asyncio.ensure_future(ask._stand_still())
        for done in (":1", ":2"):
            await asyncio.sleep(0.01)
            assert not still.done(), f"{done} runs"
            heard.open.discard(done)
            ask.hear(Event("note", 0.0))
        await asyncio.wait_for(still, 10)
        heard.open = {":0", ":1"}
        still = asyncio.ensure_future(ask._stand_still())
        await asyncio.sleep(0.01)
        assert not still.done()
        ask.waiting[":1"] = None  # type: ignore[assignment]
        ask._moved.set()
        await asyncio.wait_for(still, 10)

    asyncio.run(main())
    store.close()
