"""What a client keeps in a served agent is read a page at a time, in a thread, is counted, and can be deleted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import ListTasksRequest, Task, TaskState, TaskStatus

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import user
from firsthand.runs.database import Database
from firsthand.serve.a2a import sqlite_tasks
from firsthand.serve.a2a.a2a_handler import ClientUser
from firsthand.serve.a2a.sqlite_tasks import SqliteTaskStore
from firsthand.serve.agents import kept_sessions, sessions_app, shown_steps
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.kept_sessions import KeptSessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.agents.sessions_app import SessionsApp
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.trace import Event, Trace
from served_agent import Desk, clerk
from test_sessions_over_http import asked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    opened = SessionStore(tmp_path, create=True)
    yield opened
    opened.close()


def _said(store: SessionStore, owner: str, context: str, *prompts: str) -> None:
    session = store.open_session(owner, context)
    for prompt in prompts:
        store.move(store.add_turn(session.id, prompt).id, "completed", answer="a")


def test_pages_of_sessions_end_at_their_bytes_and_go_on_where_they_ended(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sessions, "PAGE_BYTES", 1000)
    kept = KeptSessions(store.database)
    for at in range(5):
        _said(store, "ann", f"c{at}", "q" * 300)
    _said(store, "bob", "c9", "q")
    found, before = [], None
    while True:
        page = kept.page("ann", before)
        found.append([each.context for each in page.sessions])
        before = page.sessions[0].context
        if not page.has_more:
            break
    assert found == [["c3", "c4"], ["c1", "c2"], ["c0"]]
    with pytest.raises(UnknownName, match="no session 'c9'"):
        kept.page("ann", "c9")
    _said(store, "ann", "long", *["q" * 300] * 5)
    page = kept.page("ann")
    assert [(each.context, [turn.number for turn in each.turns], each.is_whole) for each in page.sessions] == [
        ("long", [4, 5], False)
    ]
    assert page.has_more
    turns, whole = kept.turns(kept.find("ann", "long"), 1000, before=3)
    assert ([turn.number for turn in turns], whole) == ([1, 2], True)


def test_a_list_reads_neither_what_others_keep_nor_what_a_session_was_opened_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Watched(Database):
        def read(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
            rows = super().read(sql, values)
            read.append(sum(len(str(cell)) for row in rows for cell in row))
            return rows

    store = SessionStore(tmp_path, create=True)
    store.open_session("ann", "long", [user("x" * 100_000)])
    _said(store, "ann", "b", "y" * 100_000)
    watched = Watched(tmp_path / "sessions.sqlite", schema=store.database.schema)
    read.clear()
    kept = KeptSessions(watched)
    assert kept.page("bob") == ([], False) and kept.pending("bob") == ([], True) and kept.open_turns("bob") == 0
    kept.check_room("bob", 1, 1)
    kept.turns(kept.find("ann", "long"))
    assert max(read) < 100
    assert [each.context for each in kept.page("ann").sessions] == ["long", "b"]
    watched.close()
    store.close()


def test_sessions_are_answered_in_a_thread_and_their_pages_name_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sessions, "PAGE_BYTES", 600)
    threads: set[bool] = set()

    def shown(turn: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        return {"number": turn.number}

    monkeypatch.setattr(sessions_app, "turn_json", shown)
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        app = SessionsApp(sessions)
        _said(sessions.store, "ann", "a b", "q" * 300)
        _said(sessions.store, "ann", "long", "q", "q" * 600, "q" * 600)

        def got(path: str, query: str = "", method: str = "GET") -> Any:
            return asyncio.run(asked(app, method, path, query_string=query.encode()))[:3:2]

        assert got("/sessions") == (
            200,
            {
                "object": "list",
                "data": [{"id": "long", "turns": [{"number": 3}], "older": "/sessions/long?before=3"}],
                "older": "/sessions?before=long",
            },
        )
        assert got("/sessions", "before=long")[1] == {
            "object": "list",
            "data": [{"id": "a b", "turns": [{"number": 1}]}],
        }
        assert got("/sessions/long", "before=3")[1] == {
            "id": "long", "turns": [{"number": 2}], "older": "/sessions/long?before=2",
        }  # fmt: skip
        assert got("/sessions/long", "before=x")[1]["error"]["message"] == "before is 'x': give the number of a turn"
        assert threads == {False}
        assert got("/sessions/long", method="DELETE") == (200, {"id": "long", "deleted": True})
        assert got("/sessions/long")[0] == 404 and got("/sessions/long", method="DELETE")[0] == 404


def test_approvals_end_at_a_page_too_the_oldest_first(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sessions, "PAGE_BYTES", 1000)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    ids = [store.asked(turn.id, str(at), "t", "read", {"x": "y" * 600}, "?").id for at in range(4)]
    kept = KeptSessions(store.database)
    pending, whole = kept.pending("ann")
    assert ([each.id for each in pending], whole) == (ids[:2], False)
    for id in ids[:2]:
        store.answer(id, True, by="ann")
    pending, whole = kept.pending("ann")
    assert ([each.id for each in pending], whole) == (ids[2:], True)


def test_what_a_client_keeps_is_bounded_and_deleting_makes_room(tmp_path: Path) -> None:
    async def use(sessions: Any) -> None:
        async with sessions.running():
            for at in range(2):
                await sessions.settled(sessions.submit("ann", "hi", context=f"c{at}").id)
            with pytest.raises(ConfigError) as why:
                sessions.submit("ann", "hi", context="c2")
            assert str(why.value) == (
                "2 sessions of yours are kept, as many as may be: delete some with DELETE /sessions/ID, or have the "
                "operator raise --kept-sessions"
            )
            await sessions.settled(sessions.submit("bob", "hi", context="c2").id)
            assert sessions.kept.delete("ann", "c0")
            await sessions.settled(sessions.submit("ann", "hi", context="c2").id)

    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s", SessionSettings(kept_sessions=2)) as sessions:
        asyncio.run(use(sessions))


def test_openings_prompts_answers_and_tasks_count_for_the_bytes_that_a_client_keeps(store: SessionStore) -> None:
    kept, context = KeptSessions(store.database), ServerCallContext(user=ClientUser("ann"))
    opened = store.open_session("ann", "c", [user("x" * 1000)])
    turn = store.add_turn(opened.id, "y" * 500)
    store.move(turn.id, "completed", answer="z" * 300)
    assert not store.move(turn.id, "failed", error="z" * 9000), "it is over"
    size = len(opened.context) + len(opened.opening) + 800
    kept.check_room("ann", 9, size + 1)
    with pytest.raises(
        ConfigError, match=f"your sessions and tasks take {size:,} bytes, and may take {size:,}: delete"
    ):
        kept.check_room("ann", 9, size)
    task = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED))
    asyncio.run(SqliteTaskStore(store.database).save(task, context))
    more = size + len(task.SerializeToString())
    kept.check_room("ann", 9, more + 1)
    with pytest.raises(ConfigError):
        kept.check_room("ann", 9, more)
    assert kept.delete("ann", "c")
    kept.check_room("ann", 1, 1)
    assert asyncio.run(SqliteTaskStore(store.database).get("t", context)) is None


def test_a_page_of_tasks_ends_at_its_bytes_whatever_size_it_was_asked_for(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tasks, "PAGE_BYTES", 1000)
    tasks, context = SqliteTaskStore(store.database), ServerCallContext(user=ClientUser("ann"))

    async def pages() -> list[list[str]]:
        for at in range(5):
            task = Task(id=f"t{at}", context_id="c" * 400, status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED))
            await tasks.save(task, context)
        found, token = [], ""
        while not found or token:
            page = await tasks.list(ListTasksRequest(page_size=100, page_token=token), context)
            found.append([each.id for each in page.tasks])
            token = page.next_page_token
        return found

    assert asyncio.run(pages()) == [["t4", "t3", "t2"], ["t1", "t0"]]


def test_a_session_with_an_open_turn_is_not_deleted_and_a_deleted_one_takes_no_turn(store: SessionStore) -> None:
    kept, session = KeptSessions(store.database), store.open_session("ann", "c")
    turn = store.add_turn(session.id, "q")
    assert not kept.delete("ann", "c") and store.turn(turn.id) == turn
    store.move(turn.id, "canceled")
    assert kept.delete("ann", "c")
    with pytest.raises(UnknownName, match="the session was deleted: begin a new one"):
        store.add_turn(session.id, "q", id="t2")
    with pytest.raises(UnknownName):
        store.turn("t2")


def test_the_newest_steps_of_a_long_trace_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_steps, "PAGE_BYTES", 1000)
    events = tuple(Event("note", 0.0, {"n": at, "text": "x" * 150}) for at in range(9))
    shown = ShownSteps(()).trace(_trace(events))
    assert shown is not None and [each["data"]["n"] for each in shown["events"]] == [6, 7, 8] and shown["left_out"] == 6
    few = ShownSteps(()).trace(_trace(events[:2]))
    assert few is not None and "left_out" not in few and len(few["events"]) == 2


def _trace(events: tuple[Event, ...]) -> Trace:
    return Trace(id="i", place="p", benchmark="b", task_id="t", agent={}, epoch=0, seed=0, started_at="now",
                 duration_s=0.0, stop_reason="answered", events=events)  # fmt: skip
