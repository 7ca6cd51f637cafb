"""Parts of the export of spans, each on a small case: sessions, queues, samplers, services, listeners, and the end."""

from __future__ import annotations

import atexit
import io
import logging
import threading
import time
from typing import Any

import pytest
import requests
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, TraceFlags

from collector import collecting
from firsthand import __version__
from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.errors import ConfigError
from firsthand.loop.listener import Began
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.system import trace_context
from firsthand.task import Task
from firsthand.telemetry import genai
from firsthand.telemetry.live_export import Sender, _whereto, sending
from firsthand.telemetry.otlp_export import (
    Telemetry,
    _exporter,
    _processor,
    _resource,
    _session,
    _short_body,
    open_telemetry,
)
from firsthand.telemetry.trace_spans import (
    Span,
    SpanEvent,
    parent_of,
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME",
        "OTEL_SDK_DISABLED", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG", genai.CAPTURE,
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def test_a_session_asks_one_address_and_reads_no_body() -> None:
    session = _session()
    with collecting(status=429, body=b"x" * 10) as collector:
        answer = session.post(collector.url + "/v1/traces", data=b"abc", headers={"a": "b"}, allow_redirects=True)
        assert (answer.status_code, answer.reason, answer.url) == (
            429,
            "Too Many Requests",
            collector.url + "/v1/traces",
        )
        assert answer.headers["content-length"] == "10" and not answer._content and not answer.ok
    with (
        collecting(redirect="http://127.0.0.1:1/") as collector,
        pytest.raises(requests.exceptions.InvalidURL) as refused,
    ):
        session.post(collector.url + "/v1/traces", data=b"abc")
    assert str(refused.value) == "the collector answered 307, a redirect: give the address it leads to"
    assert collector.requests == 1


class Wire(requests.adapters.BaseAdapter):
    """A collector's wire in memory: it keeps what was asked, and answers with a body that must not be read."""

    def __init__(self, status: int, **headers: str):
        super().__init__()
        self.status, self.headers, self.asked, self.bodies = status, headers, list[Any](), list["Unread"]()

    def send(self, request: Any, **options: Any) -> requests.Response:
        self.asked.append((request.method, request.url, request.body, options["stream"]))
        self.bodies.append(body := Unread())
        answer = requests.Response()
        answer.status_code, answer.reason, answer.url, answer.request = self.status, "So", request.url + "?", request
        answer.headers.update({key.replace("_", "-"): value for key, value in self.headers.items()})
        answer.raw = body
        return answer

    def close(self) -> None: ...


class Unread(io.BytesIO):
    def read(self, *size: Any) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize("status", [200, 307])
def test_an_answer_s_connection_is_closed_and_its_body_never_read(status: int) -> None:
    session, wire = _session(), Wire(status, location="http://other.example/", retry_after="7")
    session.mount("http://", wire)
    if status == 200:
        answer = session.post("http://c.example/v1/traces", data=b"abc", allow_redirects=True, stream=False)
        assert (answer.status_code, answer.reason, answer.url) == (200, "So", "http://c.example/v1/traces?")
        assert answer.headers == {"location": "http://other.example/", "retry-after": "7"} and answer.raw is None
    else:
        with pytest.raises(requests.exceptions.InvalidURL, match=r"^the collector answered 307, a redirect: give the"):
            session.post("http://c.example/v1/traces", data=b"abc", allow_redirects=True)
    assert wire.asked == [("POST", "http://c.example/v1/traces", b"abc", True)]
    assert [body.closed for body in wire.bodies] == [True]


class Trickle(io.BytesIO):
    """A body that comes in pieces of three bytes."""

    def read1(self, size: int | None = -1, *, decode_content: bool = True) -> bytes:
        assert size is not None and size > 0 and not decode_content
        return super().read1(min(size, 3))


def test_a_short_body_is_read_and_no_other() -> None:
    def came(body: Any, **headers: str) -> bytes:
        answer = requests.Response()
        answer.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
        answer.raw = body
        return _short_body(answer)

    assert came(Trickle(b"12345678"), content_length="8") == b"12345678" and came(Trickle(b"")) == b""
    assert came(Trickle(b"1234567"), content_length="8") == b"", "it breaks off"
    assert came(Trickle(b"x" * 65_536), content_length="65536") == b"x" * 65_536
    for headers in ({}, {"transfer_encoding": "Chunked"}):
        assert (
            came(Trickle(b"x" * 65_536), **headers) == b"x" * 65_536 and came(Trickle(b"x" * 65_537), **headers) == b""
        )
    for headers in (
        {"content_length": "65537"}, {"content_length": "-1"}, {"content_length": "٣"}, {"content_length": "9" * 5000},
        {"content_length": "2", "content_encoding": "gzip"}, {"content_length": "2", "transfer_encoding": "gzip, chunked"},
    ):  # fmt: skip
        body = Trickle(b"12")
        assert came(body, **headers) == b"" and body.tell() == 0, headers
    assert _session().headers["Accept-Encoding"] == "identity"


def test_a_session_of_ours_is_used_unless_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Exporter:
        def __init__(self, **given: Any):
            asked.append(given)

    monkeypatch.setattr("opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter", Exporter)
    names = [f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{kind}CREDENTIAL_PROVIDER" for kind in ("", "TRACES_", "LOGS_")]
    for name, value, is_ours in (
        (names[0], "", True), (names[0], "gcp", False), (names[1], "", True), (names[1], "gcp", False),
        (names[2], "x", True),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            _exporter("http://c:1/")
            _exporter(None)
        for given in asked[-2:]:
            assert (given["session"] is not None) is is_ours, (name, value)
    assert [each["endpoint"] for each in asked] == ["http://c:1/v1/traces", None] * 5
    assert len({id(each["session"]) for each in asked if each["session"]}) == 6, "each exporter has its own"


def test_a_status_of_redirects_is_refused_also_where_it_names_no_address() -> None:
    session = _session()
    told: dict[int, str] = {}
    for status in (299, 300, 304, 399, 400):
        with collecting(status=status) as collector:
            try:
                told[status] = str(session.post(collector.url + "/v1/traces", data=b"abc").status_code)
            except requests.exceptions.InvalidURL as error:
                told[status] = str(error)
        assert collector.requests == 1
    refused = {
        status: f"the collector answered {status}, a redirect: give the address it leads to"
        for status in (300, 304, 399)
    }
    assert told == {299: "299", **refused, 400: "400"}


class Told(SpanExporter):
    """An exporter that ends each request as it was told to."""

    def __init__(self, *ends: Any):
        self.ends, self.taken, self.closed = list(ends), [], 0

    def export(self, spans: Any) -> Any:
        self.taken.append([span.name for span in spans])
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def shutdown(self) -> None:
        self.closed += 1


def test_each_request_of_a_batch_is_counted_by_its_own_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, bad = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    told: list[str] = []
    monkeypatch.setattr("firsthand.telemetry.otlp_export._REQUEST_BYTES", 2 * 1024)
    telemetry = Telemetry("http://127.0.0.1:9", on_problem=told.append)
    exporter = Told(fine, ValueError("x" * 400), fine, bad, fine)
    queue = _processor(telemetry, exporter)
    for number in range(5):
        telemetry._ids.use(3, number + 1)
        span = telemetry.tracer.start_span(f"s{number}")
        queue.on_end(span)
    queue.force_flush()
    assert exporter.taken == [["s0", "s1"], ["s2", "s3"], ["s4"]], "two spans of 1,024 bytes are a request"
    assert (telemetry.ended, telemetry.sent, telemetry.failed) == (5, 3, 2)
    assert telemetry.problem == "ValueError: " + "x" * 288 and told == [f"spans cannot be sent: {telemetry.problem}"]
    context = SpanContext(3, 9, is_remote=False, trace_flags=TraceFlags(0))
    queue.on_end(ReadableSpan("left out", context=context))
    assert telemetry.ended == 5
    exporter.ends = [fine, bad, fine, fine]
    assert queue.span_exporter.export([span] * 5) is bad and queue.span_exporter.export([span]) is fine
    assert (telemetry.sent, telemetry.failed) == (7, 4)
    queue.shutdown()
    assert exporter.closed == 1
    telemetry.close()


def test_spans_are_put_below_their_parents_and_not_below_what_a_sampler_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")  # by the lower half of a trace's id
    at_exit: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(atexit, "register", lambda *given: at_exit.append(given))
        telemetry, kept = Telemetry("http://127.0.0.1:9"), InMemorySpanExporter()
    assert at_exit == [], "whoever opened it closes it, in its time"
    telemetry.tracer.span_processor.add_span_processor(SimpleSpanProcessor(kept))
    out, taken = 2**64 - 1, 7
    telemetry._put(Span("out", out, 1, None, 10, 20))
    telemetry._put(Span("of another trace", taken, 9, 3, 12, 13))
    assert telemetry._unsampled == out and [span.name for span in kept.get_finished_spans()] == ["of another trace"]
    kept.clear()
    telemetry._put(Span("below", out, 2, 1, 11, 19))
    events = (SpanEvent("e1", 31, {"n": 2}), SpanEvent("e2", 32))
    telemetry._put(Span("root", taken, 3, None, 30, 40, attributes={"k": "v"}, events=events))
    assert telemetry._unsampled == 0
    telemetry.send(
        [Span("child", taken, 4, 3, 33, 39, "client", error=""), Span("other", taken, 5, 4, 34, 38, error="bad")]
    )
    root, child, other = kept.get_finished_spans()
    assert [(span.name, span.context.trace_id, span.context.span_id) for span in (root, child, other)] == [
        ("root", 7, 3), ("child", 7, 4), ("other", 7, 5),
    ]  # fmt: skip
    assert root.parent is None and (child.parent.span_id, other.parent.span_id) == (3, 4) and not child.parent.is_remote
    assert [(span.start_time, span.end_time, span.kind.name) for span in (root, child, other)] == [
        (30, 40, "INTERNAL"), (33, 39, "CLIENT"), (34, 38, "INTERNAL"),
    ]  # fmt: skip
    assert dict(root.attributes) == {"k": "v"} and [(e.name, e.timestamp, dict(e.attributes)) for e in root.events] == [
        ("e1", 31, {"n": 2}), ("e2", 32, {}),
    ]  # fmt: skip
    assert [(s.status.status_code.name, s.status.description) for s in (root, child, other)] == [
        ("UNSET", None), ("ERROR", None), ("ERROR", "bad"),
    ]  # fmt: skip
    assert telemetry._ids.generate_trace_id() not in (0, 7) and telemetry._ids.generate_span_id() not in (0, 5)
    assert telemetry.ended == 4
    telemetry._exporter.shutdown()  # nobody listens at that address
    telemetry.close(0.5)


class Queue:
    """A processor whose end waits for the exporter's, or comes at once; it tells what happened."""

    def __init__(self, told: list[str], waits: bool):
        self.told, self.waits, self.given_up = told, waits, threading.Event()

    def shutdown(self) -> None:
        if self.waits:
            self.told.append("given up" if self.given_up.wait(1.5) else "ended late")

    def stop(self) -> None:
        self.told.append("exporter ends")
        self.given_up.set()
        raise OSError("what the exporter raises then")


@pytest.mark.parametrize("within_s", [0.0, 0.05])
def test_a_queue_has_the_time_that_it_was_given_and_no_more(within_s: float) -> None:
    for waits, expected in ((True, ["exporter ends", "given up"]), (False, [])):
        told: list[str] = []
        telemetry, queue = Telemetry("http://c:1"), Queue(told, waits)
        for each in (telemetry._processor, telemetry._exporter):
            each.shutdown()
        telemetry._processor, telemetry._exporter.shutdown = queue, queue.stop
        telemetry.close(within_s if waits else 5.0)
        for thread in threading.enumerate():
            if thread.name == "firsthand-otel-end":
                thread.join(5)
        assert told == expected
        assert telemetry._listener not in logging.getLogger("opentelemetry").handlers


def test_a_flag_sends_spans_and_the_environment_alone_their_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    def content(asked: bool) -> tuple[bool, bool]:
        with sending("r", asked=asked, on_problem=lambda text: None) as sender:
            return sender.telemetry is not None, sender.content

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert [content(True), content(False)] == [(True, False), (True, False)]
    for capture, keeps in (("true", True), ("1", True), ("event_only", False), ("false", False), ("", False)):
        monkeypatch.setenv(genai.CAPTURE, capture)
        assert [content(True), content(False)] == [(True, keeps), (True, keeps)], capture
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    assert content(False) == (False, False) and content(True)[0]


def test_only_where_a_collector_was_meant_there_is_advice_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there = (
        " to http://localhost:4318/v1/traces: start a collector there, or name another in $OTEL_EXPORTER_OTLP_ENDPOINT; "
        "`firsthand export` sends the run again"
    )
    assert _whereto() == there
    for exporter, advice in (("otlp", there), (" otlp ", there), ("", there), (" ", there), ("console", ""), ("none", ""),
                             ("otlp2", "")):  # fmt: skip
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
        assert _whereto() == advice, exporter


def test_names_of_models_and_tools_are_sent_without_lone_surrogates() -> None:
    base = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "firsthand"}
    for model, sent in (("a\ud800b", "a?b"), ("\udfff", "?"), ("né", "né"), ("", "")):
        assert genai.operation("chat", model) == {**base, "gen_ai.request.model": sent}
    assert genai.operation("chat") == genai.operation("chat", None) == base
    assert genai.tool("f\ud800", id="c\udfff") == {
        "gen_ai.tool.name": "f?", "gen_ai.tool.type": "function", "gen_ai.tool.call.id": "c?",
    }  # fmt: skip
    stopped = genai.request({"stop": ["\ud800", "x"]})
    assert stopped == {"gen_ai.request.stop_sequences": ["?", "x"]}
    assert genai.tool_content({"a": "\ud800"}, "\udfff") == {
        "gen_ai.tool.call.arguments": '{"a": "?"}', "gen_ai.tool.call.result": '"?"',
    }  # fmt: skip


def test_the_service_is_firsthand_unless_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(**environment: str) -> tuple[Any, Any]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = _resource(environment).attributes
        for name in environment:
            monkeypatch.delenv(name)
        return found["service.name"], found["service.version"]

    assert named() == ("firsthand", __version__)
    assert named(OTEL_SERVICE_NAME="shop") == ("shop", __version__)
    assert named(OTEL_RESOURCE_ATTRIBUTES="a=b,service.name=desk") == ("desk", __version__)
    assert named(OTEL_RESOURCE_ATTRIBUTES="a=b") == ("firsthand", __version__)
    assert named(OTEL_SERVICE_NAME="") == ("firsthand", __version__), "an empty variable counts as none"
    assert named(OTEL_SERVICE_NAME="", OTEL_RESOURCE_ATTRIBUTES="service.name=desk") == ("desk", __version__)
    assert named(OTEL_SERVICE_NAME="shop", OTEL_RESOURCE_ATTRIBUTES="service.name=desk") == ("shop", __version__)
    assert named(OTEL_RESOURCE_ATTRIBUTES="") == ("firsthand", __version__)


@pytest.mark.parametrize("given", [None, "", "shop"])
def test_spans_are_sent_under_the_service_that_the_environment_names(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver([Span("work", 1, 2, None, 10, 20)])
        telemetry.close()
        (resource,) = collector.resources
    assert (resource["service.name"], resource["service.version"]) == (given or "firsthand", __version__)


def test_a_sender_s_listener_enters_each_effect_of_its_own_attempt() -> None:
    heard: list[Any] = []
    telemetry: Any = object()
    sender = Sender(telemetry, "run-7")
    place = Place(Agent("a", Scripted(["x"]), reply), NamedSetting("b"), Task("t", "?"), 2)
    listener = sender.listeners(lambda given: lambda step: heard.append((given is place, step)))(place)
    trace_context.enter(None)
    listener(began := Began("0:2", "generate", None))
    assert trace_context.current() == parent_of(place.id, "run-7", "0:2") and heard == [(True, began)]
    trace_context.enter(None)


@pytest.mark.slow
def test_a_telemetry_ends_in_its_time_whatever_the_collector_does() -> None:
    told: list[str] = []
    with collecting(hang=True) as collector:
        telemetry = Telemetry(collector.url)
        telemetry.send([Span("s", 7, 1, None, 10, 20)])
        began = time.monotonic()
        telemetry.close(0.1)
        assert 0.09 < time.monotonic() - began < 5 and telemetry.sent == 0 and telemetry.ended == 1
    assert telemetry._listener not in logging.getLogger("opentelemetry").handlers
    with collecting() as collector:
        telemetry = Telemetry(collector.url, on_problem=told.append)
        assert telemetry._listener in logging.getLogger("opentelemetry").handlers
        assert (telemetry.ended, telemetry.sent, telemetry.failed, telemetry._unsampled) == (0, 0, 0, 0)
        telemetry.send(Span(f"s{n}", 7, n + 1, None, 10, 20) for n in range(3))
        telemetry.close()
        assert [span.name for span in collector.wait(3)] == ["s0", "s1", "s2"] and (
            telemetry.ended,
            telemetry.sent,
        ) == (3, 3)
    assert told == []


def test_spans_go_by_http_alone_to_where_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _exporter("http://c:1")._endpoint == "http://c:1/v1/traces"
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        monkeypatch.setenv(name, "grpc")
        with pytest.raises(ConfigError) as refused:
            _exporter("http://c:1")
        assert str(refused.value) == (
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': spans are sent as http/protobuf, which collectors take on port 4318"
        )
        monkeypatch.delenv(name)
    told: list[str] = []
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    said = "OTEL_TRACES_EXPORTER is 'zipkin': give otlp, console or none"
    assert open_telemetry(False, on_problem=told.append) is None and told == [f"no spans are sent: {said}"]
    with pytest.raises(ConfigError, match=said):
        open_telemetry(True, on_problem=told.append)
    opened = open_telemetry(False, endpoint="http://c:1", on_problem=told.append)
    assert opened is not None and opened._exporter._endpoint == "http://c:1/v1/traces" and len(told) == 1
    opened.note_problem("x")
    opened.close()
    assert told[1:] == ["x"]
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert open_telemetry(False) is None
