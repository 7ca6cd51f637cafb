"""What each page of the Studio shows and does for a small home whose every number is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.kept_traces import KeptTraces
from firsthand.studio.live_events import files_of_index, mark_of, marks_of, version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.views.comparison_views import (
    chosen_pairs,
    contest_of,
    grid_rows,
    plots_of,
    sides_of,
    tasks_to_decide,
)
from firsthand.studio.views.queue_views import MOST_SHOWN
from firsthand.trace import Score
from studio_small_home import OWN, entered, ids, post, problem, said, write_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("routes"))


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with entered(home) as made:
        yield made


@pytest.mark.slow
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


def test_a_table_says_its_filter_which_what_is_made_of_it_follows(client: TestClient, home: Path) -> None:
    _, run = ids(home)
    for path in (f"/runs/{run}", "/traces", "/"):
        for filter, shown in (("-has:error", "-has:error"), ('"<a>"', "&#34;&lt;a&gt;&#34;"), ("", "")):
            for headers in ({}, {"hx-request": "true"}):
                page = client.get(path, params={"filter": filter}, headers=headers).text
                assert re.findall(r'data-shown="([^"]*)"', page) == [shown], (path, filter)
    page = client.get(f"/runs/{run}", params={"filter": "is:wrong"}).text
    assert f'href="/queues?run={run}&amp;filter=is%3Awrong" data-follows>' in page
    assert page.count('name="filter" value="is:wrong" data-follows>') == 1
    page = client.get("/traces", params={"filter": "-has:error"}).text
    assert page.count('name="traces" value="-has:error" data-follows>') == 1


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
    for query, words in (({"view": "x"}, "view is 'x': it is one of conversation, tree, raw"),
    ({"colour": "red"}, "colour is 'red': it is logprob or entropy"),
                         ({"leaf": "a"}, "leaf is 'a': a whole number was expected"),
                         ({"filter": "x" * 2001}, "filter has 2,001 characters")):  # fmt: skip
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
        (("only", "x"), "only is 'x': it is one of changed, worse, better, same, all"),
        (("slice", "x"), "no metadata 'x' to slice by: they have level"),
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


@pytest.mark.slow
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
        assert [score.value for score in notes] == [0.75] and "human:dan" in notes[0].detail["by"], (
            "the mean of 0.5 and 1"
        )
    assert "no queue 'none'" in problem(client.get("/queues/none"), 404) and MOST_SHOWN == 50
    assert "is no name of a rater" in problem(client.get("/queues/q/items/p0", params={"as": "x" * 61}))
