"""The Studio's event loop: what reads a run or the store is in a thread, so that nobody's pages wait for somebody's form."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Route

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import live_events
from firsthand.studio import playground as playground_module
from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts
from firsthand.studio.arena_rounds import ArenaRounds
from firsthand.studio.live_events import changes
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import Playground, PlaygroundTrial
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import _SCHEMA, FILE, SCHEMA_VERSION, SqliteStore, StudioStore
from firsthand.studio.task_collection import TaskCollections
from studio_small_home import ids, write_home

PORT = 8141
PASSWORD = "correct horse battery"
STORES = ("studio/studio_store.py", "studio/open_runs.py", "runs/database.py", "ingest/trace_store.py")


@contextmanager
def told_on_the_loop(found: list[str], task: asyncio.Task[Any] | None = None) -> Iterator[None]:
    """Adds to `found` which function of a store is called by a task, or this one, in the thread of the event loop."""
    own = task or asyncio.current_task()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.endswith(STORES) and asyncio.current_task() is own:
            found.append(code.co_qualname)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


def agents() -> dict[str, Agent]:
    return {
        name: Agent(name, Scripted(lambda *_: "It is 1", name=f"scripted:{name}"), reply) for name in ("one", "two")
    }


def test_no_form_that_is_sent_reads_or_writes_a_store_on_the_event_loop(tmp_path: Path) -> None:
    """Each request that changes something, of those that the app has."""
    home = write_home(tmp_path)
    _, run = ids(home)
    kept = SqliteStore(home)
    accounts = Accounts(kept)
    accounts.add("ed", PASSWORD, "editor")
    access = Access(accounts=accounts)
    access.port = PORT
    app = create_app(home, access, agents(), kept)
    asked: set[str] = set()
    found: list[str] = []

    async def sent(
        client: httpx.AsyncClient, path: str, status: int = 303, /, *, route: str = "", **form: str
    ) -> httpx.Response:
        with told_on_the_loop(found):
            answer = await client.post(path, data=form or {"x": ""})
        asked.add(route or path)
        assert (answer.status_code, found) == (status, []), (path, answer.text[:400])
        return answer

    async def play() -> None:
        transport = httpx.ASGITransport(app)
        own = {"sec-fetch-site": "same-origin"}
        base = f"http://127.0.0.1:{PORT}"
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=base, headers=own) as client,
        ):
            await sent(client, "/sign-in", 403, name="ed", password="another one")
            await sent(client, "/sign-in", name="ed", password=PASSWORD)
            await sent(client, "/views", name="v", address="/")
            await sent(client, "/views/remove", name="v")
            await sent(client, "/prompts", name="p", text="Be brief.")
            await sent(client, "/data-sets", name="d", run=run, filter="")
            await sent(client, "/data-sets", name="d", run=run, attempt="p0")
            await sent(client, "/data-sets", 400, name="e", trace=f"{1:032x}")
            await sent(client, "/data-sets/d/remove", route="/data-sets/{name}/remove", benchmark="quiz", task="t2")
            await sent(client, "/data-sets/d/run", route="/data-sets/{name}/run", model="one", prompt="p", check="none")
            await sent(client, f"/runs/{run}/note", route="/runs/{run}/note", text="Good", version="0")
            await sent(client, f"/runs/{run}/note", 400, text="Late", version="0")
            place = "/runs/{run}/attempts/{attempt}"
            await sent(client, f"/runs/{run}/attempts/p0/notes", route=f"{place}/notes", name="n", value="1")
            await sent(client, "/queues", name="q", run=run, filter="", score="good")
            item = "/queues/{queue}/items/{place}"
            await sent(client, "/queues/q/items/p0", route=item, value="1", version="0")
            await sent(client, "/queues/q/items/p0", 409, route=item, value="0", version="0")
            await sent(client, "/playground", model="one", prompt="What is 1?")
            await sent(client, "/playground", model="one", run=run, attempt="p0", at="0", say="And now?")
            # these attempts were recorded without what makes them again
            await sent(client, f"/runs/{run}/attempts/p0/replay", 400, route=f"{place}/replay")
            made = (await sent(client, "/arena/rounds", 200, prompt="What is 1?")).json()["round"]
            base_round = f"/arena/rounds/{made}"
            assert "ready" in (await client.get(f"{base_round}/events")).text
            await sent(client, f"{base_round}/vote", 200, route="/arena/rounds/{round}/vote", winner="a")
            await sent(client, f"{base_round}/undo", 200, route="/arena/rounds/{round}/undo")
            await sent(client, f"{base_round}/vote", 200, winner="b")
            await sent(client, f"{base_round}/reveal", 200, route="/arena/rounds/{round}/reveal")
            await app.state.playground.settled()
            await sent(client, "/sign-out")

    asyncio.run(play())
    changing = {each.path for each in app.routes if isinstance(each, Route) and "POST" in (each.methods or ())}
    assert changing <= asked | {""}, changing - asked


def test_pages_and_reads_go_on_while_another_process_holds_the_store(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("prompt", "p", {"text": "old"})
    assert kept.get("prompt", "p") is not None
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=kept.put, args=("prompt", "p", {"text": "new"}))
    writer.start()
    time.sleep(0.1)  # the writer waits for the lock by now
    begun = time.monotonic()
    found = kept.get("prompt", "p")
    assert found is not None and found.body == {"text": "old"} and len(kept.items("prompt")) == 1
    assert time.monotonic() - begun < 2 and writer.is_alive()
    other.execute("ROLLBACK")
    writer.join()
    found = kept.get("prompt", "p")
    assert found is not None and found.body == {"text": "new"}
    with kept.exclusive("x"):
        kept.put("prompt", "q", {"text": "within"})
        assert kept.get("prompt", "q") is not None, "within a transaction its own changes are read"
        others: list[Any] = []
        reader = threading.Thread(target=lambda: others.append(kept.get("prompt", "q")))
        reader.start()
        reader.join()
        assert others == [None], "what is not kept yet is nobody else's"
    assert kept.get("prompt", "q") is not None
    kept.close()
    assert kept.get("prompt", "q") is not None, "a store that was closed opens again"
    kept.close()
    other.close()


@pytest.mark.parametrize("writes_first", [False, True])
def test_a_studio_that_starts_while_another_process_holds_the_store_reads_it(
    tmp_path: Path, writes_first: bool
) -> None:
    before = SqliteStore(tmp_path)
    before.put("prompt", "p", {"text": "old"})
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    kept = SqliteStore(tmp_path)
    writer = threading.Thread(target=kept.put, args=("prompt", "p", {"text": "new"}))
    if writes_first:
        writer.start()
        time.sleep(0.1)  # the writer waits for the lock by now
    begun = time.monotonic()
    found = kept.get("prompt", "p")
    assert found is not None and found.body == {"text": "old"} and time.monotonic() - begun < 2
    other.execute("ROLLBACK")
    if writes_first:
        writer.join()
        found = kept.get("prompt", "p")
        assert found is not None and found.body == {"text": "new"}
    for each in (before, kept, other):
        each.close()


def test_of_two_processes_that_make_the_store_at_once_the_second_finds_it_made(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("BEGIN IMMEDIATE")
    kept = SqliteStore(tmp_path)
    raised: list[list[Exception]] = []
    writer = threading.Thread(target=lambda: raised.append(at_once(lambda: kept.put("prompt", "p", {}))))
    writer.start()
    time.sleep(0.2)  # it has found no tables, and waits for the lock by now
    for statement in _SCHEMA.split(";"):
        other.execute(statement)
    other.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    other.execute("COMMIT")
    writer.join()
    assert raised == [[]] and kept.get("prompt", "p") is not None
    for each in (kept, other):
        each.close()


def test_one_thread_at_a_time_reads_by_the_connection_and_none_while_it_is_closed(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("prompt", "p", {})
    for work in (lambda: kept.get("prompt", "p"), kept.close):
        with kept._reading:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(0.1)
            assert thread.is_alive()
        thread.join()
    assert kept.get("prompt", "p") is not None
    kept.close()


def at_once(*work: Any) -> list[Exception]:
    """Calls all in threads that begin together; returns what they raised."""
    raised: list[Exception] = []
    gate = threading.Barrier(len(work))

    def call(each: Any) -> None:
        gate.wait()
        try:
            each()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=call, args=(each,)) for each in work]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return raised


class Slow(SqliteStore):
    """A store that takes a moment to read, so that many are at it at once."""

    def get(self, kind: str, key: str) -> Any:
        found = super().get(kind, key)
        time.sleep(0.01)
        return found


def test_of_many_who_change_one_data_set_or_prompt_at_once_none_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    kept: StudioStore = Slow(tmp_path)
    sets, prompts = TaskCollections(kept), PromptLibrary(kept)
    row = {"question": "q?", "answer": "a", "system": "", "history": "", "cluster": ""}
    assert at_once(*(lambda n=n: sets.add_received("d", [{**row, "id": f"t{n}"}]) for n in range(8))) == []
    assert sorted(each.task.id for each in sets.get("d").tasks) == [f"t{n}" for n in range(8)]
    assert at_once(*(lambda n=n: sets.remove("d", "traces", f"t{n}") for n in range(7))) == []
    assert [each.task.id for each in sets.get("d").tasks] == ["t7"]
    assert at_once(*(lambda n=n: prompts.add("p", f"text {n}", "ann") for n in range(8))) == []
    assert sorted(each.text for each in prompts.versions("p")) == [f"text {n}" for n in range(8)]


def test_trials_that_are_being_made_count_as_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground_module, "MOST_UNDER_WAY", 2)

    async def play() -> None:
        trials = Playground(tmp_path, agents())
        asked = [trials.start(PlaygroundTrial(("one",), f"What is {n}?")) for n in range(5)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(each, ConfigError) for each in found] == [False, False, True, True, True]
        await trials.settled()
        with pytest.raises(Exception, match="no model 'none'"):
            await trials.start(PlaygroundTrial(("none",), "What is 1?"))
        assert await trials.start(PlaygroundTrial(("one",), "What is 1?")), "what was refused counts no longer"
        await trials.settled()

    asyncio.run(play())
    assert len(store.list_runs(tmp_path)) == 3


def test_an_event_stream_ends_with_the_session_that_opened_it(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    told: list[bool | Exception] = [True, StoreError("locked"), True, False]
    runs = OpenRuns(tmp_path)

    def may_go_on() -> bool:
        answer = told.pop(0)
        if isinstance(answer, Exception):
            (tmp_path / "runs" / "new").mkdir()  # nothing is told of it until the store answers
            raise answer
        seen.append(len(told))
        return answer

    seen: list[int] = []

    async def read() -> list[str]:
        stream = changes(["runs"], runs, poll_s=0.01, may_go_on=may_go_on, ask_s=0.02)
        return [f"{each.splitlines()[0]} {len(told)}" async for each in stream]

    lines = asyncio.run(asyncio.wait_for(read(), 20))
    assert told == [] and seen == [3, 1, 0] and lines == ["retry: 2000 4", "event: changed 1"]
    runs.close()


def test_a_stream_asks_in_a_thread_at_its_first_look_and_then_each_so_many_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    asked_in: set[int] = set()

    def version_of(*_: object) -> str:
        done.append("look")
        return ""

    def may_go_on() -> bool:
        done.append("ask")
        asked_in.add(threading.get_ident())
        return done.count("ask") < 3

    monkeypatch.setattr(live_events, "version_of", version_of)

    async def read() -> int:
        stream = changes(["runs"], OpenRuns(tmp_path), poll_s=1 / 128, may_go_on=may_go_on, ask_s=2 / 128)
        return len([each async for each in stream])

    assert asyncio.run(asyncio.wait_for(read(), 20)) == 1 and threading.get_ident() not in asked_in
    assert done == ["look", "ask", "look", "look", "ask", "look", "look", "ask"] and live_events.ASK_S == 5


def asking(path: str, **headers: str) -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": pairs})


def test_a_session_lets_in_until_it_is_signed_out_or_the_account_is_removed_or_has_too_low_a_role(
    tmp_path: Path,
) -> None:
    alone = Access()
    session = alone.exchange(alone.new_code())
    assert alone.lets_in(asking("/events", cookie=f"{alone.cookie}={session}"))
    assert not alone.lets_in(asking("/events", cookie=f"{alone.cookie}=x"))
    accounts = Accounts(SqliteStore(tmp_path))
    access = Access(accounts=accounts)
    accounts.add("ed", PASSWORD, "admin")

    def cookie() -> str:
        return f"{access.cookie}={accounts.sign_in('ed', PASSWORD, 'here')}"

    first, second = cookie(), cookie()
    assert access.lets_in(asking("/events", cookie=first)) and access.lets_in(asking("/audit", cookie=first))
    accounts.give_role("ed", "viewer")
    assert access.lets_in(asking("/events", cookie=first)) and not access.lets_in(asking("/audit", cookie=first))
    accounts.sign_out(first.partition("=")[2])
    assert not access.lets_in(asking("/events", cookie=first)) and access.lets_in(asking("/events", cookie=second))
    accounts.remove("ed")
    assert not access.lets_in(asking("/events", cookie=second))


def test_the_stream_of_the_app_asks_whether_its_reader_is_let_in(tmp_path: Path) -> None:
    """The first answer of the stream goes out, and its end comes once the account is gone."""
    kept = SqliteStore(tmp_path)
    accounts = Accounts(kept)
    accounts.add("vera", PASSWORD, "viewer")
    access = Access(accounts=accounts)
    access.port = PORT
    app = create_app(tmp_path, access, {}, kept)
    session = accounts.sign_in("vera", PASSWORD, "here")
    route = next(each for each in app.routes if isinstance(each, Route) and each.path == "/events")

    async def read() -> int:
        answer = await route.endpoint(asking("/events", cookie=f"{access.cookie}={session}"))
        accounts.remove("vera")
        return len([each async for each in answer.body_iterator])

    assert asyncio.run(asyncio.wait_for(read(), 30)) == 1


def test_a_vote_is_kept_once_and_not_changed_while_a_thread_keeps_it(tmp_path: Path) -> None:
    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents())
        made = await rounds.start("What is 1?")
        assert [each async for each in rounds.events(made)][-1] == {"ready": True}
        rounds.vote(made, "a", [], "ann", undo_s=60)
        with made.lock:
            for change in (lambda: rounds.vote(made, "b", [], "ann"), lambda: rounds.undo(made)):
                with pytest.raises(
                    ConfigError, match=r"^the vote of this round is being kept: look again in a moment$"
                ):
                    change()
        assert made.winner == "a" and made.keeper is not None and not made.keeper.cancelled()
        rounds.undo(made)
        rounds._keep(made)
        assert made.kept is None, "a vote that was taken back is not kept by a thread that was about to"
        with pytest.raises(ConfigError, match=r"^the names are shown after the vote$"):
            rounds.reveal(made)
        rounds.vote(made, "b", [], "ann", undo_s=0)
        assert made.keeper is not None
        found: list[str] = []
        with told_on_the_loop(found, made.keeper):
            await made.keeper
        assert made.kept is not None and made.kept.winner == "b" and found == []
        other = await rounds.start("What is 2?")
        assert [each async for each in rounds.events(other)][-1] == {"ready": True}
        rounds.vote(other, "a", [], "ann", undo_s=60)
        assert await asyncio.to_thread(at_once, *[lambda: rounds.reveal(other)] * 8) == []
        for change in (lambda: rounds.vote(other, "b", [], "ann"), lambda: rounds.undo(other)):
            with pytest.raises(ConfigError, match=r"^the vote (of this round is kept already|was kept, )"):
                change()
        assert rounds.run is not None and len(rounds.run.preferences()) == 2
        rounds.close()

    asyncio.run(asyncio.wait_for(play(), 60))
