"""Several questions of one A2A task: all are shown, what is answered is asked no more, and forms say what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types.a2a_pb2 import Part

from a2a_turns import Events, asks, data, said, within
from firsthand.loop.form import FormField
from firsthand.serve.a2a.turn_executor import TurnExecutor
from firsthand.serve.agents.served_sessions import ServedSessions
from served_agent import Desk

FORM = (FormField("n", "integer", required=True), FormField("m", "integer"))


def test_a_message_that_answers_one_question_and_fits_no_other_is_asked_the_other_alone(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        sessions._closing = True  # nothing is attempted here
        store = sessions.store
        store.add_turn(store.open_session("ann", "c").id, "q", id="t")
        pays, fills, page = (
            store.asked("t", ":0", "pay", "external", {"amount": 5}, "Pay 5?"),
            store.asked("t", ":1", "fill", "read", {}, "How many?", FORM),
            store.asked(
                "t",
                ":2",
                "mail__elicitation",
                "read",
                {"open": "https://x.example", "message": "Sign in"},
                "?",
                opens="https://x.example",
            ),
        )
        store.move("t", "input_required")

        ids = {pays.id, fills.id, page.id}

        async def told(*parts: Part) -> tuple[bool, Events]:
            queue, message = Events(), asks("t", *parts).message
            assert message is not None
            going_on = await executor._answer(message, TaskUpdater(queue, "t", "c"), "ann", "t", ids)  # type: ignore[arg-type]
            return going_on, queue

        def states() -> list[str]:
            return [store.approval(each.id).state for each in (pays, fills, page)]

        ways = "; send data with approval, allowed and content. this waits for an answer: "
        going_on, queue = await told(
            data(approval=fills.id, content={"n": "x"}), data(approval=pays.id, allowed=True), said("yes")
        )
        assert not going_on and states() == ["allowed", "pending", "pending"]
        ((state, text),) = queue.said
        assert state == "input_required" and text.endswith(f"{ways}{fills.id}: fill; {page.id}: mail__elicitation")
        assert text.startswith("the answer to n does not fit: ") and [each["approval"] for each in queue.data] == [
            fills.id, page.id,
        ]  # fmt: skip
        going_on, queue = await told(data(approval=fills.id, content={"m": 1}))
        ((state, text),) = queue.said
        assert text.startswith("the form needs n (") and not going_on and len(queue.data) == 2
        going_on, queue = await told(data(approval=fills.id, allowed=False), data(approval=pays.id, allowed=False))
        assert going_on and queue.said == [] and states() == ["allowed", "denied", "pending"]
        going_on, queue = await told(data(approval=pays.id, allowed=True))
        assert not going_on, "what was answered before counts for nothing"
        assert queue.said == [("auth_required", "say yes or no, or send data with approval and allowed; "
                               f"this waits for an answer: {page.id}: mail__elicitation")]  # fmt: skip
        bobs, theirs = Events(), asks("t", said("perhaps")).message
        assert theirs is not None
        assert await executor._answer(theirs, TaskUpdater(bobs, "t", "c"), "bob", "t", ids)  # type: ignore[arg-type]
        assert bobs.said == [], "another client is not asked"
        ids = {page.id}
        going_on, queue = await told(said("No"))
        assert going_on and states()[2] == "denied" and store.approval(page.id).answered_by == "ann"
        going_on, queue = await told(said("anything"))
        assert going_on and queue.said == [], "nothing waits any more"

    within(tmp_path, Desk(), use)


def test_a_task_that_waits_for_several_answers_shows_every_question(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions, executor: TurnExecutor) -> None:
        sessions._closing = True
        store = sessions.store
        store.add_turn(store.open_session("ann", "c").id, "q", id="t")
        store.move("t", "input_required")

        async def settled() -> tuple[Any, list[str]]:
            queue = Events()
            await executor._settle(TaskUpdater(queue, "t", "c"), store.turn("t"))  # type: ignore[arg-type]
            (told,) = queue.said
            return told, [each["approval"] for each in queue.data]

        pages = [
            store.asked(
                "t", f":{at}", f"{name}__elicitation", "read", {}, f"{name} asks you.", opens="https://x.example"
            )
            for at, name in enumerate(("mail", "chat"))
        ]
        texts = ["mail asks you.", "chat asks you."]
        assert await settled() == (("auth_required", "\n\n".join(texts)), [each.id for each in pages])
        pays = store.asked("t", ":9", "pay", "external", {"amount": 5}, "Pay 5?")
        texts.append("Pay 5?")
        ids = [each.id for each in (*pages, pays)]
        assert await settled() == (("input_required", "\n\n".join(texts)), ids), "it is asked as often as it is settled"
        assert await settled() == (("input_required", "\n\n".join(texts)), ids)
        store.answer(pages[0].id, True, by="ann")
        assert await settled() == (("input_required", "\n\n".join(texts[1:])), ids[1:])

    within(tmp_path, Desk(), use)
