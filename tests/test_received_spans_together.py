"""Several settings of an intake at once, segments that span days, and stores with what is equal, empty or damaged."""

from __future__ import annotations

import dataclasses
import json
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.ingest import intake
from firsthand.ingest.alert_rules import AlertRule
from firsthand.ingest.cold_segments import SEGMENTS, drop_segment, read_sealed, remove_orphans, seal
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.retention import remove_beyond, remove_older, used_bytes
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.tools.web.addresses import Rules, parse_rules
from received_spans import arrived, names, ready

NOW = 1_000_000.0
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


def files(store: TraceStore) -> list[str]:
    return sorted(str(path.relative_to(store.folder / SEGMENTS)) for path in (store.folder / SEGMENTS).glob("*/*"))


# -- the intake --


@pytest.mark.slow
def test_all_settings_are_kept_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    given_back: list[Any] = []
    monkeypatch.setattr(intake, "give_back", given_back.append)

    def kept(name: str, **settings: Any) -> Any:
        problems: list[str] = []
        made = Intake(tmp_path / name, IntakeSettings(**settings), on_problem=problems.append)
        try:
            made._end.set()
            made._keeper.join()
            given_back.clear()
            made.store.add([ready(trace, "1", body=b"{" + bytes(3000)) for trace in "abcd"])
            arrived(made.store, a=NOW - 40, b=NOW - 30, c=NOW - 20, d=NOW - 10)
            made.keep(NOW)
            assert problems == [] and len(given_back) == (1 if settings else 0)
            assert [each.span.span_id for trace in names(made.store) for each in made.store.spans(trace)] == [
                "1"
            ] * len(names(made.store))
            return "".join(names(made.store)), "".join(names(made.store, "sealed"))
        finally:
            made.close()

    assert kept("age", keep_s=35.0, keep_bytes=0) == ("", "")
    assert kept("both", cold_s=25.0, keep_s=15.0, keep_bytes=1 << 30) == ("d", "")
    assert kept("last", cold_s=15.0, keep_s=35.0) == ("abcd", "abc"), "a segment is as old as its last trace"
    assert kept("now", cold_s=0.0) == ("abcd", "abcd")


@pytest.mark.slow
def test_a_home_that_is_damaged_is_let_go_and_a_webhook_has_the_addresses_that_rules_allow(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "traces.sqlite").write_bytes(b"no database" * 100)
    kept: list[Any] = []  # the errors hold all that was open when they were raised
    for _ in range(2):
        with pytest.raises(StoreError) as refused:
            Intake(tmp_path)
        kept.append(refused)
    (tmp_path / "traces" / "traces.sqlite").unlink()
    made = Intake(tmp_path)
    try:
        with pytest.raises(ConfigError, match="are received by another process"):
            Intake(tmp_path)
        assert (made._keeping.read_sealed, made.store.read_sealed, made.settings) == (
            read_sealed, read_sealed, IntakeSettings(),
        )  # fmt: skip
    finally:
        made.close()
    rule, target = AlertRule.parse("errors>0.1/1h"), "http://h.example:8123/x"
    with pytest.raises(ConfigError, match="port 8123 may not be used"):
        IntakeSettings(alerts=(rule,), alert_to=target)
    allowed = dataclasses.replace(Rules(), ports=frozenset({8123}))
    assert IntakeSettings(alerts=(rule,), alert_to=target, alert_rules=allowed).alert_rules is allowed


def test_an_alert_goes_to_an_address_that_the_rules_allow(tmp_path: Path) -> None:
    problems: list[str] = []
    came: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        settings = IntakeSettings(
            alerts=parse_alerts([" errors > 0 / 1m ", "spans>1/1m"]), alert_to=f"http://127.0.0.1:{server.server_port}/x?y",
            alert_rules=parse_rules("127.0.0.0/8", str(server.server_port)),
        )  # fmt: skip
        made = Intake(tmp_path, settings, on_problem=problems.append)
        try:
            made._end.set()
            made._keeper.join()
            made.store.add([ready("t", "1"), ready("t", "2")])
            arrived(made.store, t=NOW - 1)
            made.tick(NOW)
            kept = made.store.database.read("SELECT rule, value, at_s, delivered FROM alerts")
        finally:
            made.close()
        thread.join(10)
    said = {"rule": "spans>1/1m", "value": 2.0, "message": "spans is 2, above 1, over 1 traces", "at": NOW}
    assert came == [("/x?y", said)] and kept == [("spans>1/1m", 2.0, NOW, "yes")] and problems == []


# -- removing --


def test_segments_go_by_their_last_trace_and_count_each_of_their_traces(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store.add([ready(trace, "1") for trace in ("a", "b", "c", "d", "e", "f")])
    arrived(store, a=1 * DAY, b=3 * DAY, c=2 * DAY + 1, d=2 * DAY + 1, e=2 * DAY + 2, f=9 * DAY)
    assert seal(store, 0.0, most=2, now_s=2 * DAY + 1.5) == 2
    rows = store.database.read("SELECT num_spans, bytes, first_s, last_s, file FROM segments")
    (first,) = rows
    assert first[:1] + first[2:4] == (2, DAY, 2 * DAY + 1) and first[4].startswith("day=1970-01-03/00000172801000-")
    assert first[1] == (store.folder / SEGMENTS / first[4]).stat().st_size
    assert used_bytes(store) > first[1]
    assert seal(store, 1.0, now_s=3 * DAY + 1) == 2 and seal(store, 1.0, now_s=3 * DAY + 1) == 0, (
        "b is at the limit exactly"
    )
    assert names(store, "spans") == ["b", "f"]
    with store.database.write() as connection:
        connection.executemany(
            "INSERT INTO alerts (rule, value, said, at_s, delivered) VALUES ('r', 1, 's', ?, 'yes')",
            [(DAY,), (2 * DAY + 1,), (DAY * 2,)],
        )
    assert remove_older(store, 1 * DAY, now_s=3 * DAY + 1) == 0 and len(names(store)) == 6
    assert [at_s for (at_s,) in store.database.read("SELECT at_s FROM alerts")] == [2 * DAY + 1]
    assert remove_older(store, 1 * DAY, now_s=3 * DAY + 1.5) == 2 and len(names(store)) == 4
    assert remove_older(store, DAY, now_s=4 * DAY + 1) == 3 and names(store) == ["f"] and files(store) == []
    assert list((store.folder / SEGMENTS).iterdir()) == [] and remove_older(store, DAY, now_s=4 * DAY + 1) == 0


def test_the_longest_quiet_segment_goes_before_one_that_began_earlier(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    body = b'{"attributes":{"x":"' + b"a" * 40_000 + b'"}}'
    store.add([ready(trace, "1", body=body) for trace in "abcd"])
    arrived(store, a=10, b=50, c=20, d=99)
    assert seal(store, 0.0, now_s=60, most=1) == 1 and names(store, "sealed") == ["a"]
    with store.database.write() as connection:
        connection.execute("UPDATE segments SET first_s = 30, last_s = 40")
    assert seal(store, 0.0, now_s=60) == 2 and names(store, "sealed") == ["a", "b", "c"]
    kept = [
        (first, last) for first, last in store.database.read("SELECT first_s, last_s FROM segments ORDER BY last_s")
    ]
    assert kept == [(30.0, 40.0), (20.0, 50.0)]
    most = used_bytes(store)
    assert remove_beyond(store, most) == 0
    assert remove_beyond(store, most - 1) == 1 and names(store) == ["b", "c", "d"], "a, whose last came first"
    assert remove_beyond(store, -1) == 3 and names(store) == [] and files(store) == []
    size, pages, free = (
        store.database.read(f"PRAGMA {each}")[0][0] for each in ("page_size", "page_count", "freelist_count")
    )
    assert used_bytes(store) == size * (pages - free) and free > 2


# -- segments --


@pytest.mark.slow
def test_traces_are_sealed_in_their_order_until_one_does_not_fit(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    store = TraceStore(tmp_path / "it's", create=True)
    store.read_sealed = read_sealed
    store.add([ready("c", "1"), ready("a", "2"), ready("b", "1"), ready("a", "1"), ready("b", "2"), ready("b", "3")])
    arrived(store, a=10, b=20, c=30)
    assert seal(store, 5.0, most=3, now_s=99) == 2 and names(store, "sealed") == ["a"], "c would fit, b comes before it"
    assert store.database.read("SELECT num_spans, first_s, last_s FROM segments") == [(2, 10.0, 10.0)]
    assert seal(store, 5.0, most=1, now_s=99) == 3 and names(store, "sealed") == ["a", "b"], "one is never divided"
    store.add([ready("a", "0", parent="2", body=zlib.compress(b'{"attributes":{"x":"\xed\xa0\x80"}}'))])
    assert [each.span.span_id for each in store.spans("a")] == ["2", "1", "0"]
    arrived(store, a=40)
    assert seal(store, 5.0, now_s=99) == 2 and names(store, "spans") == []
    found = store.spans("a")
    assert [(each.seq, each.span.span_id, each.span.name, each.span.start_ns, each.span.end_ns) for each in found] == [
        (2, "2", "n2", 10, 20), (4, "1", "n1", 10, 20), (7, "0", "n0", 10, 20),
    ]  # fmt: skip
    assert [row[0] for row in read_sealed(store, "a")] == [2, 4, 7]
    assert found[2].span.attributes == {"x": "\ud800"} and found[2].span.parent_id == "2"
    again = store.database.read("SELECT seq FROM spans")
    assert again == [] and len(files(store)) == 3
    store.read_sealed = lambda given, trace: [*read_sealed(given, trace), *read_sealed(given, trace)[:1]]
    assert len(store.spans("c")) == 2, "a reader that gives one twice is believed"
    (folder,) = {Path(name).parent for name in files(store)}
    for name in ("01577836800000-0123abcd.part", "01577836800000-0123abcd.parquet", "x.txt"):
        (store.folder / SEGMENTS / folder / name).write_text("")
    assert remove_orphans(store) == 2 and remove_orphans(store) == 0
    assert len(files(store)) == 4 and (store.folder / SEGMENTS / folder / "x.txt").is_file()
    known = [name for (name,) in store.database.read("SELECT file FROM sealed WHERE trace = 'a' ORDER BY file")]
    drop_segment(store, known[0])
    assert names(store) == ["a", "b", "c"] and names(store, "sealed") == ["a", "b", "c"]
    (store.folder / SEGMENTS / known[1]).write_bytes(b"damaged")
    with pytest.raises(StoreError) as refused:
        read_sealed(store, "a")
    assert str(refused.value).startswith(f"the segment {store.folder / SEGMENTS / known[1]} cannot be read (")
    assert str(refused.value).endswith("): restore it from a copy") and "\n" not in str(refused.value)
    drop_segment(store, known[1])
    assert names(store) == ["b"], "c lay beside it"
    assert (store.folder / SEGMENTS / folder).is_dir(), "the segment of b lies there still"
    store.close()


@pytest.mark.slow
def test_a_segment_may_hold_a_long_line(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    long = {"attributes": {"x": "é" * 500_000, "y": "end"}}
    store.add([ready("a", "1", body=zlib.compress(json.dumps(long).encode())), ready("a", "2", body=b"{}")])
    arrived(store, a=1)
    assert seal(store, 1.0, now_s=2.5) == 2
    one, two = store.spans("a")
    assert one.span.attributes == long["attributes"] and two.span.attributes == {}


# -- the store --


def test_facts_are_read_of_what_is_left_after_redaction() -> None:
    secret = "sk-" + "a" * 20
    span = IncomingSpan(
        "t", "1", "", "n", 1, 2,
        {"openinference.span.kind": "CHAIN", "input.value": f"use {secret}", "output.value": f"used {secret}",
         "user.id": secret, "session.id": secret, "llm.model_name": secret},
    )  # fmt: skip
    (made,) = SpanPreparer(Redactor()).prepared([span])
    summary = TraceSummary("t")
    summary.add(made.span, made.facts, made.resource[2])
    assert (summary.input, summary.output, summary.user, summary.session) == (f"use {PUT}", f"used {PUT}", PUT, PUT)
    assert made.facts.model == PUT and summary.redactions == 5 and secret.encode() not in made.body


def test_spans_of_one_id_are_ended_one_by_one_in_the_order_of_their_copies(store: TraceStore) -> None:
    assert store.add([ready("t", "1", end=0, body=b'{"a":1}'), ready("t", "2")]) == 2
    assert store.add([ready("t", "1", end=0, body=b'{"b":2}')]) == 1, "not ended either, so both are kept"
    rows = "SELECT seq, copy, end_ns, CAST(body AS TEXT) FROM spans WHERE span = '1' ORDER BY copy"
    assert store.database.read(rows) == [(1, 0, 0, '{"a":1}'), (3, 1, 0, '{"b":2}')]
    assert store.add([ready("t", "1", end=50, body=b'{"b":3}')]) == 0
    assert store.database.read(rows) == [(4, 0, 50, '{"b":3}'), (3, 1, 0, '{"b":2}')]
    assert store.add([ready("t", "1", end=50, body=b'{"b":3}'), ready("t", "1", end=60, body=b'{"c":1}')]) == 0
    assert store.database.read(rows) == [(4, 0, 50, '{"b":3}'), (5, 1, 60, '{"c":1}')]
    service = (b"5" * 32, json.dumps({"service.name": "é" * 301}).encode(), "é" * 300)
    store.add([ready("u", "1", end=0, resource=service)])
    assert store.add([ready("u", "1", end=9, resource=service)]) == 0 and store.summary("u").service == "é" * 300
    assert store.summary("t").num_spans == 3 and store.summary("t").last_ns == 60
    assert store.add([]) == 0 and store.spans("") == [] and store.scores_of([]) == {}


def test_a_status_without_a_text_is_an_error_all_the_same(store: TraceStore) -> None:
    told = SpanFacts(error="told")
    store.add([
        ready("t", "1", error="", facts=told), ready("t", "2", facts=SpanFacts(error="")), ready("t", "3", facts=told),
        ready("t", "4", error="own", facts=told), ready("t", "5", start=1 << 64, end=1 << 65, body=b'{"times":[7,8]}'),
    ])  # fmt: skip
    assert [each.span.error for each in store.spans("t")] == ["told", "", "told", "own", None]
    assert store.summary("t").num_errors == 4 and store.summary("t").last_ns == MOST_NS
    assert (store.spans("t")[4].span.start_ns, store.spans("t")[4].span.end_ns) == (7, 8)
    with store.database.write() as connection:
        connection.execute("UPDATE spans SET body = ? WHERE span = '2'", (b"{damaged",))
        connection.execute("UPDATE spans SET body = ? WHERE span = '3'", (b"{" + b'"attributes":null,"events":0}',))
        connection.execute("UPDATE spans SET resource = 99 WHERE span = '4'")
    two, three, four = store.spans("t")[1:4]
    assert two.span.attributes == {"unreadable": "the body of this span is damaged"}
    assert (three.span.attributes, three.span.events, three.span.links, four.span.resource) == ({}, [], [], {})


def test_a_score_changes_its_trace_after_all_others(store: TraceStore) -> None:
    store.add([ready("a", "1")])
    store.add([ready("b", "1")])
    store.add([ready("c", "1")])
    store.add_score("a", "s", "typed", 0.0, None, {"path": Path("p"), "é": 1})
    store.add_score("b", "s\ud800", "t", None, "why\ud800")
    store.add_score("gone", "s", "t", 1.0)
    changed = dict(store.database.read("SELECT trace, changed FROM traces"))
    assert changed == {"a": 4, "b": 5, "c": 3}
    rows = store.database.read("SELECT trace, name, scorer, value, failure, detail FROM scores ORDER BY seq")
    assert rows == [
        ("a", "s", "typed", 0.0, None, '{"path": "p", "\\u00e9": 1}'), ("b", "s\\ud800", "t", None, "why\\ud800", "{}"),
    ]  # fmt: skip
    assert store.scores_of(["a", "b", "gone"]) == {"a": {"s": 0.0}, "b": {"s\\ud800": None}}, "none of a removed trace"
    store.add_score("a", "s", "later", None, "failed")
    assert [row[:4] for row in store.scores("a")] == [("s", None, "failed", "later")] and store.scores_of("ac") == {
        "a": {"s": None}
    }


def test_resources_that_were_rolled_back_get_a_row_of_their_own(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (b"1" * 32, b'{"service.name":"one"}', "one"), (b"2" * 32, b'{"service.name":"two"}', "two")
    with monkeypatch.context() as broken:
        broken.setattr(TraceStore, "_summarise", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.add([ready("t", "1", resource=one)])
    store.add([ready("t", "1", resource=two), ready("t", "2", resource=one), ready("t", "3", resource=two)])
    assert [each.span.resource["service.name"] for each in store.spans("t")] == ["two", "one", "two"]


def test_a_store_that_is_opened_again_knows_its_resources(tmp_path: Path) -> None:
    one, two, three = (
        (number.encode() * 32, f'{{"service.name":"{number}"}}'.encode(), number) for number in ("1", "2", "3")
    )
    for round_, resources in (("a", (one, two, one)), ("b", (one, two)), ("c", (three, one, three)), ("d", (two,))):
        store = TraceStore(tmp_path, create=True)
        for number, each in enumerate(resources):
            assert store.add([ready(round_, str(number), resource=each)]) == 1
        again = [ready(f"{round_}{round_}", str(number), resource=each) for number, each in enumerate(resources)]
        assert store.add(again) == len(again)
        store.close()
    store = TraceStore(tmp_path)
    assert {
        trace: [each.span.resource["service.name"] for each in store.spans(trace)]
        for trace in ("a", "aa", "b", "bb", "c", "cc", "d", "dd")
    } == {
        "a": ["1", "2", "1"], "aa": ["1", "2", "1"], "b": ["1", "2"], "bb": ["1", "2"], "c": ["3", "1", "3"],
        "cc": ["3", "1", "3"], "d": ["2"], "dd": ["2"],
    }  # fmt: skip
    rows = store.database.read("SELECT digest, body FROM resources ORDER BY id")
    assert [(bytes(digest), bytes(body)) for digest, body in rows] == [one[:2], two[:2], three[:2]]
    store.close()
