"""Requests, redaction and traces at their limits: numbers as text, what arrives at once, deep values, chains."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.ingest import otlp_door
from firsthand.ingest.as_trace import question_of, trace_of
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.otlp_door import OtlpDoor, shows_key
from firsthand.ingest.otlp_json import _int, _value, decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf, spans_of_request
from firsthand.ingest.redaction import FAILED, PUT, Redactor
from firsthand.ingest.span_tree import arranged
from firsthand.ingest.span_writer import WriteOutcome
from firsthand.ingest.task_rows import task_row
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.model import Usage

T, S = "a" * 32, "b" * 16


def span(attributes: dict[str, Any], events: Any = (), name: str = "call", **more: Any) -> IncomingSpan:
    return IncomingSpan(T, S, "", name, 10, 20, attributes, list(events), **more)


def stored(id: str, what: SpanKind, parent: str = "", start: int = 0, **more: Any) -> StoredSpan:
    usage, label = more.pop("usage", Usage()), more.pop("label", "")
    made = IncomingSpan(
        "t", id, parent, f"n{id}", start, more.pop("end", start + 5), more.pop("attributes", {}), **more
    )
    return StoredSpan(int(id, 16), made, what, label, usage=usage)


def chat(asked: Any, answered: Any = None) -> dict[str, Any]:
    told = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(asked)}
    return told if answered is None else told | {"gen_ai.output.messages": json.dumps(answered)}


# -- requests --


def test_numbers_and_statuses_of_json_are_read_up_to_their_limits() -> None:
    def one(**changes: Any) -> IncomingSpan:
        body = {"traceId": T.upper(), "spanId": S, **changes}
        (found,), rejected = decode_json(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [body]}]}]}).encode())
        assert rejected == 0
        return found

    errors = [
        one(status={"code": code, "message": "m"}).error
        for code in (2, "2", "STATUS_CODE_ERROR", 1, "ERROR", True, None)
    ]
    assert errors == ["m", "m", "m", None, None, None, None] and one(status={"code": 2}).error == ""
    assert (one(kind=5).kind, one(kind=6).kind, one(kind="3").kind, one(kind=-1).kind) == (5, 5, 3, 0)
    assert (
        one(parentSpanId="0" * 16).parent_id == one(parentSpanId="x").parent_id == ""
        and one(parentSpanId="C" * 16).parent_id == "c" * 16
    )
    assert one(startTimeUnixNano=str(1 << 64)).start_ns == (1 << 64) - 1 and one(endTimeUnixNano=1.9).end_ns == 1
    assert (
        _int("1" * 40) == int("1" * 40)
        and _int("1" * 41) == "1" * 41
        and _int("x" * 1001) == "x" * 1000
        and _int(None) == ""
    )
    assert _int(True) == 1 and _int(float("inf")) == "inf" and _int([1]) == "[1]"
    assert _value({"other": 1, "doubleValue": "NaN"}, 0) != _value({}, 0) and _value({"boolValue": 0}, 0) is False
    assert (
        _value({"arrayValue": {"values": [{"intValue": "2"}, 5, {"stringValue": None}]}}, 64)
        == ["[nested too deep]"] * 2
    )
    pairs = [
        {"key": "a", "value": {"intValue": 1}},
        {"key": "a", "value": {"intValue": 2}},
        {"key": "a#2"},
        {"key": "a"},
    ]
    assert one(attributes=pairs).attributes == {"a": 1, "a#2": 2, "a#2#2": None, "a#3": None}
    bad = {"resourceSpans": [5, {"scopeSpans": [{"spans": 5}, {"spans": [None, {}, {"traceId": T, "spanId": S}]}]}]}
    found, rejected = decode_json(json.dumps(bad).encode())
    assert (len(found), rejected) == (1, 2) and decode_json(b"{}") == ([], 0)
    for raw, why in ((b"[]", "the body is no OTLP request"), (b'{"resourceSpans": 5}', "the body is no OTLP request"),
                     (b"\xff", "the body is not valid UTF-8 (byte 0)"), (b"{",
                         "the body is no JSON: Expecting")):  # fmt: skip
        with pytest.raises(DataError) as refused:
            decode_json(raw)
        assert str(refused.value).startswith(why)


def test_spans_of_protobuf_have_ids_of_exactly_their_length() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    other = request.resource_spans.add()
    other.scope_spans.add()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "s"
    ids = ((15, 8), (17, 8), (16, 7), (16, 9), (16, 8), (0, 8), (16, 0))
    for trace, own in ids:
        scope.spans.add(trace_id=b"a" * trace, span_id=b"b" * own)
    scope.spans.add(trace_id=bytes(16), span_id=b"b" * 8)
    scope.spans.add(trace_id=b"a" * 16, span_id=bytes(8))
    one = scope.spans.add(
        trace_id=b"c" * 16, span_id=b"d" * 8, parent_span_id=bytes(8), kind=3, end_time_unix_nano=(1 << 64) - 1
    )
    one.status.code, one.status.message = 1, "fine"
    bad = scope.spans.add(trace_id=b"c" * 16, span_id=b"e" * 8, parent_span_id=b"d" * 8, name="é")
    bad.status.code = 2
    for key, value in (("k", 0), ("k", 7), ("k", -1)):
        bad.attributes.add(key=key).value.int_value = value
    bad.attributes.add(key="none")
    bad.attributes.add(key="raw").value.bytes_value = b"\xff\x00"
    bad.attributes.add(key="text").value.string_value = ""
    bad.attributes.add(key="no").value.bool_value = False
    bad.links.add(trace_id=b"f" * 16, span_id=b"g" * 8)
    bad.events.add(name="e", time_unix_nano=5).attributes.add(key="x").value.array_value.values.add().double_value = 0.5
    found, rejected = decode_protobuf(request.SerializeToString())
    assert rejected == 8 and [each.span_id for each in found] == [(b"b" * 8).hex(), (b"d" * 8).hex(), (b"e" * 8).hex()]
    assert (found[1].parent_id, found[1].kind, found[1].end_ns, found[1].error) == ("", 3, (1 << 64) - 1, None)
    held = {"k": 0, "k#2": 7, "k#3": -1, "none": None, "raw": "/wA=", "text": "", "no": False}
    assert found[2] == IncomingSpan(
        (b"c" * 16).hex(), (b"e" * 8).hex(), (b"d" * 8).hex(), "é", 0, 0, held,
        [{"name": "e", "at_ns": 5, "attributes": {"x": [0.5]}}],
        [{"trace_id": (b"f" * 16).hex(), "span_id": (b"g" * 8).hex(), "attributes": {}}], {}, "s", 0, "",
    )  # fmt: skip
    assert decode_protobuf(b"") == ([], 0)
    with pytest.raises(DataError, match="the body is no OTLP request in protobuf: "):
        decode_protobuf(b"\x0a\xff")


def test_what_arrived_makes_room_however_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.datastructures import Headers

    class Full:
        taken: list[Any] = []  # noqa: RUF012

        def submit(self, raw: bytes, kind: str, encoding: str, done: Any) -> bool:
            self.taken.append((raw, kind, encoding))
            if len(self.taken) == 1:
                done(WriteOutcome(1))
            return len(self.taken) == 1

    passed: list[str] = []

    async def beyond(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    door = OtlpDoor(beyond, Full(), lambda host: host == "h")  # type: ignore[arg-type]
    monkeypatch.setattr(otlp_door, "MAX_REQUEST_BYTES", 8)
    monkeypatch.setattr(otlp_door, "MAX_WAITING_BYTES", 9)

    def asked(*pieces: Any, path: str = "/otel/v1/traces", kind: str = "Application/JSON; charset=utf-8") -> Any:
        messages = [
            {"type": "http.request", "body": each, "more_body": True} if isinstance(each, bytes) else each
            for each in pieces
        ]
        messages.append({"type": "http.request"})
        told: list[Any] = []
        head = {"host": "h", "content-type": kind, "content-encoding": " GZIP "}
        scope = {
            "type": "http",
            "path": path,
            "method": "POST",
            "headers": [(k.encode(), v.encode()) for k, v in head.items()],
        }

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            told.append(message)

        asyncio.run(door(scope, receive, send))
        assert door._arriving == 0
        return (told[0]["status"], told[1]["body"]) if told else None

    assert asked(b"abc", b"de") == (200, b'{"partialSuccess": {}}') and Full.taken == [(b"abcde", "json", "gzip")]
    gone = {"type": "http.disconnect"}
    assert asked(b"ab", gone) == (400, b'{"code": 3, "message": "the connection was closed"}')
    assert asked(b"abcdefgh")[0] == 503 and asked(b"abcdefgh", b"i")[0] == 413 and len(Full.taken) == 2
    door._arriving = 0
    assert asked(b"x", path="/v1/traces/") is None and passed == ["/v1/traces/"]
    key = base64.b64encode(b"pk:sk:with:colons").decode()
    assert shows_key(Headers({"authorization": f"BASIC  {key} "}), "sk:with:colons")
    assert not shows_key(Headers({"authorization": f"basic {key}"}), "colons") and not shows_key(
        Headers({"authorization": f"basic {key}", "x-api-key": "k"}), ""
    )
    assert shows_key(Headers({"authorization": "bearer é"}), "é") and not shows_key(
        Headers({"authorization": "basic é", "api_key": "k"}), "k"
    )


# -- redaction --


def test_zeros_and_empty_lists_of_secret_names_and_what_holds_them_are_told_apart() -> None:
    found = Redactor().redact(given := span(
        {"password": [], "secret": 0, "x.secret": 0.5, "api_key": "", "cookie": None, "x.token": {"api_key": [], "n": 0,
            "passwd": False, "secret": ""}},
        [{"name": "e", "at_ns": 1, "attributes": {"authorization": {}}}], links=[{"trace_id": "t",
            "attributes": {"password": "p"}}],
        scope="https://u:pw@h", error="Bearer " + "a" * 16, redactions=9,
    ))  # fmt: skip
    assert given.attributes == {
        "password": PUT, "secret": 0, "x.secret": 0.5, "api_key": "", "cookie": None, "x.token": {"api_key": PUT,
            "n": 0,
            "passwd": False, "secret": ""},
    }  # fmt: skip
    assert given.events[0]["attributes"] == {"authorization": PUT} and given.links[0]["attributes"] == {"password": PUT}
    assert (given.scope, given.error, given.redactions) == (f"https://{PUT}@h", PUT, 6)
    assert json.loads(found) == given.body()
    deep: Any = "end"
    for _ in range(65):
        deep = [deep]
    for levels, kept in ((deep, deep), ([deep], FAILED)):
        Redactor(["never"]).redact(made := span({"x": levels, "y": "z"}))
        assert made.attributes == {"x": kept, "y": "z"} and made.redactions == (kept == FAILED)
    redactor = Redactor()
    for _ in range(2):
        redactor.redact(again := span({"http.cookie": "p", "n": 1}))
        assert again.attributes == {"http.cookie": PUT, "n": 1} and again.redactions == 1
    redactor.redact(broken := span({"x": object()}, [{"name": "e"}], "n", links=[{"a": 1}], scope="s", error=""))
    assert (broken.name, broken.scope, broken.error, broken.attributes, broken.events, broken.links,
        broken.redactions) == (
        FAILED, "", FAILED, {"redacted": FAILED}, [], [], 1,
    )  # fmt: skip
    assert redactor.redact_resource({"password": "p", "service.name": "s"}) == {"password": PUT, "service.name": "s"}
    assert redactor.redact_resource(None) == {"redacted": FAILED}  # type: ignore[arg-type]


# -- traces --


def test_a_generation_of_another_is_found_through_eight_spans_and_not_through_nine() -> None:
    for between, calls in ((7, 1), (8, 2)):
        chain = [stored("1", "generate", start=1)]
        chain += [stored(f"{n + 2:x}", "chain", f"{n + 1:x}", start=2 + n) for n in range(between)]
        chain.append(stored("ff", "generate", f"{between + 1:x}", start=50))
        assert len(trace_of("t", chain).calls) == calls


def test_a_call_has_its_label_its_empty_result_and_each_of_its_answers_once() -> None:
    said = [{"role": "assistant", "content": each} for each in ("a", "b", "a")]
    tool = {"openinference.span.kind": "TOOL", "tool.name": "inner", "output.value": "[]", "input.value": "{}"}
    spans = [
        stored("1", "generate", start=5, end=4, attributes=chat([{"role": "user", "content": "q"}], said)),
        stored("2", "tool", "1", start=6, attributes=tool, label="own", error=""),
        stored("3", "retrieve", "1", start=7, attributes=tool),
        stored("4", "rerank", "1", start=8),
        stored("5", "guard", "1", start=9, end=3),
    ]
    trace = trace_of("t", spans)
    assert [(each.parent, each.message.text) for each in trace.nodes] == [(None, "q"), (0, "a"), (0, "b")]
    first, *calls = trace.calls
    assert (first.at, first.nodes, first.duration_s, first.error) == (0, (1, 2), 0.0, None)
    assert [(call.at, call.detail, call.error) for call in calls] == [
        (2, {"name": "own", "arguments": {}, "result": "[]", "is_error": True, "span": "2"}, ""),
        (2, {"name": "inner", "arguments": {}, "result": "[]", "is_error": False, "span": "3"}, None),
        (2, {"name": "n4", "arguments": "", "result": "", "is_error": False, "span": "4"}, None),
    ]
    (event,) = trace.events
    assert (event.kind, event.at_s, event.data) == ("guard", 4e-9, {"name": "n5", "span": "5", "took_s": 0.0})
    assert trace.duration_s == 8e-9 and trace.task_id == "t" and trace.benchmark == "traces"


def test_the_last_generation_answers_and_the_first_asks_whatever_came_first() -> None:
    spans = [
        stored("3", "generate", "1", start=30, attributes=chat([{"role": "user", "content": "later"}],
            [{"role": "assistant", "content": " "}])),
        stored("2", "generate", "1", start=20, end=90, attributes=chat(
            [{"role": "system", "content": "be"}, {"role": "user", "content": "before"}, {"role": "assistant",
                "content": "hm"},
             {"role": "user", "content": "why?"}], [{"role": "assistant", "content": "so"}])),
        stored("1", "chain", "0", start=10, error="", resource={"service.name": 0}),
        stored("4", "generate", "1", start=25, attributes=chat([{"role": "user", "content": "mid"}],
            [{"role": "assistant", "content": "mid"}])),
        stored("5", "tool", "1", start=40, attributes={"session.id": 0, "openinference.span.kind": "TOOL",
            "output.value": "\ud800"}),
        stored("6", "span", "1", attributes={"session.id": "s"}, resource={"service.name": "shop"}, error="late"),
    ]  # fmt: skip
    assert question_of(spans) == "why?"
    trace = trace_of("t", spans)
    assert (trace.answer, trace.stop_reason, trace.error and trace.error.message) == ("mid", "error", "")
    assert (trace.started_at, trace.duration_s, trace.agent["name"]) == ("1970-01-01T00:00:00+00:00", 80e-9, "shop")
    assert [(call.kind, call.id, call.started_s) for call in trace.calls] == [
        ("generate", ":0", 10e-9), ("generate", ":1", 15e-9), ("generate", ":2", 20e-9), ("tool", ":3", 30e-9),
    ]  # fmt: skip
    assert [(event.kind, event.at_s) for event in trace.events] == [("error", 0.0), ("error", 0.0)]
    assert task_row("t", spans) == {
        "id": "t", "question": "why?", "answer": "mid", "system": "be", "history": "user: before\nassistant: hm",
            "cluster": "0",
        "name": "n3", "error": "", "conversation": [
            {"role": "system", "content": "be"}, {"role": "user", "content": "before"},
            {"role": "assistant", "content": "hm"},
        ],
    }  # fmt: skip
    assert task_row("u", spans[4:5])["cluster"] == "0" and trace_of("t", []).answer is None


def test_a_summary_is_of_the_earliest_root_and_its_own_service() -> None:
    summary = TraceSummary("t")
    one = IncomingSpan("t", "1", "p", "low", 5, 9, error="")
    summary.add(one, SpanFacts("rerank", "m", 1, 1, 1, 1.0, tags=("a|b", "a b", "")), "low's")
    summary.add(
        IncomingSpan("t", "2", "", "root", 7, 3), SpanFacts("embed", "e", 2, 1, 0, 0.5, input=lambda: "", error=""), ""
    )
    assert (summary.service, summary.name, summary.num_errors, summary.model) == ("low's", "root", 2, "e")
    summary.add(
        IncomingSpan("t", "3", "", "first", 6, MOST_NS + 1),
        SpanFacts("generate", "g", 3, 1, 4, 0.25, input="x" * 301),
        "own",
    )
    assert (summary.service, summary.name, summary.model, summary.input, summary.last_ns) == (
        "own",
        "first",
        "e",
        "x" * 300,
        MOST_NS,
    )
    assert (summary.prompt_tokens, summary.cached_tokens, summary.completion_tokens, summary.cost_usd) == (
        6,
        3,
        5,
        1.75,
    )
    assert (summary.first_ns, summary.tags, summary.num_spans) == (5, "|a b||", 3)
    placed = arranged(
        [stored("2", "span", "1", start=3), stored("1", "span", "2", start=3), stored("3", "span", "2", start=9)]
    )
    assert [(each.number, each.depth, each.parent) for each in placed] == [(0, 0, -1), (1, 1, 0), (2, 1, 0)]


def test_an_attribute_of_protobuf_or_json_is_nested_64_deep_and_no_deeper() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def nested(levels: int, is_list: bool) -> tuple[Any, Any, Any]:
        """What is read of an attribute with a 5 below so many levels from protobuf and JSON, and what is expected."""
        request = ExportTraceServiceRequest()
        made = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"a" * 16, span_id=b"b" * 8)
        value = made.attributes.add(key="k").value
        for _ in range(levels):
            value = value.array_value.values.add() if is_list else value.kvlist_value.values.add(key="x").value
        value.int_value = 5
        (found,), _ = spans_of_request(request)
        told: Any = {"intValue": "5"}
        for _ in range(levels):
            told = (
                {"arrayValue": {"values": [told]}}
                if is_list
                else {"kvlistValue": {"values": [{"key": "x", "value": told}]}}
            )
        one = {"traceId": T, "spanId": S, "attributes": [{"key": "k", "value": told}]}
        (read,), _ = decode_json(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}).encode())
        expected: Any = 5 if levels <= 64 else "[nested too deep]"
        for _ in range(min(levels, 65)):
            expected = [expected] if is_list else {"x": expected}
        return found.attributes, read.attributes, {"k": expected}

    for levels in (0, 1, 63, 64, 65, 70):
        for is_list in (True, False):
            found, read, expected = nested(levels, is_list)
            assert found == expected == read, (levels, is_list)
