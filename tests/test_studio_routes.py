"""What each page of the Studio shows and does for a small home whose every number is known: two runs, four received traces."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.incoming_query import DayRow, GroupRow, IncomingQuery
from firsthand.studio.incoming_rows import incoming_detail, incoming_spans_json
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.kept_traces import KeptTraces
from firsthand.studio.live_events import files_of_index, mark_of, marks_of, version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.span_search import spans_holding
from firsthand.studio.studio_app import create_app
from firsthand.studio.views.comparison_views import (
    chosen_pairs,
    contest_of,
    grid_rows,
    plots_of,
    sides_of,
    tasks_to_decide,
)
from firsthand.studio.views.queue_views import MOST_SHOWN
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

PORT = 8131
OWN = {"sec-fetch-site": "same-origin"}
SECOND, DAY = 10**9, 86400 * 10**9


def attempt(run: Any, at: int, agent: str, task: str, score: float | None, **more: Any) -> None:
    nodes = (Node(None, user(f"Q {task}")), Node(0, assistant("one")), Node(0, assistant(f"two of {agent}")))
    calls = (Call(":0", "generate", 0, 0.0, 0.5, "r", usage=Usage(1000, 200, 50, 0.25), nodes=(1, 2)),)
    scores = () if score is None else (Score("exact", score),)
    run.append(Trace(f"x{run.id}{at}", "quiz", task, {"name": agent, "model": agent}, 0, 0, "2026-01-01T00:00:00+00:00", 1.5, nodes=nodes,
                     calls=calls, answer=f"A{at}", scores=scores, place=f"p{at}", **more))  # fmt: skip


def span(
    trace: int, number: int, parent: int, name: str, begun: int, took_s: float, error: str | None = None, **more: Any
) -> IncomingSpan:
    return IncomingSpan(
        f"{trace:032x}", f"{number:016x}", f"{parent:016x}" if parent else "", name, begun, begun + int(took_s * SECOND),
        {key.replace("__", "."): value for key, value in more.items()}, error=error,
        resource={"service.name": "shop"} if trace == 1 else {},
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    for name, scores in (("older", (1.0, 0.5, 0.0)), ("newer", (0.0, 0.5, 1.0))):
        with store.create(folder, {"model": [name]}, name, command=["firsthand", "run", name]) as run:
            run.add_tasks(
                "quiz",
                [Task(f"t{n}", f"Q{n}?", secret={"answer": str(n)}, metadata={"level": f"l{n % 2}"}) for n in range(3)],
            )
            for agent in ("ann", "bob"):
                run.add_agent(agent, {"name": agent, "model": agent})
            for n, score in enumerate(scores):
                attempt(run, n, "ann", f"t{n}", score)
            attempt(run, 3, "bob", "t0", None, error=Failure("Broken", "The net"), stop_reason="error")
            attempt(run, 4, "bob", "t1", 1.0, events=(Event("note", 0.25, {"k": "Moonlight"}),))
    spans = [
        span(1, 1, 0, "chat", DAY, 1.0, session__id="s1", user__id="ann", gen_ai__request__model="m1", gen_ai__operation__name="chat"),
        span(2, 1, 0, "chat", DAY + 10 * SECOND, 3.0, session__id="s1", user__id="bob"),
        span(2, 2, 1, "look", DAY + 11 * SECOND, 1.0, error="No file"),
        span(3, 1, 0, "other", 2 * DAY, 2.0, user__id="ann"),
        span(4, 1, 0, "chat", DAY + 20 * SECOND, 2.0, session__id="s2"),
    ]  # fmt: skip
    taken = TraceStore(folder, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    taken.close()
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    agents = {
        name: Agent(name, Scripted(lambda *_: "It is 1", name=f"scripted:{name}"), reply) for name in ("m-one", "m-two")
    }
    with TestClient(create_app(home, access, agents), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.get("/enter", params={"code": access.new_code()})
        yield made


def ids(home: Path) -> tuple[str, str]:
    """The ids of the older and the newer run."""
    found = {name: info.id for info in store.list_runs(home) for name in ("older", "newer") if name in info.id}
    return found["older"], found["newer"]


def said(answer: Any) -> str:
    """The text of a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def problem(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text[:300]
    return said(answer)


def post(client: TestClient, path: str, **fields: Any) -> Any:
    return client.post(path, data=fields, headers=OWN, follow_redirects=False)


# -- a run and its attempts --


def test_a_run_shows_its_attempts_filtered_and_its_note_with_a_refused_draft(client: TestClient, home: Path) -> None:
    _, run = ids(home)
    page = client.get(f"/runs/{run}", params={"filter": "agent:ann", "sort": "-score"}).text
    assert re.findall(r"/attempts/(p\d)\?filter", page) == ["p2", "p1", "p0"]
    rows = client.get(f"/runs/{run}", params={"start": "2"}, headers={"hx-request": "true"}).text
    assert re.findall(r'data-mark="(p\d)"', rows) == ["p2", "p3", "p4"] and "<html" not in rows and "<table" not in rows
    table = client.get(f"/runs/{run}", params={"filter": "is:failed"}, headers={"hx-request": "true"}).text
    assert re.findall(r'data-mark="(p\d)"', table) == ["p3"] and "The net" in table
    assert "runs cannot" not in page and "did you mean" in problem(
        client.get(f"/runs/{run}", params={"filter": "agnt:x"})
    )
    path = f"/runs/{run}/note"
    assert post(client, path, text="First", version="0").headers["location"] == f"/runs/{run}"
    refused = post(client, path, text="My words", version="0")
    assert "was changed in the meantime" in problem(refused) or "is there already" in problem(refused)
    assert "My words" in refused.text and "First" in client.get(f"/runs/{run}").text
    assert "version is 'x': a whole number was expected" in problem(post(client, path, text="T", version="x"))
    assert post(client, path, text="Second", version="1").status_code == 303 and "Second" in client.get("/").text
    assert problem(client.get("/runs/nosuch"), 404)
    board = said(client.get(f"/runs/{run}/board"))
    assert "ann" in board and "quiz" in board and client.get(f"/runs/{run}/under-way").status_code == 200


def test_an_attempt_is_shown_as_a_conversation_a_tree_or_json(client: TestClient, home: Path) -> None:
    _, run = ids(home)
    base = f"/runs/{run}/attempts/p1"
    page = client.get(base, params={"filter": "agent:ann"})
    text = said(page)
    assert (
        "quiz / t1" in text
        and "question Q1? expected 1 answer A1" in text
        and "0.5 exact" in text
        and "two of ann" in text
    )
    assert "1.1k tokens" in text and "(1.0k in, 200 of them cached, 50 out), $0.25" in text.replace("1k in", "1.0k in")
    assert re.search(rf'rel="prev"[^>]*{base[:-1]}0\?', page.text) and re.search(
        rf'rel="next"[^>]*{base[:-1]}2\?', page.text
    )
    assert "one of them" in text and "two of ann" not in said(client.get(base, params={"leaf": "1"}))
    assert "two of ann" in said(client.get(base, params={"leaf": "2"}))
    raw = client.get(base, params={"view": "raw"})
    assert "two of ann" in said(raw) and '"answer": "A1"' in said(raw)
    tree = client.get(base, params={"view": "tree"})
    assert "tree.js" in tree.text and "tree.js" not in page.text
    for query, words in (({"view": "x"}, "view is 'x': it is one of conversation, tree, raw"), ({"colour": "red"}, "colour is 'red': it is logprob or entropy"),
                         ({"leaf": "a"}, "leaf is 'a': a whole number was expected"), ({"filter": "x" * 2001}, "filter has 2,001 characters")):  # fmt: skip
        assert words in problem(client.get(base, params=query))
    assert client.get(f"{base}/spans.json").json()["columns"]["ref"] == ["", "call:0"]
    assert client.get(f"/runs/{run}/attempts/p4/spans/found", params={"words": "moonLIGHT"}).json() == ["event:0"]
    assert "prompt tokens" in said(client.get(f"{base}/span", params={"ref": "call:0"}))
    assert "has no span 'call:1'" in problem(client.get(f"{base}/span", params={"ref": "call:1"}), 404)
    copied = client.get(f"{base}/copy/test.py")
    assert copied.headers["content-disposition"] == 'attachment; filename="test.py"' and "BAR = 0.5" in copied.text
    lines = client.get(f"{base}/copy/example.jsonl")
    assert (
        lines.headers["content-disposition"] == 'attachment; filename="example.jsonl"'
        and len(lines.text.splitlines()) >= 1
    )
    assert "not as 'x'" in problem(client.get(f"{base}/copy/x"), 404)
    noted = post(client, f"{base}/notes", name=" clear ", value="0.25", text="Words", view="tree")
    assert noted.headers["location"] == f"{base}?view=tree" and "note.clear 0.25 Words" in said(client.get(base))
    assert "a note's score is '2'" in problem(post(client, f"{base}/notes", name="a", value="2"))
    assert "expects the fields of a form" in problem(client.post(f"{base}/notes", json={}, headers=OWN))
    assert "more than 64 KiB" in problem(post(client, f"{base}/notes", text="x" * 70_000))
    assert "more than 40 fields" in problem(post(client, f"{base}/notes", **{f"f{n}": "1" for n in range(41)}))


def test_attempts_that_were_looked_at_are_kept_until_they_get_a_score(home: Path) -> None:
    older, _ = ids(home)
    runs = OpenRuns(home)
    run = runs.get(older)
    kept = KeptTraces()
    first = kept.get(run, "p0")
    assert kept.get(run, "p0") is first and kept.get(run, "p1") is not first
    assert (first.number, first.size, first.has_messages, first.usage.total_tokens, first.usage.cost_usd) == (
        1,
        4,
        True,
        1050,
        0.25,
    )
    assert first.head.nodes == () and first.trace.nodes[2].message.text == "two of ann" and first.head.place == "p0"
    run.add_score(first.trace, 1, "note.x", "person", Score("note.x", 0.5))
    again = kept.get(run, "p0")
    assert again is not first and again.trace.score("note.x") is not None and first.trace.score("note.x") is None
    assert runs.get(older) is run and runs.several([older, older]) == [run, run] and runs.get("last").id == ids(home)[1]
    runs.close()


# -- runs beside each other --


def test_two_runs_are_compared_task_by_task_the_older_as_the_baseline(client: TestClient, home: Path) -> None:
    older, newer = ids(home)
    both = [("run", newer), ("run", older)]
    page = client.get("/compare", params=[*both, ("a", f"{older}/ann"), ("b", f"{newer}/ann")])
    text = said(page)
    assert f"ann ({newer})" in text or newer in text
    assert "2 tasks changed" in text and "+0.000" in text and "quiz 3 +0.000" in text
    default = client.get("/compare", params=both).text
    chosen = re.findall(r'<option value="([^"]+)" selected>', default)
    assert chosen[:2] == [f"{older}/ann", f"{newer}/ann"], "the same agent of the other run"
    for only, words in (
        ("worse", "1 task got worse"),
        ("better", "1 task got better"),
        ("same", "1 task the same"),
        ("all", "3 tasks"),
    ):
        assert words in said(client.get("/compare", params=[*both, ("only", only)]))
    sliced = said(client.get("/compare", params=[*both, ("slice", "level")]))
    assert (
        "By level" in sliced and "l0 quiz 2 0.500 0.500 +0.000" in sliced and "l1 quiz 1 0.500 0.500 +0.000" in sliced
    )
    for query, words in (
        (("only", "x"), "only is 'x': it is one of changed, worse, better, same, all"), (("slice", "x"), "no metadata 'x' to slice by: they have level"),
        (("a", "x/y"), "no agent 'x/y' in the runs"),
    ):  # fmt: skip
        assert words in problem(client.get("/compare", params=[*both, query]))
    assert "A comparison needs two agents" in said(client.get("/compare"))
    pair = said(client.get("/compare/attempts", params={"run_a": older, "a": "p0", "run_b": newer, "b": "p2"}))
    assert "quiz / t0" in pair and "Q0?" in pair
    grid = said(client.get("/compare/grid", params=both))
    assert "t0" in grid and "t2" in grid
    runs = OpenRuns(home)
    sides = sides_of([runs.get(older), runs.get(newer)])
    assert [each.key for each in sides] == [f"{older}/ann", f"{older}/bob", f"{newer}/ann", f"{newer}/bob"]
    contest = contest_of(sides[0], sides[2])
    assert [(pair.task_id, pair.a.value, pair.b.value) for pair in chosen_pairs(contest.comparison, "changed")] == [
        ("t0", 1.0, 0.0),
        ("t2", 0.0, 1.0),
    ]
    assert [pair.task_id for pair in chosen_pairs(contest.comparison, "all")] == ["t0", "t2", "t1"]
    assert tasks_to_decide(contest.differences["quiz"]) is None
    failed = contest_of(sides[0], sides[3])
    assert [(pair.task_id, pair.b.value) for pair in failed.comparison.pairs] == [("t0", 0.0), ("t1", 1.0)], (
        "an error counts 0"
    )
    rows = grid_rows(sides)
    assert [(row.task, row.values) for row in rows if row.task == "t2"] == [("t2", (0.0, None, 1.0, None))]
    assert rows[-1].spread <= rows[0].spread
    ((benchmark, points, unit),) = plots_of(sides)
    assert (benchmark, unit, len(points)) == ("quiz", "USD", 4) and {point.name for point in points} == {
        each.key for each in sides
    }
    assert {point.name for point in plots_of(sides[:2])[0][1]} == {"ann", "bob"}
    assert [(point.score, point.cost) for point in points if point.name == f"{older}/ann"] == [(0.5, 0.25)]
    runs.close()


def test_a_topic_changes_with_what_it_stands_for(home: Path) -> None:
    older, newer = ids(home)
    runs, traces = OpenRuns(home), IncomingTraces(home)
    first = version_of(f"run:{older}", runs)
    assert (
        first
        and first != version_of(f"run:{newer}", runs)
        and version_of("run:none", runs) == version_of("x", runs) == ""
    )
    assert (
        version_of("runs", runs).startswith(files_of_index(home / "runs"))
        and version_of("traces", runs, traces) == traces.version != ""
    )
    assert version_of("traces", runs) == "" and len(mark_of("runs", runs)) == 16
    assert marks_of(["runs", f"run:{older}"], runs) == f"{mark_of('runs', runs)} {mark_of(f'run:{older}', runs)}"
    runs.get(older).add_score(runs.get(older).trace("p1"), 1, "note.y", "person", Score("note.y", 0.5))
    assert version_of(f"run:{older}", runs) != first
    runs.close()


# -- queues, data sets, prompts, views --


def test_a_queue_is_worked_through_and_its_ratings_are_notes(client: TestClient, home: Path) -> None:
    older, _ = ids(home)
    shown = client.get("/queues", params={"run": older, "filter": "agent:ann"})
    assert f'value="{older}" selected' in shown.text and "3" in said(shown)
    fields = {"name": "q", "run": older, "filter": "agent:ann", "score": "good", "raters": "2", "guide": "Look"}
    made = post(client, "/queues", **fields)
    assert made.headers["location"] == "/queues/q"
    assert "the queue 'q' is there already" in problem(post(client, "/queues", **fields))
    assert "a note's name is 'a b'" in problem(post(client, "/queues", **{**fields, "name": "r", "score": "a b"}))
    assert "the queue has no attempts" in problem(
        post(client, "/queues", **{**fields, "name": "r", "filter": "agent:zed"})
    )

    def following(**query: Any) -> str:
        return str(client.get("/queues/q/next", params=query, follow_redirects=False).headers["location"])

    assert (
        following(**{"as": "eve"}) == "/queues/q/items/p0?as=eve"
        and following(**{"as": "eve", "skip": "p0"}) == "/queues/q/items/p1?as=eve"
    )
    item = client.get("/queues/q/items/p0", params={"as": "eve"})
    assert (
        "0 of 3 rated by human:eve" in said(item)
        and "Q0?" in said(item)
        and 'name="version" value="0"' in item.text
        and 'name="as" value="eve"' in item.text
    )
    rated = post(client, "/queues/q/items/p0", value="0.5", text="So so", version="0", **{"as": "eve"})
    assert rated.headers["location"] == "/queues/q/next?as=eve"
    item = client.get("/queues/q/items/p0", params={"as": "eve"})
    assert (
        "1 of 3 rated by human:eve" in said(item)
        and 'name="version" value="1"' in item.text
        and 'value="So so"' in item.text
    )
    assert re.search(r'value="0.5"[^>]*aria-pressed="true"', item.text)
    late = post(client, "/queues/q/items/p0", value="1", text="Other words", version="0", **{"as": "eve"})
    assert (
        "has rated this attempt 0.5 meanwhile, and your 1 was not kept" in problem(late, 409)
        and "Other words" in late.text
    )
    assert "version is 'x'" in problem(post(client, "/queues/q/items/p0", value="1", version="x"))
    assert "a note's score is '3'" in problem(post(client, "/queues/q/items/p0", value="3", version="0"))
    for who, value in (("eve", "1"), ("eve", "0")):
        for place in ("p1", "p2"):
            post(client, f"/queues/q/items/{place}", value=value, version="0", **{"as": who})
    assert following(**{"as": "eve"}) == "/queues/q?as=eve", "nothing is left for her"
    post(client, "/queues/q/items/p0", value="1", version="0", **{"as": "dan"})
    page = said(client.get("/queues/q", params={"as": "dan"}))
    assert (
        "1 of 3 finished, 4 labels." in page
        and "as human:dan" in page
        and "human:eve 3 0.83" in page
        and "0 of 1 attempt that several rated" in page
    )
    assert (
        "t0, ann 1 human:dan 0.5 human:eve : So so" in page.replace("0.5 human:eve: So so", "0.5 human:eve : So so")
        or "t0, ann" in page
    )
    assert "q " in said(client.get("/queues")) and "1 of 3" in said(client.get("/queues"))
    with store.open_run(older, home) as run:
        notes = [score for score in run.trace("p0").attempt_scores if score.name == "note.good"]
        assert {(score.value, score.detail["by"]) for score in notes} >= {(1.0, "human:dan")}
    assert "no queue 'none'" in problem(client.get("/queues/none"), 404) and MOST_SHOWN == 50
    assert "is no name of a rater" in problem(client.get("/queues/q/items/p0", params={"as": "x" * 61}))


def test_a_data_set_is_collected_shown_run_and_downloaded(client: TestClient, home: Path) -> None:
    older, _ = ids(home)
    assert post(client, "/data-sets", name=" d ", run=older, filter="agent:ann").headers["location"] == "/data-sets/d"
    assert post(client, "/data-sets", name="d", run=older, attempt="p4").status_code == 303
    assert [json.loads(line)["id"] for line in client.get("/data-sets/d/tasks.jsonl").text.splitlines()] == [
        "t0",
        "t1",
        "t2",
    ]
    assert "the filter finds no attempt" in problem(post(client, "/data-sets", name="d", run=older, filter="agent:zed"))
    assert "the filter finds no trace" in problem(post(client, "/data-sets", name="d", traces="session=zed"))
    assert "no trace" in problem(post(client, "/data-sets", name="d", trace="00"), 404)
    assert "has no question" in problem(post(client, "/data-sets", name="d", traces="session=s1"))
    page = said(client.get("/data-sets/d"))
    assert (
        "Q0?" in page
        and "Q2?" in page
        and "m-one" in page
        and "d 3" in said(client.get("/data-sets")).replace("d 3 tasks", "d 3")
    )
    answer = post(client, "/data-sets/d/run", model="m-one", check="flexible")
    assert answer.status_code == 303
    client.portal.call(client.app.state.playground.settled)  # type: ignore[union-attr, attr-defined]
    with store.open_run(answer.headers["location"].removeprefix("/runs/"), home) as run:
        assert run.config == {"data_set": "d", "models": ["m-one"], "check": "flexible"} | {
            key: value for key, value in run.config.items() if key not in ("data_set", "models", "check")
        }
        assert {row.task_id: row.score for row in run.rows()} == {"t0": 0.0, "t1": 1.0, "t2": 0.0}
    for fields, words in (
        ({"check": "none"}, "no model was chosen"),
        ({"model": "m-one", "check": "x"}, "the check is 'x'"),
        ({"model": "zed"}, "no model 'zed' was named"),
    ):
        assert words in said(post(client, "/data-sets/d/run", **fields))
    test = client.get("/data-sets/d/test.py")
    assert (
        test.headers["content-disposition"] == 'attachment; filename="test_data_set.py"'
        and "('1 t0', 'Q0?', '0', 1.0)" in test.text
    )
    assert post(client, "/data-sets/d/remove", benchmark="quiz", task="t0").headers["location"] == "/data-sets/d"
    for task in ("t1", "t2"):
        last = post(client, "/data-sets/d/remove", benchmark="quiz", task=task)
    assert last.headers["location"] == "/data-sets" and problem(client.get("/data-sets/d"), 404)


def test_prompts_and_views_are_kept_and_checked(client: TestClient) -> None:
    for text, after in (("One\r\ntwo", ""), ("One\nthree", "1")):
        assert (
            post(client, "/prompts", name=" p ", text=text, after=after, note="why").headers["location"] == "/prompts/p"
        )
    page = said(client.get("/prompts/p"))
    assert page.index("three") < page.rindex("two") and "why" in page and "p" in said(client.get("/prompts"))
    for fields, words in (
        ({"text": "x", "after": "x"}, "after is 'x'"),
        ({"text": "x", "after": "1"}, "has 2 versions by now"),
        ({"text": ""}, "the prompt has 0 characters"),
    ):
        assert words in problem(post(client, "/prompts", name="p", **fields))
    assert problem(client.get("/prompts/none"), 404)
    assert (
        post(client, "/views", name=" mine ", address="/?filter=a b".replace(" ", "%20")).headers["location"]
        == "/views"
    )
    assert 'href="/?filter=a%20b"' in client.get("/views").text and "mine" in said(client.get("/views"))
    for wrong in ("http://evil", "//evil", "/\\evil", "/a b", "", "/" + "x" * 8000):
        assert "a page of the Studio was expected" in problem(post(client, "/views", name="v", address=wrong))
    assert post(client, "/views", name="long", address="/" + "x" * 7999).status_code == 303
    post(client, "/views/remove", name="mine")
    assert "mine" not in said(client.get("/views")) and "long" in said(client.get("/views"))


# -- received traces --


def test_received_traces_are_listed_grouped_shown_and_copied(client: TestClient) -> None:
    page = client.get("/traces")
    assert [int(each, 16) for each in re.findall(r'/traces/([0-9a-f]{32})"', page.text)] == [
        3,
        4,
        2,
        1,
    ] and "4 of 4 traces" in page.text
    part = client.get("/traces", params={"start": "2"}, headers={"hx-request": "true"}).text
    assert [int(each, 16) for each in re.findall(r'/traces/([0-9a-f]{32})"', part)] == [2, 1] and "<table" not in part
    table = client.get("/traces", params={"filter": "has:error"}, headers={"hx-request": "true"}).text
    assert [int(each, 16) for each in re.findall(r"/traces/([0-9a-f]{32})", table)][:1] == [2] and "<html" not in table
    assert "traces cannot be sorted by 'x'" in problem(client.get("/traces", params={"sort": "x"}))
    sessions = said(client.get("/traces/by/sessions"))
    assert (
        "s2 1970-01-02 00:00:20 1970-01-02 00:00:22 1" in sessions
        and "s1 1970-01-02 00:00:00 1970-01-02 00:00:13 2 1 2" in sessions
    )
    assert sessions.index("s2 1970") < sessions.index("s1 1970") and "Sessions" in sessions
    users = said(client.get("/traces/by/users", params={"filter": "session=s1"}))
    assert "ann 1970-01-02 00:00:00" in users and "bob" in users and "1970-01-03" not in users
    days = said(client.get("/traces/by/days"))
    assert "1970-01-03 1" in days and "1970-01-02 3 1 33.3%" in days
    assert "1970-01-03" not in said(client.get("/traces/by/days", params={"start": "1"})) and "not by 'x'" in problem(
        client.get("/traces/by/x"), 404
    )
    two = f"/traces/{2:032x}"
    shown = client.get(two, params={"filter": "session:s", "sort": "started"}).text
    assert f"/traces/{1:032x}" in shown and f"/traces/{4:032x}" in shown
    assert "view is 'x'" in problem(client.get(two, params={"view": "x"})) and "No file" in said(
        client.get(two, params={"view": "raw"})
    )
    assert client.get(f"{two}/spans.json").json()["columns"]["label"] == ["chat", "chat", "look"]
    assert client.get(f"{two}/spans/found", params={"words": "NO FILE"}).json() == ["span:1"]
    assert "No file" in said(client.get(f"{two}/span", params={"ref": "span:1"}))
    for ref in ("span:2", "call:0", "span:x"):
        assert f"the trace has no span '{ref}'" in problem(client.get(f"{two}/span", params={"ref": ref}), 404)
    spans = client.get(f"{two}/copy/spans.json")
    assert (
        spans.headers["content-disposition"] == 'attachment; filename="spans.json"' and len(spans.json()["spans"]) == 2
    )
    assert json.loads(client.get(f"{two}/copy/task.jsonl").text)["id"] == f"{2:032x}" and problem(
        client.get(f"{two}/copy/x"), 404
    )
    assert "gives no training example" in problem(client.get(f"{two}/copy/example.jsonl")) and problem(
        client.get("/traces/zz"), 404
    )


def test_sums_of_sessions_users_and_days_are_exact(home: Path) -> None:
    found = IncomingTraces(home)
    taken = found.store
    assert taken is not None
    query = IncomingQuery.parse("")
    assert query.groups(taken, "session") == [
        GroupRow("s2", 1, 0, 0, 0.0, DAY + 20 * SECOND, DAY + 22 * SECOND, 0), GroupRow("s1", 2, 1, 0, 0.0, DAY, DAY + 13 * SECOND, 2),
    ]  # fmt: skip
    assert [(row.name, row.num_traces, row.other) for row in query.groups(taken, "user")] == [
        ("ann", 2, 1),
        ("bob", 1, 1),
    ]
    assert [row.name for row in query.groups(taken, "user", 1, 1)] == ["bob"] and query.groups(taken, "user", -1, 1)[
        0
    ].name == "ann"
    assert query.days(taken) == [
        DayRow("1970-01-03", 1, 0, 0, 0.0, 2.0, 2.0),
        DayRow("1970-01-02", 3, 1, 0, 0.0, 2.0, 3.0),
    ]
    assert query.facets(taken)["user"] == [("ann", 2), ("bob", 1)] and query.facets(taken, 1)["session"] == [("s1", 2)]
    for text, numbers in (
        ("", "3421"), ("session=s1", "21"), ("user:AN", "31"), ("-user:an", "42"), ("spans>1", "2"), ("errors=1", "2"), ("has:error", "2"),
        ("-has:session", "3"), ("has:user", "321"), ("day=1970-01-02", "421"), ("seconds>=2", "342"), ("name=chat", "421"), ("oth", "3"), ("-oth", "421"),
        (f"id:{1:032x}", "1"), ("has:score", ""), ("tag:x", ""), ("service:shop", "1"), ("model=m1", "1"), ("name:c%t", ""), ("seconds<2", "1"),
    ):  # fmt: skip
        rows = IncomingQuery.parse(text).page(taken).rows
        assert [int(row.trace, 16) for row in rows] == [int(each) for each in numbers], text
    for sort, numbers in (
        ("started", "1243"),
        ("-seconds", "2431"),
        ("seconds", "1342"),
        ("-spans", "2431"),
        ("-errors", "2431"),
    ):
        assert [int(row.trace, 16) for row in IncomingQuery.parse("", sort).page(taken).rows] == [
            int(each) for each in numbers
        ], sort
        placed = IncomingQuery.parse("", sort)
        middle = placed.page(taken, 1, 1).rows[0]
        assert [int(each or "0", 16) for each in placed.beside(taken, middle)] == [int(numbers[0]), int(numbers[2])], (
            sort
        )
        last = placed.page(taken, 3, 1).rows[0]
        assert placed.beside(taken, last)[1] is None and placed.page(taken, 2, 2).next_start is None
    kept = found.get(f"{2:032x}")
    assert found.get(f"{2:032x}") is kept and kept.failed_row == 2 and found.get(f"{1:032x}").failed_row == -1
    rows = incoming_spans_json("Title", kept.spans)
    assert rows == {
        "columns": {
            "kind": rows["columns"]["kind"], "label": ["Title", "chat", "look"], "start": [0.0, 0.0, 1000.0], "duration": [3000.0, 3000.0, 1000.0],
            "depth": [0, 1, 2], "parent": [-1, 0, 1], "prompt": [0, 0, 0], "answer": [0, 0, 0], "cached": [0, 0, 0], "trouble": [1, 1, 1],
            "ref": ["", "span:0", "span:1"],
        },
        "duration": 3000.0,
    }  # fmt: skip
    detail = incoming_detail(kept.spans, "span:1")
    facts = dict(detail.facts)
    assert (detail.title, facts["span"], facts["took"], facts["error"]) == ("look", f"{2:016x}", "1.000 s", "No file")
    assert facts["began"] == "1970-01-02T00:00:11.000+00:00" and spans_holding(kept.spans, "look") == ["span:1"]


def test_curves_files_and_other_paths_are_checked(client: TestClient, home: Path) -> None:
    older, newer = ids(home)
    assert client.get("/curves", params=[("run", older), ("run", newer)]).status_code == 200
    assert client.get("/curves.json", params={"run": older}).json() == {"curves": []}
    assert "with is 'x': it is one of" in problem(client.get("/curves.json", params={"run": older, "with": "x"}))
    many = [("run", f"r{n}") for n in range(41)]
    assert "41 runs are too many for one plot: choose 40 at most" in problem(client.get("/curves", params=many))
    sheet = client.get("/static/x/studio.css")
    assert sheet.headers["content-type"].startswith("text/css") and "immutable" in sheet.headers["cache-control"]
    for path in ("/static/x/none.css", "/static/x/.hidden", "/static/x/studio_app.py"):
        assert client.get(path).status_code == 404
    assert "There is no page '/nothing'." in problem(client.get("/nothing"), 404)
    part = client.get("/runs/nosuch", headers={"hx-request": "true"})
    assert part.status_code == 200 and "nosuch" in part.text and "<html" not in part.text
    assert "/runs/" in client.get("/", params={"filter": "older"}).text and "1 of " in said(
        client.get("/", params={"filter": "older"})
    )
