"""Spans of an attempt of every kind of call as whole values, attributes of the conventions, and where spans are sent."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import pytest

from collector import collecting, values
from firsthand import __version__
from firsthand.errors import ConfigError
from firsthand.loop.listener import Began
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.system import trace_context
from firsthand.telemetry import genai, live_export, otlp_export
from firsthand.telemetry.live_export import Sender, _whereto, sending
from firsthand.telemetry.otlp_export import Telemetry, check_collector, check_telemetry, collector_url, traces_url
from firsthand.telemetry.trace_spans import Span, SpanEvent, parent_of, spans_of
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

START = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z."""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME",
        "OTEL_SDK_DISABLED", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_PROTOCOL", genai.CAPTURE,
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def number(size: int, *parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(("firsthand", *parts)).encode()).digest()[:size], "big")


def attempt(**changes: Any) -> Trace:
    asked = Message("assistant", (Text("so"), ToolCall("c1", "sum", {"a": 1}), ToolCall("c2", "sum", {"a": 2})))
    nodes = (
        Node(None, user("What?")), Node(0, asked), Node(1, Message("tool", (ToolResult("c2", "sum", "2"),))),
        Node(2, assistant("Two")),
    )  # fmt: skip
    spent = Usage(10, 4, 3, 0.5, 2)
    sampling = {"max_tokens": 9, "temperature": 0}
    calls = (
        Call("0:0", "generate", 0, 1.0, 0.5, "r", usage=spent, nodes=(1,),
             detail={"finish_reasons": ["tool_calls"], "sampling": sampling}),
        Call("0:1", "tool", 1, 2.0, 0.25, "r", detail={"name": "sum", "arguments": {"a": 2}, "result": "2"}, error="bad"),
        Call("0:2", "generate", None, 3.0, 0.5, "r", usage=Usage(1, 0, 2), nodes=(3,), replayed=True,
             detail={"prompt": "Once", "finish_reasons": ["stop", "length"], "sampling": sampling}, error="cut"),
        Call("0:3", "score", 0, 4.0, 0.5, "r", usage=Usage(7)),
        Call("0:4", "guard", 0, 5.0, 0.5, "r", usage=Usage(8), detail={"model": "judge"}),
        Call("0:5", "memory", None, 6.0, 0.5, "r", detail={"operation": "search"}),
    )  # fmt: skip
    made: dict[str, Any] = dict(
        id="t1", benchmark="bench", task_id="task", agent={"name": "ada", "model": "m1", "fingerprint": "openai:x"}, epoch=2,
        seed=5, started_at="2026-01-01T00:00:00+00:00", duration_s=8.0, nodes=nodes, calls=calls,
        events=(Event("retry", 1.5, {"after_s": 2, "why": "quoted", "last": True}),), answer="Two", stop_reason="calls",
        error=Failure("ModelError", "What?"), place="p1",
        scores=(Score("exact", 1), Score("judge", 0.0, failure="no")),
    )  # fmt: skip
    return Trace(**{**made, **changes})


def test_an_attempt_of_every_kind_of_call_is_these_spans() -> None:
    trace_id, root = number(16, "run-1", "p1"), number(8, "run-1", "p1", "")
    ids = [number(8, "run-1", "p1", f"0:{place}") for place in range(6)]

    def below(
        place: int, name: str, start: float, took: float, kind: Any, error: str | None = None, **attributes: Any
    ) -> Span:
        own = {key.replace("__", "."): value for key, value in attributes.items()}
        own |= {"firsthand.effect": f"0:{place}", "firsthand.replayed": place == 2}
        begin = START + int(start * 1e9)
        return Span(name, trace_id, ids[place], root, begin, begin + int(took * 1e9), kind, own, (), error)

    def used(into: int, out: int = 0, cached: int = 0) -> dict[str, int]:
        return {
            "gen_ai.usage.input_tokens": into, "gen_ai.usage.output_tokens": out,
            "gen_ai.usage.cache_read.input_tokens": cached,
        }  # fmt: skip

    def did(name: str, model: str = "m1") -> dict[str, str]:
        return {"gen_ai.operation.name": name, "gen_ai.provider.name": "firsthand", "gen_ai.request.model": model}

    paid = {"gen_ai.usage.cache_creation.input_tokens": 2, "firsthand.usage.cost_usd": 0.5}
    asked = {"gen_ai.request.max_tokens": 9, "gen_ai.request.temperature": 0.0, "gen_ai.response.model": "m1"}
    about = {
        **did("invoke_agent"), **used(26, 5, 4), **paid, "gen_ai.agent.name": "ada", "gen_ai.conversation.id": "t1",
        "firsthand.benchmark": "bench", "firsthand.task": "task", "firsthand.epoch": 2, "firsthand.seed": 5,
        "firsthand.stop_reason": "calls", "firsthand.run": "run-1", "error.type": "ModelError",
    }  # fmt: skip
    end = START + 8 * 10**9
    events = (
        SpanEvent("retry", START + 1_500_000_000, {"firsthand.after_s": 2, "firsthand.last": True}),
        SpanEvent(
            "gen_ai.evaluation.result", end, {"gen_ai.evaluation.name": "exact", "gen_ai.evaluation.score.value": 1.0}
        ),
        SpanEvent("gen_ai.evaluation.result", end, {"gen_ai.evaluation.name": "judge", "error.type": "scorer_failed"}),
    )
    told = {"gen_ai.operation.name": "execute_tool", "gen_ai.provider.name": "firsthand", "gen_ai.tool.name": "sum"}
    found = spans_of(attempt(), "run-1")
    assert found == [
        Span("invoke_agent ada", trace_id, root, None, START, end, "internal", about, events, ""),
        below(0, "chat m1", 1, 0.5, "client", **did("chat"), **used(10, 3, 4), **paid, **asked,
              **{"gen_ai.response.finish_reasons": ["tool_calls"]}),
        below(1, "execute_tool sum", 2, 0.25, "internal", "", **told,
              **{"gen_ai.tool.type": "function", "gen_ai.tool.call.id": "c2", "error.type": "tool_error"}),
        below(2, "text_completion m1", 3, 0.5, "client", "", **did("text_completion"), **used(1, 2), **asked,
              **{"gen_ai.request.choice.count": 2, "gen_ai.response.finish_reasons": ["stop", "length"]},
              **{"error.type": "_OTHER"}),
        below(3, "score m1", 4, 0.5, "client", **did("score"), **used(7)),
        below(4, "guard judge", 5, 0.5, "client", **did("guard", "judge"), **used(8)),
        below(5, "memory search", 6, 0.5, "internal", **{"gen_ai.operation.name": "memory_search"}),
    ]  # fmt: skip
    local = spans_of(attempt(agent={"name": "ada", "model": "m1", "fingerprint": "local:x"}))
    assert {span.kind for span in local} == {"internal"} and "firsthand.run" not in local[0].attributes
    assert parent_of("p1", "run-1", "0:3") == trace_context.TraceParent(trace_id, ids[3])


def test_messages_and_errors_are_exported_on_request() -> None:
    plain, full = spans_of(attempt()), spans_of(attempt(), content=True)
    more = [
        {key: value for key, value in now.attributes.items() if key not in then.attributes}
        for then, now in zip(plain, full, strict=True)
    ]
    said = [{"role": "user", "parts": [{"type": "text", "content": "What?"}]}]
    calls = [{"type": "tool_call", "id": f"c{i}", "name": "sum", "arguments": {"a": i}} for i in (1, 2)]
    asked = {"role": "assistant", "parts": [{"type": "text", "content": "so"}, *calls], "finish_reason": "tool_call"}
    two = {"role": "assistant", "parts": [{"type": "text", "content": "Two"}], "finish_reason": "stop"}
    once = [{"role": "user", "parts": [{"type": "text", "content": "Once"}]}]
    shown = [{key: json.loads(str(value)) for key, value in each.items()} for each in more]
    assert shown == [
        {"gen_ai.input.messages": said, "gen_ai.output.messages": [two]},
        {"gen_ai.input.messages": said, "gen_ai.output.messages": [asked]},
        {"gen_ai.tool.call.arguments": {"a": 2}, "gen_ai.tool.call.result": "2"},
        {"gen_ai.input.messages": once, "gen_ai.output.messages": [two]},
        {}, {}, {},
    ]  # fmt: skip
    assert [span.error for span in full] == ["What?", None, "bad", "cut", None, None, None]
    silent = spans_of(attempt(answer=None, error=None, calls=()), content=True)[0]
    assert silent.attributes["gen_ai.input.messages"] == "[]" and "gen_ai.output.messages" not in silent.attributes
    protected = attempt(events=(Event("protected", 0.0, {"why": "it is not to be seen"}),))
    assert "What?" not in repr(spans_of(protected, content=True))


def test_ids_times_and_odd_records_have_their_edges() -> None:
    assert len({parent_of("p", "r"), parent_of("p", "r", "0"), parent_of("r", "p"), parent_of("p", "")}) == 4
    root, call = spans_of(attempt(started_at="never", calls=(Call("0:0", "tool", 99, -5.0, float("nan"), "r"),)))
    assert (root.start_ns, root.end_ns, call.start_ns, call.end_ns) == (0, 8 * 10**9, 0, 0)
    assert call.name == "execute_tool " and "gen_ai.tool.call.id" not in call.attributes
    late = spans_of(attempt(started_at="9000-01-01T00:00:00+00:00", duration_s=1e300))[0]
    assert (late.start_ns, late.end_ns) == (3 * 10**18, 6 * 10**18)
    other = Call("0:0", "tool", 1, 0.0, 0.0, "r", detail={"name": "n" * 300, "arguments": {"a": 3}})
    (_, unasked) = spans_of(attempt(calls=(other,)))
    assert unasked.name == f"execute_tool {'n' * 256}" and "gen_ai.tool.call.id" not in unasked.attributes
    assert unasked.attributes["gen_ai.tool.name"] == "n" * 256
    ran = {"name": "sum", "arguments": {"a": 2}}
    later = (Call("0:0", "tool", 3, 0.0, 0.0, "r", detail=ran), Call("0:1", "score", 0, 0.0, 0.0, "r"))
    agent, tool, _ = spans_of(attempt(calls=later), content=True)
    assert "gen_ai.tool.call.id" not in tool.attributes, "the message that it was made from holds no call"
    assert len(json.loads(str(agent.attributes["gen_ai.input.messages"]))) == 1, (
        "the prompt of the first that asks a model"
    )


def test_settings_are_told_if_they_have_an_effect() -> None:
    given = {
        "max_tokens": 7, "temperature": 1, "top_p": 0.5, "top_k": 3, "frequency_penalty": 0.5, "presence_penalty": -1,
        "seed": 0, "stop": ["#", "\ud800"], "grammar": {"kind": "json_schema"}, "logprobs": 3,
    }  # fmt: skip
    assert genai.request(given, n=2, stream=True) == {
        "gen_ai.request.max_tokens": 7, "gen_ai.request.temperature": 1.0, "gen_ai.request.top_p": 0.5,
        "gen_ai.request.top_k": 3, "gen_ai.request.frequency_penalty": 0.5, "gen_ai.request.presence_penalty": -1.0,
        "gen_ai.request.seed": 0, "gen_ai.request.stop_sequences": ["#", "?"], "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True, "gen_ai.output.type": "json",
    }  # fmt: skip
    none = {
        "max_tokens": None, "temperature": True, "top_k": 0, "frequency_penalty": 0, "presence_penalty": 0.0, "seed": 2**63,
        "stop": [], "grammar": {"kind": "lark"}, "top_p": "1",
    }  # fmt: skip
    assert genai.request(none) == {} == genai.request({"grammar": None})
    assert genai.request({"seed": -(2**63) + 1, "max_tokens": 2**63 - 1}) == {
        "gen_ai.request.max_tokens": 2**63 - 1, "gen_ai.request.seed": -(2**63) + 1,
    }  # fmt: skip
    for given_, wanted in ((" TRUE ", True), ("1", True), ("span_only", True), ("span_and_event", True),
                           ("event_only", False), ("", False), ("0", False)):  # fmt: skip
        assert genai.captures_content({genai.CAPTURE: given_}) is wanted
    assert not genai.captures_content({})


def test_parts_and_tools_have_the_form_of_the_conventions() -> None:
    parts = (Text("é"), Reasoning("hm", {}), ToolCall("i", "n", {}, invalid="{"), ToolResult("j", "n", "out", True))
    made = str(genai.prompt([Message("assistant", parts)])["gen_ai.input.messages"])
    assert '"é"' in made and json.loads(made) == [{"role": "assistant", "parts": [
        {"type": "text", "content": "é"}, {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "i", "name": "n", "arguments": "{"},
        {"type": "tool_call_response", "id": "j", "response": "out"},
    ]}]  # fmt: skip
    assert genai.tool("x\ud800" + "y" * 300, id="i" * 300) == {
        "gen_ai.tool.name": "x?" + "y" * 254, "gen_ai.tool.type": "function", "gen_ai.tool.call.id": "i" * 256,
    }  # fmt: skip
    assert genai.tool("x", id="") == {
        "gen_ai.tool.name": "x",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "",
    }
    assert genai.tool_content(None, 0) == {"gen_ai.tool.call.result": "0"}
    assert genai.tool_content({}, None) == {"gen_ai.tool.call.arguments": "{}"}
    named = {"gen_ai.operation.name": "x", "gen_ai.provider.name": "firsthand"}
    assert genai.operation("x") == named and genai.operation("x", "") == named | {"gen_ai.request.model": ""}


def test_what_is_exported_is_cut_to_its_limit() -> None:
    assert genai.exportable({
        "k" * 1025: "v" * 65537, "list": ["e" * 1025, *["x"] * 128], "least": -(2**63), "under": -(2**63) - 1,
        "over": 2**63, "huge": 2**256, "yes": True, "f": 1e300,
    }) == {
        "k" * 1024: "v" * 65536, "list": ["e" * 1024, *["x"] * 127], "least": -(2**63), "under": str(-(2**63) - 1),
        "over": str(2**63), "huge": "too large", "yes": True, "f": 1e300,
    }  # fmt: skip

    def kept(*sizes: int) -> list[str]:
        made = genai.prompt([user(str(place) + "x" * size) for place, size in enumerate(sizes)])[
            "gen_ai.input.messages"
        ]
        assert len(str(made)) <= 65536
        return [each["parts"][0]["content"] for each in json.loads(str(made))]

    assert [each[0] for each in kept(30_000, 20_000, 20_000, 20_000)] == ["1", "2", "3"]
    assert [each[0] for each in kept(200, 65_200, 100)] == ["1", "2"]
    whole = len(str(genai.prompt([user("")])["gen_ai.input.messages"]))
    assert kept(65_536 - whole - 1)[0].endswith("x") and len(kept(65_536 - whole - 1)[0]) == 65_536 - whole
    assert kept(3, 70_000) == ["1" + "x" * 16_383 + "…"]  # a quarter of the limit
    long = str(genai.tool_content("y" * 70_000, None)["gen_ai.tool.call.arguments"])
    assert json.loads(long) == '"' + "y" * 32_767 + "…"


def test_an_address_is_a_url_or_refused() -> None:
    assert traces_url(" https://c:1/otel/ ") == "https://c:1/otel/v1/traces"
    assert traces_url("http://c/v1/traces/") == "http://c/v1/traces"
    for wrong in ("c:4318", "ftp://c", "http://", "http://[", ""):
        with pytest.raises(ConfigError) as found:
            traces_url(wrong)
        assert str(found.value) == f"the collector {wrong!r} is no URL: give one such as http://localhost:4318"
    assert collector_url("http://c", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"}) == "http://c/v1/traces"
    named = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": " ", "OTEL_EXPORTER_OTLP_ENDPOINT": " http://d/ "}
    assert collector_url(None, named) == "http://d/v1/traces"


def test_only_an_address_where_nobody_listens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with pytest.raises(ConfigError) as found:
            check_collector(f"http://me:secret@127.0.0.1:{port}/v1/traces")
        assert str(found.value) == (
            f"no collector answers at http://127.0.0.1:{port}/v1/traces (Connection refused): start one there, or give the "
            "address of another, as in --otlp http://HOST:4318"
        )
        monkeypatch.setenv("http_proxy", "http://proxy:1")
        check_collector(f"http://127.0.0.1:{port}/v1/traces")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(ConfigError):
            check_collector(f"http://127.0.0.1:{port}/v1/traces")
        server.listen()
        check_collector(f"http://127.0.0.1:{port}/v1/traces")


def test_the_exporter_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(endpoint: str | None = None) -> tuple[str, str]:
        made = otlp_export._exporter(endpoint)
        return type(made).__name__, getattr(made, "_endpoint", "")

    assert kind("http://c") == ("OTLPSpanExporter", "http://c/v1/traces")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", " console ")
    assert kind() == ("ConsoleSpanExporter", "") and kind("http://c") == ("OTLPSpanExporter", "http://c/v1/traces")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match=r"^OTEL_TRACES_EXPORTER is 'zipkin': give otlp, console or none$"):
        kind()
    check_telemetry(False)
    with pytest.raises(ConfigError, match="zipkin"):
        check_telemetry(True)
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True ")
    check_telemetry(True)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert kind()[0] == "OTLPSpanExporter"  # the protocol of traces comes first


def test_a_collector_gets_spans_with_their_ids_events_and_errors() -> None:
    events = (SpanEvent("e", 150, {"n": 3}),)
    spans = [
        Span("root", 5, 6, None, 100, 200, "internal", {"a": "b"}, events),
        Span("child", 5, 7, 6, 110, 190, "client", error=""),
        Span("other", 5, 8, 6, 120, 180, error="broken"),
    ]
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(iter(spans)) and (telemetry.ended, telemetry.sent, telemetry.failed) == (3, 3, 0)
        root, child, other = collector.wait(3)
        telemetry.close()
    ids = [(int.from_bytes(s.trace_id), int.from_bytes(s.span_id), s.parent_span_id) for s in (root, child, other)]
    assert ids == [(5, 6, b""), (5, 7, (6).to_bytes(8)), (5, 8, (6).to_bytes(8))]
    assert [(s.name, s.kind, s.start_time_unix_nano, s.end_time_unix_nano) for s in (root, child, other)] == [
        ("root", 1, 100, 200), ("child", 3, 110, 190), ("other", 1, 120, 180),
    ]  # fmt: skip
    assert [(s.status.code, s.status.message) for s in (root, child, other)] == [(0, ""), (2, ""), (2, "broken")]
    (event,) = root.events
    assert (event.name, event.time_unix_nano, values(event.attributes)) == ("e", 150, {"n": 3})
    assert values(root.attributes) == {"a": "b"}
    assert (
        collector.resources[0]["service.name"] == "firsthand"
        and collector.resources[0]["service.version"] == __version__
    )
    assert telemetry._listener not in logging.getLogger("opentelemetry").handlers


def test_requests_are_cut_by_size_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        def __init__(self, **attributes: Any):
            self.attributes = attributes

    monkeypatch.setattr(otlp_export, "_REQUEST_BYTES", 2500 + 1152)
    a, b, c, d = Made(t="x" * 492), Made(n=1, l=[1]), Made(t="y" * 2000), Made()
    # 1024 and three bytes a character, or 64 for another value: 2500, 1152, 7024, 1024
    assert list(otlp_export._requests([a, b, c, d])) == [[a, b], [c], [d]] and list(otlp_export._requests([])) == []
    problems: list[str] = []
    telemetry = Telemetry("http://127.0.0.1:9", on_problem=problems.append)
    telemetry.problem = "so"
    telemetry.note(2, False)
    telemetry.note(3, False)
    telemetry.note(1, True)
    telemetry.problem = ""
    telemetry.note(4, False)
    assert problems == ["spans cannot be sent: so", "spans cannot be sent: the collector did not take them"]
    assert (telemetry.sent, telemetry.failed) == (1, 9)
    logging.getLogger("opentelemetry.x").warning("many \n  spaces %s", "y" * 400)
    assert telemetry.problem == "many spaces " + "y" * 288
    telemetry.close()


def test_the_end_of_a_run_says_how_many_spans_are_lost_and_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    with sending("r", asked=False, on_problem=problems.append) as sender:
        assert sender.telemetry is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@127.0.0.1:9/x")
    monkeypatch.setenv(genai.CAPTURE, "true")
    there = (
        " to http://127.0.0.1:9/x/v1/traces: start a collector there, or name another in $OTEL_EXPORTER_OTLP_ENDPOINT; "
        "`firsthand export` sends the run again"
    )
    assert _whereto() == there
    with sending("r", asked=False, on_problem=problems.append) as sender:
        assert sender.telemetry is not None and sender.content and sender.run == "r"
        sender.telemetry.ended, sender.telemetry.sent = 7, 4  # the rest was too much for the queue
    assert problems == [f"3 of 7 spans were not sent{there}"]
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert _whereto() == ""
    with sending("r", asked=True, on_problem=problems.append) as sender:
        assert sender.telemetry is not None
        sender.telemetry.ended = sender.telemetry.sent = 7
        sender.telemetry.failed = 1
    assert len(problems) == 1


def test_an_effect_is_entered_before_others_hear_of_it() -> None:
    heard: list[Any] = []
    parent = live_export._Parent("p1", "run-1", lambda step: heard.append((step, trace_context.current())))
    trace_context.enter(None)
    began = Began("0:3", "generate", None)
    parent(began)
    parent("other")  # type: ignore[arg-type]
    here = parent_of("p1", "run-1", "0:3")
    assert heard == [(began, here), ("other", here)]
    trace_context.enter(None)
    live_export._Parent("p1", "run-1", None)("other")  # type: ignore[arg-type]
    assert trace_context.current() is None

    class Refusing:
        told = ""

        def send(self, spans: Any) -> None:
            raise ValueError("no")

        def note_problem(self, text: str) -> None:
            self.told = text

    Sender(refusing := Refusing(), "r").ended(attempt())  # type: ignore[arg-type]
    assert refusing.told == "the attempt t1 cannot be sent: ValueError: no"
