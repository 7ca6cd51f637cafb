"""Limits and addresses of received and sent spans, each on a small case: fields, members, keys, rules, targets, queues."""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.datastructures import Headers

from firsthand.errors import ConfigError, DataError, MissingExtra, StoreError
from firsthand.ingest import recording, span_sender, span_writer
from firsthand.ingest.alert_delivery import check_target
from firsthand.ingest.alert_rules import AlertRule
from firsthand.ingest.cold_segments import check_cold
from firsthand.ingest.dialects.span_facts import number_of
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.intake import IntakeSettings, parse_alerts
from firsthand.ingest.otlp_door import shows_key
from firsthand.ingest.otlp_grpc import serve_grpc
from firsthand.ingest.otlp_protobuf import decode_protobuf
from firsthand.ingest.recording import flush_traces, trace_to
from firsthand.ingest.redaction import _fast_encoder
from firsthand.ingest.request_bounds import check_json_values, check_protobuf_values
from firsthand.ingest.span_sender import OtlpSender, RunRecorder, otlp_json
from firsthand.ingest.span_writer import inflated
from firsthand.ingest.task_rows import write_tasks
from firsthand.system import trace_context
from firsthand.system.protobuf_values import _nested, varint
from firsthand.system.trace_context import TraceParent
from firsthand.tools.web.addresses import parse_rules

# -- requests --


def test_fields_are_counted_through_each_level_and_kind() -> None:
    message = ExportTraceServiceRequest.DESCRIPTOR

    def most(raw: bytes) -> int:
        """The least bound under which the bytes pass."""
        return next(bound for bound in range(len(raw) + 1) if _passes(raw, message, bound))

    def field(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    span = field(1, bytes(16)) + field(2, bytes(8)) + b"\x39" + bytes(8) + b"\x85\x01\x00\x00\x00\x00" + b"\x30\x81\x01"
    scope = field(2, field(2, span))
    assert most(field(1, scope)) == 5, "resource_spans, scope_spans, spans and two ids"
    assert most(field(1, scope + scope)) == 9 and most(field(1, scope) * 2) == 10
    assert most(field(1, b"")) == 1 and most(field(9, scope)) == 1, "a field of no known message is not looked into"
    assert most(b"\x78\x01" * 16) == 4 and most(b"\x7d" + bytes(4)) == 1 and most(b"\x79" + bytes(8)) == 1
    assert _passes(b"\x0a\x00\x0a", message, 1) and _passes(b"\x0a\x00\x78\xff", message, 1), "cut short"
    assert not _passes(b"\x0a\x7f" + field(2, b"") * 3, message, 3), "its length is more than there is"
    assert most(field(1, b"\x12\x64") + field(3, b"xyz") * 3) == 5, "what is too long ends with what it lies in"
    assert (
        varint(b"\x05\x07", 1) == (7, 2)
        and varint(b"\x00\x80\x01", 1) == (128, 3)
        and varint(b"\xac\x02\xff", 0) == (300, 2)
    )
    assert varint(b"\xff" * 12, 0)[1] == 10, "no number is longer than ten bytes"
    with pytest.raises(IndexError):
        varint(b"\xff", 0)
    assert {number: held.name for number, held in _nested(message).items()} == {1: "ResourceSpans"}
    said = "the request holds more than 1,000 values: send less at once"
    for check, raw in ((lambda raw: check_protobuf_values(raw, message, 1000), field(1, b"") * 1001),
                       (lambda raw: check_json_values(raw, 1000), b"[" + b"1," * 1000 + b"1]")):  # fmt: skip
        with pytest.raises(DataError) as refused:
            check(raw)
        assert str(refused.value) == said
    check_json_values(b'{"a": "' + b"[{," * 100 + b'\\"' + b"," * 9 + b'"}', 1)
    for raw, count in ((b"[1,2]", 2), (b"{}", 1), (b'"[" [', 1), (b'"a', 0), (b'["\\\\", {}]', 3)):
        check_json_values(raw, count)
        if count:
            with pytest.raises(DataError):
                check_json_values(raw, count - 1)


def _passes(raw: bytes, message: Any, most: int) -> bool:
    try:
        check_protobuf_values(raw, message, most)
    except DataError:
        return False
    return True


def test_bodies_are_inflated_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_writer, "MAX_REQUEST_BYTES", 3 << 20)
    large = bytes(3 << 20)
    assert inflated(gzip.compress(large), "gzip") == large and inflated(zlib.compress(large), "deflate") == large
    for raw, encoding in ((gzip.compress(large + b"x"), "gzip"), (gzip.compress(large) + gzip.compress(b"x"), "gzip")):
        with pytest.raises(DataError, match="the request is larger than 3 MiB: send less at once"):
            inflated(raw, encoding)  # type: ignore[arg-type]
    hard = os.urandom(200_000)
    assert inflated(gzip.compress(hard) + gzip.compress(b"y"), "gzip") == hard + b"y", "members end within a part"
    assert inflated(b"", "deflate") == b"" and inflated(large + b"x", "identity") == large + b"x"
    with pytest.raises(DataError, match="the body is no gzip: "):
        inflated(b"plain text", "gzip")


def test_a_key_is_compared_as_it_was_sent() -> None:
    def shown(key: str = "a:b", **headers: str) -> bool:
        return shows_key(Headers({name.replace("_", "-", 2): value for name, value in headers.items()}), key)

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert shown(authorization="bearer a:b ") and shown(x_api_key="a:b") and shows_key(Headers({"api_key": "k"}), "k")
    assert shown(authorization=basic("user:a:b")), "the password begins at the first colon"
    assert shown(x_api_key="no", authorization="Bearer a:b") and shown(x_api_key="a:b", authorization="Bearer no")
    for headers in ({"authorization": "a:b"}, {"authorization": "Digest a:b"}, {"authorization": basic("a:b")},
                    {"x_api_key": "A:B"}, {"authorization": "Basic a:b"}, {"x_key": "a:b"}, {},
                    {"x_api_key": "a:b", "authorization": "Basic %"}):  # fmt: skip
        assert not shown(**headers), headers
    assert [number_of(each) for each in (0, "0", -0.0, " 1e3 ", "-1", "1_0", 5, False, [1], {})] == [
        0.0, 0.0, 0.0, 1000.0, None, 10.0, 5.0, None, None, None,
    ]  # fmt: skip


# -- rules and targets --


def test_rules_are_read_with_any_blanks_and_refused_in_a_sentence(tmp_path: Path) -> None:
    assert AlertRule.parse(" p95_seconds  < 2e1 / 10M ") == AlertRule(
        "p95_seconds  < 2e1 / 10M", "p95_seconds", "<", 20.0, 600.0
    )
    assert AlertRule.parse("score.a-b.c_1~0.5/1w") == AlertRule(
        "score.a-b.c_1~0.5/1w", "score.a-b.c_1", "~", 0.5, 604_800.0
    )
    assert [rule.metric for rule in parse_alerts(("tokens>-1/1h", "spans>0/1h"))] == [
        "tokens",
        "spans",
    ] and parse_alerts(()) == ()
    form = "write METRIC>VALUE/WINDOW or METRIC~SIGMAS/WINDOW, as in errors>0.1/1h"
    metrics = "the metrics are traces, errors, seconds, p95_seconds, tokens, cost, spans and score.NAME"
    for text, said in (
        ("errors=1/1h", f"alert is 'errors=1/1h': {form}"), ("errors>1", f"alert is 'errors>1': {form}"),
        ("x" * 90, f"alert is '{'x' * 80}': {form}"), ("speed>1/1h", f"alert asks for 'speed': {metrics}"),
        *((f"{metric}>0.1/1h", f"alert asks for {metric!r}: {metrics}")
          for metric in ("score", "score.", "scores", "scorer.x", "score-x", "Score.x", "my.score.x", "Errors", "error")),
        ("errors>1e/1h", "alert is 'errors>1e/1h': '1e' is no number that can be compared with"),
        ("errors>1e999/1h", "alert is 'errors>1e999/1h': '1e999' is no number that can be compared with"),
        ("errors~0/1h", "alert is 'errors~0/1h': '0' is no number that can be compared with"),
        ("errors~-1/1h", "alert is 'errors~-1/1h': '-1' is no number that can be compared with"),
        ("errors>1/5s", "the window of an alert is '5s': give a number with m, h, d or w, as in 30d"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            AlertRule.parse(text)
        assert str(refused.value) == said
    assert AlertRule.parse("score.x>0/1h").metric == "score.x" and AlertRule.parse("score..<0/1h").metric == "score.."
    assert AlertRule.parse("errors>0/1h").bound == 0.0 and AlertRule.parse("errors<-1/1h").bound == -1.0
    rules = parse_rules("", "443+8080")
    for target in (str(tmp_path / "new"), "https://h.example/x", "http://h.example:8080"):
        check_target(target, rules)
    for target, port in (("http://h.example/x", 80), ("https://h.example:444", 444)):
        with pytest.raises(ConfigError) as refused:
            check_target(target, rules)
        assert str(refused.value) == f"alert_to was refused: port {port} may not be used: 443, 8080 may"
    with pytest.raises(ConfigError) as refused:
        check_target(str(tmp_path / "no" / "x"), rules)
    assert (
        str(refused.value)
        == f"alert_to is {str(tmp_path / 'no' / 'x')!r}: give a file in a folder that is there, or http(s)://..."
    )


def test_tasks_are_written_beside_their_benchmark_and_over_nothing(tmp_path: Path) -> None:
    rows = [{"id": "1", "answer": "é"}, {"id": "2"}]
    assert write_tasks(tmp_path / "set one.toml", rows, 'ex"act') == 2
    assert (tmp_path / "set one.jsonl").read_text() == '{"id": "1", "answer": "\\u00e9"}\n{"id": "2"}\n'
    assert (tmp_path / "set one.toml").read_text() == (
        'data = "set one.jsonl"\nprompt = "{question}"\ntarget = "{answer}"\nid = "{id}"\ncluster = "{cluster}"\n'
        'scorer = ["ex\\"act"]\ndescription = "Tasks of recorded traces; the expected answer is what was recorded."\n'
    )
    for name, there in (("set one.jsonl", "set one.jsonl"), ("b.toml", "b.jsonl"), ("c.toml", "c.toml")):
        (tmp_path / there).touch()
        with pytest.raises(StoreError) as refused:
            write_tasks(tmp_path / name, rows, "x")
        assert str(refused.value) == f"{tmp_path / there} is there already: give another file, or remove it"
    assert not (tmp_path / "b.toml").exists() and not (tmp_path / "c.jsonl").exists()
    with pytest.raises(ConfigError) as wrong:
        write_tasks(tmp_path / "d.txt", rows, "x")
    assert str(wrong.value) == (
        f"out is {str(tmp_path / 'd.txt')!r}: give a file .toml (a benchmark with its rows) or .jsonl (the rows)"
    )


# -- sending --


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recording, "_destination", recording._Destination())
    for name in (
        "OTEL_SERVICE_NAME",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SDK_DISABLED",
    ):
        monkeypatch.delenv(name, raising=False)
    yield
    flush_traces(0.1)


def test_a_destination_is_an_address_or_a_folder(unset: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording.sys, "argv", ["/x/shop.py"])
    destination = recording._destination
    trace_to("https://h:1/p", share=0.0, headers={"k": "v"})
    sender = destination.sink
    assert isinstance(sender, OtlpSender) and (sender.url, sender._service, sender._headers["k"]) == (
        "https://h:1/p",
        "shop",
        "v",
    )
    assert (destination.share, destination.is_set) == (0.0, True)
    trace_to(str(tmp_path / "run"), service="own")
    recorder = destination.sink
    assert isinstance(recorder, RunRecorder) and (recorder._folder, recorder._service) == (tmp_path / "run", "own")
    assert destination.share == 1.0 and not (tmp_path / "run").exists()
    trace_to(tmp_path / "other", share=1.0)
    assert isinstance(destination.sink, RunRecorder) and destination.sink._service == "shop"
    trace_to(None, share=0.5)
    assert destination.sink is None and destination.share == 0.5 and flush_traces() is True
    for target, share, said in (
        ("ftp://h", 1.0, "trace_to was given 'ftp://h': give an address http(s)://..., or a folder"),
        ("http://h", -0.01, "share is -0.01: give a share of the calls from 0 to 1"),
        ("x", 1.01, "share is 1.01: give a share of the calls from 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            trace_to(target, share=share)
        assert str(refused.value) == said
    assert recording._sink() is None, "what was set to nothing does not ask the environment"
    destination.is_set = False
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e")
    found = recording._sink()
    assert (
        isinstance(found, OtlpSender)
        and found.url == "http://e/v1/traces"
        and destination.is_set
        and destination.share == 1.0
    )
    destination.sink, destination.is_set = None, False
    monkeypatch.setenv("OTEL_SDK_DISABLED", " TRUE ")
    assert recording._sink() is None and destination.is_set


def test_what_waits_is_sent_in_batches_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "BATCH", 2)
    monkeypatch.setattr(span_sender, "EVERY_S", 0.01)
    came: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path + self.headers["x-key"], json.loads(gzip.decompress(raw))))
            self.send_response(400 if len(came) == 2 else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        sender = OtlpSender(f"http://127.0.0.1:{server.server_port}", "shop", {"x-key": "k"})
        spans = [IncomingSpan("t" * 32, f"{n:016x}", "", f"n{n}", 5, 9) for n in range(5)]
        with sender._changed:  # the thread takes none before all are there
            for each in spans:
                sender.put(each, True)
        assert sender._pid == os.getpid() and sender.flush(20.0) is True and not sender._waiting
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert came == [("/v1/tracesk", otlp_json(part, "shop")) for part in (spans[:2], spans[2:4], spans[4:])]
    assert sender.dropped == 2 and sender._sending == 0, "the second batch was refused"


def test_a_request_and_what_waits_are_bounded_by_their_texts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "MAX_BATCH_CHARS", 10)
    monkeypatch.setattr(span_sender, "MAX_WAITING_CHARS", 31)
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    sender = OtlpSender("http://127.0.0.1:9", "shop", {})
    for number, chars in enumerate((9, 1, 1, 12, 0, 8, 1, 0)):
        event = {"name": "e", "at_ns": 1, "attributes": {"x": "x" * min(chars, 1), "n": 5}}
        held = {"input.value": "x" * (chars - 1), "n": 7}
        sender.put(IncomingSpan("1" * 32, f"{number:016x}", "", "s", 1, 2, held, [event]), True)
    assert (sender.dropped, sender._waiting_chars) == (1, 31), "the seventh would have been one character too many"
    batches = []
    while batch := sender._next_batch():
        batches.append([int(each.span_id, 16) for each in batch])
    assert batches == [[0, 1], [2, 3], [4, 5, 7]] and sender._waiting_chars == 0


# -- without the extras --


def test_what_an_extra_brings_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for ask in (check_cold, lambda: IntakeSettings(cold_s=1.0)):
        with pytest.raises(MissingExtra) as missing:
            ask()
        assert str(missing.value) == str(MissingExtra("duckdb", "cold", "sealing traces into segments"))
    assert IntakeSettings(keep_s=1.0).cold_s is None
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert _fast_encoder() is None
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None)
    with pytest.raises(ConfigError) as refused:
        decode_protobuf(b"")
    assert str(refused.value) == "protobuf needs opentelemetry-proto: pip install 'firsthand[studio]'"
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError) as refused:
        serve_grpc(None, 0)  # type: ignore[arg-type]
    assert str(refused.value) == "spans over gRPC need an extra: pip install 'firsthand[studio,otlp-grpc]'"
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    trace_context.enter(None)
    assert recording._enter_opentelemetry(TraceParent(1, 2))() is None  # type: ignore[func-returns-value]
    trace, parent = recording._place(None)
    assert len(trace) == 32 and int(trace, 16) and parent == ""
