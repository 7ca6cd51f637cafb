"""The end of a turn: kept beside the event loop, whole though others cancel or the server stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions, TurnOver
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.trace import Trace
from served_agent import Desk, clerk


def within(agent: Agent, folder: Path, use: Callable[[ServedSessions], Awaitable[Any]], **settings: Any) -> Any:
    """What `use` makes of an agent's sessions while they run."""

    async def main() -> Any:
        limits = SessionSettings(**{"poll_s": 0.01} | settings)
        with opened_sessions(agent, folder, folder / "s", limits, seed=40) as sessions:
            async with sessions.running():
                return await use(sessions)

    return asyncio.run(main())


class SlowRun:
    """A run whose `append` takes a while, and says in which thread it is called and how many are at it."""

    def __init__(self, run: Any, seconds: float = 0.2):
        self._run, self._seconds = run, seconds
        self.threads: list[bool] = []
        self.at_once = self.most_at_once = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def append(self, trace: Trace) -> None:
        self.threads.append(threading.current_thread() is threading.main_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self._seconds)
        self._run.append(trace)
        self.at_once -= 1


def test_others_are_served_while_the_end_of_a_turn_is_kept(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        slow = sessions.run = SlowRun(sessions.run)  # type: ignore[assignment]
        turn = sessions.submit("ann", "hi", context="a")
        beats = 0
        while not sessions.store.turn(turn.id).is_over:
            await asyncio.sleep(0.005)
            beats += slow.at_once
        assert beats > 5 and slow.threads == [False]
        waits = [sessions.submit("ann", text, context="a") for text in ("pay 1", "hi")]
        await sessions.settled(waits[0].id)
        for each in waits:
            await sessions.cancel(each.id)
        assert slow.threads == [False] * 4, "a turn that waits is cancelled in a thread too"

    within(clerk(Desk()), tmp_path, use)


def test_a_cancel_waits_for_the_end_that_is_being_kept_and_two_ends_of_a_session_are_both_kept(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        slow = sessions.run = SlowRun(sessions.run, 0.05)  # type: ignore[assignment]
        first, second, third = (sessions.submit("ann", text, context="a") for text in ("hi", "ho", "hey"))
        while not slow.at_once:
            await asyncio.sleep(0.001)
        over, queued, again = await asyncio.gather(
            *(sessions.cancel(each.id) for each in (first, third, third)), return_exceptions=True
        )
        assert isinstance(over, TurnOver) and "is completed" in str(over)
        assert isinstance(queued, SessionTurn) and queued.state == "canceled" and isinstance(again, TurnOver)
        assert (await sessions.settled(second.id)).answer == "You said ho, after 1 others."
        trace = sessions.trace(first.session)
        assert trace is not None and slow.most_at_once == 1
        assert [(part["number"], part["state"]) for part in trace.final_state["turns"]][:2] == [
            (1, "completed"), (2, "completed"),
        ]  # fmt: skip

    within(clerk(Desk()), tmp_path, use)


def test_a_turn_is_not_begun_while_it_is_being_cancelled(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        begun: list[str] = []
        sessions.on_begin.append(lambda turn: begun.append(turn.id))
        first = sessions.submit("ann", "wait", context="a")
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        slow = sessions.run = SlowRun(sessions.run, 0.1)  # type: ignore[assignment]
        queued = sessions.submit("ann", "pay 5", context="b")
        canceling = asyncio.create_task(sessions.cancel(queued.id))
        while not slow.at_once:
            await asyncio.sleep(0.001)
        attempting = asyncio.create_task(sessions._attempt(sessions.store.session(queued.session), queued))
        assert (await canceling).state == "canceled"
        await attempting
        desk.go.set()
        await sessions.settled(first.id)
        assert begun == [first.id] and desk.paid == []

    within(clerk(desk), tmp_path, use, max_turns=1)


async def until_kept(slow: SlowRun, number: int = 1) -> None:
    """Once so many ends have begun to be kept."""
    while len(slow.threads) < number:
        await asyncio.sleep(0.001)


def test_a_turn_that_ends_while_another_end_is_kept_is_not_cancelled_in_its_place(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        first, second, third = (sessions.submit("ann", text, context="a") for text in ("wait", "hi", "ho"))
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        slow = sessions.run = SlowRun(sessions.run)  # type: ignore[assignment]
        others = asyncio.gather(*(sessions.cancel(each.id) for each in (second, third)))
        await until_kept(slow)
        desk.go.set()
        while first.id in sessions._attempts:
            await asyncio.sleep(0.001)
        with pytest.raises(TurnOver, match="is completed"):
            await sessions.cancel(first.id)
        assert {each.state for each in await others} == {"canceled"} and slow.most_at_once == 1
        assert sessions.store.turn(first.id).answer == "Done: it is over"
        trace = sessions.trace(first.session)
        assert trace is not None
        assert (1, "completed") in [(part["number"], part["state"]) for part in trace.final_state["turns"]]

    within(clerk(desk), tmp_path, use)


def test_a_cancel_that_waits_for_another_end_does_not_take_the_place_of_its_turns_own(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        first, second = (sessions.submit("ann", text, context="a") for text in ("wait", "hi"))
        while not desk.waiting.is_set():
            await asyncio.sleep(0.001)
        slow = sessions.run = SlowRun(sessions.run)  # type: ignore[assignment]
        other = asyncio.create_task(sessions.cancel(second.id))
        await until_kept(slow)
        waits = asyncio.create_task(sessions.cancel(first.id))
        await asyncio.sleep(0.01)
        desk.go.set()
        with pytest.raises(TurnOver, match="is completed"):
            await waits
        assert (await other).state == "canceled"
        trace = sessions.trace(first.session)
        assert trace is not None and trace.final_state["turns"][0]["state"] == sessions.store.turn(first.id).state

    within(clerk(desk), tmp_path, use)


def test_the_turn_after_one_that_is_cancelled_goes_on_though_the_client_who_cancelled_has_left(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        asks = sessions.submit("ann", "pay 5", context="a")
        assert (await sessions.settled(asks.id)).state == "input_required"
        after = sessions.submit("ann", "hi", context="a")
        slow = sessions.run = SlowRun(sessions.run, 0.05)  # type: ignore[assignment]
        cancels = asyncio.create_task(sessions.cancel(asks.id))
        await until_kept(slow)
        cancels.cancel()
        assert (await asyncio.wait_for(sessions.settled(after.id), 5)).state == "completed"
        assert sessions.store.turn(asks.id).state == "canceled"

    within(clerk(Desk()), tmp_path, use)


def test_a_server_that_stops_keeps_what_clients_asked_to_cancel_while_an_end_was_kept(tmp_path: Path) -> None:
    desk, ids = Desk(), list[str]()
    cancels: list[asyncio.Task[SessionTurn]] = []

    async def use(sessions: ServedSessions) -> None:
        slow = sessions.run = SlowRun(sessions.run, 0.1)  # type: ignore[assignment]
        ids.extend(sessions.submit("ann", text, context="a").id for text in ("hi", "pay 1", "pay 2"))
        await until_kept(slow)
        cancels.extend(asyncio.create_task(sessions.cancel(id)) for id in ids[1:])
        await asyncio.sleep(0)

    async def after(sessions: ServedSessions) -> None:
        assert [sessions.store.turn(id).state for id in ids] == ["completed", "canceled", "canceled"]
        assert desk.paid == []

    within(clerk(desk), tmp_path, use)
    within(clerk(desk), tmp_path, after)


def test_those_who_follow_a_turn_are_told_its_end_though_it_is_deleted_at_once(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "hi", context="a")
        move = sessions.store.move

        def moved(id: str, state: Any, **more: Any) -> bool:
            done = move(id, state, **more)
            return done and (state != "completed" or sessions.kept.delete("ann", "a"))

        sessions.store.move = moved  # type: ignore[method-assign]
        news = [each async for each in sessions.follow(turn.id)]
        assert isinstance(news[-1], SessionTurn) and news[-1].answer == "You said hi, after 0 others."

    async def main(sessions: ServedSessions) -> None:
        await asyncio.wait_for(use(sessions), 5)

    within(clerk(Desk()), tmp_path, main)


def test_a_server_that_stops_keeps_the_end_that_is_being_kept(tmp_path: Path) -> None:
    ids: list[str] = []

    async def use(sessions: ServedSessions) -> None:
        slow = sessions.run = SlowRun(sessions.run)  # type: ignore[assignment]
        ids.append(sessions.submit("ann", "hi", context="a").id)
        while not slow.at_once:
            await asyncio.sleep(0.001)

    async def after(sessions: ServedSessions) -> None:
        turn = sessions.store.turn(ids[0])
        assert turn.state == "completed" and sessions.trace(turn.session) is not None

    within(clerk(Desk()), tmp_path, use)
    within(clerk(Desk()), tmp_path, after)


def test_a_session_that_has_the_bytes_one_may_takes_no_turn_more(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        size = len("ahiYou said hi, after 0 others.") + 2
        await sessions.settled(sessions.submit("ann", "hi", context="a").id)
        ((kept,),) = sessions.store.database.read("SELECT size FROM sessions")
        assert kept == size
        with pytest.raises(
            ConfigError, match=f"the session 'a' has {size} bytes, and may have {size}: begin a new one"
        ):
            sessions.submit("ann", "hi", context="a")
        for owner, context in (("ann", "b"), ("bob", "a")):
            assert (await sessions.settled(sessions.submit(owner, "h", context=context).id)).state == "completed"
            await sessions.settled(sessions.submit(owner, "", context=context).id)

    within(clerk(Desk()), tmp_path, use, session_bytes=len("ahiYou said hi, after 0 others.") + 2)
    with pytest.raises(ConfigError, match="session_bytes is 0"):
        SessionSettings(session_bytes=0)


def test_a_trace_is_packed_while_others_read_and_write_its_run(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        free: list[bool] = []

        class Told(dict[str, Any]):
            def items(self) -> Any:  # called by the encoder
                other = threading.Thread(target=lambda: (sessions.run.database.read("SELECT 1"), free.append(True)))
                other.start()
                other.join(2)
                return super().items()

        turn = sessions.submit("ann", "hi", context="a")
        await sessions.settled(turn.id)
        trace = sessions.trace(turn.session)
        assert trace is not None
        sessions.run.append(replace(trace, id="t2", final_state=Told(a=1)))
        assert free and sessions.trace(turn.session) == replace(trace, id="t2", final_state={"a": 1})

    within(clerk(Desk()), tmp_path, use)
