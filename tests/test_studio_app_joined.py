"""The Studio's app as a whole: what it is given reaches its pages, two topics are told, and what goes on ends with it."""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import accounts as account_module
from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts
from firsthand.studio.live_events import mark_of
from firsthand.studio.rendering import STATIC
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_pages import StudioPage
from firsthand.studio.studio_store import SqliteStore
from studio_small_home import OWN, PORT, ids, post, problem, said, write_home

ADDRESS = f"http://127.0.0.1:{PORT}"


@contextmanager
def opened(home: Path, *given: Any, **named: Any) -> Iterator[TestClient]:
    """A client that is signed in to the app of a home."""
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access, *given, **named), base_url=ADDRESS, raise_server_exceptions=False) as made:
        made.get("/enter", params={"code": access.new_code()})
        yield made


@pytest.mark.slow
def test_all_that_people_make_is_kept_in_the_store_that_the_app_was_given(tmp_path: Path) -> None:
    home = write_home(tmp_path / "home")
    older, _ = ids(home)
    kept = SqliteStore(tmp_path / "elsewhere")
    with opened(home, None, kept) as client:
        for path, fields in (
            ("/queues", {"name": "a", "run": older, "filter": "agent:ann", "score": "good"}),
            ("/prompts", {"name": "b", "text": "Be brief"}),
            ("/data-sets", {"name": "c", "run": older, "attempt": "p0"}),
            ("/views", {"name": "d", "address": "/"}),
            (f"/runs/{older}/note", {"text": "Moonrise", "version": "0"}),
        ):
            assert post(client, path, **fields).status_code == 303, path
        kinds = {"queue": "a", "prompt": "b", "data-set": "c", "view": "d", "run-note": older}
        assert {kind: [item.key for item in kept.items(kind)] for kind in kinds} == {k: [v] for k, v in kinds.items()}
        assert "1 of 2 runs" in said(client.get("/?filter=moonrise")) and "Moonrise" in said(client.get("/"))
        client.app.state.playground.problems[older] = "The trial broke"  # type: ignore[attr-defined]
        assert "The trial broke" in said(client.get(f"/runs/{older}"))
        assert not (home / "studio.sqlite").exists()


def test_pages_of_other_rooms_come_after_the_studios_own(tmp_path: Path) -> None:
    def told(request: Request) -> Response:
        return PlainTextResponse(f"Told at {request.url.path}")

    first = StudioPage("One", "/one", [Route("/one", told), Route("/views", told)])
    second = StudioPage("Two", "/two", [Route("/one", lambda _: PlainTextResponse("hidden")), Route("/two/{x}", told)])
    with opened(tmp_path, pages=[first, second]) as client:
        assert [client.get(path).text for path in ("/one", "/two/3")] == ["Told at /one", "Told at /two/3"]
        assert "Saved views" in client.get("/views").text
        names = [each.title for each in client.app.state.pages]  # type: ignore[attr-defined]
        assert names[:2] == ["Runs", "Compare"] and names[-3:] == ["Prompts", "One", "Two"] and len(names) == 11
        assert "There is no page '/Two/No Such'." in said(client.get("/Two/No%20Such"))
        for name in ("studio.css", "studio.js", "studio.css", "mark.svg", "studio.js"):
            assert client.get(f"/static/0/{name}").content == (STATIC / name).read_bytes()
        assert post(client, "/views", name="own", address="/").status_code == 303
        assert [item.key for item in SqliteStore(tmp_path).items("view")] == ["own"]
        assert client.post("/v1/traces", json={}, headers=OWN).status_code == 404, "without a writer there is no door"
        part = {"hx-request": "true"}
        for path, status in (("/runs/none", 404), ("/?sort=x", 400)):
            assert (client.get(path).status_code, client.get(path, headers=part).status_code) == (status, 200)


def test_programs_send_spans_with_the_key_and_read_nothing(tmp_path: Path) -> None:
    spans = TraceStore(tmp_path, create=True)
    for key, statuses in (("a key", (401, 401, 200)), (None, (200, 200, 200))):
        writer = SpanWriter(spans, SpanPreparer(Redactor()))
        access = Access()
        access.port = PORT
        app = create_app(tmp_path, access, writer=writer, ingest_key=key)
        with TestClient(app, base_url=ADDRESS) as client:
            found = [
                client.post("/v1/traces", json={"resourceSpans": []}, headers=headers).status_code
                for headers in ({}, {"x-api-key": "a kez"}, {"authorization": "Bearer a key"})
            ]
            assert tuple(found) == statuses
            elsewhere = client.post("/v1/traces", json={}, headers={"host": "evil.example", "x-api-key": "a key"})
            assert (elsewhere.status_code, client.get("/traces").status_code) == (421, 401)
        writer.close()
    spans.close()


@pytest.mark.slow
def test_a_page_hears_of_each_of_its_topics_that_changed_since_its_marks(tmp_path: Path) -> None:
    access = Access()
    app = create_app(tmp_path, access)
    (route,) = [each for each in app.routes if getattr(each, "path", "") == "/events"]

    session = (b"cookie", f"{access.cookie}={access.exchange(access.new_code())}".encode())

    async def told(query: str, count: int) -> list[str]:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events",
            "headers": [session],
            "query_string": query.encode(),
        }
        answer = await route.endpoint(Request(scope))  # type: ignore[attr-defined]
        assert answer.media_type == "text/event-stream"
        found = []
        async for piece in answer.body_iterator:
            found.append(piece)
            if len(found) == count:
                break
        await answer.body_iterator.aclose()
        return found

    begun, changed = "retry: 2000\n: the Studio tells what changes\n\n", 'event: changed\ndata: {"topic": "%s"}\n\n'
    both = [begun, changed % "traces", changed % "runs"]
    assert asyncio.run(asyncio.wait_for(told("topic=traces&topic=runs&seen=x+y", 3), 5)) == both
    assert asyncio.run(asyncio.wait_for(told("topic=runs", 1), 5)) == [begun]
    TraceStore(tmp_path, create=True).close()
    mark = mark_of("traces", app.state.runs, app.state.traces)
    later = asyncio.run(asyncio.wait_for(told(f"topic=traces&topic=runs&seen={mark}+x", 2), 5))
    assert later == [begun, changed % "runs"], "the traces are as they were"


@pytest.mark.slow
def test_what_goes_on_ends_with_the_app_and_a_vote_that_waits_is_kept(tmp_path: Path) -> None:
    class Slow(Scripted):
        """A model that never answers `Wait`."""

        async def stream(self, prompt: Any, *given: Any, **named: Any) -> Any:
            if "Wait" in str(prompt):
                await asyncio.sleep(60)
            async for each in super().stream(prompt, *given, **named):
                yield each

    names = ("m-one", "m-two")
    agents = {name: Agent(name, Slow(lambda *_: "Sí\ud800", name=f"scripted:{name}"), reply) for name in names}
    began = time.monotonic()
    with opened(tmp_path, agents) as client:
        round = post(client, "/arena/rounds", prompt="Is it?").json()["round"]
        events = client.get(f"/arena/rounds/{round}/events")
        lines = events.text.split("\n\n")
        assert (lines[0], lines[-2:], events.text.isascii()) == ("retry: 1000", ['data: {"ready": true}', ""], True)
        texts = [json.loads(line.removeprefix("data: ")) for line in lines[1:-2]]
        shown = {side: "".join(each["text"] for each in texts if each["side"] == side) for side in "ab"}
        assert shown == {"a": "Sí\ud800", "b": "Sí\ud800"} and texts[0]["from"] == 0
        voted = {"winner": ["tie", "a"], "reason": ["style", "safe", "style"]}
        assert post(client, f"/arena/rounds/{round}/vote", **voted).json() == {"undo_s": 5.0}
        assert post(client, f"/arena/rounds/{round}/undo").json() == {}
        wrong = post(client, f"/arena/rounds/{round}/vote", winner="both")
        assert "winner is 'both': it is one of" in problem(wrong)
        assert post(client, f"/arena/rounds/{round}/vote", **voted).status_code == 200
        for odd in ("reveal", "vote"):
            assert "this round is not known any more" in problem(post(client, f"/arena/rounds/x/{odd}"), 404)
        made = post(client, "/playground", model="m-two", prompt="Wait").headers["location"].rpartition("/")[2]
    infos = {info.id == made: info for info in store.list_runs(tmp_path)}
    with store.open_run(infos[False].id, tmp_path) as run:
        (vote,) = run.preferences()
        assert (vote.winner, vote.by, run.status) == ("tie", f"human:{getpass.getuser()}", "done")
        assert (vote.detail or {})["reasons"] == ["style", "safe"]
    arena = infos[False].config["arena"]
    assert (arena["models"], arena["by"], arena["seed"]) == (["m-one", "m-two"], "studio", 0)
    assert (infos[True].status, infos[True].num_traces) == ("interrupted", 0) and time.monotonic() - began < 20


# -- accounts --


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestClient, Accounts]]:
    """A Studio with two accounts behind a proxy that speaks TLS, which itself speaks none."""
    monkeypatch.setitem(account_module._SCRYPT, "n", 1 << 4)
    monkeypatch.setattr(account_module, "_NOBODY", account_module.hashed("nobody at all"))
    accounts = Accounts(SqliteStore(tmp_path))
    accounts.add("ada", "p" * 1024, "admin")
    access = Access(accounts=accounts, is_https=True)
    access.port = PORT
    with TestClient(create_app(tmp_path, access, store=accounts.store), base_url=ADDRESS) as made:
        yield made, accounts


def test_names_and_passwords_are_taken_as_they_are_typed(signed: tuple[TestClient, Accounts]) -> None:
    client, accounts = signed
    for name, password, status in (
        (" ada", "p" * 1024, 403), ("ada ", "p" * 1024, 403), ("ada", "p" * 1025, 403), ("ada", "", 403),
        ("n" * 70, "x", 403), ("ada", "p" * 1024, 303),
    ):  # fmt: skip
        answer = post(client, "/sign-in", name=name, password=password)
        assert answer.status_code == status, (name, len(password))
    assert "; Secure" in answer.headers["set-cookie"]
    told = [(body["who"], body["what"], body["address"]) for _, body in reversed(accounts.store.logged("audit"))]
    refused = [(who, "was refused", "testclient") for who in (" ada", "ada ", "ada", "ada", "n" * 64)]
    assert told == [*refused, ("ada", "signed in", "testclient")]
    large = client.post("/sign-in", data={"name": "ada", "password": "p" * 8192}, headers=OWN, follow_redirects=False)
    assert large.status_code == 400 and "the form has more than 8 KiB" in said(large)
    assert len(accounts.store.logged("audit")) == 6, "a form that is not read is no guess"
    for fields in ({"name": "ada"}, {"password": "x" * 12}):
        assert post(client, "/sign-in", **fields).status_code == 403


def test_whoever_has_no_session_signs_out_too_and_the_log_is_shown_up_to_its_limit(
    signed: tuple[TestClient, Accounts],
) -> None:
    client, accounts = signed
    with accounts.store._write() as connection:  # type: ignore[attr-defined]
        connection.executemany(
            "INSERT INTO log (at, kind, body) VALUES ('2026-01-01T00:00:00', 'audit', ?)",
            [(f'{{"who": "u{n}", "what": "w"}}',) for n in range(1002)],
        )
    key = {"authorization": f"BEARER  {accounts.new_key('ada')} "}
    for query, count in (("", 200), ("?limit=201", 201), ("?limit=5000", 1000), ("?limit=-3", 1)):
        page = client.get(f"/audit{query}", headers=key).text
        assert page.count("<td>w</td>") == count, query
        assert "u1001" in page
    out = client.post("/sign-out", headers=key, follow_redirects=False)
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
    assert accounts.store.logged("audit", 1)[0][1] == {
        "who": "ada", "what": "POST /sign-out", "status": 303, "address": "testclient",
    }  # fmt: skip
