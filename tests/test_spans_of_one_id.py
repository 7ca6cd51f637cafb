"""Many spans under one id: what is kept under it is asked for once, and no long text stands before what is compared."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import otlp_requests as otlp
from firsthand.ingest.incoming_span import MAX_COLUMN
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.trace_store import MAX_COPIES, SpanPreparer, TraceStore

TRACE = f"{1:032x}"


def prepared(*spans: dict) -> list:
    return SpanPreparer(Redactor()).prepared(decode_json(otlp.as_json(*spans))[0])


@pytest.fixture
def store(tmp_path: Path):
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


def named(name: str, *, error: str = "", span: int = 1, end: int = 2) -> dict:
    made = otlp.span(1, span) | {"name": name, "endTimeUnixNano": str(end)}
    return made | {"status": {"code": 2, "message": error}} if error else made


def test_long_names_and_errors_are_whole_and_their_columns_are_short(store: TraceStore, tmp_path: Path) -> None:
    for length in (MAX_COLUMN, MAX_COLUMN + 1, 100_000):
        store.add(prepared(named("n" * length, error="e" * length, span=length)))
    for stored, length in zip(store.spans(TRACE), (MAX_COLUMN, MAX_COLUMN + 1, 100_000), strict=True):
        assert (stored.span.name, stored.span.error) == ("n" * length, "e" * length)
    longest = store.database.read("SELECT max(length(name)), max(length(error)) FROM spans", ())
    assert longest == [(MAX_COLUMN, MAX_COLUMN)]


def test_two_spans_that_differ_beyond_the_column_are_two(store: TraceStore) -> None:
    texts = ["x" * 5000 + end for end in ("a", "b", "a")]
    store.add(prepared(*(named("n", error=each) for each in texts)))
    assert [each.span.error for each in store.spans(TRACE)] == texts[:2]


def test_a_secret_in_a_long_error_is_replaced_in_column_and_body(store: TraceStore, tmp_path: Path) -> None:
    secret = "sk-" + "a1B2" * 8
    store.add(prepared(named(f"{'n ' * 600}{secret}", error=f"{secret} {'e ' * 600}{secret}")))
    span = store.spans(TRACE)[0].span
    assert span.error == f"{PUT} {'e ' * 600}{PUT}" and span.name.endswith(PUT)
    assert not any(secret.encode() in each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())


def test_spans_under_one_id_ask_once_for_what_is_kept_under_it(store: TraceStore) -> None:
    store.add(prepared(*(named(f"first {number}") for number in range(MAX_COPIES))))
    asked: list[str] = []
    with store.database.write() as connection:
        connection.set_trace_callback(asked.append)
    spans = prepared(
        *(named(f"more {number}") for number in range(500)), named("other", span=2), named("other", span=2)
    )
    assert store.add(spans) == 1
    with store.database.write() as connection:
        connection.set_trace_callback(None)
    assert sum("digest, end_ns FROM spans" in each for each in asked) == 2
    assert len(store.spans(TRACE)) == MAX_COPIES + 1


def test_spans_of_one_request_end_each_other_in_order(store: TraceStore) -> None:
    store.add(prepared(named("a", end=0)))
    assert (
        store.add(
            prepared(named("b", end=0), named("c", end=5), named("c", end=5), named("d", end=6), named("e", end=7))
        )
        == 2
    )
    assert [(each.span.name, each.copy) for each in store.spans(TRACE)] == [("c", 0), ("d", 1), ("e", 2)]
    summary = store.summary(TRACE)
    assert summary.num_spans == 3


def test_a_span_that_was_sent_before_its_end_and_comes_after_it_is_left_out(store: TraceStore) -> None:
    done, begun = named("done", end=5), named("begun", end=0)
    assert store.add(prepared(done)) == 1 and store.add(prepared(begun)) == 0
    assert store.add(prepared(begun, named("begun anew", end=0))) == 0
    assert [(each.span.name, each.copy) for each in store.spans(TRACE)] == [("done", 0)]
    assert store.summary(TRACE).num_spans == 1 and store.summary(TRACE).name == "done"
    other = begun | {"startTimeUnixNano": str(int(begun["startTimeUnixNano"]) + 1)}
    assert store.add(prepared(other)) == 1, "one that began at another time is another"
    assert store.add(prepared(named("alone", end=0, span=2), named("beside", end=0, span=2))) == 2
    assert (
        store.add(prepared(named("first", end=0, span=3), named("last", end=9, span=3), named("late", end=0, span=3)))
        == 1
    )


def test_rows_of_an_older_release_are_read_as_they_are(store: TraceStore) -> None:
    store.add(prepared(named("n", error="short")))
    with store.database.write() as connection:
        assert isinstance(connection, sqlite3.Connection)
        connection.execute("UPDATE spans SET name = ?, error = ?", ("n" * 9000, "e" * 9000))
    span = store.spans(TRACE)[0].span
    assert (span.name, span.error) == ("n" * 9000, "e" * 9000)
