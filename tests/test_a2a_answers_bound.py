"""A bare yes over A2A counts for the one question that its client was shown, not for what waits when it arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

from a2a.types.a2a_pb2 import Message, Part, Role, Task, TaskStatus

from a2a_turns import Events, asks, data, said, within
from firsthand.serve.a2a.turn_executor import TurnExecutor, decisions, shown_before
from firsthand.serve.agents.served_sessions import ServedSessions
from served_agent import Desk


def user(id: str, *parts: Part) -> Message:
    return Message(message_id=id, role=Role.ROLE_USER, parts=list(parts))


def agent(*approvals: str) -> Message:
    return Message(role=Role.ROLE_AGENT, parts=[said("?"), *(data(approval=each) for each in approvals)])


YES, LATER = user("1", said("yes")), user("2", said("yes"))
FIRST = user("0", said("hi"))


@pytest.mark.parametrize(
    ("history", "message", "shown"),
    [
        ([FIRST, agent("a")], YES, {"a"}),
        ([FIRST, agent("a"), YES], YES, {"a"}),  # kept before it is answered
        ([FIRST, agent("a"), user("9", said("hm")), agent("a")], YES, {"a"}),
        ([FIRST, agent("a"), agent(), agent("b")], YES, {"a", "b"}),  # a was answered elsewhere
        ([FIRST, agent("a", "b")], YES, {"a", "b"}),
        ([FIRST, agent("a"), YES, agent(), agent("b")], LATER, {"b"}),
        ([FIRST, agent("a"), YES, agent(), agent("b")], YES, set()),  # the first yes, sent again
        ([FIRST, agent("a"), user("1", said("no")), agent("b")], YES, {"b"}),
        ([FIRST], YES, set()),
        ([], YES, set()),
        ([FIRST, Message(role=Role.ROLE_AGENT, parts=[data(approval=1), data(other="a"), said("a")])], YES, set()),
    ],
)
def test_what_was_shown_is_what_the_task_asked_since_the_clients_last_message(
    history: list[Message], message: Message, shown: set[str]
) -> None:
    assert shown_before(message, Task(history=history)) == shown
    if history and history[-1].role == Role.ROLE_AGENT:  # the newest is in the status until another one comes
        assert shown_before(message, Task(history=history[:-1], status=TaskStatus(message=history[-1]))) == shown


def test_a_yes_to_a_question_that_was_answered_elsewhere_is_none_to_the_next(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        sessions._closing = True  # nothing is attempted here
        store = sessions.store
        store.add_turn(store.open_session("ann", "c").id, "q", id="t")
        looks = store.asked("t", ":0", "lookup", "external", {}, "Run lookup?")
        store.move("t", "input_required")
        store.answer(looks.id, True, by="bob at a terminal")
        pays = store.asked("t", ":1", "pay", "irreversible", {"to": "mallory"}, "Run pay?")

        async def told(*parts: Part, shown: Any) -> Events:
            queue = Events()
            request = asks("t", *parts, begun=True, shown=shown)
            await asyncio.wait_for(executor.execute(request, queue), 10)  # type: ignore[arg-type]
            return queue

        for shown in ([looks.id], [looks.id, pays.id], []):
            for parts in ([said("yes")], [data(allowed=True)], [data(content={})]):
                queue = await told(*parts, shown=shown)
                ((state, text),) = queue.said
                assert state == "input_required" and [each["approval"] for each in queue.data] == [pays.id]
                assert ("Run pay?" in text) is (pays.id not in shown), "what was not shown is shown now"
                assert store.approval(pays.id).state == "pending"
        message = asks("t", said("no"), said("yes")).message
        assert message is not None and decisions(message, [pays], {pays.id}) == {}, "no and yes together are neither"
        message = asks("t", said("yes")).message
        assert message is not None and decisions(message, [pays], {pays.id}) == {pays.id: (True, None)}
        named = asks("t", data(approval=pays.id, allowed=False)).message
        assert named is not None and decisions(named, [pays], set()) == {pays.id: (False, None)}, "an id needs no more"

    within(tmp_path, Desk(), use)
