"""Lists of more than a page: queues, data sets and groups of traces take all that a filter finds, not its first page."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.errors import ConfigError
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import user
from firsthand.runs import store
from firsthand.runs.attempts import insert_trace
from firsthand.studio import task_collection
from firsthand.studio.annotation_queue import Queues
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.live_events import mark_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import TaskCollections
from firsthand.studio.views import collection_views, incoming_views
from firsthand.task import Task
from firsthand.trace import Failure, Node, Score, Trace
from studio_page_outline import outline
from studio_small_home import entered, post, problem, said
from studio_varied_home import DAY_S, span

COUNT = 103
Shown = tuple[TestClient, Path, str, str]


def attempt(run: Any, at: int, score: float | None = 0.5, **more: Any) -> Trace:
    nodes = (Node(None, user(f"Q{at}")),)
    scores = () if score is None else (Score("exact", score),)
    return Trace(f"{run.id}-{at}", "quiz", f"t{at}", {"name": "ann", "model": "m"}, 0, 0, "2026-01-02T00:00:00+00:00",
                 1.0, nodes=nodes, answer=f"A{at}", scores=scores, place=f"p{at}", **more)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A run of 103 attempts, one of a single attempt that was made twice, one of none; 103 traces, each on its own day."""
    home = tmp_path_factory.mktemp("many")
    with store.create(home, {}, "many", command=["firsthand"]) as many:
        many.add_tasks("quiz", [Task(f"t{n}", f"Q{n}?", secret={"answer": str(n)}) for n in range(COUNT)])
        many.add_agent("ann", {"name": "ann", "model": "m"})
        with many.database.write() as connection:
            for at in range(COUNT):
                insert_trace(connection, attempt(many, at, at / COUNT))
    with store.create(home, {}, "single", command=["firsthand"]) as single:
        single.add_agent("ann", {"name": "ann", "model": "m"})
        single.append(attempt(single, 0, None, error=Failure("NetError", "The net broke"), stop_reason="error"))
        single.append(Trace(**{**vars(attempt(single, 0)), "id": "second"}))
    with store.create(home, {}, "none", command=["firsthand"]):
        pass
    spans = [
        span(n + 1, 1, 0, "chat" if n else "", DAY_S * n, 1.0 + n % 7, asked=f"Q{n}", said="A", session__id=f"s{n}",
             user__id=f"u{n}")
        for n in range(COUNT)
    ]  # fmt: skip
    long = span(COUNT, 2, 1, "long", DAY_S * COUNT + 5, 1.0, **{f"k{n}": "é" * 60_000 for n in range(4)})
    taken = TraceStore(home, create=True)
    taken.add(SpanPreparer(Redactor()).prepared([*spans, long]))
    taken.add_score(f"{4:032x}", "late", "judge", 0.125)
    taken.close()
    with entered(home) as client:
        yield client, home, many.id, single.id


@pytest.mark.slow
def test_a_queue_of_more_attempts_than_a_page_shows_them_all_and_counts_what_a_filter_finds(shown: Shown) -> None:
    client, home, many, single = shown
    page = outline(client.get(f"/queues?run={many}&filter=score<1"))
    assert page.endswith("Make the queue 103 attempts]") and f"*{many} " in page
    assert single in page and "none" not in page.partition("run run:")[2].partition("filter")[0]
    assert post(client, "/queues", name="all", run=many, score=" good ", raters="2").status_code == 303
    kept = Queues(SqliteStore(home))
    queue = kept.get("all")
    assert (queue.run, len(queue.items), queue.items[-1], queue.score) == (many, COUNT, "p102", "good")
    for rater, value in (("human:a", 0.0), ("human:b", 1.0)):
        kept.rate("all", "p102", rater, value)
    page = said(client.get("/queues/all"))
    assert page.count("t102, ann") == 2 and "t100, ann" in page and "p102" not in page, "of all attempts their names"


def test_a_queue_of_the_last_run_keeps_that_runs_id_and_rates_its_last_try(shown: Shown) -> None:
    client, home, _, single = shown
    queues = Queues(SqliteStore(home))
    for odd, name in (("٢", "raters"), ("1234567", "shared")):
        says = f"{name} is {odd!r}: a whole number was expected"
        assert says in problem(post(client, "/queues", name="odd", run=single, score="good", **{name: f" {odd} "}))
    assert "the queue has no attempts" in problem(post(client, "/queues", name="last", run="last", score="good"))
    assert post(client, "/queues", name="begun", run=single[:-1], score="good").status_code == 303
    assert queues.get("begun").run == single, "it is kept by its whole id"
    assert post(client, "/queues", name="one", run=single, score="good", guide="g" * 4001).status_code == 303
    assert (queues.get("one").items, queues.get("one").guide) == (("p0",), "g" * 4000)
    item, rated = "/queues/one/items/p0", {"value": "0.5", "version": "0", "as": " eve "}
    assert post(client, item, text=" two\n", **rated).headers["location"] == "/queues/one/next?as=+eve+"
    with store.open_run(single, home) as run:
        assert run.scored("note.good") == {("p0", 2): True} and run.score_names() == {
            "note.good": "a person in the Studio"
        }
        (found,) = run.trace("p0").attempt_scores[1:]
        assert (found.name, found.value, found.detail) == ("note.good", 0.5, {"by": "human: eve ", "text": " two\n"})
    again = post(client, item, text="", **{**rated, "value": "1"})
    text = outline(again)
    says = (
        "Another tab has rated this attempt 0.5 meanwhile, and your 1 was not kept: rate it again here to replace that."
    )
    assert again.status_code == 409 and says in text and "{text=}" in text.replace("{text= }", "{text=}")
    page = client.get(item, params={"as": " eve "})
    assert page.status_code == 200 and "two" in outline(page) and "1 of 1" in said(page)
    other = outline(client.get(item, params={"as": "bob"}))
    assert "two" not in other and "0 of 1" in other
    assert post(client, item, text="", value="1", version="1", **{"as": " eve "}).status_code == 303
    with store.open_run(single, home) as run:
        last = run.trace("p0").attempt_scores[-1]
        assert (last.value, last.detail) == (1.0, {"by": "human: eve "}), "an empty text is none"
    for version, says in (
        ("7", "was changed in the meantime"),
        ("-1", "a whole number"),
        ("1" * 10, "a whole number"),
        ("٠", "a whole number"),
    ):
        answer = post(client, item, value="1", version=version, **{"as": "new"})
        assert says in problem(answer), version


def test_a_data_set_of_more_tasks_than_it_may_have_is_refused_and_not_cut(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, home, many, _ = shown
    for module in (collection_views, task_collection):
        monkeypatch.setattr(module, "MAX_TASKS", 2)
    for what, fields in (("tasks", {"run": many, "filter": "task:t10"}), ("traces", {"traces": "user:u10"})):
        answer = post(client, "/data-sets", name="cut", **fields)
        assert answer.status_code == 400 and f"the filter finds more than 2 {what}: choose one that" in said(answer)
    assert "cut" not in [each.name for each in TaskCollections(SqliteStore(home)).all()]


def test_a_data_set_has_each_task_of_many_attempts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_views, "MAX_TASKS", 3)
    with store.create(tmp_path, {}, "several") as run:
        run.add_agent("ann", {"name": "ann", "model": "m"})
        for epoch in range(3):
            for at in range(3):
                run.append(replace(attempt(run, at), id=f"{at}.{epoch}", epoch=epoch, place=f"p{at}.{epoch}"))
        assert collection_views.first_attempts(AttemptQuery.parse(""), run) == ["p0.0", "p1.0", "p2.0"]
        run.append(replace(attempt(run, 3), id="3.9", epoch=9, place="p3.9"))
        with pytest.raises(ConfigError, match="the filter finds more than 3 tasks"):
            collection_views.first_attempts(AttemptQuery.parse(""), run)
    with store.create(tmp_path, {}, "one after another") as run:
        run.add_agent("ann", {"name": "ann", "model": "m"})
        for number, at in enumerate((0, 0, 0, 1, 2)):
            run.append(replace(attempt(run, at), id=f"{number}", epoch=number, place=f"p{at}.{number}"))
        found = collection_views.first_attempts(AttemptQuery.parse(""), run)
        assert found == ["p0.0", "p1.3", "p2.4"], "a task may begin with the first row of a page"


@pytest.mark.slow
def test_all_that_a_filter_finds_is_collected_or_refused_and_never_cut(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, home, many, _ = shown
    sets = TaskCollections(SqliteStore(home))
    assert post(client, "/data-sets", name=" all ", run=many, filter="").headers["location"] == "/data-sets/all"
    assert post(client, "/data-sets", name="told", traces="").headers["location"] == "/data-sets/told"
    assert [(each.name, len(each.tasks)) for each in sets.all()] == [("all", COUNT), ("told", COUNT)]
    assert sets.get("told").tasks[0].place.endswith(f"{COUNT:x}"), "the newest trace comes first"
    for module in (collection_views, task_collection):
        monkeypatch.setattr(module, "MAX_TASKS", 2)
    for name, fields, says in (
        ("three", {"run": many, "filter": "task:t10"}, "the filter finds more than 2 tasks: choose one that finds fewer"),
        ("three", {"traces": "user:u10"}, "the filter finds more than 2 traces: choose one that finds fewer"),
        ("three", {"run": many, "filter": "agent:zed"}, "the filter finds no attempt: choose another"),
        ("three", {"traces": "user:zed"}, "the filter finds no trace: choose another"),
        ("three", {"trace": "", "run": many, "attempt": "p0"}, "no trace ''"),
        ("three", {"attempt": "p0"}, "no run ''"),
    ):  # fmt: skip
        answer = post(client, "/data-sets", name=name, **fields)
        assert answer.status_code in (400, 404) and says in said(answer), fields
    assert post(client, "/data-sets", name="one", run=many, attempt="p5", filter="agent:zed").status_code == 303
    assert [each.place for each in sets.get("one").tasks] == ["p5"], (
        "an attempt that is named is taken, whatever the filter"
    )
    for fields in ({"run": many, "filter": "task:t101"}, {"traces": "user:u102"}):
        assert post(client, "/data-sets", name="two", **fields).status_code == 303
    assert [(each.benchmark, each.task.id[:4]) for each in sets.get("two").tasks] == [
        ("quiz", "t101"),
        ("traces", "0000"),
    ]


def test_the_groups_of_traces_go_on_after_the_first_page(shown: Shown) -> None:
    client = shown[0]
    for by, first, last in (("days", "1970-04-13", "1970-01-02"), ("sessions", "s101", "s0"), ("users", "u101", "u0")):
        page, rest = said(client.get(f"/traces/by/{by}")), said(client.get(f"/traces/by/{by}?start=101"))
        assert first in page and last not in page.split(), by
        assert last in rest.split() and first not in rest, by
        only = said(client.get(f"/traces/by/{by}?start=0&filter=user=u50"))
        assert first not in only and ("u50" in only or "s50" in only or "1970-02-21" in only)
    assert "1 of 103 traces" in said(client.get("/traces?filter=user=u50"))
    page = client.get("/traces")
    assert "late 0.125" in said(page), "the hundredth trace has its score"
    mark = mark_of("traces", OpenRuns(shown[1]), IncomingTraces(shown[1]))
    assert f'data-topics="traces" data-seen="{mark}"' in page.text and mark != mark_of("traces", OpenRuns(shown[1]))


def test_a_trace_without_a_name_is_called_by_its_id_and_a_long_one_is_copied_whole(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shown[0]
    bare, long = f"{1:032x}", f"{COUNT:032x}"
    assert (
        f"<title>{bare}" in client.get(f"/traces/{bare}").text and "<title>chat" in client.get(f"/traces/{long}").text
    )
    copied = client.get(f"/traces/{long}/copy/spans.json")
    body = json.loads(copied.text)["spans"]
    assert len(copied.text) > 1 << 20 and copied.text.isascii() and [each["name"] for each in body] == ["chat", "long"]
    assert [body[1]["attributes"][f"k{n}"] for n in range(4)] == ["é" * 60_000] * 4
    (whole,) = re.findall(r'<pre class="raw">(.*?)</pre>', client.get(f"/traces/{bare}?view=raw").text, re.DOTALL)
    raw = html.unescape(whole)
    for limit, ends_in in ((len(raw), None), (len(raw) - 1, "1 of 1"), (60, "1 of 1")):
        monkeypatch.setattr(incoming_views, "MAX_RAW_CHARS", limit)
        page = html.unescape(client.get(f"/traces/{bare}?view=raw").text)
        told = re.search(r"The text ends in span ([\d,]+ of [\d,]+): the download has all", page)
        assert (told and told[1]) == ends_in and f'<pre class="raw">{raw[:limit]}</pre>' in page
    assert "assistant #1 A" in outline(client.get(f"/traces/{bare}?leaf=-1"))


def test_the_traces_beside_one_are_those_of_the_lists_filter_and_order(shown: Shown) -> None:
    client = shown[0]
    for query, before, after in (
        ({"filter": "user:u1"}, 101, 20),  # user u100, and u19: the newest first
        ({"filter": "user:u1", "sort": "seconds"}, 16, 17),  # 2 s as long, and 3 s
        ({"sort": "-seconds"}, 58, 44),  # 2 s as long, with the ids above and below
        ({"filter": "id:0"}, 52, 50),
    ):
        page = outline(client.get(f"/traces/{51:032x}", params=query))
        found = [int(each, 16) for each in re.findall(r"(?:← previous|next →)\(/traces/(\w+)", page)]
        assert found == [before, after], query
