"""Requests of OTLP made to take memory or time: little bodies that become much, and work that grows with its square."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import otlp_requests as otlp
from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.ingest import translate
from firsthand.ingest.dialects.span_facts import parsed, said, words_of
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.request_bounds import MAX_VALUES, check_json_values, check_protobuf_values
from firsthand.ingest.span_writer import MAX_MEMBERS, inflated
from firsthand.ingest.trace_store import MAX_COPIES, SpanPreparer, TraceStore

TYPE = ExportTraceServiceRequest.DESCRIPTOR


def incoming(attributes: dict[str, Any], events: list[Any] | None = None) -> IncomingSpan:
    return IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, attributes, events or [], [], {}, "", 1, None)


def fields(body: bytes) -> int:
    """The largest bound under which a body is refused, plus one: the number of its fields with a length."""
    most = 0
    while True:
        try:
            check_protobuf_values(body, TYPE, most)
        except DataError:
            most += 1
        else:
            return most


@pytest.mark.slow
def test_a_body_of_empty_messages_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DataError, match="2,000,000 values"):  # 5 MB, 5 kB as gzip, would be 700 MB
        decode_protobuf(b"\x0a\x00" * (MAX_VALUES + 1))
    with pytest.raises(DataError, match="2,000,000 values"):
        decode_json(b'{"resourceSpans":[' + b"{}," * (MAX_VALUES // 2) + b"{}]}")


def test_fields_are_counted_in_messages_within_messages_and_no_others() -> None:
    span = otlp.span(1, 2, note="x" * 90, parts=[1, {"a": "b"}], events={"read": {"k": "v"}})
    body = otlp.as_protobuf(span)
    # resource: 1, with pair, key, value, text; scope: 1 with its name; span: ids and name; note; parts; the event
    assert fields(body) == 1 + (1 + 4) + 1 + (1 + 1) + 1 + 3 + 4 + (3 + 1 + 1 + 2 + 4) + (1 + 1 + 4)
    for damaged in (
        body[:-1],
        body + b"\xff",
        b"\x0b" * 40,
        b"\x08\xff\xff",
        b"\x09",
        b"\x0d\x01",
        b"\x0a\x85\x80\x01",
    ):
        check_protobuf_values(damaged, TYPE, 1000)  # left to the decoder
        fields(damaged)


def test_values_of_json_are_counted_outside_of_texts() -> None:
    check_json_values(json.dumps({"text": '[{,"\\' * 50, "list": [1, [2]]}).encode(), 5)
    with pytest.raises(DataError, match="more than 4 values"):
        check_json_values(json.dumps({"text": '[{,"\\' * 50, "list": [1, [2]]}).encode(), 4)
    for open_text in (b'"\\' * 200_000, b'\\"' * 200_000, b'"' + b'\\"' * 200_000 + b"\\"):
        with at_most_cpu_s(5):
            check_json_values(open_text + b"," * 10, 5)


def test_values_of_json_are_counted_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.system.json_values._AT_ONCE", 64 << 10)
    raw = b"[" + b'{"k":"1"},' * 40_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than 80,000 values"):
            check_json_values(raw, 80_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_json_values(raw, 80_001)
    assert peak < 6 << 20, f"{peak >> 20} MiB"


def test_of_many_attributes_with_one_name_none_is_lost_and_no_time_either() -> None:
    many = 10_000
    body = otlp.request(otlp.span(1, 2))
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = [{"key": "k"}, {"key": "k#3"}] + [
        {"key": "k", "value": {"intValue": "1"}}
    ] * many
    with at_most_cpu_s(3):  # minutes, while nobody else's spans were kept
        [from_json], _ = decode_json(json.dumps(body).encode())
    assert list(from_json.attributes)[:5] == ["k", "k#3", "k#2", "k#4", "k#5"] and len(from_json.attributes) == many + 2
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    for name in ("k", "k#3"):
        span.attributes.add(key=name)
    for _ in range(many):
        span.attributes.add(key="k").value.int_value = 1
    with at_most_cpu_s(3):
        [from_protobuf], _ = decode_protobuf(request.SerializeToString())
    assert from_protobuf.attributes == from_json.attributes


def test_a_body_of_members_is_read_in_linear_time_up_to_a_bound() -> None:
    parts = [bytes([number]) * (number * 700) for number in range(200)]
    assert inflated(b"".join(map(gzip.compress, parts)), "gzip") == b"".join(parts)
    whole = gzip.compress(bytes(range(256)) * 4000, 0)  # longer than what is fed at a time
    assert inflated(whole + whole, "gzip") == bytes(range(256)) * 8000
    empty = gzip.compress(b"")
    assert inflated(empty * MAX_MEMBERS, "gzip") == b""
    with pytest.raises(DataError, match="more than 1000 members"):
        inflated(empty * (MAX_MEMBERS + 1), "gzip")
    for cut in (whole[:-1], whole + empty[:-1]):
        with pytest.raises(DataError, match="cut short"):
            inflated(cut, "gzip")


def test_one_id_holds_so_many_spans_and_no_more(tmp_path: Path) -> None:
    store, prepared = TraceStore(tmp_path, create=True), SpanPreparer(Redactor()).prepared
    many = [otlp.span(1, 2, name=f"copy {number}") for number in range(MAX_COPIES + 20)]
    spans, _ = decode_json(otlp.as_json(*many))
    assert store.add(prepared(spans)) == MAX_COPIES
    assert store.add(prepared(decode_json(otlp.as_json(otlp.span(1, 3)))[0])) == 1, "another id is not held up"
    assert [each.span.name for each in store.spans(f"{1:032x}")][MAX_COPIES - 1] == f"copy {MAX_COPIES - 1}"
    store.close()


def test_what_is_remembered_between_spans_is_small(tmp_path: Path) -> None:
    redactor = Redactor()
    names = {f"{'n' * 300}{number}": 1 for number in range(300)}
    [span], _ = decode_json(otlp.as_json(otlp.span(1, 2, **names)))
    before = len(translate._spoken)
    translate.facts_of(span)
    redactor.redact(span)
    assert len(translate._spoken) == before and not redactor._secret_names
    [usual], _ = decode_json(otlp.as_json(otlp.span(1, 2, remembered_here=1)))
    translate.facts_of(usual)
    assert ("remembered_here",) in translate._spoken


def test_a_text_of_more_values_than_a_span_may_hold_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    loads = json.loads
    monkeypatch.setattr(
        "firsthand.ingest.dialects.span_facts.json.loads", lambda text: (decoded.append(text), loads(text))[1]
    )
    dense, most = "[" + "{}," * 100_000 + "{}]", "[" + "[]," * 99_999 + "{}]"
    assert parsed(dense) == dense and words_of(dense) == (dense[:200],) and decoded == []
    assert len(parsed(most)) == 100_000 and decoded == [most], "two marks for each of 100,000 is just enough"
    decoded.clear()
    prose = json.dumps([{"role": "user", "content": "and, then, \ud800" * 100_000}])
    for name in ("gen_ai.input.messages", "input.value", "tag.tags", "langfuse.observation.input"):
        kind = {"gen_ai.operation.name": "chat", "openinference.span.kind": "LLM", "langfuse.observation.type": "span"}
        held = incoming(kind | {name: dense})
        facts, found = translate.facts_of(held), translate.content_of(held)
        assert said(facts.input)[:9] in ("", dense[:9]), name
        assert [each.text for each in found.asked] in ([], [dense]), name
        assert decoded == [], name
        asked = translate.content_of(incoming(kind | {name: prose})).asked
        assert name == "tag.tags" or asked[0].text == "and, then, \ud800" * 100_000, "marks in texts are no values"
        decoded.clear()


def test_the_texts_of_a_span_may_hold_so_many_values_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.ingest.dialects.span_facts.MAX_VALUES", 2000)
    part = json.dumps([{"text": "x"}] * 200)  # 400 marks
    events = [{"name": "gen_ai.user.message", "at_ns": 1, "attributes": {"content": part}} for _ in range(7)]
    held = incoming({"gen_ai.operation.name": "chat"}, events)
    for _ in range(2):  # what one span took is not taken from the next
        asked = translate.content_of(held).asked
        assert [each.text == "x" * 200 for each in asked] == [True] * 5 + [False] * 2
        assert asked[5].text == asked[6].text == part
