"""The span of a request at a server, with all its attributes, kept in memory."""

from __future__ import annotations

import contextvars
import json
from types import SimpleNamespace
from typing import Any

import pytest

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.message import assistant, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.telemetry.request_spans import Operation, RequestSpans, _messages
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from firsthand.telemetry.genai import MAX_NAME_CHARS


@pytest.fixture
def spans() -> Any:
    """A function that makes RequestSpans, and gives the spans that ended."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry: Any = SimpleNamespace(tracer=provider.get_tracer("t"), ended=3, sent=2, failed=1, close=lambda: None)
    return lambda *, content=False: (RequestSpans(telemetry, content=content), exporter.get_finished_spans)


def test_a_span_has_all_that_is_known_of_its_request(spans: Any) -> None:
    made, ended = spans(content=True)
    notes: dict[str, Any] = {"stream": True}
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    span = made.start("r1", "POST" * 9, "/v1/x", headers, notes, Operation("chat", "chatcmpl-"))
    sampling = Sampling(temperature=0.5, max_tokens=7)
    span.called("demo", [user("q")], sampling, 2)
    span.called("other", [1, 2, 3], Sampling(), 1)
    span.answered(Completion(assistant("x"), "stop", Usage()), None)
    span.answered(Completion(assistant("y"), "length", Usage()), 0.25)
    span.answered(Completion(assistant("z"), "length", Usage()), 0.75)
    notes |= {"prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 3, "ttft_ms": 1500.0}
    span.close(200, "ann")
    (found,) = ended()
    assert (
        found.name == "chat demo"
        and f"{found.context.trace_id:x}" == "a" * 32
        and f"{found.parent.span_id:x}" == "b" * 16
    )
    attributes = dict(found.attributes)
    prompts = json.loads(attributes.pop("gen_ai.input.messages"))
    answers = json.loads(attributes.pop("gen_ai.output.messages"))
    assert [each["parts"][0]["content"] for each in prompts] == ["q", "[3 token ids]"]
    assert [(each["parts"][0]["content"], each["finish_reason"]) for each in answers] == [
        ("x", "stop"), ("y", "length"), ("z", "length"),
    ]  # fmt: skip
    assert attributes == {
        "http.request.method": ("POST" * 9)[:20], "http.route": "/v1/x", "http.response.status_code": 200,
        "firsthand.client": "ann", "firsthand.time_in_queue": 0.25, "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "firsthand", "gen_ai.request.model": "demo", "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0, "gen_ai.request.max_tokens": 7, "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True, "gen_ai.response.id": "chatcmpl-r1", "gen_ai.response.model": "demo",
        "gen_ai.response.finish_reasons": ("stop", "length", "length"), "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.response.time_to_first_chunk": 1.5,
    }  # fmt: skip
    (first,) = found.events
    assert first.name == "firsthand.first_token" and first.timestamp == span._called_ns + 1_500_000_000
    assert found.status.is_unset and _messages("p") == [user("p")]
    assert made.metrics() == (
        "# HELP firsthand_spans_total Spans of requests that ended, that a collector took, and that none took; the queue "
        'loses the rest.\n# TYPE firsthand_spans_total counter\nfirsthand_spans_total{state="ended"} 3\n'
        'firsthand_spans_total{state="sent"} 2\nfirsthand_spans_total{state="failed"} 1\n'
    )


def test_a_span_is_named_by_its_operation_and_the_beginning_of_a_long_model_name(spans: Any) -> None:
    made, ended = spans()
    for operation, model in ((Operation("chat"), "m\ud800" + "x" * 2 * MAX_NAME_CHARS), (None, "m")):
        span = made.start("r", "POST", "/v1/x", {}, {}, operation)
        span.model(model)
        span.close(200, "ann")
    long, bare = (each.name for each in ended())
    assert len(long) == MAX_NAME_CHARS and long.startswith("chat m") and long.endswith("x") and bare == " m"
    long.encode()  # half of a surrogate pair would stop the export


def test_a_span_without_a_model_or_with_an_error_says_so(spans: Any) -> None:
    made, ended = spans()
    for status, notes in ((200, {}), (399, {"ttft_ms": 1.0}), (400, {}), (499, {}), (500, {"error": "e" * 400}),
                          (200, {"code": 503})):  # fmt: skip
        span = made.start("r", "GET", "/health", {}, notes)
        if status == 200:
            span.called("m", "p", Sampling(max_tokens=1), 1)
            span.answered(Completion(assistant("x"), "stop", Usage()), None)
        span.close(status, "ann")
    found = ended()
    assert [each.name for each in found] == [" m", *["GET /health"] * 4, " m"]
    assert [each.attributes.get("error.type") for each in found] == [None, None, "400", "499", "500", "503"]
    assert [(each.status.is_ok, each.status.is_unset, each.status.description) for each in found] == [
        *[(True, True, None)] * 4, (False, False, "e" * 300), (False, False, None),
    ]  # fmt: skip
    assert [each.attributes.get("gen_ai.response.id") for each in found] == ["r", None, None, None, None, "r"]
    assert "gen_ai.input.messages" not in found[0].attributes and "gen_ai.output.messages" not in found[0].attributes
    assert dict(found[2].attributes) == {"http.request.method": "GET", "http.route": "/health",
                                         "http.response.status_code": 400, "firsthand.client": "ann",
                                         "error.type": "400"}  # fmt: skip
    assert "gen_ai.response.time_to_first_chunk" not in found[1].attributes and len(found[1].events) == 1
    assert all(each.parent is None for each in found)
    unsampled = made.start("r", "GET", "/x", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"}, {})
    assert unsampled is None and made.start("r", "GET", "/x", None, {}) is None, "an error loses the span alone"


def test_the_trace_of_a_request_is_passed_on_as_it_came_also_where_it_is_not_recorded(spans: Any) -> None:
    made, ended = spans()

    def passed_on(flags: str) -> tuple[Any, Any]:
        trace_context.enter(None)
        span = made.start("r", "GET", "/x", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-{flags}"}, {})
        return span, trace_context.current()

    span, parent = contextvars.copy_context().run(passed_on, "01")
    span.close(200, "ann")
    (found,) = ended()
    assert parent == TraceParent(int("a" * 32, 16), found.context.span_id, True) and found.context.span_id
    span, parent = contextvars.copy_context().run(passed_on, "00")
    assert span is None and len(ended()) == 1
    assert parent == TraceParent(int("a" * 32, 16), parent.span_id, False)
    assert parent.span_id not in (0, int("b" * 16, 16)) and parent.header.endswith("-00")


def test_a_span_has_the_first_64_reasons_texts_and_prompts_and_the_first_wait(spans: Any) -> None:
    made, ended = spans(content=True)
    span = made.start("r1", "POST", "/v1/x", {}, {}, Operation("chat"))
    for number in range(66):
        span.called("demo", f"p{number}", Sampling(), 1)
        span.answered(Completion(assistant(f"a{number}"), "stop", Usage()), None if number < 2 else number / 4)
    span.close(200, "ann")
    (found,) = ended()
    attributes = dict(found.attributes)
    assert list(attributes["gen_ai.response.finish_reasons"]) == ["stop"] * 64
    prompts, answers = (json.loads(attributes[f"gen_ai.{each}.messages"]) for each in ("input", "output"))
    assert [each["parts"][0]["content"] for each in prompts] == [f"p{number}" for number in range(64)]
    assert [each["parts"][0]["content"] for each in answers] == [f"a{number}" for number in range(64)]
    assert (attributes["firsthand.time_in_queue"], attributes["gen_ai.response.id"]) == (0.5, "r1")


def test_a_request_that_is_measured_has_a_span_of_its_operation_unless_its_route_is_polled(spans: Any) -> None:
    made, ended = spans()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = request_of(scope)
        assert (request.span is None) == scope["path"].endswith("polled")
        await start(send)

    served = Exchanges(app, untraced_routes=frozenset({"/a/polled"}), operations={"/a/x": Operation("embeddings")})
    served.telemetry.spans = made
    trace = (b"traceparent", f"00-{'c' * 32}-{'d' * 16}-01".encode())
    for path in ("/a/x", "/a/polled", "/a/y"):
        assert served.ask(path=path, headers=[HOST, trace])[0] == 201
    assert [(each.name, each.attributes["http.response.status_code"], each.attributes["firsthand.client"],
             f"{each.parent.span_id:x}") for each in ended()] == [
        ("embeddings", 201, "anyone", "d" * 16), ("POST /a/y", 201, "anyone", "d" * 16),
    ]  # fmt: skip


def test_spans_are_opened_where_they_are_asked_for_and_hold_texts_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

    def opened(*, otel: bool, disabled: bool = False, content: str = "") -> bool | None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true" if disabled else "false")
        monkeypatch.setenv(variable, content)
        telemetry = ServerTelemetry(TelemetrySettings(log="none", otel=otel))
        telemetry.open_spans()
        found = None if telemetry.spans is None else telemetry.spans.content
        telemetry.close()
        return found

    assert opened(otel=False) is None and opened(otel=True, disabled=True) is None
    assert opened(otel=True) is False and opened(otel=True, content="true") is True
