"""Names of sessions, half characters, and retries of chats: bounded, counted, and refused in one sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.model import Sampling
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents import kept_sessions, session_store
from firsthand.serve.agents.kept_sessions import KeptSessions
from firsthand.serve.agents.served_sessions import MAX_NAME_CHARS, ServedSessions
from firsthand.serve.agents.session_model import Caller, SessionModel, caller
from firsthand.serve.agents.session_store import SCHEMA, SESSIONS_FILE, SessionStore
from firsthand.serve.agents.sessions_app import SessionsApp, _route_of
from served_agent import Desk, clerk
from test_sessions_over_http import asked, within

HALF = "hi\ud800"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    found = SessionStore(tmp_path, create=True)
    yield found
    found.close()


def size_of(store: SessionStore, owner: str = "ann") -> int:
    return int(store.database.read("SELECT total(size) FROM sessions WHERE owner = ?", (owner,))[0][0])


def test_a_session_has_a_name_of_at_most_256_characters_that_an_address_holds(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        longest = "é" * MAX_NAME_CHARS
        assert sessions.submit("ann", "hi", context=longest).context == longest
        told = "^the session's name has 257 characters: give it 256 at most, or leave it out$"
        with pytest.raises(ConfigError, match=told):
            sessions.submit("ann", "hi", context=longest + "x")
        for name in (".", ".."):
            with pytest.raises(ConfigError, match="which no address can hold"):
                sessions.submit("ann", "hi", context=name)
        assert [each.context for each in sessions.store.sessions()] == [longest]

    within(clerk(Desk()), tmp_path, use)


@pytest.mark.parametrize("name", ["a/b", "/", "a b?c#d", "a\nb", "%2F", "...", "é"])
def test_a_session_of_any_name_is_listed_read_and_deleted_at_its_address(tmp_path: Path, name: str) -> None:
    async def use(sessions: ServedSessions) -> None:
        app = SessionsApp(sessions)
        turn = sessions.submit("ann", "hi", context=name)
        await sessions.settled(turn.id)
        path = f"/sessions/{name}"  # as a server decodes it
        assert _route_of(path) == "/sessions/{id}" and quote(name, safe="")
        status, _, body, _ = await asked(app, "GET", path)
        assert (status, body["id"]) == (200, name)
        status, _, body, _ = await asked(app, "DELETE", path)
        assert (status, body) == (200, {"id": name, "deleted": True})
        assert (await asked(app, "GET", path))[0] == 404

    within(clerk(Desk()), tmp_path, use)
    assert _route_of("/sessions/") is None and _route_of("/sessionsx/a") is None


def test_a_query_of_many_fields_is_refused_in_one_sentence(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        app = SessionsApp(sessions)
        for count, expected in ((10, 200), (11, 400)):
            query = "&".join(f"f{at}=1" for at in range(count)).encode()
            status, _, body, _ = await asked(app, "GET", "/sessions", query_string=query)
            assert status == expected
        assert body["error"]["message"] == "the query has more than 10 fields: send `before` alone"

    within(clerk(Desk()), tmp_path, use)


def test_names_and_texts_are_counted_in_bytes(store: SessionStore) -> None:
    session = store.open_session("ann", "é" * 10)
    assert size_of(store) == 20 + len("[]")
    turn = store.add_turn(session.id, "😀😀")
    store.move(turn.id, "failed", answer="é", error="漢")
    assert size_of(store) == 20 + 2 + 8 + 2 + 3
    store.open_session("ann", "é" * 10)
    assert size_of(store) == 35, "it is the same session"


def test_names_of_an_older_store_are_counted_once_it_is_opened(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / SESSIONS_FILE) as old:
        for script in SCHEMA.migrations[:-1]:
            old.executescript(script)
        old.execute(f"PRAGMA application_id = {SCHEMA.application_id}")
        old.execute(f"PRAGMA user_version = {len(SCHEMA.migrations) - 1}")
        values = ("i", "ann", "é" * 5, "", "[]", "now", 2)
        old.execute(
            "INSERT INTO sessions (id, owner, context, transcript, conversation, created_at, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    old.close()
    opened = SessionStore(tmp_path)
    assert size_of(opened) == 12
    opened.close()


def test_a_page_of_names_ends_at_its_bytes_and_reads_no_name_behind_it(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sessions, "PAGE_BYTES", 1000)
    for at in range(8):
        store.open_session("ann", f"{at}" + "é" * 200)
    read: list[Any] = []

    class Heard:
        def read(self, sql: str, values: Any = ()) -> Any:
            found = store.database.read(sql, values)
            read.extend(cell for row in found for cell in row if isinstance(cell, str) and "é" in cell)
            return found

    page = KeptSessions(Heard()).page("ann")  # type: ignore[arg-type]
    assert [each.context[0] for each in page.sessions] == ["5", "6", "7"] and page.has_more
    assert len(read) == 3
    older = KeptSessions(store.database).page("ann", page.sessions[0].context)
    assert [each.context[0] for each in older.sessions] == ["2", "3", "4"] and older.has_more


def test_a_page_whose_sessions_are_deleted_meanwhile_is_empty_and_has_none_before_it(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_session("ann", "a")

    class Late:
        def read(self, sql: str, values: Any = ()) -> Any:
            return [] if sql.startswith("SELECT context") else store.database.read(sql, values)

    page = KeptSessions(Late()).page("ann")  # type: ignore[arg-type]
    assert (page.sessions, page.has_more) == ([], False)
    assert not KeptSessions(store.database).page("ann").has_more
    store.open_session("ann", "b")
    monkeypatch.setattr(kept_sessions, "MOST_LISTED", 1)
    page = KeptSessions(Late()).page("ann")  # type: ignore[arg-type]
    assert (page.sessions, page.has_more) == ([], False), "there is none to go on from"


def test_half_a_character_in_a_chat_is_refused_before_the_store_is_asked(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        with pytest.raises(ConfigError, match=r"^the message holds \\ud800, half of a character"):
            await SessionModel(sessions)._turn(Caller("ann"), HALF, [user(HALF)])
        assert sessions.store.sessions() == []

    within(clerk(Desk()), tmp_path, use)


def test_half_a_character_is_refused_wherever_a_client_sends_it(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        told = r"holds \\ud800, half of a character: send the whole character$"
        for prompt, context, before in ((HALF, "c", ()), ("hi", HALF, ()), ("hi", "c", (user(HALF),))):
            with pytest.raises(ConfigError, match=told):
                sessions.submit("ann", prompt, context=context, conversation=before)
        assert sessions.store.sessions() == []
        turn = sessions.submit("ann", "pay 5", context="c\u00e9 😀")
        await sessions.settled(turn.id)
        (pending,) = sessions.store.pending(turn.id)
        app = SessionsApp(sessions)
        for body in ({"allowed": False, "reason": HALF}, {"allowed": True, "content": {HALF: 1}}):
            status, _, said, _ = await asked(app, "POST", f"/approvals/{pending.id}", body)
            assert status == 400 and ("half of a character" in str(said) or "unicode" in str(said))
        with pytest.raises(ConfigError, match=f"^the reason {told}"):
            sessions.answer(pending.id, False, by="ann", reason=HALF)
        assert sessions.store.approval(pending.id).state == "pending"
        body = {"allowed": False, "reason": "no, 😀"}
        assert (await asked(app, "POST", f"/approvals/{pending.id}", body))[0] == 200

    within(clerk(Desk()), tmp_path, use)


def test_an_answer_with_half_a_character_ends_its_turn(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        turn = await sessions.settled(sessions.submit("ann", "hi", context="c").id)
        assert turn.error is None, turn.error
        assert (turn.state, turn.answer) == ("completed", "hi\ufffd 😀")

    within(Agent("a", Scripted([HALF + " 😀"], name="scripted:a"), react, {"native": True}), tmp_path, use)


def test_a_retry_is_looked_for_among_the_newest_chats_alone(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "MOST_UNDELIVERED", 3)
    turns = {
        name: store.add_turn(store.open_session("ann", name).id, "hi").id
        for name in ("chat-1", "chat-2", "chat-3", "Chat-4", "mcp", "xchat-", "chat-5")
    }
    store.add_turn(store.open_session("bob", "chat-1").id, "hi")
    store.add_turn(store.open_session("ann", "chat-6").id, "ho")
    newest = [turns[name] for name in ("chat-5", "chat-3", "chat-2")]
    assert store.undelivered("ann", "hi", "chat-") == newest
    store.move(turns["chat-5"], "completed", answer="a")
    store.keep_transcript(store.turn(turns["chat-5"]).session, "d", 1)
    store.move(turns["chat-3"], "failed")
    store.move(turns["chat-2"], "completed", answer="a")
    assert store.undelivered("ann", "hi", "chat-") == [turns["chat-2"], turns["chat-1"]]


def test_a_chat_that_is_sent_again_finds_its_turn_and_no_session_of_another_door(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        other = sessions.submit("ann", "hello", context="by MCP")
        first = sessions.submit("ann", "hello", context="chat-1")
        for turn in (other, first):
            await sessions.settled(turn.id)
        caller.set(who := Caller("ann"))
        answers = await SessionModel(sessions).complete([user("hello")], Sampling())
        assert answers[0].message == assistant("You said hello, after 0 others.")
        assert who.session == "chat-1" and len(sessions.store.sessions()) == 2
        await SessionModel(sessions).complete([user("hello")], Sampling())
        assert len(sessions.store.sessions()) == 3, "the answer was given: this is a new question"

    within(clerk(Desk()), tmp_path, use)
