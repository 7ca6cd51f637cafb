"""Requests of chats that are sent again: which turn they find, for how long, and that no lasting call is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ModelError, ToolError
from firsthand.loop.approval import Approval
from firsthand.message import Message, ToolCall, assistant, user
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.runs.stored_journal import now
from firsthand.serve.agents import session_store
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import Caller, SessionModel, caller
from firsthand.serve.http.refusals import refusal_of
from firsthand.tool import tool_from_function
from served_agent import within_sessions

TOLD = "it had made calls that last, so the same messages get this error for 10 minutes"


class Mailer:
    """An agent that calls the tool which its question begins with, waits for `go`, and fails."""

    def __init__(self, **effects: Any) -> None:
        self.sent: list[str] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

        def tool(name: str) -> Callable[[], str]:
            def run() -> str:
                self.sent.append(name)
                if name == "refuse":
                    raise ToolError("nothing was done")
                return "sent"

            run.__name__, run.__doc__ = name, name
            return run

        async def pattern(task: Any, ctx: Any) -> str:
            await ctx.call(ToolCall("1", task.question.split()[0], {}))
            self.begun.set()
            await self.go.wait()
            raise ModelError("no credit is left")

        tools = tuple(tool_from_function(tool(name), effect=effect) for name, effect in effects.items())
        self.agent = Agent("mailer", Scripted([]), pattern, {}, tools)


async def asked(model: SessionModel, *said: str | Message, who: str = "ann", limit_s: float = 20.0) -> str:
    """The answer or the error; a text alone is the prompt of `/v1/completions`."""
    caller.set(Caller(who))
    prompt: Any = said[0] if isinstance(said[0], str) else list(said)
    try:
        async with asyncio.timeout(limit_s):
            return [each.text async for each in model.stream(prompt, Sampling())][-2]
    except ModelError as error:
        assert error.refused_as == 500
        return str(error)
    except TimeoutError:
        return "the client left"


async def left(model: SessionModel, mailer: Mailer, *said: str | Message) -> None:
    """A client asks, and leaves once the call is made; the turn fails after that."""
    request = asyncio.create_task(asked(model, *said))
    await mailer.begun.wait()
    request.cancel()
    await asyncio.wait({request})
    mailer.go.set()
    store = model._sessions.store
    while store.unfinished():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("effect", ["external", "irreversible"])
def test_a_turn_that_failed_behind_a_lasting_call_is_told_again_for_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: str
) -> None:
    mailer = Mailer(mail=effect)

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        error = f"the turn failed: no credit is left; {TOLD}"
        await left(model, mailer, user("mail it"))
        for _ in range(3):  # by a client that had left, and then by one that repeats each error
            assert await asked(model, user("mail it")) == error
        assert await asked(model, "mail it") == error, "the same without messages"
        assert mailer.sent == ["mail"] and len(sessions.store.sessions()) == 1
        others = ([user("mail again")], [user("mail"), assistant("no"), user("mail it")])
        for count, said in enumerate(others, 2):
            assert await asked(model, *said) == error and len(mailer.sent) == count, "another question"
        assert await asked(model, user("mail it"), who="bob") == error and len(mailer.sent) == 4
        for later_s, count in ((599, 4), (601, 5)):
            monkeypatch.setattr(session_store, "now", lambda by_s=0.0, later_s=later_s: now(by_s + later_s))
            await asked(model, user("mail it"))
            assert len(mailer.sent) == count, later_s

    within_sessions(replace(mailer.agent, approval=Approval({"mail": "allow"})), tmp_path, use)


@pytest.mark.parametrize("name", ["look", "refuse", "write"])
def test_a_turn_that_failed_and_did_nothing_is_attempted_again(tmp_path: Path, name: str) -> None:
    mailer = Mailer(look="read", refuse="external", write="write")

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        await left(model, mailer, user(name))
        assert await asked(model, user(name)) == "the turn failed: no credit is left"
        assert mailer.sent == [name, name] and len(sessions.store.sessions()) == 2

    within_sessions(mailer.agent, tmp_path, use)


def test_each_turn_of_a_session_has_acted_for_itself(tmp_path: Path) -> None:
    mailer = Mailer(mail="external", look="read")

    async def use(sessions: ServedSessions) -> None:
        mailer.go.set()
        turns = [await sessions.settled(sessions.submit("ann", text, context="one").id) for text in ("mail", "look")]
        assert [sessions.has_acted(turn) for turn in turns] == [True, False] and mailer.sent == ["mail", "look"]

    within_sessions(mailer.agent, tmp_path, use)


def test_a_turn_that_was_cancelled_behind_a_lasting_call_is_told_again(tmp_path: Path) -> None:
    mailer = Mailer(mail="external")

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        request = asyncio.create_task(asked(model, user("mail")))
        await mailer.begun.wait()
        await sessions.cancel(sessions.store.unfinished()[0].id)
        error = f"the turn canceled: somebody cancelled it; {TOLD}"
        assert await request == await asked(model, user("mail")) == error and mailer.sent == ["mail"]

    within_sessions(mailer.agent, tmp_path, use)


def slow(mailer: Mailer) -> Agent:
    """It says the question again, once it may."""

    async def pattern(task: Any, ctx: Any) -> str:
        if task.question == "go on":
            await mailer.go.wait()
        return f"A of {task.question}"

    return Agent("slow", Scripted([]), pattern)


def test_conversations_with_the_same_last_words_each_find_the_turn_that_their_client_left(tmp_path: Path) -> None:
    mailer = Mailer()

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        chats = [[user(f"q{at}"), assistant(f"A of q{at}"), user("go on")] for at in range(6)]
        for chat in chats:
            await asked(model, chat[0])
        await asyncio.gather(*(asked(model, *chat, limit_s=0.1) for chat in chats))
        mailer.go.set()
        for chat in chats:  # the oldest first
            assert await asked(model, *chat) == "A of go on"
        rows = sessions.store.sessions()
        assert [len(sessions.store.turns(row.id)) for row in rows] == [2] * 6

    within_sessions(slow(mailer), tmp_path, use)


def test_a_prompt_without_messages_finds_the_turn_that_its_client_left(tmp_path: Path) -> None:
    mailer = Mailer()

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        assert await asked(model, "go on", limit_s=0.05) == "the client left"
        assert await asked(model, "other") == "A of other"
        mailer.go.set()
        for number in (2, 3):  # it is given once
            assert await asked(model, "go on") == "A of go on" and len(sessions.store.sessions()) == number

    within_sessions(slow(mailer), tmp_path, use)


def test_an_earlier_answer_that_is_given_again_leaves_what_is_known_of_the_later_ones(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        store = sessions.store
        session = store.open_session("ann", "chat-1")
        for number in (1, 2):
            store.move(store.add_turn(session.id, "q").id, "completed", answer="A")
            store.keep_transcript(session.id, f"d{number}", number)
        store.keep_transcript(session.id, "d1", 1)
        assert store.by_transcript("ann", "d2") == session and store.by_transcript("ann", "d1") is None
        assert store.undelivered("ann", "q", "") == []
        store.keep_transcript(session.id, "d2 again", 2)
        assert store.by_transcript("ann", "d2 again") == session

    within_sessions(slow(Mailer()), tmp_path, use)


def test_a_refused_question_is_asked_anew_once_its_client_was_told(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        store, model = sessions.store, SessionModel(sessions)
        turn = store.add_turn(store.open_session("ann", "chat-1").id, "hello")
        store.move(turn.id, "rejected", error="a guard")
        assert await asked(model, user("hello")) == "the turn rejected: a guard"
        assert await asked(model, user("hello")) == "A of hello"

    within_sessions(slow(Mailer()), tmp_path, use)


def test_the_error_of_a_turn_is_not_said_to_be_an_endpoints() -> None:
    for status, code in ((500, None), (502, "upstream_refused"), (409, None)):
        error = ModelError("it failed")
        error.refused_as = status
        refusal = refusal_of(error)
        assert (refusal.status, refusal.code, refusal.headers) == (status, code, {"x-should-retry": "false"})
