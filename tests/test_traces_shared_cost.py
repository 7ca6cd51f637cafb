"""Requests of OTLP whose cost lies where spans are kept: what thousands of them share, events, control characters."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import otlp_requests as otlp
from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.ingest import redaction, request_bounds
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.request_bounds import (
    MAX_EVENTS,
    MAX_RESOURCE_BYTES,
    MAX_SCOPE_CHARS,
    MAX_SPANS,
    bounded_resource,
    check_spans,
    check_written_bytes,
)
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.studio.incoming_query import IncomingQuery
from firsthand.studio.incoming_rows import raw_spans

TRACE = f"{1:032x}"


def prepared(*spans: dict, **options: str) -> list:
    return SpanPreparer(Redactor()).prepared(decode_json(otlp.as_json(*spans, **options))[0])


@pytest.fixture
def store(tmp_path: Path):
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


def test_a_scope_of_a_megabyte_that_spans_share_is_only_its_length() -> None:
    for length, said in (
        (MAX_SCOPE_CHARS, "s" * MAX_SCOPE_CHARS),
        (MAX_SCOPE_CHARS + 1, "[a name of 1,001 characters]"),
    ):
        spans = [otlp.span(1, number) for number in (1, 2)]
        for decoded, _ in (
            decode_json(otlp.as_json(*spans, scope="s" * length)),
            decode_protobuf(otlp.as_protobuf(*spans, scope="s" * length)),
        ):
            assert [each.scope for each in decoded] == [said] * 2
    many = [otlp.span(1, number) for number in range(1, 2001)]
    body = otlp.as_json(*many, scope="s" * 1_000_000)
    with at_most_cpu_s(3):  # 44 s and more: the name was written and searched once for each span
        assert len(SpanPreparer(Redactor()).prepared(decode_json(body)[0])) == 2000


def test_a_program_of_a_megabyte_is_kept_without_its_long_values() -> None:
    usual = {"service.name": "shop", "process.command_args": ["python", "é" * 500], "n": 1}
    assert bounded_resource(usual) is usual
    [one] = prepared(otlp.span(1, 1), service="x" * 1_000_000)
    assert len(one.resource[1]) < 200 and json.loads(one.resource[1]) == {"left out": "1 attributes of 1,000,020 bytes"}
    sizes = len(json.dumps(["service.name", "shop"])) + len(json.dumps(["k", "v"]))
    held = {"big": "x" * 100, "k": "v", "service.name": "shop"}
    assert bounded_resource(held, sizes) == {
        "k": "v", "service.name": "shop", "left out": "1 attributes of 111 bytes",
    }  # fmt: skip
    assert list(bounded_resource(held, sizes - 1)) == ["service.name", "left out"], "its name before all others"
    assert bounded_resource(held, sizes + 111) is held
    assert MAX_RESOURCE_BYTES == 16_384


def test_spans_that_share_a_program_share_it_in_memory_and_a_download_has_a_long_one_once(store: TraceStore) -> None:
    store.add(prepared(*(otlp.span(1, number) for number in (1, 2, 3)), service="s" * 5000))
    spans = store.spans(TRACE)
    assert spans[0].span.resource is spans[2].span.resource and spans[0].size_bytes > 10
    told = [each["resource"] for each in raw_spans(spans)]
    assert told == [{"service.name": "s" * 5000}] + [{"as of span": f"{1:016x}"}] * 2
    store.add(prepared(*(otlp.span(2, number) for number in (1, 2))))
    assert [each["resource"] for each in raw_spans(store.spans(f"{2:032x}"))] == [{"service.name": "shop"}] * 2


def test_a_span_that_ends_costs_no_reading_of_its_trace(store: TraceStore) -> None:
    store.add(prepared(*(otlp.span(1, number) for number in range(1, 1001))))
    begun = otlp.span(1, 5000, parent=1, gen_ai__operation__name="chat", gen_ai__usage__input_tokens=3, session__id="s")
    begun["endTimeUnixNano"] = "0"
    store.add(prepared(begun))
    ended = otlp.span(
        1, 5000, parent=1, took_s=9, gen_ai__operation__name="chat", gen_ai__usage__input_tokens=7, error="e"
    )
    asked: list[str] = []
    with store.database.write() as connection:
        connection.set_trace_callback(asked.append)
    store.add(prepared(ended))
    with store.database.write() as connection:
        connection.set_trace_callback(None)
    reads = [sql for sql in asked if (sql.startswith("SELECT") and "FROM spans" in sql) or "FROM resources" in sql]
    assert reads and all(any(f"{column} = " in sql for column in ("span", "seq", "digest", "id")) for sql in reads), (
        reads
    )
    summary = store.summary(TRACE)
    assert (summary.num_spans, summary.num_errors, summary.prompt_tokens, summary.session) == (1001, 1, 7, "s")
    assert summary.last_ns == otlp.START + 9 * otlp.SECOND


@pytest.mark.slow
def test_control_characters_are_counted_as_what_they_take_in_json() -> None:
    check_written_bytes(b"\x01" * 10 + b"a" * 40, 100)
    with pytest.raises(DataError, match="a control character is six"):
        check_written_bytes(b"\x01" * 10 + b"a" * 41, 100)
    check_written_bytes(b"a" * 100, 100)
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    span.attributes.add(key="k").value.string_value = "\U0001f600" + "\x01" * (33 << 20)
    with pytest.raises(DataError, match="more than 192 MiB as JSON"):  # 33 kB as gzip took 3 GB
        decode_protobuf(request.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("in_event", [False, True])
def test_a_span_of_control_characters_beside_an_emoji_takes_little_more_than_its_json(in_event: bool) -> None:
    text = "\U0001f600" + "\x01" * 1_000_000
    held = {"input.value": text}
    event = {"name": "e", "at_ns": 1, "attributes": held}
    span = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {} if in_event else held, [event] if in_event else [])
    tracemalloc.start()
    try:
        body = Redactor().redact(span)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    told = json.loads(body)
    assert (told["events"][0]["attributes"] if in_event else told["attributes"])["input.value"] == text
    assert peak < 6 * len(body), "it was 20 times as much"


def test_a_span_that_cannot_be_read_back_is_refused_and_one_that_memory_does_not_hold_is_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch, store: TraceStore
) -> None:
    held = IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": "sk-" + "x" * 100})
    size = len(Redactor().redact(held))
    monkeypatch.setattr(redaction, "MAX_BODY_BYTES", size)
    assert len(Redactor().redact(held)) == size
    monkeypatch.setattr(redaction, "MAX_BODY_BYTES", size - 1)
    with pytest.raises(DataError, match="shorten its texts"):
        Redactor().redact(held)
    monkeypatch.undo()

    class Scarce(str):
        def lower(self) -> str:
            raise MemoryError

    ids = {"trace_id": "1" * 32, "span_id": "2" * 16, "parent_id": "", "name": "n", "start_ns": 1, "end_ns": 2}
    for changes in ({"name": Scarce("a secret")}, {"attributes": {"a": Scarce("a secret")}}):
        span = IncomingSpan(**(ids | changes))
        writer, outcomes = SpanWriter(store, SpanPreparer(Redactor())), list[WriteOutcome]()
        assert writer.submit_spans(lambda span=span: ([span], 0), 10, outcomes.append)
        writer.close()
        assert "needs more memory than there is" in outcomes[0].problem and not outcomes[0].retry
    with pytest.raises(MemoryError):
        Redactor().redact_resource({"a": Scarce("a secret")})
    assert store.database.read("SELECT count(*) FROM spans") == [(0,)]


def test_spans_and_events_of_one_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_spans(MAX_SPANS, MAX_EVENTS)
    for spans, events, noun in ((MAX_SPANS + 1, 0, "50,001 spans"), (1, MAX_EVENTS + 1, "100,001 events and links")):
        with pytest.raises(DataError, match=noun):
            check_spans(spans, events)
    monkeypatch.setattr(request_bounds, "MAX_SPANS", 2)
    monkeypatch.setattr(request_bounds, "MAX_EVENTS", 3)
    two = [otlp.span(1, 1, events={"a": {}, "b": {}}), otlp.span(1, 2, events={"c": {}})]
    linked = {**otlp.span(1, 3), "links": [{"traceId": "1" * 32, "spanId": "1" * 16}]}
    as_bytes = {"traceId": "A" * 22, "spanId": "A" * 11}
    for make, decode in ((otlp.as_json, decode_json), (otlp.as_protobuf, decode_protobuf)):
        assert len(decode(make(*map(dict, two)))[0]) == 2
        with pytest.raises(DataError, match="3 spans, more than 2"):
            decode(make(*map(dict, two), otlp.span(1, 3)))
        link = linked if make is otlp.as_json else {**linked, "links": [as_bytes]}
        with pytest.raises(DataError, match="4 events and links, more than 3"):
            decode(make(otlp.span(1, 1, events={"a": {}, "b": {}, "c": {}}), link))


def test_a_number_of_three_hundred_digits_is_no_whole_number() -> None:
    body = otlp.request(otlp.span(1, 1))
    pair = {"key": "k", "value": {"intValue": 1e308}}
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = [
        pair,
        {"key": "n", "value": {"intValue": 5.0}},
    ]
    [one], _ = decode_json(json.dumps(body).encode())
    assert one.attributes == {"k": "1e+308", "n": 5}


def test_counts_of_tokens_without_end_are_summed_and_break_no_page(store: TraceStore) -> None:
    chat = {"gen_ai__operation__name": "chat", "gen_ai__usage__input_tokens": "1e15", "session__id": "s"}
    store.add(prepared(otlp.span(1, 1, **chat), otlp.span(2, 1, **chat)))
    assert store.summary(TRACE).prompt_tokens == 10**15
    with store.database.write() as connection:  # as a store of an older version has it
        connection.execute("UPDATE traces SET prompt_tokens = ?", (MOST_NS - 1,))
    assert store.add(prepared(otlp.span(1, 2, **chat))) == 1
    assert store.summary(TRACE).prompt_tokens == MOST_NS
    query = IncomingQuery.parse("")
    assert [row.tokens for row in query.groups(store, "session")] == [MOST_NS]
    assert [row.tokens for row in query.days(store)] == [MOST_NS]
    few = IncomingQuery.parse("tokens<5")
    assert few.days(store) == [] and few.groups(store, "session") == []
