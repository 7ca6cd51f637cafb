"""Data sets, prompts, views, received traces and curves of the Studio, for a small home whose every number is known."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.studio.incoming_query import DayRow, GroupRow, IncomingQuery
from firsthand.studio.incoming_rows import incoming_detail, incoming_spans_json
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.span_search import spans_holding
from studio_small_home import DAY, SECOND, entered, ids, post, problem, said, write_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("routes"))


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with entered(home) as made:
        yield made


@pytest.mark.slow
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
        and "('1 t0', 'Q0?', [], {'answers': ['0']}, 'flexible', 1.0)" in test.text
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


def test_the_command_of_a_trace_is_one_that_a_shell_reads_as_it_is_meant(client: TestClient) -> None:
    """A filter holds what a sender wrote, as the name of a user; a reader may paste the command."""
    hostile = "user=\"ann' ; touch OWNED ; echo '\""
    for given, asked in (
        ("", "has:error"),
        ("session:s", "session:s"),
        (hostile, hostile),
        ("user=O'Brien", "user=O'Brien"),
    ):
        page = client.get(f"/traces/{2:032x}", params={"filter": given}).text
        [command, then] = [html.unescape(each) for each in re.findall(r"<code>(firsthand [^<]*)</code>", page)]
        words = ["firsthand", "data", "traces", "--as", "tasks", "--filter", asked, "--out", "tasks.toml"]
        assert shlex.split(command) == words
        assert then == "firsthand run ./tasks.toml"


def test_sums_of_sessions_users_and_days_are_exact(home: Path) -> None:
    found = IncomingTraces(home)
    taken = found.store
    assert taken is not None
    query = IncomingQuery.parse("")
    assert query.groups(taken, "session") == [
        GroupRow("s2", 1, 0, 0, 0.0, DAY + 20 * SECOND, DAY + 22 * SECOND, 0),
        GroupRow("s1", 2, 1, 0, 0.0, DAY, DAY + 13 * SECOND, 2),
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
        ("", "3421"), ("session=s1", "21"), ("user:AN", "31"), ("-user:an", "42"), ("spans>1", "2"), ("errors=1", "2"),
        ("has:error", "2"),
        ("-has:session", "3"), ("has:user", "321"), ("day=1970-01-02", "421"), ("seconds>=2", "342"),
        ("name=chat", "421"), ("oth", "3"), ("-oth", "421"),
        (f"id:{1:032x}", "1"), ("has:score", ""), ("tag:x", ""), ("service:shop", "1"), ("model=m1", "1"),
        ("name:c%t", ""), ("seconds<2", "1"),
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
            "kind": rows["columns"]["kind"], "label": ["Title", "chat", "look"], "start": [0.0, 0.0, 1000.0],
            "duration": [3000.0, 3000.0, 1000.0],
            "depth": [0, 1, 2], "parent": [-1, 0, 1], "prompt": [0, 0, 0], "answer": [0, 0, 0], "cached": [0, 0, 0],
            "trouble": [1, 1, 1],
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
