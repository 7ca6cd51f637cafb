"""Requests of OTLP: what is decoded of them in both encodings, how each is answered, and how spans are sent and written."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.datastructures import Headers

import otlp_requests as otlp
from firsthand.errors import ConfigError, DataError
from firsthand.ingest import otlp_door
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan
from firsthand.ingest.otlp_door import OtlpDoor, refused, shows_key
from firsthand.ingest.otlp_environment import pairs_of
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf, free_name
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.request_bounds import check_json_values, check_protobuf_values
from firsthand.ingest.span_sender import OtlpSender, _value, otlp_json
from firsthand.ingest.span_writer import MAX_MEMBERS, MAX_REQUEST_BYTES, SpanWriter, WriteOutcome, inflated
from firsthand.ingest.trace_store import SpanPreparer, TraceStore

T, S, P = "0a" * 16, "0b" * 8, "0c" * 8


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


@pytest.fixture
def writer(store: TraceStore) -> Iterator[SpanWriter]:
    made = SpanWriter(store, SpanPreparer(Redactor()))
    yield made
    made.close()


def packed(body: dict[str, Any]) -> bytes:
    """The request in protobuf; its ids in hex become bytes."""

    def based(value: Any) -> Any:
        if isinstance(value, list):
            return [based(each) for each in value]
        if isinstance(value, dict):
            ids = ("traceId", "spanId", "parentSpanId")
            return {
                key: base64.b64encode(bytes.fromhex(held)).decode() if key in ids else based(held)
                for key, held in value.items()
            }
        return value

    made: bytes = ParseDict(based(body), ExportTraceServiceRequest()).SerializeToString()
    return made


def request(*spans: Any, **more: Any) -> dict[str, Any]:
    return otlp.request(*spans, **more)


FULL = {
    "traceId": T, "spanId": S, "parentSpanId": P, "name": "n", "kind": 3, "startTimeUnixNano": "5", "endTimeUnixNano": "9",
    "attributes": otlp.pairs({"s": "x", "e": "", "b": False, "i": -7, "d": 0.5, "l": [1, ["y"]], "m": {"k": {"z": True}}})
    + otlp.pairs({"s": "again"}) + otlp.pairs({"s": 3}) + [{"key": "none"}, {"key": "raw", "value": {"bytesValue": "AQI="}}],
    "events": [{"name": "ev", "timeUnixNano": "6", "attributes": otlp.pairs({"a": 1})}],
    "links": [{"traceId": "0d" * 16, "spanId": "0e" * 8, "attributes": otlp.pairs({"c": 2})}],
    "status": {"code": 2, "message": "m"},
}  # fmt: skip


def test_a_request_is_decoded_whole_in_both_encodings() -> None:
    attributes = {
        "s": "x", "e": "", "b": False, "i": -7, "d": 0.5, "l": [1, ["y"]], "m": {"k": {"z": True}}, "s#2": "again", "s#3": 3,
        "none": None, "raw": "AQI=",
    }  # fmt: skip
    whole = IncomingSpan(
        T, S, P, "n", 5, 9, attributes, [{"name": "ev", "at_ns": 6, "attributes": {"a": 1}}],
        [{"trace_id": "0d" * 16, "span_id": "0e" * 8, "attributes": {"c": 2}}], {"service.name": "shop"}, "tests", 3, "m",
    )  # fmt: skip
    root = {"traceId": T, "spanId": P, "parentSpanId": "0" * 16, "status": {"code": 1, "message": "fine"}}
    failed = {"traceId": T, "spanId": "0f" * 8, "status": {"code": 2}}
    lost = [{"traceId": "0" * 32, "spanId": S}, {"traceId": T, "spanId": "0" * 16}, {"traceId": T, "spanId": S + "00"}]
    body = request(FULL, root, failed, *lost)
    body["resourceSpans"].append({"scopeSpans": [{"spans": [{"traceId": T, "spanId": S, "name": "bare"}]}, {}]})
    plain = {"resource": {"service.name": "shop"}, "scope": "tests"}
    rest = [
        IncomingSpan(T, P, "", "", 0, 0, **plain),  # type: ignore[arg-type]
        IncomingSpan(T, "0f" * 8, "", "", 0, 0, error="", **plain),  # type: ignore[arg-type]
        IncomingSpan(T, S, "", "bare", 0, 0),
    ]
    assert decode_json(json.dumps(body).encode()) == ([whole, *rest], 3)
    assert decode_protobuf(packed(body)) == ([whole, *rest], 3)
    loud = json.loads(json.dumps(body).replace(T, T.upper()).replace(S, S.upper()))
    assert decode_json(json.dumps(loud).encode())[0][0].trace_id == T


def test_odd_values_of_json_are_read_as_far_as_they_mean_something() -> None:
    def decoded(**changes: Any) -> IncomingSpan:
        (found,), _ = decode_json(json.dumps(request({"traceId": T, "spanId": S} | changes)).encode())
        return found

    def read(**value: Any) -> Any:
        return decoded(attributes=[{"key": "k", "value": value}]).attributes["k"]

    assert [read(intValue=each) for each in ("12", 1.9, "x", None, "1" * 40, "1" * 41)] == [
        12, 1, "x", "", int("1" * 40), "1" * 41,
    ]  # fmt: skip
    assert [read(doubleValue=each) for each in ("0.5", 2, "x", None)] == [0.5, 2.0, "x", ""]
    assert [read(stringValue=None), read(stringValue=5), read(boolValue=1), read(unknown=1, intValue=2), read()] == [
        "", "5", True, 2, None,
    ]  # fmt: skip
    assert read(arrayValue={"values": [{"intValue": 1}, None, {}]}) == [1, None] and read(arrayValue=5) == []
    assert read(kvlistValue={"values": [{"key": "a", "value": {"intValue": 1}}, {"key": "b"}]}) == {"a": 1, "b": None}

    def deep(levels: int) -> Any:
        value: Any = {"intValue": 1}
        for _ in range(levels):
            value = {"arrayValue": {"values": [value]}}
        return value

    assert "nested too deep" not in str(read(**deep(64))) and "[nested too deep]" in str(read(**deep(65)))
    numbers = decoded(startTimeUnixNano=-1, endTimeUnixNano=str(1 << 64), kind=9)
    assert (numbers.start_ns, numbers.end_ns, numbers.kind) == (0, (1 << 64) - 1, 5)
    codes = {2: "m", "2": "m", "STATUS_CODE_ERROR": "m", 1: None, "x": None, None: None}
    assert {code: decoded(status={"code": code, "message": "m"}).error for code in codes} == codes
    assert decoded(parentSpanId="xyz").parent_id == "" and decoded(parentSpanId=P.upper()).parent_id == P
    for body, said in (
        (b"\xff", r"the body is not valid UTF-8 \(byte 0\)"),
        (b"{", "the body is no JSON: "),
        (b"[]", 'an object with a list "resourceSpans" was expected'),
        (b'{"resourceSpans": {}}', 'an object with a list "resourceSpans" was expected'),
    ):
        with pytest.raises(DataError, match=said):
            decode_json(body)
    assert decode_json(b"{}") == ([], 0) and decode_protobuf(b"") == ([], 0)
    with pytest.raises(DataError, match="the body is no OTLP request in protobuf: "):
        decode_protobuf(b"\x0a\xff")
    taken: dict[str, Any] = {"k": 1, "k#2": 2}
    assert [free_name("k", taken, numbers_of) for numbers_of in ({}, {"k": 5})] == ["k#3", "k#6"]
    times = IncomingSpan(T, S, "", "n", 1, MOST_NS + 1, {"a": 1}, scope="s", kind=2)
    assert times.body() == {"attributes": {"a": 1}, "scope": "s", "kind": 2, "times": [1, MOST_NS + 1]}
    assert IncomingSpan(T, S, "", "n", MOST_NS, MOST_NS).body() == {"attributes": {}}


def test_values_are_counted_up_to_exactly_the_bound() -> None:
    check_json_values(b'{"a": [1, 2, "[,{"]}', 4)
    with pytest.raises(DataError, match="the request holds more than 3 values: send less at once"):
        check_json_values(b'{"a": [1, 2, "[,{"]}', 3)
    descriptor = ExportTraceServiceRequest.DESCRIPTOR
    # three resources with one scope each, and 10 unknown numbers of two bytes: 6 fields with a length, 16 fields
    raw = b"\x0a\x02\x12\x00" * 3 + b"\x78\x01" * 10
    check_protobuf_values(raw, descriptor, 6)
    with pytest.raises(DataError, match="more than 5 values"):
        check_protobuf_values(raw, descriptor, 5)
    numbers = b"\x78\x01" * 40
    check_protobuf_values(numbers, descriptor, 10)
    with pytest.raises(DataError, match="more than 9 values"):
        check_protobuf_values(numbers, descriptor, 9)
    long = b"\x0a\xac\x02" + b"\x12\x00" * 150  # a length of two bytes: 300
    check_protobuf_values(long, descriptor, 151)
    with pytest.raises(DataError, match="more than 150 values"):
        check_protobuf_values(long, descriptor, 150)
    check_protobuf_values(b"\x79" + bytes(8) + b"\x7d" + bytes(4) + b"\x0a" * 3 + b"\xff", descriptor, 1)


# -- the door --


def asked(door: OtlpDoor, *pieces: bytes, method: str = "POST", path: str = "/v1/traces", **headers: str) -> Any:
    """Status, headers and body of the answer."""
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces[:-1]]
    messages.append({"type": "http.request", "body": pieces[-1]} if pieces else {"type": "http.disconnect"})
    given = {"host": "here", "content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": [(k.encode(), v.encode()) for k, v in given.items() if v],
    }
    asyncio.run(door(scope, receive, send))
    assert door._arriving == 0
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, sent[1]["body"]


async def beyond(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"beyond"})


def test_each_request_is_answered_with_its_status_and_code(store: TraceStore, writer: SpanWriter) -> None:
    door = OtlpDoor(beyond, writer, lambda host: host == "here", key="key")
    body, key = json.dumps(request(FULL)).encode(), {"x_api_key": "key"}
    assert asked(door, path="/v1/trace")[2] == b"beyond"
    for path in otlp_door.PATHS:
        status, headers, answer = asked(door, body[:9], body[9:], path=path, **key)
        assert (status, answer, headers["content-type"]) == (200, b'{"partialSuccess": {}}', "application/json")
    packing = {"gzip": gzip.compress(body), " Deflate ": zlib.compress(body), "identity": body}
    assert [asked(door, each, content_encoding=name, **key)[0] for name, each in packing.items()] == [200] * 3
    bad = json.dumps(request({"traceId": "x"}, {"spanId": S})).encode()
    why = "spans without valid ids were left out"
    assert json.loads(asked(door, bad, **key)[2]) == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": why}}
    protobuf = {"content_type": "Application/X-Protobuf; v=1", **key}
    status, headers, answer = asked(door, packed(request(*[{"name": "none"}] * 300)), **protobuf)
    told = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, told.rejected_spans, told.error_message) == (200, 300, why)
    assert asked(door, packed(request(FULL)), **protobuf)[2] == b""
    large = "the request is larger than 128 MiB: send less at once"
    refusals: list[tuple[int, int, str, dict[str, str]]] = [
        (421, 5, "this is not the address of the Studio", {"host": "there"}),
        (403, 7, "pages of the web may not send spans", {"origin": "null"}),
        (403, 7, "pages of the web may not send spans", {"sec_fetch_site": "same-origin"}),
        (405, 12, "spans are sent with POST", {"method": "GET"}),
        (
            401,
            16,
            "send the key that the Studio was started with, as `Authorization: Bearer KEY`",
            {"x_api_key": "kez"},
        ),
        (415, 3, "Content-Type is application/x-protobuf or application/json", {"content_type": "text/plain"}),
        (415, 3, "Content-Encoding is gzip, deflate or none", {"content_encoding": "br"}),
        (413, 8, large, {"content_length": str(MAX_REQUEST_BYTES + 1)}),
        (413, 8, large, {"content_length": "-1"}),
        (413, 8, large, {"content_length": "0" * 16}),
    ]
    for status, code, said, changes in refusals:
        found, headers, answer = asked(door, b"", **key | changes)
        assert (found, json.loads(answer)) == (status, {"code": code, "message": said})
        assert headers.get("connection") == ("close" if status in (403, 413, 421) else None)
        assert headers.get("allow") == ("POST" if status == 405 else None)
    assert asked(door, body, sec_fetch_site="none", content_length=str(MAX_REQUEST_BYTES), **key)[0] == 200
    assert asked(door, **key)[::2] == (400, b'{"code": 3, "message": "the connection was closed"}')
    status, _, answer = asked(door, b"\x0a\xff", **protobuf)
    assert status == 400 and answer[:2] == b"\x08\x03" and b"no OTLP request" in answer
    assert refused("protobuf", 503, "é").body == b"\x08\x0e\x12\x02\xc3\xa9" and refused(None, 599, "x").body == (
        b'{"code": 2, "message": "x"}'
    )
    assert refused("json", 503, "x").headers["retry-after"] == "2"


def test_what_arrives_at_once_is_bounded_by_exactly_its_limits(
    writer: SpanWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = OtlpDoor(beyond, writer, lambda host: True)
    monkeypatch.setattr(otlp_door, "MAX_REQUEST_BYTES", 100)
    assert asked(door, b"{}" + b" " * 49, b" " * 49)[0] == 200 and asked(door, b"{}" + b" " * 49, b" " * 50)[0] == 413
    monkeypatch.setattr(otlp_door, "MAX_WAITING_BYTES", 60)
    assert asked(door, b"{}" + b" " * 58)[0] == 200
    assert asked(door, b"{}" + b" " * 59)[::2] == (
        503, b'{"code": 14, "message": "too much arrives at once: send it again later"}',
    )  # fmt: skip
    writer.close()
    assert asked(door, b"{}")[::2] == (503, b'{"code": 14, "message": "too many requests wait: send it again later"}')


def test_a_key_is_shown_in_each_way_in_which_sdks_send_one() -> None:
    def shown(**headers: str) -> bool:
        return shows_key(Headers({key.replace("_", "-"): value for key, value in headers.items()}), "ké")

    basic = base64.b64encode("user:ké".encode()).decode()
    assert shown(x_api_key="ké") and shows_key(Headers({"api_key": "k"}), "k")
    assert shows_key(Headers({"authorization": "BEARER  k "}), "k") and shown(authorization=f"basic {basic}")
    assert not any(
        (shown(), shown(x_api_key="k"), shown(authorization="k"), shows_key(Headers({"authorization": "Token k"}), "k"))
    )
    assert not shown(authorization="Basic " + base64.b64encode(b"k:user").decode())
    assert not shown(authorization="Basic !")
    assert not shows_key(Headers({"authorization": "Bearer "}), "") and not shows_key(Headers({}), "")


# -- writing and sending --


def test_requests_are_inflated_member_by_member_within_bounds() -> None:
    one = gzip.compress(b"ab")
    assert inflated(b"x", "") == inflated(b"x", "identity") == b"x" and inflated(b"", "gzip") == b""
    assert inflated(one * MAX_MEMBERS, "gzip") == b"ab" * MAX_MEMBERS
    assert inflated(zlib.compress(b"ab"), "deflate") == b"ab"
    for raw, encoding, said in (
        (one * (MAX_MEMBERS + 1), "gzip", "the body has more than 1000 members of gzip: send it in one"),
        (one[:-1], "gzip", "the body is cut short: whole gzip was expected"),
        (zlib.compress(b"ab")[:-1], "deflate", "the body is cut short: whole deflate was expected"),
        (one, "deflate", "the body is no deflate: "),
        (one + b"x", "gzip", "the body is (no gzip|cut short)"),
    ):
        with pytest.raises(DataError, match=said):
            inflated(raw, encoding)  # type: ignore[arg-type]


def test_the_writer_tells_each_request_its_own_end(store: TraceStore) -> None:
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    outcomes: dict[int, WriteOutcome] = {}
    hold = threading.Event()

    def first() -> Any:
        hold.wait(10)
        return decode_json(json.dumps(request(FULL, {})).encode())

    def failing(error: Exception | type[Exception]) -> Any:
        def decode() -> Any:
            raise error

        return decode

    bodies = [first, failing(DataError("bad")), failing(MemoryError), failing(KeyError("x")), lambda: ([], 4)]
    for number, decode in enumerate(bodies):
        assert writer.submit_spans(decode, 10, lambda outcome, number=number: outcomes.update({number: outcome}))  # type: ignore[misc]
    hold.set()
    writer.close()
    assert outcomes == {
        0: WriteOutcome(1, 1),
        1: WriteOutcome(problem="bad"),
        2: WriteOutcome(problem="the request needs more memory than there is: send less at once"),
        3: WriteOutcome(problem="the request cannot be read (KeyError)"),
        4: WriteOutcome(0, 4),
    }
    assert writer._size == 0 and not writer.submit(b"{}", "json", "", lambda outcome: None)
    assert len(store.spans(T)) == 1


def test_spans_are_sent_as_they_would_be_received() -> None:
    (span,), _ = decode_json(json.dumps(request(FULL | {"kind": 0, "links": [], "attributes": []})).encode())
    span.attributes = {"s": "x", "b": True, "i": -(2**63), "big": 2**63, "f": 0.5, "nan": float("nan"), "n": None}
    (again,), rejected = decode_json(json.dumps(otlp_json([span], "shop")).encode())
    assert rejected == 0 and again == IncomingSpan(
        T, S, P, "n", 5, 9, span.attributes | {"big": str(2**63), "nan": "nan", "n": "None"}, span.events, [],
        {"service.name": "shop", "telemetry.sdk.language": "python", "telemetry.sdk.name": "firsthand"},
        "firsthand.traced", 1, "m",
    )  # fmt: skip
    bare = otlp_json([IncomingSpan(T, S, "", "n", 5, 9, kind=4)], "shop")["resourceSpans"][0]["scopeSpans"][0]["spans"][
        0
    ]
    assert "parentSpanId" not in bare and (bare["status"], bare["kind"], bare["startTimeUnixNano"]) == ({}, 4, "5")
    assert _value(2**63 - 1) == {"intValue": str(2**63 - 1)} and _value(float("-inf")) == {"stringValue": "-inf"}
    assert pairs_of(" a = b%20c ,x,d=e=f,") == {"a": "b c", "d": "e=f"} and pairs_of("") == {}


def test_an_address_gets_the_path_of_otlp_where_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2")
    urls = {"http://h": "http://h/v1/traces", "http://h/": "http://h/v1/traces", "https://h:1/x": "https://h:1/x"}
    assert {url: OtlpSender(url, "s", {}).url for url in urls} == urls
    assert OtlpSender("http://h", "s", {"b": "3"})._headers == {"a": "1", "b": "3"}
    for url in ("h", "ftp://h", "http://"):
        with pytest.raises(ConfigError, match="give an address such as"):
            OtlpSender(url, "s", {})


def test_a_batch_is_sent_again_only_where_that_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    from firsthand.ingest import span_sender

    monkeypatch.setattr(span_sender.time, "sleep", lambda seconds: None)
    sender = OtlpSender("http://h", "s", {"x": "y"})
    span = IncomingSpan(T, S, "", "n", 5, 9)

    def sent(*answers: int) -> tuple[bool, int]:
        came: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            came.append(request)
            if (status := answers[min(len(came), len(answers)) - 1]) == 0:
                raise httpx.ConnectError("refused")
            return httpx.Response(status)

        with httpx.Client(transport=httpx.MockTransport(answer)) as client:
            taken = sender._sent(client, [span])
        head = came[0].headers
        assert (head["content-type"], head["content-encoding"], head["x"]) == ("application/json", "gzip", "y")
        assert json.loads(gzip.decompress(came[-1].content)) == otlp_json([span], "s")
        return taken, len(came)

    assert [sent(200), sent(299), sent(300), sent(400), sent(503, 200), sent(429, 502, 504), sent(0, 0, 200)] == [
        (True, 1), (True, 1), (False, 1), (False, 1), (True, 2), (False, 3), (True, 3),
    ]  # fmt: skip
