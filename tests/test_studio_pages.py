"""The Studio's pages over HTTP: who gets in, what is shown of hostile traces, notes, copies, comparisons, live changes."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import html
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

import make_run
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.database import put
from firsthand.runs.execute import execute
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.runs.track import start as start_track
from firsthand.studio import live_events
from firsthand.studio.access import CODE_LIVES_S, WRONG_CODES, Access
from firsthand.studio.attempt_spans import first_spans_json, spans_json, spans_of
from firsthand.studio.branch_conversation import conversation
from firsthand.studio.live_events import changes, mark_of, marks_of, version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import STATIC
from firsthand.studio.rendering import page as page_of
from firsthand.studio.span_detail import span_detail
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_pages import OWN_PAGES, StudioPage
from firsthand.studio.token_colours import logprob_step
from firsthand.studio.trace_difference import trace_difference
from firsthand.studio.views.comparison_views import chosen_pairs, contest_of, sides_of
from firsthand.studio.views.curve_views import LONG, KeptCurves
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

PORT = 8123
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe\ud800\x1b[31m\"'{{ 7*7 }}</pre>"
PLACE = {"benchmark": "quiz", "epoch": 0, "seed": 0, "started_at": "2026-11-27T00:00:00+00:00"}


def generation(
    id: str, at: int | None, nodes: tuple[int, ...], began: float = 0.0, took: float = 1.0, **rest: object
) -> Call:
    return Call(id, "generate", at, began, took, "0" * 64, Usage(10, 4, 3), nodes, **rest)  # type: ignore[arg-type]


def tool_call(id: str, at: int, name: str, arguments: object, began: float, **rest: object) -> Call:
    detail = {"name": name, "arguments": arguments, "result": "42", "is_error": False}
    return Call(id, "tool", at, began, 0.5, "1" * 64, detail=detail, **rest)  # type: ignore[arg-type]


def hostile_trace(name: str = "evil") -> Trace:
    nodes = (
        Node(None, user(HOSTILE)),
        Node(0, assistant(HOSTILE, ToolCall("c1", HOSTILE[:60], {HOSTILE: [HOSTILE]}))),
        Node(1, Message("tool", (ToolResult("c1", HOSTILE[:60], HOSTILE, is_error=True, origin=HOSTILE),))),
        Node(2, Message("assistant", (Reasoning(HOSTILE, {}), Text(HOSTILE)))),
    )
    return Trace(
        id=f"hostile-{name}", task_id=HOSTILE, agent={"name": HOSTILE}, duration_s=1.0, nodes=nodes, answer=HOSTILE,
        calls=(generation(":0", 0, (1,)), tool_call(":1", 1, HOSTILE, {HOSTILE: HOSTILE}, 1.0, error=HOSTILE)),
        events=(Event(HOSTILE, float("nan"), {HOSTILE: HOSTILE}),), error=Failure(HOSTILE, HOSTILE),
        scores=(Score(HOSTILE, 0.5, failure=HOSTILE),), **PLACE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    make_run.make(folder)
    with store.create(folder, {"model": HOSTILE, "benchmarks": [HOSTILE]}, "evil", command=[HOSTILE]) as run:
        run.add_tasks("quiz", [Task(HOSTILE, HOSTILE, secret={"answer": HOSTILE})])
        run.add_agent(HOSTILE, {"name": HOSTILE})
        run.append(hostile_trace())
    return folder


@pytest.fixture(scope="module")
def access() -> Access:
    made = Access()
    made.port = PORT
    return made


@pytest.fixture(scope="module")
def client(home: Path, access: Access) -> Iterator[TestClient]:
    with TestClient(create_app(home, access), base_url=f"http://127.0.0.1:{PORT}") as made:
        assert made.get("/enter", params={"code": access.new_code()}, follow_redirects=False).status_code == 303
        yield made


def run_id(home: Path, name: str) -> str:
    return next(info.id for info in store.list_runs(home) if name in info.id)


def tags(html: str) -> set[str]:
    return {name.lower() for name in re.findall(r"<([a-zA-Z][a-zA-Z0-9]*)", html)}


# -- who gets in --


@pytest.mark.slow
def test_without_a_session_there_is_one_sentence_and_no_page(home: Path, access: Access) -> None:
    stranger = TestClient(create_app(home, access), base_url=f"http://127.0.0.1:{PORT}")
    for path in ("/", "/runs/last", "/events", "/curves.json", "/nothing"):
        answer = stranger.get(path)
        assert answer.status_code == 401 and "code works once" in answer.text and "quiz" not in answer.text
    assert stranger.get("/enter?code=wrong").status_code == 403
    stranger.cookies.set(access.cookie, "guess")
    assert stranger.get("/").status_code == 401


def test_a_code_works_once_and_not_for_ever(home: Path, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(home, access)
    code = access.new_code()
    first, second = (TestClient(app, base_url=f"http://127.0.0.1:{PORT}") for _ in range(2))
    answer = first.get("/enter", params={"code": code}, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/" and "httponly" in cookie and "samesite=strict" in cookie
    assert first.get("/").status_code == 200
    assert second.get("/enter", params={"code": code}).status_code == 403
    late, now = access.new_code(), time.monotonic()
    monkeypatch.setattr("firsthand.studio.access.time.monotonic", lambda: now + CODE_LIVES_S + 1)
    assert second.get("/enter", params={"code": late}).status_code == 403


def test_after_many_wrong_codes_even_a_right_one_is_refused_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access()
    code = access.new_code()
    for _ in range(WRONG_CODES - 1):
        assert access.exchange("no") is None
    right = access.new_code()
    assert access.exchange(right) is not None  # one below the bound
    assert access.exchange("no") is None
    assert access.exchange(code) is None
    now = time.monotonic()
    monkeypatch.setattr("firsthand.studio.access.time.monotonic", lambda: now + 61)
    assert access.exchange(code) is not None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1:1", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", ""]
)
def test_a_foreign_host_is_refused_before_the_session_is_looked_at(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_the_names_of_this_machine_are_its_own(access: Access, host: str) -> None:
    assert access.is_own_host(host)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 403),
        ({"origin": f"http://127.0.0.1:{PORT}"}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
    ],
)
def test_only_own_pages_may_change_anything(
    client: TestClient, home: Path, headers: dict[str, str], status: int
) -> None:
    run = run_id(home, "fixture")
    path = f"/runs/{run}/attempts/{attempts(client, run)[0]}/notes"
    answer = client.post(path, data={"name": "x", "value": "1"}, headers=headers, follow_redirects=False)
    assert answer.status_code == status


def test_every_answer_has_the_policy(client: TestClient) -> None:
    for path in ("/", "/nothing", "/static/x/studio.css", "/static/x/../access.py", "/runs/nosuch"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


# -- pages --


def attempts(client: TestClient, run: str) -> list[str]:
    return re.findall(rf"/runs/{run}/attempts/([^\"?]+)", client.get(f"/runs/{run}").text)


def test_the_list_shows_runs_and_filters_them(client: TestClient, home: Path) -> None:
    page = client.get("/")
    assert page.status_code == 200 and run_id(home, "fixture") in page.text and "2 of 2 runs" in page.text
    some = client.get("/", params={"filter": "-model:script"}, headers={"hx-request": "true"})
    assert run_id(home, "fixture") in some.text and "<html" not in some.text and run_id(home, "evil") not in some.text
    assert "did you mean" in client.get("/", params={"filter": "modle:x"}, headers={"hx-request": "true"}).text


def test_an_empty_home_says_the_lines_that_fill_it(tmp_path: Path, access: Access) -> None:
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert "firsthand quickstart" in client.get("/").text
        assert client.get("/runs/last").status_code == 404
        below = (
            "/compare/grid",
            "/traces/by/sessions",
            "/traces/by/users",
            "/traces/by/days",
            "/arena/board",
            "/views",
        )
        for path in (*(each.path for each in OWN_PAGES), *below):
            page = client.get(path).text
            found = re.search(r'<section class="empty"[^>]*>.*?<pre>(.*?)</pre>', page, re.DOTALL)
            assert found is not None and len(found[1].strip().splitlines()) == 3, (path, page)
            assert "{{" not in found[1] and "{%" not in found[1], path


@pytest.mark.slow
def test_a_run_shows_its_board_with_intervals_and_its_attempts(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    page = client.get(f"/runs/{run}").text
    assert "80 attempts" in page and page.count("data-row") == 80
    board = client.get(f"/runs/{run}/board").text
    assert (
        "sums" in board and "vs. direct" in board and "baseline" in board and re.search(r"\[0\.\d\d, 0\.\d\d\]", board)
    )


def test_the_number_of_errors_opens_the_attempts_that_failed(client: TestClient, home: Path) -> None:
    info = next(each for each in store.list_runs(home) if each.num_errors and "evil" not in each.id)
    link = f'href="/runs/{info.id}?filter=has%3Aerror#attempts"'
    assert link in client.get("/").text and link in client.get(f"/runs/{info.id}").text
    assert f"{info.num_errors} attempt" in client.get(f"/runs/{info.id}?filter=has:error").text


def test_attempts_come_page_by_page(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    rows = client.get(f"/runs/{run}", params={"start": "70", "sort": "task"}, headers={"hx-request": "true"}).text
    assert rows.count("data-row") == 10 and "<table" not in rows
    for start in ("x", "1e9", "٣x"):
        assert client.get(f"/runs/{run}", params={"start": start}).status_code == 400


@pytest.mark.slow
def test_each_view_of_each_attempt_opens(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    for place in attempts(client, run)[::7]:
        base = f"/runs/{run}/attempts/{place}"
        for view in ("", "tree", "raw"):
            page = client.get(base, params={"view": view})
            assert page.status_code == 200 and "expected" in page.text
        columns = client.get(f"{base}/spans.json").json()["columns"]
        for ref in filter(None, columns["ref"]):
            assert client.get(f"{base}/span", params={"ref": ref}).status_code == 200
    assert client.get(f"{base}/span", params={"ref": "call:99999"}).status_code == 404
    assert client.get(base, params={"view": "nosuch"}).status_code == 400


def test_neighbours_are_those_of_the_filtered_list(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    query = {"filter": "agent=react benchmark=plain", "sort": "-task"}
    places = re.findall(rf"/runs/{run}/attempts/([^\"?]+)", client.get(f"/runs/{run}", params=query).text)
    assert len(places) == 4
    page = client.get(f"/runs/{run}/attempts/{places[1]}", params=query).text
    before, after = (re.search(rf'rel="{rel}"[^>]*attempts/([^?"]+)', page) for rel in ("prev", "next"))
    assert before and after and (before[1], after[1]) == (places[0], places[2])


def test_hostile_text_is_text_on_every_page(client: TestClient, home: Path) -> None:
    run = run_id(home, "evil")
    base = f"/runs/{run}/attempts/hostile-evil"
    pages = ["/", f"/runs/{run}", f"/runs/{run}/board", f"/compare?run={run}", f"/compare/grid?run={run}"]
    pages += [f"/curves?run={run}", base, f"{base}?view=tree", f"{base}?view=raw"]
    pages += [f"{base}/span?ref=call:1", f"{base}/span?ref=event:0"]
    pages += [f"/compare/attempts?run_a={run}&a=hostile-evil&run_b={run}&b=hostile-evil"]
    for path in pages:
        answer = client.get(path)
        assert answer.status_code == 200, (path, re.findall("problem.*", answer.text))
        assert "img" not in tags(answer.text), path
        assert "alert(1)</script" not in answer.text and "\u202e" not in answer.text and "\x1b" not in answer.text, path
        assert not re.search(r"\son\w+=", re.sub(r'="[^"]*"', "=''", answer.text.replace("onerror=alert", ""))), path
        assert "\nstyle=" not in answer.text and "49" not in answer.text.split("{{ 7*7 }}")[0][-3:], path
    assert "\\u202egnp.exe\\ud800" in client.get(base).text
    spans = client.get(f"{base}/spans.json")
    assert spans.headers["content-type"] == "application/json" and spans.json()["duration"] == 1000


@pytest.mark.slow
def test_runs_are_named_and_never_paths(client: TestClient, home: Path, tmp_path: Path) -> None:
    for name in ("%2e%2e%2f%2e%2e%2fetc", "%2e%2e%2fruns", ".hidden", "a%00b", str(home).replace("/", "%2f")):
        assert client.get(f"/runs/{name}").status_code in (400, 404)
    outside = tmp_path / "outside"
    with store.create(outside, {}, "foreign") as foreign:
        pass
    for name in (
        str(foreign.path),
        f"../../outside/runs/{foreign.id}",
        "..",
        "./" + run_id(home, "evil"),
        "a\\b",
        ".x",
    ):
        for page in ("/compare", "/compare/grid", "/curves", "/curves.json"):
            assert client.get(page, params={"run": name}).status_code == 404, (page, name)
    for name in ("x/../../access.py", "../access.py", "LICENSES.txt/..", ".", "%2e%2e%2faccess.py", "nosuch.js"):
        assert client.get(f"/static/0/{name}").status_code == 404
    assert client.get("/static/0/LICENSES.txt").status_code == 404  # a type that no page needs


def test_static_files_are_kept_by_browsers_and_known_by_their_hash(client: TestClient) -> None:
    page = client.get("/").text
    for path in re.findall(r"/static/[0-9a-f]{12}/[\w.]+", page):
        answer = client.get(path)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert "no-store" in client.get("/").headers["cache-control"]
    assert sum(file.stat().st_size for file in STATIC.iterdir()) < 400_000


# -- notes and copies --


def test_a_note_is_a_score_of_the_run(client: TestClient, home: Path) -> None:
    run, own = run_id(home, "fixture"), {"sec-fetch-site": "same-origin"}
    place = attempts(client, run)[3]
    path = f"/runs/{run}/attempts/{place}"
    answer = client.post(f"{path}/notes", data={"name": "clear", "value": "0.25", "text": "so <b>so</b>"}, headers=own)
    assert answer.status_code == 200 and "so &lt;b&gt;so&lt;/b&gt;" in answer.text and "note.clear" in answer.text
    with store.open_run(run, home) as again:
        score = again.trace(place).score("note.clear")
        assert score is not None and score.value == 0.25 and score.detail["text"] == "so <b>so</b>"
    assert client.get(f"/runs/{run}", params={"filter": "score.note.clear<0.5"}).text.count("data-row") == 1


def test_a_run_has_a_note_that_its_list_shows_and_finds(client: TestClient, home: Path) -> None:
    run, own = run_id(home, "fixture"), {"sec-fetch-site": "same-origin"}
    path = f"/runs/{run}"
    assert 'name="version" value="0"' in client.get(path).text
    kept = client.post(
        f"{path}/note", data={"text": "the <b>seed</b> was 3\r\nsee lab book", "version": "0"}, headers=own
    )
    assert kept.status_code == 200 and "the &lt;b&gt;seed&lt;/b&gt; was 3\nsee lab book</textarea>" in kept.text
    row = client.get("/").text
    assert ">the &lt;b&gt;seed&lt;/b&gt; was 3</small>" in row and row.count("lab book") == 1  # the rest is its title
    for query, number in (("note:LAB", 1), ("has:note", 1), ("-has:note", 1), ("book", 1), ("note:elsewhere", 0)):
        assert f"{number} of 2 runs" in client.get("/", params={"filter": query}).text, query
    assert f'data-mark="{run}"' not in client.get("/", params={"filter": "-has:note"}).text
    late = client.post(f"{path}/note", data={"text": "mine", "version": "0"}, headers=own)  # of a second tab
    assert late.status_code == 400 and "is there already" in late.text
    assert ">mine</textarea>" in late.text and "see lab book</pre>" in late.text and 'value="1"' in late.text
    for data, says in (
        ({"text": "x" * 10_001, "version": "1"}, "10,001 characters"),
        ({"text": "x", "version": "-1"}, "a whole number"),
        ({"text": "x"}, "a whole number"),
    ):
        answer = client.post(f"{path}/note", data=data, headers=own)
        assert answer.status_code == 400 and says in answer.text
    assert client.post("/runs/none/note", data={"text": "x", "version": "0"}, headers=own).status_code == 404
    client.post(f"{path}/note", data={"text": " ", "version": "1"}, headers=own)
    assert "0 of 2 runs" in client.get("/", params={"filter": "has:note"}).text


def test_what_changed_between_a_page_and_its_stream_is_told_at_once(client: TestClient, home: Path) -> None:
    app: Any = client.app
    run, runs = run_id(home, "fixture"), app.state.runs
    mark = re.search(r'data-seen="([0-9a-f]{16})"', client.get(f"/runs/{run}").text)
    assert mark is not None and mark[1] == mark_of(f"run:{run}", runs)

    async def second(seen: str) -> str:
        stream = changes([f"run:{run}"], runs, seen=seen, poll_s=0.01)
        await anext(stream)
        return await asyncio.wait_for(anext(stream), 0.2 if seen == mark[1] else 10)

    assert "changed" in asyncio.run(second("0" * 16))
    with pytest.raises(TimeoutError):
        asyncio.run(second(mark[1]))
    runs.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "", "value": "1"}, "name is"),
        ({"name": "a b", "value": "1"}, "name is"),
        ({"name": "x" * 61, "value": "1"}, "name is"),
        ({"name": "x", "value": "1.01"}, "from 0 to 1"),
        ({"name": "x", "value": "nan"}, "from 0 to 1"),
        ({"name": "x", "value": "-0.1"}, "from 0 to 1"),
        ({"name": "x", "value": "1", "text": "y" * 4001}, "4,001 characters"),
        ({"name": "x", "value": "1", "text": "y" * 70_000}, "more than 64 KiB"),
    ],
)
def test_a_bad_note_is_one_sentence(client: TestClient, home: Path, data: dict[str, str], says: str) -> None:
    run = run_id(home, "fixture")
    path = f"/runs/{run}/attempts/{attempts(client, run)[0]}/notes"
    answer = client.post(path, data=data, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 400 and says in answer.text
    assert client.post(path, content=b"{}", headers={"sec-fetch-site": "same-origin"}).status_code == 400


def test_an_attempt_is_copied_as_a_test_that_python_reads_and_as_training_data(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    direct = client.get(f"/runs/{run}", params={"filter": "agent=direct -has:error"}).text
    place = re.findall(rf"/runs/{run}/attempts/([^\"?]+)", direct)[0]
    base = f"/runs/{run}/attempts/{place}/copy"
    made = client.get(f"{base}/test.py")
    assert "attachment" in made.headers["content-disposition"]
    compile(made.text, "test.py", "exec")
    evil = client.get(f"/runs/{run_id(home, 'evil')}/attempts/hostile-evil/copy/test.py").text
    names: dict[str, object] = {}
    exec(compile(evil.split("def test")[0], "test.py", "exec"), names)
    assert names["ATTEMPT"] == f"quiz/{HOSTILE}/{HOSTILE}/0" and names["BAR"] == 0.0
    (row,) = [json.loads(line) for line in client.get(f"{base}/example.jsonl").text.splitlines()]
    assert [each["role"] for each in row["messages"]] == ["user", "assistant"] and row["lineage"][0]["run"] == run
    assert client.get(f"/runs/{run_id(home, 'evil')}/attempts/hostile-evil/copy/example.jsonl").status_code == 400
    assert client.get(f"{base}/other").status_code == 404


# -- comparisons --


def test_two_agents_are_compared_with_what_got_worse_first(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    page = client.get("/compare", params={"run": run, "a": f"{run}/direct", "b": f"{run}/cot", "only": "all"})
    changes = re.findall(r'class="verdict (worse|better|same)">[▲▼●] (?:worse|better|same)', page.text)
    order = {"worse": 0, "better": 1, "same": 2}
    assert len(changes) == 12 and changes == sorted(changes, key=order.__getitem__)
    assert "inconclusive" in page.text or "better" in page.text
    assert client.get("/compare", params={"run": run, "a": "nosuch"}).status_code == 400
    assert client.get("/compare", params={"run": run, "only": "some"}).status_code == 400
    assert client.get("/compare", params={"run": "nosuch"}).status_code == 404
    pair = re.search(r'href="(/compare/attempts[^"]+)"', page.text)
    assert pair is not None
    shown = client.get(pair[1].replace("&amp;", "&"))
    assert shown.status_code == 200 and "steps are the same" in shown.text


def test_no_page_weighs_more_than_two_hundred_kilobytes(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    place = attempts(client, run)[0]
    weights = {}
    for path in ("/", f"/runs/{run}", f"/runs/{run}/attempts/{place}?view=tree", f"/compare?run={run}", "/curves"):
        page = client.get(path)
        asked = set(re.findall(r'"(/static/[^"]+)"', page.text))
        assert len(asked) >= 4, path
        bodies = [page.content, *(client.get(each).content for each in sorted(asked))]
        weights[path] = sum(len(gzip.compress(body)) for body in bodies)
    assert max(weights.values()) < 40_000, weights
    files = sum(len(gzip.compress(file.read_bytes())) for file in STATIC.iterdir())
    assert files + max(weights.values()) < 200_000, "a page with all there is, plots included"


def test_another_room_adds_a_page_with_its_routes_behind_the_same_door(tmp_path: Path) -> None:
    def show(request: Request) -> Response:
        return page_of(request, "problem", title="Inside", problem="a page of another room")

    access = Access()
    access.port = PORT
    added = StudioPage("Inside", "/inside", [Route("/inside", show), Route("/inside/deeper", show)])
    with TestClient(create_app(tmp_path, access, pages=[added]), base_url=f"http://127.0.0.1:{PORT}") as made:
        assert made.get("/inside").status_code == 401
        made.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        current = '<a href="/inside" aria-current="page">Inside</a>'
        assert current in made.get("/inside").text and current in made.get("/inside/deeper").text
        runs = made.get("/").text
        assert '<a href="/inside">Inside</a>' in runs and '<a href="/" aria-current="page">Runs</a>' in runs
        assert '<a href="/arena" aria-current="page">Arena</a>' in made.get("/arena/board").text


def test_the_older_run_is_the_baseline_and_agents_of_one_name_are_compared(tmp_path: Path) -> None:
    ids = []
    for name, score in (("zzz", 1.0), ("aaa", 0.0)):
        with store.create(tmp_path, {"prompt": "p", "prompt_version": 2 - int(score)}, name) as run:
            for agent in ("cot", "react"):
                run.add_agent(agent, {"name": agent})
                run.append(Trace(f"{name}{agent}", "quiz", "t", {"name": agent}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
                                 answer="a", scores=(Score("exact", score),)))  # fmt: skip
            run.finish("done")
            ids.append(run.id)
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        for chosen in (ids, ids[::-1]):
            page = made.get("/compare", params={"run": chosen}).text
            assert f"{ids[1]}/cot against {ids[0]}/cot" in page and "1 task changed" in page
            assert "System message: p, version 2 against p, version 1." in page
        page = made.get("/compare", params={"run": ids, "only": "better"}).text
        assert "0 tasks got better" in page and "only=all" in page
        assert f"/compare?run={ids[0]}&amp;run={ids[1]}" in made.get(f"/runs/{ids[1]}").text
        assert "what changed since" not in made.get(f"/runs/{ids[0]}").text


def test_the_grid_has_a_row_for_each_task_the_most_telling_first(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    page = client.get("/compare/grid", params={"run": run}).text
    rows = [[float(x) for x in re.findall(r">(\d\.\d\d)</td>", row)] for row in page.split("<tr>")[2:]]
    spreads = [max(row) - min(row) for row in rows]
    assert len(rows) == 12 and spreads == sorted(spreads, reverse=True)


def test_attempts_part_at_their_first_difference() -> None:
    def trace(*texts: str) -> Trace:
        nodes = tuple(Node(None if n == 0 else n - 1, assistant(text)) for n, text in enumerate(texts))
        calls = tuple(generation(f":{n}", n - 1 if n else None, (n,)) for n in range(len(texts)))
        return Trace(id="x", task_id="t", agent={"name": "a"}, duration_s=1.0, nodes=nodes, calls=calls, **PLACE)  # type: ignore[arg-type]

    found = trace_difference(trace("a", "b", "c"), trace("a", "x", "c", "d"))
    assert [step.change for step in found.steps] == ["same", "changed", "same", "added"]
    assert found.first == 1 and found.num_same == 2
    assert trace_difference(trace("a"), trace("a")).first is None
    assert [s.change for s in trace_difference(trace("a", "b"), trace("b")).steps] == ["removed", "same"]


# -- spans and conversations --


def forked() -> Trace:
    nodes = (
        Node(None, user("q")), Node(0, assistant("one")), Node(0, assistant("two")), Node(1, user("more")),
        Node(3, Message("assistant", (Text("end"),), Sampled((1, 2, 3), (0.0, -0.5, -5.0)))),
    )  # fmt: skip
    calls = (
        generation(":0", 0, (1, 2)), generation("1:0", 3, (4,), 2.0),
        tool_call("1.0.4:0", 4, "search", {"q": 1}, 3.0, error="gone"), generation("0:0", 2, (), 1.5),
    )  # fmt: skip
    return Trace(
        id="forked", task_id="t", agent={"name": "a"}, duration_s=4.0, nodes=nodes, calls=calls,
        events=(Event("vote", 2.5, {"path": "1", "n": 1}),), **PLACE,
    )  # fmt: skip  # type: ignore[arg-type]


def test_spans_lie_under_their_branch_and_a_failure_shows_at_all_above_it() -> None:
    rows = spans_of(forked().to_json())
    shown = [(row.kind, row.label, row.depth, row.parent, row.trouble) for row in rows]
    assert shown == [
        ("attempt", "t", 0, -1, True),
        ("generate", "2 answers", 1, 0, False),
        ("branch", "0", 1, 0, False),
        ("generate", "generate", 2, 2, False),
        ("branch", "1", 1, 0, True),
        ("generate", "generate", 2, 4, False),
        ("event", "vote path=1 n=1", 2, 4, False),
        ("branch", "1.0.4", 2, 4, True),
        ("tool", "search", 3, 7, True),
    ]
    assert (rows[4].start, rows[4].duration) == (2000.0, 1000.0)
    assert all(row.parent < number for number, row in enumerate(rows))


def test_the_first_spans_are_the_beginning_of_all_with_their_number() -> None:
    body = forked().to_json()
    every, rows = spans_json(body)["columns"], len(spans_of(body))
    for most in (1, 2, 4, 8, rows, rows + 5):
        first = first_spans_json(body, most)
        shown = len(first["columns"]["kind"])
        assert most <= shown <= most + 1 or shown == rows, "a branch that is the last one may come without its calls"
        assert first["total"] == rows and first["duration"] == 4000
        for name in set(every) - {"trouble"}:
            assert first["columns"][name] == every[name][:shown], name


def test_a_tree_comes_with_its_first_rows(tmp_path: Path, access: Access) -> None:
    calls = tuple(generation(f":{n}", None, (), n) for n in range(250))
    with store.create(tmp_path, {}, "long") as run:
        run.append(Trace(id="x", task_id="t", agent={"name": "a"}, duration_s=250.0, calls=calls, **PLACE))  # type: ignore[arg-type]
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        base = f"/runs/{run.id}/attempts/x"
        found = re.search(r'data-first="([^"]*)"', client.get(f"{base}?view=tree").text)
        assert found is not None
        first, every = json.loads(html.unescape(found[1])), client.get(f"{base}/spans.json").json()
        assert first["total"] == len(every["columns"]["kind"]) == 251
        assert first["columns"]["ref"] == every["columns"]["ref"][:100] and first["columns"]["start"][-1] == 98_000


@pytest.mark.slow
def test_a_damaged_attempt_is_told_where_its_spans_are_shown(tmp_path: Path, access: Access) -> None:
    body = forked().to_json()
    for number, spoil in enumerate(
        (
            {"calls": 3}, {"calls": [{}]}, {"calls": [body["calls"][0] | {"id": 7}]}, {"events": [{"kind": "x"}]},
            {"calls": [body["calls"][0] | {"started_s": "soon"}]}, {"calls": [body["calls"][0] | {"usage": []}]},
        )
    ):  # fmt: skip
        with store.create(tmp_path, {}, f"bad{number}") as run:
            run.append(forked())
            with run.database.write() as connection:
                digest = put(connection, body | spoil)
                connection.execute("UPDATE traces SET body = ?", (digest,))
        with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
            client.get("/enter", params={"code": access.new_code()})
            base = f"/runs/{run.id}/attempts/forked"
            for path in (f"{base}?view=tree", f"{base}/spans.json"):
                answer = client.get(path)
                assert answer.status_code == 400 and "damaged" in answer.text, (spoil, path)
            for path in (base, f"{base}?view=raw", f"{base}/span?ref=call:0"):
                assert client.get(path).status_code in (200, 400), (spoil, path)


@pytest.mark.slow
def test_tens_of_thousands_of_calls_are_rows_without_deep_recursion() -> None:
    calls = tuple(generation(("1" + ".1" * (n % 400) if n else "") + f":{n}", None, (), n) for n in range(30_000))
    long = Trace(id="x", task_id="t", agent={"name": "a"}, duration_s=1.0, calls=calls, **PLACE)  # type: ignore[arg-type]
    rows = spans_of(long.to_json())
    assert len(rows) == 1 + 30_000 + 400 and max(row.depth for row in rows) == 401


def test_a_conversation_follows_the_branch_that_was_made_last_or_the_one_asked_for() -> None:
    said = conversation(forked())
    assert [each.node for each in said.said] == [0, 1, 3, 4] and said.leaf == 4 and said.num_leaves == 2
    assert said.said[1].siblings == (1, 2) and said.leaf_of == {1: 4, 2: 2}
    assert [each.node for each in conversation(forked(), 2).said] == [0, 2]
    assert conversation(forked(), 99).leaf == 4 and conversation(forked(), 0).leaf == 2
    last = said.said[-1]
    assert last.num_tokens == 3 and [bar.step for bar in last.bars] == [0, 1, 4]
    assert last.mean_logprob == pytest.approx(-5.5 / 3)


@pytest.mark.parametrize(
    ("probability", "step"),
    [(1.0, 0), (0.91, 0), (0.89, 1), (0.51, 1), (0.49, 2), (0.11, 2), (0.09, 3), (0.011, 3), (0.009, 4)],
)
def test_tokens_are_shaded_by_their_probability(probability: float, step: int) -> None:
    import math

    assert logprob_step(math.log(probability)) == step
    assert logprob_step(float("-inf")) == logprob_step(float("nan")) == 4


def test_a_span_shows_the_messages_that_are_new_since_the_generation_before() -> None:
    nodes = (Node(None, user("a")), Node(0, assistant("b")), Node(1, user("c")), Node(2, assistant("d")))
    calls = (generation(":0", 0, (1,)), generation(":1", 2, (3,)))
    trace = Trace(id="x", task_id="t", agent={"name": "a"}, duration_s=1.0, nodes=nodes, calls=calls, **PLACE)  # type: ignore[arg-type]
    first, second = span_detail(trace, "call:0"), span_detail(trace, "call:1")
    assert [each.node for each in first.new] == [0] and [each.node for each in first.answers] == [1]
    assert [each.node for each in second.new] == [2] and second.num_before == 2
    assert [each.node for each in second.answers] == [3]
    asked = Call(":s", "score", 2, 0.0, 1.0, "2" * 64)
    with_score = dataclasses.replace(trace, calls=(calls[0], asked, calls[1]))
    assert [each.node for each in span_detail(with_score, "call:2").new] == [2], "a scoring is no turn before it"


def test_a_protected_attempt_shows_none_of_its_text(tmp_path: Path, access: Access) -> None:
    secret = "the-withheld-words"
    trace = Trace(
        id="guarded", task_id="t", agent={"name": "a"}, duration_s=1.0, nodes=(Node(None, user(secret)),), answer=secret,
        events=(Event("protected", 0.0, {"why": "canary"}),), tools=(ToolSpec("x", "y", {}),), **PLACE,
    )  # fmt: skip  # type: ignore[arg-type]
    with store.create(tmp_path, {}, "guarded") as run:
        run.add_tasks("quiz", [Task("t", secret, metadata={"protected": "canary"}, secret={"answer": secret})])
        run.append(trace)
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        base = f"/runs/{run.id}/attempts/guarded"
        for path in (base, f"{base}?view=tree", f"{base}?view=raw", f"/runs/{run.id}", f"{base}/spans.json"):
            assert secret not in client.get(path).text


# -- curves and live changes --


def test_curves_of_several_runs_come_as_numbers_with_gaps(tmp_path: Path, access: Access) -> None:
    ids = []
    for lr in (1, 2):
        with store.create(tmp_path, {"lr": lr, "data": {"seed": 3}}, f"fit{lr}") as run:
            track = Track(run)
            for step in range(40):
                track.log({"loss": float("nan") if step == 3 else lr / (step + 1)}, step=step)
            track.text("sample", HOSTILE, step=3)
            track.flush()
            ids.append(run.id)
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        page = client.get("/curves", params={"run": ids}).text
        assert (
            "What differs" in page and ">lr<" in page and ">data.seed<" not in page and "alert(1)</script" not in page
        )
        curves = client.get("/curves.json", params={"run": ids}).json()["curves"]
        assert [(each["run"], each["name"], len(each["steps"])) for each in curves] == [(id, "loss", 40) for id in ids]
        assert curves[0]["values"][3] is None and curves[1]["values"][1] == 1.0
        assert len(client.get("/curves.json", params={"run": ids, "points": "10"}).json()["curves"][0]["steps"]) == 10
        assert all(set(each) == {"run", "name", "steps", "values"} for each in curves), "what is not drawn is not sent"
        asked = {"run": ids, "points": "10", "with": ["means", "at"]}
        more = client.get("/curves.json", params=asked).json()["curves"][1]
        assert len(more["means"]) == len(more["at"]) == len(more["steps"]) == 10 and more["at"] == sorted(more["at"])
        assert client.get("/curves.json", params={"run": ids, "with": "all"}).status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "parts"),
    [("", ""), ("&smooth=0.5", "&with=means"), ("&x=time", "&with=at"), ("&group=lr&x=time", "&with=means&with=at"),
     ("&smooth=0&group=", ""), ("&smooth=much", "")],
)  # fmt: skip
def test_the_head_of_the_curves_asks_for_what_the_script_will_ask(
    tmp_path: Path, access: Access, settings: str, parts: str
) -> None:
    with store.create(tmp_path, {}, "fit") as run:
        Track(run).log({"loss": 1.0}, step=0)
        run.close()
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        page = client.get(f"/curves?run={run.id}{settings}").text
        source = html.unescape(re.search(r'data-source="([^"]*)"', page)[1])  # type: ignore[index]
        asked = html.unescape(re.search(r'rel="preload" as="fetch" crossorigin href="([^"]*)"', page)[1])  # type: ignore[index]
        assert asked == source + parts and len(client.get(asked).json()["curves"]) == 1


def test_a_curve_that_could_not_be_made_is_made_when_it_is_asked_for_again(tmp_path: Path) -> None:
    kept = KeptCurves()
    with store.create(tmp_path, {}, "fit") as run:
        with run.database.write() as connection:
            connection.execute(
                "INSERT INTO metrics (name, step, value, at) VALUES ('loss', 0, ?, 0.0)", (b"no number",)
            )
        (failed,) = kept.begin(run, ["loss"], 50, ())
        with pytest.raises(TypeError):
            failed.result()
        with run.database.write() as connection:
            connection.execute("UPDATE metrics SET value = 1.0")
        (made,) = kept.begin(run, ["loss"], 50, ())
        assert json.loads(made.result())["values"] == [1.0] and kept.begin(run, ["loss"], 50, ()) == [made]
    kept.close()


@pytest.mark.slow
def test_long_curves_of_listed_runs_are_made_ahead(tmp_path: Path, access: Access) -> None:
    def logged(run: Run, steps: int) -> None:
        rows = [("loss", step, 1.0, 0.0) for step in range(steps)]
        with run.database.write() as connection:
            connection.executemany("INSERT INTO metrics (name, step, value, at) VALUES (?, ?, ?, ?)", rows)

    for name, steps in (("long", LONG), ("short", 20)):
        with store.create(tmp_path, {}, name) as run:
            logged(run, steps)
    live = start_track("live", home=tmp_path)  # its curves go on, and are made when they are asked for
    logged(live.run, LONG)
    app = create_app(tmp_path, access)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        kept, long = app.state.curves, run_id(tmp_path, "long")
        deadline = time.monotonic() + 20
        while not (made := [*kept._kept.values()]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert json.loads(made[0].result())["run"] == long and len(made) == 1
        asked = client.get(f"/curves?run={long}")
        assert "/curves.json" in asked.text and len(kept._kept) == 1, "the page asks for what was made"
        client.get("/")
        assert len(kept._kept) == 1
    live.finish()


def test_a_change_of_a_run_is_told_once(home: Path) -> None:
    runs = OpenRuns(home)
    run = runs.get(run_id(home, "fixture"))
    topic = f"run:{run.id}"

    async def told() -> list[str]:
        stream = changes([topic, "run:nosuch", "other"], runs, poll_s=0.01)
        found = [await anext(stream)]
        with store.open_run(run.id, home) as other:
            trace = other.trace(next(iter(other.done())))
            other.add_score(trace, 1, "later", "x", Score("later", 1.0))
        found.append(await asyncio.wait_for(anext(stream), 10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.2)
        return found

    first, second = asyncio.run(told())
    assert first.startswith("retry:") and second.startswith("event: changed\ndata: ")
    assert version_of("run:nosuch", runs) == version_of("other", runs) == ""


def test_every_page_that_listens_carries_the_marks_of_its_topics(client: TestClient, home: Path) -> None:
    app: Any = client.app
    curves = [info.id for info in store.list_runs(home)][:2]
    for path, topics in {
        "/": ["runs"],
        "/traces": ["traces"],
        f"/runs/{curves[0]}": [f"run:{curves[0]}"],
        f"/curves?run={curves[0]}&run={curves[1]}": [f"run:{each}" for each in curves],
    }.items():
        body = re.search(r"<body ([^>]*)>", client.get(path).text)
        assert body is not None
        found = dict(re.findall(r'([a-z-]+)="([^"]*)"', body[1]))
        assert found["data-topics"].split() == topics, path
        assert len(found["data-seen"].split()) == len(topics), "a change before the stream is open would be lost"
        assert found["data-seen"] == marks_of(topics, app.state.runs, app.state.traces) or path == "/"

    async def told(seen: str) -> list[str]:
        stream = changes([f"run:{each}" for each in curves], app.state.runs, seen=seen, poll_s=0.01)
        await anext(stream)
        return [await asyncio.wait_for(anext(stream), 10)]

    first, second = marks_of([f"run:{each}" for each in curves], app.state.runs).split()
    assert curves[1] in asyncio.run(told(f"{first} {'0' * 16}"))[0]
    assert curves[0] in asyncio.run(told(f"{'0' * 16} {second}"))[0]


def test_a_commit_changes_the_version_of_a_run_though_its_files_look_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_events, "files_of", lambda path: "as after the write, before its rows can be read")
    runs = OpenRuns(home)
    topic = f"run:{run_id(home, 'fixture')}"
    before = version_of(topic, runs)
    assert version_of(topic, runs) == before
    with store.open_run(run_id(home, "fixture"), home) as other:
        other.add_score(other.trace(next(iter(other.done()))), 1, "visible", "x", Score("visible", 1.0))
    assert version_of(topic, runs) != before


def test_a_run_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    import shutil

    with store.create(tmp_path, {}, "one") as run:
        pass
    runs = OpenRuns(tmp_path)
    first = runs.get(run.id)
    assert runs.get(run.id) is first
    shutil.copytree(run.path, tmp_path / "copy")
    shutil.rmtree(run.path)
    shutil.copytree(tmp_path / "copy", run.path)
    assert runs.get(run.id) is not first
    runs.close()


@pytest.mark.slow
def test_attempts_under_way_are_told_step_by_step(tmp_path: Path, access: Access) -> None:
    async def slow(task: Task, ctx: object) -> str:
        ctx = await ctx.say(task.question).generate()  # type: ignore[attr-defined]
        began.set()
        await asyncio.to_thread(go.wait, 30)
        return "done"

    began, go = threading.Event(), threading.Event()
    agent = Agent("slow", Scripted({"": "a first answer"}), slow)
    place = Place(agent, Benchmark("quiz", lambda seed: [], ()), Task("t", "?"), 0)
    with store.create(tmp_path, {}, "going") as run:
        thread = threading.Thread(target=lambda: asyncio.run(execute(run, [place])))
        thread.start()
        try:
            assert began.wait(30)
            with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
                client.get("/enter", params={"code": access.new_code()})
                end = time.monotonic() + 30
                while "a first answer" not in (page := client.get(f"/runs/{run.id}/under-way").text):
                    assert time.monotonic() < end, page
                    time.sleep(0.05)
                assert "quiz / t / slow / epoch 0" in page and "running" in client.get(f"/runs/{run.id}").text
                go.set()
                thread.join()
                assert client.get(f"/runs/{run.id}/under-way").text.strip() == ""
        finally:
            go.set()
            thread.join()


def test_a_difference_is_the_second_side_minus_the_first_and_what_got_worse_comes_first(tmp_path: Path) -> None:
    def scored(agent: str, task: int, value: float | None) -> Trace:
        error = Failure("ModelError", "gone") if value is None else None
        scores = () if value is None else (Score("exact", value),)
        named = {"id": f"{agent}{task}", "task_id": f"t{task}", "agent": {"name": agent}, "duration_s": 1.0}
        return Trace(**named, scores=scores, error=error, **PLACE)  # type: ignore[arg-type]

    before, after = (0.0, 0.0, 1.0, 0.0, 0.5), (1.0, 0.5, 0.0, 0.0, None)
    with store.create(tmp_path, {}, "two") as run:
        for name, values in (("a", before), ("b", after)):
            run.add_agent(name, {"name": name})
            for number, value in enumerate(values):
                run.append(scored(name, number, value))
        contest = contest_of(*sides_of([run]))
    assert contest.differences["quiz"].difference == pytest.approx(0.0)  # an error counts 0: (1 + .5 - 1 + 0 - .5) / 5
    assert [p.task_id for p in chosen_pairs(contest.comparison, "all")] == ["t2", "t4", "t0", "t1", "t3"]
    assert [p.task_id for p in chosen_pairs(contest.comparison, "better")] == ["t0", "t1"]
    with store.create(tmp_path, {}, "up") as run:
        for name, value in (("a", 0.25), ("b", 0.75)):
            run.add_agent(name, {"name": name})
            for number in range(3):
                run.append(scored(name, number, value))
        found = contest_of(*sides_of([run])).differences["quiz"]
    assert found.difference == pytest.approx(0.5) and (found.better, found.worse) == (3, 0)


def test_the_address_is_loopback_and_sends_at_once() -> None:
    import socket

    from firsthand.commands.studio import _listen
    from firsthand.errors import ConfigError

    with _listen(0) as listening:
        assert listening.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's algorithm on: 40 ms a page"
        assert listening.getsockname()[0] == "127.0.0.1"
        listening.listen()
        with pytest.raises(ConfigError, match="cannot be opened"):
            _listen(listening.getsockname()[1])
