"""Spans to collectors: each port, proxy and variable, long contents, and attempts with everything at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.system import trace_context
from firsthand.telemetry import genai, live_export, otlp_export
from firsthand.telemetry.live_export import Sender, sending
from firsthand.telemetry.otlp_export import (
    Telemetry,
    check_collector,
    check_telemetry,
    collector_url,
    is_asked_for,
    open_telemetry,
    traces_url,
)
from firsthand.telemetry.trace_spans import Span, SpanEvent, _messages, parent_of, spans_of
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER",
            "OTEL_SERVICE_NAME",
        "OTEL_SDK_DISABLED", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", genai.CAPTURE, "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
        "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


# -- addresses --


def test_a_collector_is_looked_for_at_the_port_of_its_scheme_unless_a_proxy_stands_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def refuse(address: Any, timeout: float) -> Any:
        asked.append((*address, timeout))
        raise OSError(5, "Nobody there") if len(asked) < 4 else OSError("plain")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for url, shown, why in (
        ("https://c.example/v1/traces", "https://c.example:443/v1/traces", "Nobody there"),
        ("http://c.example", "http://c.example:80", "Nobody there"),
        ("https://u:p@c.example:4318/x", "https://c.example:4318/x", "Nobody there"), ("http://[::1]:9",
            "http://::1:9", "plain"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            check_collector(url)
        assert str(refused.value) == (
            f"no collector answers at {shown} ({why}): start one there, or give the address of another, as in --otlp http://HOST:4318"
        )
    assert asked == [("c.example", 443, 3.0), ("c.example", 80, 3.0), ("c.example", 4318, 3.0), ("::1", 9, 3.0)]
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "near.example")
    check_collector("https://c.example")
    for url in ("https://near.example", "http://c.example"):
        with pytest.raises(ConfigError):
            check_collector(url)
    assert [each[:2] for each in asked[4:]] == [("near.example", 443), ("c.example", 80)]


def test_a_collector_that_answers_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        check_collector(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces")
        link, _ = server.accept()
        with link:
            assert link.recv(1) == b""


def test_the_address_is_the_given_one_then_that_of_traces_then_the_base() -> None:
    own, base = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    both = {own: " https://t:1/own ", base: "http://b:2"}
    assert (
        collector_url(" http://g:3/ ", both) == "http://g:3/v1/traces"
        and collector_url(None, both) == "https://t:1/own"
    )
    assert collector_url(None, {own: " ", base: " http://b:2/x/ "}) == "http://b:2/x/v1/traces"
    assert collector_url(None, {}) == collector_url(None, {base: ""}) == "http://localhost:4318/v1/traces"
    assert traces_url("HTTPS://h:1/v1/traces/") == "HTTPS://h:1/v1/traces"
    for wrong in ("", "h:4318", "ftp://h", "http://", "http://[::1", "grpc://h:4317"):
        with pytest.raises(ConfigError) as refused:
            traces_url(wrong)
        assert str(refused.value) == f"the collector {wrong!r} is no URL: give one such as http://localhost:4318"

    def asked(**environment: str) -> bool:
        given: Mapping[str, str] = {f"OTEL_{name}": value for name, value in environment.items()}
        return is_asked_for(given)

    assert [
        asked(), asked(EXPORTER_OTLP_ENDPOINT="h"), asked(EXPORTER_OTLP_TRACES_ENDPOINT="h"),
            asked(EXPORTER_OTLP_ENDPOINT=""),
        asked(TRACES_EXPORTER="console"), asked(TRACES_EXPORTER=" none ", EXPORTER_OTLP_ENDPOINT="h"),
        asked(TRACES_EXPORTER=" ", EXPORTER_OTLP_ENDPOINT="h"), asked(SDK_DISABLED=" True ", TRACES_EXPORTER="otlp"),
        asked(SDK_DISABLED="false", TRACES_EXPORTER="otlp"), asked(SDK_DISABLED="1", EXPORTER_OTLP_ENDPOINT="h"),
    ] == [False, True, True, False, True, False, True, False, True, True]  # fmt: skip


def test_what_is_disabled_is_not_checked_and_what_a_flag_asks_for_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    check_telemetry(False)
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        check_telemetry(True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "")  # unset, as OpenTelemetry has it
    check_telemetry(True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    told: list[str] = []
    assert open_telemetry(False, endpoint="http://h", on_problem=told.append) is None and told == []
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    check_telemetry(True)
    assert open_telemetry(True, endpoint="http://h") is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    check_telemetry(True)


# -- a run --


def test_spans_that_were_not_sent_are_told_with_where_they_were_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with sending("r", asked=False, on_problem=told.append) as sender:
        assert sender.telemetry is None and (sender.run, sender.content) == ("r", False)
        sender.ended(None)  # type: ignore[arg-type]
        assert sender.listeners(others := lambda place: None) is others
    monkeypatch.setenv(genai.CAPTURE, " Span_Only ")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:key@127.0.0.1:1/base/")
    with pytest.raises(KeyError), sending("r", asked=False, on_problem=told.append) as sender:
        assert sender.content is True and isinstance(sender.telemetry, Telemetry)
        sender.telemetry.ended, sender.telemetry.sent = 1205, 5
        raise KeyError("the run ends")
    assert told == [
        "1200 of 1205 spans were not sent to http://127.0.0.1:1/base/v1/traces: start a collector there, or name another in "
        "$OTEL_EXPORTER_OTLP_ENDPOINT; `firsthand export` sends the run again"
    ]
    for address in ("http://127.0.0.1:1/", "http://u:k@y@127.0.0.1:1"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        assert live_export._whereto().startswith(" to http://127.0.0.1:1/v1/traces: start a collector there"), address
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    with sending("r", asked=True, on_problem=told.append) as sender:
        assert sender.telemetry is not None
        sender.telemetry.ended, sender.telemetry.sent = 3, 2
    assert told[1:] == ["1 of 3 spans were not sent"] and live_export._whereto() == ""
    with sending("r", asked=True, on_problem=told.append) as sender:
        assert sender.telemetry is not None
        sender.telemetry.ended = sender.telemetry.sent = 2
    assert len(told) == 2


def test_an_attempt_that_cannot_be_a_span_is_told_and_a_listener_may_be_none() -> None:
    class Took:
        def __init__(self) -> None:
            self.spans: list[list[Span]] = []
            self.told: list[str] = []
            self.note_problem = self.told.append

        def send(self, spans: list[Span]) -> None:
            if len(self.spans) == 1:
                raise OSError("full")
            self.spans.append(spans)

    took: Any = Took()
    sender = Sender(took, "run-1", content=True)
    made = attempt()
    for _ in range(2):
        sender.ended(made)
    assert took.spans == [spans_of(made, "run-1", content=True)]
    assert took.told == ["the attempt t1 cannot be sent: OSError: full"]
    place: Any = SimpleNamespace(id="p1")
    listener: Any = sender.listeners(lambda given: None)(place)
    assert listener.streams is False
    trace_context.enter(None)
    listener("a step that is no beginning")
    assert trace_context.current() is None

    def other(step: Any) -> None: ...

    assert sender.listeners(lambda given: other)(place).streams is True  # type: ignore[union-attr]
    other.streams = False  # type: ignore[attr-defined]
    assert sender.listeners(lambda given: other)(place).streams is False  # type: ignore[union-attr]


# -- an attempt --


def attempt(**changes: Any) -> Trace:
    nodes = (Node(None, user("What?")), Node(0, assistant("so")), Node(0, assistant("or so")))
    calls = (
        Call("0:0", "tool", None, 0.5, 0.25, "r", detail={"name": "n\ud800" * 200, "arguments": 0, "result": None},
            error="o\ud800"),
        Call("0:1", "generate", 0, 1.0, 2.0, "r", Usage(3, 1, 2, 0.25), (1, 2), {"finish_reasons": ["stop"]}),
    )  # fmt: skip
    given: dict[str, Any] = {
        "nodes": nodes, "calls": calls, "place": "p1", "answer": "", "stop_reason": "error",
        "events": (Event("note", 0.5, {"n": 0, "said": "x"}),), "scores": (Score("s", 0.0),),
        "error": Failure("Gone", "no \ud800"), **changes,
    }  # fmt: skip
    return Trace(
        "t1", "b\ud800", "k", {"name": "a\ud800", "model": "m"}, 0, 0, "1970-01-01T00:00:10+00:00", 4.0, **given
    )


def test_an_attempt_tells_its_errors_and_words_only_where_content_is_asked_for() -> None:
    root = parent_of("p1", "r7")
    agent, tool, generation = spans_of(attempt(), "r7")
    plain = {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "firsthand", "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 2, "gen_ai.usage.cache_read.input_tokens": 1,
        "firsthand.usage.cost_usd": 0.25, "gen_ai.agent.name": "a?", "gen_ai.conversation.id": "t1",
            "firsthand.benchmark": "b?",
        "firsthand.task": "k", "firsthand.epoch": 0, "firsthand.seed": 0, "firsthand.stop_reason": "error",
            "firsthand.run": "r7",
        "error.type": "Gone",
    }  # fmt: skip
    events = (
        SpanEvent("note", 10_500_000_000, {"firsthand.n": 0}),
        SpanEvent("gen_ai.evaluation.result", 14 * 10**9, {"gen_ai.evaluation.name": "s",
            "gen_ai.evaluation.score.value": 0.0}),
    )  # fmt: skip
    assert agent == Span(
        "invoke_agent a?", root.trace_id, root.span_id, None, 10**10, 14 * 10**9, "internal", plain, events, ""
    )
    assert (tool.error, tool.attributes["error.type"], tool.name) == ("", "tool_error", "execute_tool " + ("n?" * 128))
    assert (tool.start_ns, tool.end_ns, generation.start_ns, generation.end_ns) == (
        10_500_000_000, 10_750_000_000, 11 * 10**9, 13 * 10**9,
    )  # fmt: skip
    assert [each.parent_id for each in (tool, generation)] == [root.span_id] * 2 and generation.kind == "client"
    agent, tool, generation = spans_of(attempt(), "r7", content=True)
    assert (agent.error, tool.error) == ("no ?", "o?")
    asked = [{"role": "user", "parts": [{"type": "text", "content": "What?"}]}]
    said = {"role": "assistant", "parts": [{"type": "text", "content": "so"}], "finish_reason": "stop"}
    assert json.loads(str(agent.attributes["gen_ai.input.messages"])) == asked
    assert json.loads(str(agent.attributes["gen_ai.output.messages"])) == [
        said | {"parts": [{"type": "text", "content": ""}]}
    ]
    assert tool.attributes["gen_ai.tool.call.arguments"] == "0" and "gen_ai.tool.call.result" not in tool.attributes
    assert json.loads(str(generation.attributes["gen_ai.output.messages"])) == [said], "two answers, and one reason"
    scored = Call("0:0", "score", 1, 0.0, 0.0, "r")
    first = spans_of(attempt(calls=(scored, *attempt().calls)), content=True)[0]
    assert [each["role"] for each in json.loads(str(first.attributes["gen_ai.input.messages"]))] == [
        "user",
        "assistant",
    ]
    unanswered = spans_of(attempt(answer=None, calls=()), content=True)
    assert len(unanswered) == 1 and "gen_ai.output.messages" not in unanswered[0].attributes
    assert "firsthand.run" not in unanswered[0].attributes and unanswered[0].attributes["gen_ai.input.messages"] == "[]"
    assert [len(_messages(attempt(), at)) for at in (0, 1, 2, 3, -1, None)] == [1, 2, 2, 0, 0, 0]


# -- contents --


def test_settings_without_effect_are_left_out_and_others_have_their_type() -> None:
    given = {
        "max_tokens": 5.0, "temperature": 0, "top_p": 1, "top_k": 0, "frequency_penalty": 0.0, "presence_penalty": 1,
            "seed": 0,
        "stop": ["a\ud800", 7], "grammar": {"kind": "json_schema"},
    }  # fmt: skip
    assert genai.request(given, n=0, stream=True) == {
        "gen_ai.request.max_tokens": 5, "gen_ai.request.temperature": 0.0, "gen_ai.request.top_p": 1.0,
        "gen_ai.request.presence_penalty": 1.0, "gen_ai.request.seed": 0, "gen_ai.request.stop_sequences": ["a?", "7"],
        "gen_ai.request.choice.count": 0, "gen_ai.request.stream": True, "gen_ai.output.type": "json",
    }  # fmt: skip
    assert (
        genai.request({"stop": [], "grammar": {"kind": "regex"}, "seed": True, "top_k": "9", "max_tokens": None}) == {}
    )
    assert [genai.captures_content({genai.CAPTURE: text}) for text in ("TRUE", "1", " span_and_event", "event_only",
        "yes", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    long = {
        "a" * 1030: "é" * 70_000,
        "n": 2**63,
        "m": -(2**63),
        "huge": -(2**256),
        "big": 2**255,
        "l": ["x" * 1030] * 130,
        "b": True,
    }
    found = genai.exportable(long)  # type: ignore[arg-type]
    assert found == {
        "a" * 1024: "é" * 65_536, "n": str(2**63), "m": -(2**63), "huge": "too large", "big": str(2**255),
        "l": ["x" * 1024] * 128, "b": True,
    }  # fmt: skip
    assert genai.tool("n" * 300, id="") == {
        "gen_ai.tool.name": "n" * 256, "gen_ai.tool.type": "function", "gen_ai.tool.call.id": "",
    }  # fmt: skip
    assert genai.tool_content(None, []) == {"gen_ai.tool.call.result": "[]"}
    assert genai.operation("x", "") == {
        "gen_ai.operation.name": "x",
        "gen_ai.provider.name": "firsthand",
        "gen_ai.request.model": "",
    }
    parts = (
        Text("t"),
        ToolCall("i", "f", {"a": 1}),
        ToolCall("j", "g", {}, "{bad"),
        ToolCall("k", "h", {"a": 2}, ""),
        ToolResult("i", "f", "r"),
        Reasoning("hm", {}),
    )
    (body,) = json.loads(str(genai.prompt([Message("tool", parts)])["gen_ai.input.messages"]))
    assert body == {"role": "tool", "parts": [
        {"type": "text", "content": "t"}, {"type": "tool_call", "id": "i", "name": "f", "arguments": {"a": 1}},
        {"type": "tool_call", "id": "j", "name": "g", "arguments": "{bad"}, {"type": "tool_call", "id": "k",
            "name": "h", "arguments": ""},
        {"type": "tool_call_response", "id": "i", "response": "r"}, {"type": "reasoning", "content": "hm"},
    ]}  # fmt: skip


def test_of_long_contents_the_newest_messages_and_the_beginning_of_a_long_one_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(genai, "MAX_CONTENT_CHARS", 400)
    size = len(json.dumps([genai._message(user(""))]))

    def told(*texts: str) -> list[str]:
        shown = json.loads(str(genai.prompt([user(text) for text in texts])["gen_ai.input.messages"]))
        return [each["parts"][0]["content"] for each in shown]

    assert told("a" * (400 - size)) == ["a" * (400 - size)] and told("a" * (401 - size)) == ["a" * 100 + "…"]
    assert told("old" * 99, "c" * 150) == ["c" * 150], "one that fits alone is whole"
    fits = 336 - 2 * size  # two messages, with two characters each for what stands between
    assert told("old" * 99, "b" * (fits - 9), "c" * 9) == ["b" * (fits - 9), "c" * 9]
    assert told("old" * 99, "b" * (fits - 8), "c" * 9) == ["c" * 9]
    two = Message("user", (Text("x" * 500), ToolCall("i", "f", {"a": 1}), Text("y" * 33), Text("z" * 25)))
    (cut,) = json.loads(str(genai.prompt([user("before"), two])["gen_ai.input.messages"]))
    assert [part.get("content", part.get("arguments")) for part in cut["parts"]] == [
        "x" * 25 + "…",
        {"a": 1},
        "y" * 25 + "…",
        "z" * 25,
    ]
    told = [
        (user("é"), "length"),
        (Message("tool", (Text("y" * 500), ToolCall("i", "f", {"at": Path("/x")}))), "tool_calls"),
    ]
    (last,) = json.loads(str(genai.answers(told)["gen_ai.output.messages"]))
    assert last == {"role": "tool", "finish_reason": "tool_call", "parts": [
        {"type": "text", "content": "y" * 50 + "…"},
        {"type": "tool_call", "id": "i", "name": "f", "arguments": {"at": "/x"}},
    ]}, "the last message is cut, and keeps its role and its reason"  # fmt: skip
    bare = '[{"role": "assistant", "parts": [], "finish_reason": "' + "x" * 500
    assert json.loads(str(genai.answers([(user("a"), "stop"), (Message("assistant", ()), "x" * 500)])[
        "gen_ai.output.messages"])) == bare[:200] + "…"  # fmt: skip
    assert genai.tool_content({"k": "v" * 400}, None) == {
        "gen_ai.tool.call.arguments": json.dumps(('{"k": "' + "v" * 400)[:200] + "…", ensure_ascii=False)
    }  # fmt: skip


def test_requests_hold_at_least_a_span_and_at_most_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, **attributes: Any) -> Any:
        return SimpleNamespace(name=name, attributes=attributes)

    spans = [made("a", x="é" * 300), made("b", n=1, s="y" * 4), made("c"), made("d", x="z" * 5000), made("e")]
    monkeypatch.setattr(otlp_export, "_REQUEST_BYTES", 1024 + 900 + 1024 + 64 + 12)
    assert [[each.name for each in group] for group in otlp_export._requests(iter(spans))] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]
    monkeypatch.setattr(otlp_export, "_REQUEST_BYTES", 1024 + 900 + 1024 + 64 + 11)
    assert [[each.name for each in group] for group in otlp_export._requests(spans)] == [
        ["a"],
        ["b", "c"],
        ["d"],
        ["e"],
    ]
    assert list(otlp_export._requests([])) == []
    large = [made("f", x="z" * 5000), made("g", x="z" * 5000), made("h")]
    assert [[each.name for each in group] for group in otlp_export._requests(large)] == [["f"], ["g"], ["h"]]
