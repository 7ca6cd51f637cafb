"""Parts of the receipt of spans, each on a small case: values, spans, refusals, bodies that arrive, the writer."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from starlette.datastructures import Headers

import otlp_requests as otlp
from firsthand.errors import DataError, StoreError
from firsthand.ingest import otlp_door, span_writer
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_door import OtlpDoor, _varint, accepted, refused
from firsthand.ingest.otlp_json import _attributes, _float, _int, _span, _uint, _value, decode_json
from firsthand.ingest.otlp_protobuf import _attributes as protobuf_attributes
from firsthand.ingest.otlp_protobuf import _value as protobuf_value
from firsthand.ingest.otlp_protobuf import decode_protobuf, free_name, spans_of_request
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from received_spans import ready

T, S, P = "0a" * 16, "0b" * 8, "0c" * 8


# -- JSON --


def test_values_of_json_are_read_one_by_one() -> None:
    for given, found in (("-7", -7), (" 8 ", 8), (2.9, 2), (True, 1), ("1e3", "1e3"), (None, ""), ([1], "[1]"),
                         ("9" * 40, int("9" * 40)),
                         ("9" * 41, "9" * 41), ("x" * 1001, "x" * 1000), (float("inf"), "inf")):  # fmt: skip
        assert _int(given) == found, given
    assert [_uint(each) for each in ("5", -1, 2**64, 2**64 - 1, "x", None)] == [5, 0, 2**64 - 1, 2**64 - 1, 0, 0]
    assert [_float(each) for each in ("0.25", 2, "1e3", "x", None, [1], {}, "x" * 1001)] == [
        0.25, 2.0, 1000.0, "x", "", "[1]", "{}", "x" * 1001,
    ]  # fmt: skip
    pair = [
        {"key": "a", "value": {"intValue": 1}},
        {"key": "a", "value": {"boolValue": 0}},
        5,
        {"value": {"stringValue": "x"}},
    ]
    assert _value({"kvlistValue": {"values": pair}}, 0) == {"a": False, "": "x"} and _value({}, 0) is None
    assert _value({"arrayValue": {"values": [{"bytesValue": "AQ=="}, {"x": 1}, "no"]}}, 0) == ["AQ==", None]
    assert _value({"intValue": 1}, 64) == 1 and _value({"intValue": 1}, 65) == "[nested too deep]"
    assert _value({"arrayValue": {"values": [{"intValue": 1}]}}, 64) == ["[nested too deep]"]
    assert _value({"kvlistValue": {"values": pair[:1]}}, 64) == {"a": "[nested too deep]"}
    named = [{"key": "k", "value": {"intValue": number}} for number in range(3)]
    assert _attributes([*named, {"key": "k#2"}, {"key": 5, "value": 6}, *named[:1]]) == {
        "k": 0, "k#2": 1, "k#3": 2, "k#2#2": None, "5": None, "k#4": 0,
    }  # fmt: skip
    assert _attributes({"key": "k"}) == _attributes(None) == {}
    assert free_name("k", {"k": 1, "k#2": 1, "k#3": 1}, numbers := {}) == "k#4" and numbers == {"k": 4}


def test_a_span_of_json_has_valid_ids_or_is_none() -> None:
    resource: dict[str, Any] = {"r": 1}
    body = {
        "traceId": T.upper(), "spanId": S.upper(), "parentSpanId": P.upper(), "name": "n", "kind": "3",
        "startTimeUnixNano": 5, "endTimeUnixNano": "9", "attributes": otlp.pairs({"a": 1}),
        "status": {"code": "2", "message": "m"},
        "events": [{"name": "e", "timeUnixNano": "6", "attributes": otlp.pairs({"b": 2})}, "no"],
        "links": [{"traceId": "AB", "spanId": "CD", "attributes": otlp.pairs({"c": 3})}],
    }  # fmt: skip
    event = {"name": "e", "at_ns": 6, "attributes": {"b": 2}}
    link = {"trace_id": "ab", "span_id": "cd", "attributes": {"c": 3}}
    made = _span(body, resource, "sc")
    assert made == IncomingSpan(T, S, P, "n", 5, 9, {"a": 1}, [event], [link], {"r": 1}, "sc", 3, "m")
    assert made is not None and made.resource is resource
    assert _span({"traceId": T, "spanId": S}, {}, "") == IncomingSpan(T, S, "", "", 0, 0)
    for changes in ({"traceId": "0" * 32}, {"spanId": "0" * 16}, {"traceId": T[:-1]}, {"spanId": S + "0"}, {"traceId": None},
                    {"spanId": "g" * 16}):  # fmt: skip
        assert _span(body | changes, {}, "") is None
    assert _span([], {}, "") is None
    for parent in ("0" * 16, P[:-1], "x" * 16, None, 5):
        found = _span(body | {"parentSpanId": parent, "status": None, "kind": 7}, {}, "")
        assert found is not None and (found.parent_id, found.error, found.kind) == ("", None, 5)
    assert [getattr(_span(body | {"status": status}, {}, ""), "error") for status in (  # noqa: B009
        {"code": 2}, {"code": 1, "message": "m"}, {"code": "STATUS_CODE_ERROR", "message": "x"}, {"message": "m"},
    )] == ["", None, "x", None]  # fmt: skip
    first = {"resource": {"attributes": otlp.pairs({"r": 1})}, "scopeSpans": [
        {"scope": {"name": "one"}, "spans": [body, 5]}, {"spans": [{}, body]}, {"spans": 7}, 5,
    ]}  # fmt: skip
    spans, rejected = decode_json(
        json.dumps({"resourceSpans": [first, None, {"scopeSpans": [{"spans": [body]}]}]}).encode()
    )
    assert rejected == 2 and [(each.scope, each.resource) for each in spans] == [
        ("one", {"r": 1}),
        ("", {"r": 1}),
        ("", {}),
    ]
    assert spans[0].resource is spans[1].resource
    for raw, said in (
        (b'{"a": "\xff"}', "the body is not valid UTF-8 (byte 7)"),
        (b"[" * 50_000, "the body nests lists and objects too deep"),
        (b"nul", "the body is no JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"resourceSpans": null}', 'the body is no OTLP request: an object with a list "resourceSpans" was expected'),
    ):  # fmt: skip
        with pytest.raises(DataError) as refusal:
            decode_json(raw)
        assert str(refusal.value) == said


# -- protobuf --


def test_values_of_protobuf_are_read_one_by_one() -> None:
    for value, found in (
        (AnyValue(), None), (AnyValue(string_value=""), ""), (AnyValue(bool_value=False), False),
        (AnyValue(int_value=-3), -3),
        (AnyValue(double_value=0.5), 0.5), (AnyValue(bytes_value=b"\x01\xff"), "Af8="),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])), [1, None]),
        (AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a", value=AnyValue(bool_value=True))])), {"a": True}),
    ):  # fmt: skip
        assert protobuf_value(value, 0) == found == protobuf_attributes([KeyValue(key="k", value=value)])["k"]
        assert protobuf_value(value, 64) == (
            found if not isinstance(found, list | dict) else
            ["[nested too deep]", None] if isinstance(found, list) else {"a": "[nested too deep]"}
        )  # fmt: skip
    assert protobuf_value(AnyValue(int_value=1), 65) == "[nested too deep]" and protobuf_value(AnyValue(), 65) is None
    pairs = [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in ("ka", "kb", "xc", "kd")]
    assert protobuf_attributes(pairs) == {"k": "a", "k#2": "b", "x": "c", "k#3": "d"}


def test_a_body_of_protobuf_that_nests_too_deep_or_is_cut_is_refused() -> None:
    def nested(levels: int) -> bytes:
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"a" * 16, span_id=b"b" * 8)
        value = span.attributes.add(key="k").value
        for _ in range(levels):
            value = value.array_value.values.add()
        value.int_value = 5
        return bytes(request.SerializeToString())

    def told(raw: bytes) -> str:
        with pytest.raises(DataError) as refusal:
            decode_protobuf(raw)
        return str(refusal.value)

    start = "the body is no OTLP request in protobuf: "
    assert decode_protobuf(b"") == ([], 0) and told(nested(3)[:-1]).startswith(start)
    with ended_frames(40):  # where little of the stack is left, as below a caller that recurses
        assert told(nested(45)).startswith(f"{start}maximum recursion depth exceeded")
    assert told(nested(60)).startswith(start), "the decoder takes no more than 100 messages in each other"
    (span,), rejected = decode_protobuf(nested(20))
    found = span.attributes["k"]
    for _ in range(20):
        (found,) = found
    assert (found, rejected) == (5, 0)


@contextmanager
def ended_frames(left: int) -> Iterator[None]:
    """The interpreter lets calls nest only about so many levels deeper than here."""
    before, depth, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while (above := frame.f_back) is not None:
        depth, frame = depth + 1, above
    sys.setrecursionlimit(depth + left)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def test_a_request_of_protobuf_keeps_spans_with_ids_and_counts_the_others() -> None:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "sc"
    request.resource_spans[0].resource.attributes.add(key="r", value=AnyValue(int_value=1))
    whole = scope.spans.add(trace_id=bytes.fromhex(T), span_id=bytes.fromhex(S), parent_span_id=bytes.fromhex(P), name="n",
                            kind=3, start_time_unix_nano=5, end_time_unix_nano=9)  # fmt: skip
    whole.attributes.add(key="a", value=AnyValue(string_value="x"))
    whole.events.add(name="e", time_unix_nano=6).attributes.add(key="b", value=AnyValue(int_value=2))
    whole.links.add(trace_id=b"\x01\x02", span_id=b"\x03").attributes.add(key="c", value=AnyValue(int_value=3))
    whole.status.code, whole.status.message = 2, "m"
    for trace, span, parent, code in ((T, P, "00" * 8, 1), (T, "01" * 8, "", None)):
        made = scope.spans.add(
            trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(span), parent_span_id=bytes.fromhex(parent)
        )
        if code is not None:
            made.status.code, made.status.message = code, "fine"
    for trace, span in ((T[2:], S), (T, S[2:]), (T + "01", S), (T, S + "01"), ("00" * 16, S), (T, "00" * 8), ("", "")):
        scope.spans.add(trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(span))
    event, link = (
        {"name": "e", "at_ns": 6, "attributes": {"b": 2}},
        {"trace_id": "0102", "span_id": "03", "attributes": {"c": 3}},
    )
    expected = [
        IncomingSpan(T, S, P, "n", 5, 9, {"a": "x"}, [event], [link], {"r": 1}, "sc", 3, "m"),
        IncomingSpan(T, P, "", "", 0, 0, {}, [], [], {"r": 1}, "sc"),
        IncomingSpan(T, "01" * 8, "", "", 0, 0, {}, [], [], {"r": 1}, "sc"),
    ]  # fmt: skip
    assert spans_of_request(request) == (expected, 7) == decode_protobuf(request.SerializeToString())
    with pytest.raises(DataError, match=r"the body is no OTLP request in protobuf: ."):
        decode_protobuf(b"\x0a\x05\x01")


# -- the door --


class Told:
    """A writer that takes a body, or has no room, and tells each the outcome that was set."""

    def __init__(self, outcome: WriteOutcome | None):
        self.outcome, self.taken = outcome, []

    def submit(self, raw: bytes, kind: str, encoding: str, done: Any) -> bool:
        self.taken.append((raw, kind, encoding))
        if self.outcome is not None:
            threading.Thread(target=done, args=(self.outcome,)).start()
        return self.outcome is not None


def test_each_outcome_of_the_writer_is_an_answer() -> None:
    def kept(outcome: WriteOutcome | None, kind: Any = "json", encoding: Any = "gzip") -> Any:
        writer = Told(outcome)
        answer = asyncio.run(OtlpDoor(None, writer, lambda host: True)._kept(b"raw", kind, encoding))  # type: ignore[arg-type]
        assert writer.taken == [(b"raw", kind, encoding)]
        return answer.status_code, answer.body

    assert kept(WriteOutcome(3)) == (200, b'{"partialSuccess": {}}') and kept(WriteOutcome(3), "protobuf", "") == (
        200,
        b"",
    )
    why = "spans without valid ids were left out"
    partial = {"partialSuccess": {"rejectedSpans": "2", "errorMessage": why}}
    assert kept(WriteOutcome(0, 2)) == (200, json.dumps(partial).encode())
    assert kept(WriteOutcome(problem="bad")) == (400, b'{"code": 3, "message": "bad"}')
    assert kept(WriteOutcome(problem="full", retry=True)) == (503, b'{"code": 14, "message": "full"}')
    assert kept(None) == (503, b'{"code": 14, "message": "too many requests wait: send it again later"}')
    for rejected in (1, 127, 128, 300, 1 << 40):
        answer = accepted("protobuf", WriteOutcome(5, rejected))
        told = ExportTraceServiceResponse.FromString(answer.body).partial_success
        assert (told.rejected_spans, told.error_message, answer.media_type) == (rejected, why, "application/x-protobuf")
    assert [_varint(value) for value in (0, 127, 128, 300, 16384)] == [
        b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02", b"\x80\x80\x01",
    ]  # fmt: skip


def test_a_refusal_has_the_code_of_its_status_and_the_headers_that_help() -> None:
    codes = {400: 3, 401: 16, 403: 7, 405: 12, 408: 4, 413: 8, 415: 3, 421: 5, 503: 14, 404: 2}
    for status, code in codes.items():
        answer = refused("json", status, "é")
        assert (answer.status_code, json.loads(answer.body)) == (status, {"code": code, "message": "é"})
        assert answer.headers.get("connection") == ("close" if status in (403, 408, 413, 421) else None)
        assert answer.headers.get("retry-after") == ("2" if status == 503 else None)
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)
        binary = refused("protobuf", status, "é")
        assert (binary.status_code, binary.body) == (status, bytes([8, code, 18, 2]) + "é".encode())
        assert (
            binary.headers["content-type"] == "application/x-protobuf"
            and dict(binary.headers).keys() == dict(answer.headers).keys()
        )
    assert refused(None, 415, "x").headers["content-type"] == "application/json"


def test_a_request_is_refused_before_its_body_is_read_by_the_first_rule_it_breaks() -> None:
    hosts: list[Any] = []
    door = OtlpDoor(None, None, lambda host: not hosts.append(host) and host != "there", "key")  # type: ignore[arg-type,func-returns-value]

    def refusal(method: str = "POST", kind: str | None = "json", **headers: str) -> Any:
        given = {"host": "here", "x-api-key": "key"} | {key.replace("_", "-"): value for key, value in headers.items()}
        return door._refusal({"method": method}, Headers({key: value for key, value in given.items() if value}), kind)

    wrong = {"host": "there", "origin": "o", "x_api_key": "no", "content_encoding": "br", "content_length": "x"}
    assert [refusal("GET", None, **dict(list(wrong.items())[at:]))[0] for at in range(5)] == [421, 403, 405, 405, 405]
    assert [refusal("POST", None, **dict(list(wrong.items())[at:]))[0] for at in range(2, 5)] == [401, 415, 415]
    assert [refusal("POST", "json", **dict(list(wrong.items())[at:]))[0] for at in range(3, 5)] == [415, 413]
    assert refusal() is None and refusal(sec_fetch_site="none", content_encoding=" GZIP ", content_length="0") is None
    assert refusal(sec_fetch_site="cross-site")[0] == 403 and hosts[0] == "there" and hosts[-1] == "here"
    most = span_writer.MAX_REQUEST_BYTES
    assert refusal(content_length=str(most)) is None and refusal(content_length=str(most + 1))[0] == 413
    assert refusal(content_length="0" * 15) is None and refusal(content_length="0" * 16)[0] == 413
    assert refusal(content_length="1.5")[0] == refusal(content_length="²")[0] == 413


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_door, "BODY_WITHIN_S", 0.01)
    door = OtlpDoor(None, Told(WriteOutcome(1)), lambda host: True)  # type: ignore[arg-type]
    pieces = [{"type": "http.request", "body": b"abc", "more_body": True}]
    headers = [(b"content-type", b" Application/JSON ;charset=utf-8"), (b"content-encoding", b" GZip")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/traces", "headers": headers}

    async def receive() -> Any:
        if not pieces:
            await asyncio.sleep(5)
        return pieces.pop(0)

    answer = asyncio.run(door._answer(scope, receive))
    assert (answer.status_code, json.loads(answer.body)["message"]) == (408, "the body did not come within 0.01 s")
    assert door._arriving == 0 and answer.headers["connection"] == "close"
    pieces[:] = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request"}]
    assert asyncio.run(door._answer(scope, receive)).status_code == 200
    assert door.writer.taken == [(b"ab", "json", "gzip")], "in lower case, without spaces"  # type: ignore[attr-defined]
    monkeypatch.setattr(otlp_door, "MAX_WAITING_BYTES", 10)
    door._arriving = 8  # of other requests
    for raw, status in ((b"ab", 200), (b"abc", 503)):
        pieces[:] = [{"type": "http.request", "body": raw}]
        assert asyncio.run(door._answer(scope, receive)).status_code == status and door._arriving == 8
    came: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["type"] + scope.get("path", ""))

    other = OtlpDoor(app, None, lambda host: True)  # type: ignore[arg-type]
    for beyond in (
        {"type": "lifespan"},
        {"type": "http", "path": "/v1/traces/"},
        {"type": "websocket", "path": "/v1/traces"},
    ):
        asyncio.run(other(beyond, receive, None))  # type: ignore[arg-type]
    assert came == ["lifespan", "http/v1/traces/", "websocket/v1/traces"]


# -- the writer --


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[SpanWriter]:
    """A writer whose thread has ended, so that a test takes each step itself."""
    store = TraceStore(tmp_path, create=True)
    made = SpanWriter(store, SpanPreparer(Redactor()))
    made.close()
    made._closed = False
    yield made
    store.close()


def test_requests_wait_up_to_exactly_the_bounds(idle: SpanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_writer, "MAX_WAITING", 3)
    monkeypatch.setattr(span_writer, "MAX_WAITING_BYTES", 10)
    nothing: Any = lambda: ([], 0)  # noqa: E731
    done: list[WriteOutcome] = []
    assert idle.submit_spans(nothing, 11, done.append), "one that is larger than all may wait alone"
    assert not idle.submit_spans(nothing, 0, done.append) and idle._size == 11
    idle._write_some()
    assert idle._size == 0 and done == [WriteOutcome(0, 0)]
    assert [idle.submit_spans(nothing, size, done.append) for size in (4, 7, 6, 0, 0)] == [
        True,
        False,
        True,
        True,
        False,
    ]
    idle._write_some()
    assert len(done) == 4 and idle._size == 0 and not idle._waiting
    raw = json.dumps(otlp.request(otlp.span(1, 1), {})).encode()
    assert idle.submit(raw[:5], "json", "", done.append) and idle.submit(b"", "protobuf", "identity", done.append)
    idle._write_some()
    assert done[5].problem.startswith("the body is no JSON: ") and not done[5].retry and done[4] == WriteOutcome(0, 0)
    monkeypatch.setattr(span_writer, "MAX_WAITING_BYTES", len(raw))
    assert idle.submit(raw, "json", "", done.append) and idle._size == len(raw)
    idle._write_some()
    assert done[6] == WriteOutcome(1, 1) and len(idle.store.spans(f"{1:032x}")) == 1
    idle._closed = True
    assert not idle.submit_spans(nothing, 1, done.append)
    idle._work()  # a closed writer with nothing left ends


def test_a_transaction_takes_requests_up_to_its_spans_or_bytes(
    idle: SpanWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_writer, "_SPANS", 3)
    monkeypatch.setattr(span_writer, "_BYTES", 10)
    done: list[int] = []

    def wait(*sizes: tuple[int, int]) -> list[int]:
        for number, (spans, size) in enumerate(sizes):
            made = [IncomingSpan(T, f"{number:08x}{at:08x}", "", "n", 1, 2) for at in range(spans)]
            assert idle.submit_spans(lambda made=made: (made, 0), size, lambda outcome: done.append(outcome.num_kept))  # type: ignore[misc]
        turns = []
        while idle._waiting:
            done.clear()
            idle._write_some()
            turns.append(len(done))
        return turns

    assert wait((2, 1), (1, 1), (1, 1), (3, 1), (1, 1)) == [2, 2, 1]
    assert wait((0, 9), (0, 1), (0, 10), (0, 11), (0, 1)) == [2, 1, 1, 1]


def test_one_request_that_cannot_be_kept_does_not_spoil_the_others(idle: SpanWriter) -> None:
    done: dict[str, WriteOutcome] = {}

    def waiting(name: str) -> Any:
        return span_writer._Waiting(lambda: ([], 0), 1, lambda outcome: done.update({name: outcome}))

    fine, odd = ready("t", "1"), ready("t", "2")
    odd.facts.label = 5  # type: ignore[assignment]
    taken = [(waiting("fine"), [fine], 2), (waiting("odd"), [odd], 0), (waiting("none"), [], 7)]
    refused_: list[Any] = []
    idle._keep(taken, refused_)
    assert done == {"fine": WriteOutcome(1, 2), "none": WriteOutcome(0, 7)} and len(idle.store.spans("t")) == 1
    ((one, outcome),) = refused_
    assert one is taken[1][0] and outcome == WriteOutcome(problem="a span cannot be kept (TypeError)")

    class Full:
        folder = "no folder"

        def add(self, spans: Any) -> None:
            raise StoreError("the disk is full")

    idle.store, refused_ = Full(), []  # type: ignore[assignment]
    idle._keep(taken[:1], refused_)
    assert refused_ == [(taken[0][0], WriteOutcome(problem="the disk is full", retry=True))]


def test_a_request_that_a_full_disk_refuses_frees_its_bytes_once(
    idle: SpanWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_writer, "_BYTES", 5)

    class Full:
        folder = "no folder"

        def add(self, spans: Any) -> None:
            raise StoreError("the disk is full")

    idle.store = Full()  # type: ignore[assignment]
    done: list[WriteOutcome] = []
    for size in (7, 4):
        assert idle.submit_spans(lambda: ([], 0), size, done.append)
    idle._write_some()
    assert idle._size == 4 and len(done) == 1, "the other one still waits"
    idle._write_some()
    assert idle._size == 0 and done == [WriteOutcome(problem="the disk is full", retry=True)] * 2
