"""The Studio's pages of received traces, and what is made of them: tasks that run, training data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import otlp_requests as otlp
from firsthand import cli
from firsthand.ingest.incoming_span import StoredSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.studio.access import Access
from firsthand.studio.incoming_query import IncomingQuery
from firsthand.studio.incoming_traces import IncomingTraces, KeptIncoming
from firsthand.studio.live_events import version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.studio_app import create_app

PORT = 8124
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe\u200b\ud800\x1b[31m\"'{{ 7*7 }}</pre>"
PERSON = {"session.id": HOSTILE[:60], "user.id": HOSTILE[:60]}
HEADERS = {"content-type": "application/json"}


def llm(
    trace: int, number: int, question: str, answer: str, parent: int = 0, **attributes: object
) -> dict[str, object]:
    return otlp.span(
        trace, number, parent, "ask",
        **{
            "openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 100 * trace,
            "llm.token_count.completion": 5, "llm.cost.total": 0.25, "input.value": question,
            "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": question,
            "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": answer, **attributes,
        },
        start_s=float(trace),
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("incoming")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    store = TraceStore(home, create=True)
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access, writer=writer), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.get("/enter", params={"code": access.new_code()})
        for spans in (
            [llm(1, 1, "What is 2 + 2?", "4", session__id="s1", user__id="ada", tag__tags=["a", "b"])],
            [
                llm(2, 1, "What is 3 + 3?", "6", session__id="s1", user__id="bob"),
                otlp.span(2, 2, 1, "look", error="no file", start_s=2),
            ],
            [llm(3, 1, "Hello", "Hi", user__id="ada")],
            [
                otlp.span(4, 1, name=HOSTILE, error=HOSTILE, start_s=4, events={HOSTILE: {HOSTILE: HOSTILE}}),
                llm(
                    4,
                    2,
                    HOSTILE,
                    HOSTILE,
                    1,
                    **{"llm.model_name": HOSTILE, HOSTILE: HOSTILE, **PERSON},
                ),
                otlp.span(
                    4,
                    3,
                    2,
                    HOSTILE,
                    start_s=4,
                    openinference__span__kind="TOOL",
                    tool__name=HOSTILE,
                    output__value=HOSTILE,
                ),
            ],
        ):
            body = json.dumps(otlp.request(*spans, service=HOSTILE if len(spans) == 3 else "shop")).encode()
            assert made.post("/v1/traces", content=body, headers=HEADERS).status_code == 200
        yield made
    writer.close()
    store.close()


def path(trace: int) -> str:
    return f"/traces/{trace:032x}"


@pytest.mark.slow
def test_the_list_shows_traces_the_newest_first_and_filters_them(client: TestClient) -> None:
    page = client.get("/traces").text
    found = re.findall(r'/traces/([0-9a-f]{32})"', page)
    assert [int(each, 16) for each in found] == [4, 3, 2, 1] and "4 of 4 traces" in page
    for text, ids in (
        ("session=s1", [2, 1]), ("has:error", [4, 2]), ("tokens>200 -has:error", [3]), ("user:ada", [3, 1]), ("tag=b", [1]),
        ('"2 + 2"', [1]), ("has:root errors=0", [3, 1]), ("cost>0.2 service=shop", [3, 2, 1]), ("id:" + "0" * 31 + "2", [2]),
    ):  # fmt: skip
        part = client.get("/traces", params={"filter": text}, headers={"hx-request": "true"}).text
        assert [int(each, 16) for each in re.findall(r"/traces/([0-9a-f]{32})\?", part)] == ids, text
    assert "did you mean" in client.get("/traces", params={"filter": "sesion:x"}, headers={"hx-request": "true"}).text
    assert client.get("/traces", params={"sort": "nothing"}).status_code == 400


@pytest.mark.slow
def test_days_have_sums_and_percentiles_by_nearest_rank(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, create=True)
    preparer, day_s = SpanPreparer(Redactor()), 86_400
    took = {0: [5.0, 1.0, 3.0, 2.0, 4.0], 1: [7.0, 9.0], 3: [float(each) for each in range(1, 101)]}
    trace = 0
    for day, each in took.items():
        for seconds in each:
            trace += 1
            span = otlp.span(
                trace, 1, start_s=day * day_s + trace, took_s=seconds, error="no" if seconds == 9 else None
            )
            store.add(preparer.prepared(decode_json(json.dumps(otlp.request(span)).encode())[0]))
    days = IncomingQuery.parse("").days(store)
    first = datetime.fromtimestamp(otlp.START / otlp.SECOND, UTC).date()
    assert [row.day for row in days] == [str(first + timedelta(days=day)) for day in (3, 1, 0)]
    assert [(row.num_traces, row.num_errors, row.median_s, row.p95_s) for row in days] == [
        (100, 1, 50.0, 95.0), (2, 1, 7.0, 9.0), (5, 0, 3.0, 5.0),
    ]  # fmt: skip
    assert [row.num_traces for row in IncomingQuery.parse("seconds>4").days(store)] == [96, 2, 1]
    assert IncomingQuery.parse(f"day={first}").page(store).total == 5
    assert IncomingQuery.parse("", "").days(store, start=1, limit=1) == days[1:2]
    store.close()


def test_days_are_a_page_with_links_to_their_traces(client: TestClient) -> None:
    page = client.get("/traces/by/days", params={"filter": "service=shop"}).text
    day = str(datetime.fromtimestamp(otlp.START / otlp.SECOND, UTC).date())
    assert f"filter=service%3Dshop+day%3D{day}" in page and re.search(r">3</td>.*?>1</td>.*?>33.3%</td>", page, re.S)
    assert "No trace fulfils this filter" in client.get("/traces/by/days", params={"filter": "service=none"}).text


def test_a_failed_trace_links_to_the_failed_span_that_lies_deepest(client: TestClient) -> None:
    page = client.get(path(2)).text
    link = re.search(r'href="([^"]*view=tree[^"]*span=(\d+)[^"]*)">see the first', page)
    assert link is not None and link[2] == "2"
    columns = client.get(f"{path(2)}/spans.json").json()["columns"]
    assert columns["label"][2].startswith("look") and columns["trouble"][2] == 1
    assert "see the first" not in client.get(path(1)).text
    spans = (
        otlp.span(5, 1, error="below"),
        otlp.span(5, 2, 1, error="deepest"),
        otlp.span(5, 3, 1, start_s=1, error="later"),
    )
    stored = [StoredSpan(seq, span, "span") for seq, span in enumerate(decode_json(otlp.as_json(*spans))[0])]
    kept = KeptIncoming(TraceSummary("5"), tuple(stored))
    assert kept.failed_row == 2 and KeptIncoming(TraceSummary("5"), ()).failed_row == -1


@pytest.mark.parametrize("sort", ["", "started", "-tokens", "cost", "seconds"])
def test_next_and_previous_go_through_the_list_as_it_is_sorted(client: TestClient, home: Path, sort: str) -> None:
    store = TraceStore(home)
    query = IncomingQuery.parse("", sort)
    order = [row.trace for row in query.page(store).rows]
    for before, here, after in zip([None, *order], order, [*order[1:], None], strict=False):
        assert query.beside(store, store.summary(here)) == (before, after)
    store.close()


def test_sessions_and_users_are_grouped(client: TestClient) -> None:
    sessions, users = client.get("/traces/by/sessions").text, client.get("/traces/by/users").text
    assert re.search(r"s1</a></th>.*?>2</td>.*?>1</td>.*?>2</td>", sessions, re.S)
    assert re.search(r"ada</a></th>.*?>2</td>", users, re.S) and "bob" in users
    assert client.get("/traces/by/models").status_code == 404


def test_a_trace_is_a_conversation_a_tree_and_json(client: TestClient) -> None:
    page = client.get(path(2)).text
    assert "What is 3 + 3?" in page and re.search(r"said assistant.*?6", page, re.S) and "1 span failed" in page
    spans = client.get(path(2) + "/spans.json").json()
    assert spans["columns"]["label"] == ["ask", "ask", "look"] and spans["columns"]["parent"] == [-1, 0, 1]
    assert spans["columns"]["trouble"] == [1, 1, 1] and spans["columns"]["prompt"] == [0, 200, 0]
    detail = client.get(path(2) + "/span", params={"ref": "span:0"}).text
    assert "What is 3 + 3?" in detail and "OpenInference" in detail and "$0.25" in detail
    raw = client.get(path(2) + "/copy/spans.json").json()["spans"]
    assert [each["name"] for each in raw] == ["ask", "look"] and raw[1]["error"] == "no file"
    assert client.get(path(2), params={"view": "raw"}).status_code == 200
    for wrong in (
        path(9),
        "/traces/nothing",
        path(2) + "/copy/secrets",
        path(2) + "/span?ref=span:7",
        path(2) + "/span?ref=x",
    ):
        assert client.get(wrong).status_code == 404, wrong
    assert client.get(path(2), params={"view": "nothing"}).status_code == 400


def test_hostile_text_is_text_on_every_page(client: TestClient) -> None:
    pages = [
        "/traces",
        "/traces/by/sessions",
        "/traces/by/users",
        *(f"{path(4)}?view={v}" for v in ("", "tree", "raw")),
    ]
    pages += [f"{path(4)}/span?ref=span:{number}" for number in range(3)]
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert "<script>alert" not in answer.text and "<img" not in answer.text and "\u202e" not in answer.text, page
        assert (
            "\x1b" not in answer.text
            and "\u200b" not in answer.text
            and "49" not in re.findall(r"\{\{.*?\}\}", answer.text)
        ), page
    labels = client.get(path(4) + "/spans.json").json()["columns"]["label"]
    assert not any("\u202e" in each or "\x1b" in each for each in labels)
    assert client.get(path(4) + "/copy/spans.json").json()["spans"][0]["name"].startswith("<script>"), "nothing is lost"


def test_an_empty_home_says_the_lines_that_fill_it(tmp_path: Path) -> None:
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{PORT}" in client.get("/traces").text
        assert client.get("/traces/by/sessions").status_code == 200
        assert client.get(path(1)).status_code == 404
        assert client.post("/v1/traces", content=b"{}", headers=HEADERS).status_code == 403, "nothing is received here"
    assert not (tmp_path / "traces").exists()


def test_the_topic_changes_when_a_span_comes(tmp_path: Path) -> None:
    runs, traces = OpenRuns(tmp_path), IncomingTraces(tmp_path)
    assert version_of("traces", runs, traces) == ""
    store = TraceStore(tmp_path, create=True)
    versions = [version_of("traces", runs, traces)]
    for number in (1, 2):
        decoded, _ = decode_json(otlp.as_json(otlp.span(1, number)))
        store.add(SpanPreparer(Redactor()).prepared(decoded))
        versions.append(version_of("traces", runs, traces))
    assert len(set(versions)) == 3
    assert len(traces.get(f"{1:032x}").spans) == 2
    decoded, _ = decode_json(otlp.as_json(otlp.span(1, 3)))
    store.add(SpanPreparer(Redactor()).prepared(decoded))
    assert len(traces.get(f"{1:032x}").spans) == 3, "what is kept decoded follows"
    store.close()


# -- tasks --


def test_traces_become_a_benchmark_that_runs(
    client: TestClient, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "traces", "--as", "tasks", "--filter", "service=shop", "--out", "set.toml"]) == 0
    rows = [json.loads(line) for line in Path("set.jsonl").read_text().splitlines()]
    assert [(row["question"], row["answer"], row["cluster"]) for row in rows] == [
        ("Hello", "Hi", f"{3:032x}"), ("What is 3 + 3?", "6", "s1"), ("What is 2 + 2?", "4", "s1"),
    ]  # fmt: skip
    Path("replies.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("Hi", "7", "4")))
    capsys.readouterr()
    assert cli.main(["run", "./set.toml", "--model", "scripted:echo", "--pattern", "direct", "--json"]) == 0
    assert "set" in capsys.readouterr().out
    assert cli.main(["data", "traces", "--as", "sft", "--filter", "id:" + f"{1:032x}"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert [(each["role"], each["content"]) for each in line["messages"]] == [
        ("user", "What is 2 + 2?"),
        ("assistant", "4"),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["traces", "--as", "pairs"], "traces stand alone"),
        (["traces", "last"], "traces stand alone"),
        (["last", "--as", "tasks", "--out", "x.toml"], "tasks are made of traces"),
        (["traces", "--as", "tasks"], "into a file"),
        (["last", "--filter", "has:error"], "filter is for traces"),
        (["traces", "--limit", "0"], "limit is 0"),
        (["traces", "--as", "tasks", "--out", "x.csv"], ".toml"),
        (["traces", "--as", "tasks", "--out", "x.toml", "--filter", "user:nobody"], "another --filter"),
        (["traces", "--as", "tasks", "--out", "x.toml", "--scorer", "nothing"], "no scorer"),
        (["traces", "--filter", "foo:1"], "no field"),
    ],
)
def test_wrong_words_are_one_sentence(
    client: TestClient, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split()) and list(tmp_path.iterdir()) == []


def test_a_home_without_traces_says_how_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert cli.main(["data", "traces"]) == 2 and "firsthand studio" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ['"\'; DROP TABLE spans; --"', 'name:"%_"', "tag=|x|", "score.x'y>0", "session:\ud800"]
)
def test_a_filter_is_no_sql(client: TestClient, home: Path, text: str) -> None:
    answer = client.get(
        "/traces", params={"filter": text.encode("utf-8", "replace").decode()}, headers={"hx-request": "true"}
    )
    assert "0 of 4 traces" in answer.text or "no field" in answer.text
    store = TraceStore(home)
    assert IncomingQuery.parse("").page(store).total == 4
    store.close()


def test_scores_stand_in_the_list_of_traces(home: Path, client: TestClient) -> None:
    store = TraceStore(home)
    store.add_score(f"{1:032x}", "helpful", "rubric", 0.25)
    store.add_score(f"{1:032x}", "helpful", "rubric", 0.75)
    store.add_score(f"{3:032x}", HOSTILE[:40], "rubric", None, "broke")
    assert store.scores_of([f"{1:032x}", f"{2:032x}"]) == {f"{1:032x}": {"helpful": 0.75}} and store.scores_of([]) == {}
    page = client.get("/traces").text
    rows = {
        each: next(row for row in page.split("<tr data-row>") if f"/traces/{each:032x}" in row) for each in (1, 2, 3)
    }
    assert "helpful <b>0.75</b>" in rows[1] and 'class="score"' not in rows[2] and "<b>failed</b>" in rows[3]
    assert "<script>alert" not in page
