"""Spans that a real collector takes over HTTP: of requests and of attempts, and what a bad collector costs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from collector import Collector, collecting, values
from firsthand import cli
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.commands import export
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, MissingExtra, ModelError
from firsthand.experiment.experiment import Experiment
from firsthand.message import ToolCall, assistant
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.local import Local
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs import store
from firsthand.runs.execute import execute
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.telemetry.request_spans import RequestSpans
from firsthand.task import Task
from firsthand.telemetry import genai, otlp_export
from firsthand.telemetry.live_export import Sender
from firsthand.telemetry.otlp_export import Telemetry
from firsthand.telemetry.trace_spans import Span, parent_of, spans_of
from firsthand.tools.calculator import calculator
from firsthand.trace import Event, Score, Trace
from served import Running, serving, until
from tiny import write_model

HTTP = httpx.Client(timeout=30)
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "the secret word"}]}
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
SERVER, CLIENT, INTERNAL = 2, 3, 1


def echo(messages: Any, sampling: Any, index: int) -> str:
    return messages if isinstance(messages, str) else str(messages[-1].text)


class Told:
    """A server whose requests are told."""

    def __init__(self, running: Running, collector: Collector, problems: list[str], *, content: bool = False):
        self.running, self.collector = running, collector
        self.telemetry = Telemetry(collector.url, on_problem=problems.append)
        running.telemetry.spans = RequestSpans(self.telemetry, content=content)
        self._known = 0

    def ask(self, path: str = CHAT, headers: Any = None, **body: Any) -> httpx.Response:
        return HTTP.post(self.running.url + path, json={**HI, **body} if path == CHAT else body, headers=headers)

    def spans(self, count: int) -> list[Any]:
        """The spans that came since this was asked the last time."""
        until(lambda: self.telemetry.ended >= self._known + count, 60)
        self.telemetry.deliver([])
        self.telemetry._processor.force_flush()
        found = self.collector.spans[self._known :]
        assert len(found) == count
        self._known += count
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(Scripted(echo, name="scripted"), name="demo") as running:
        yield running


@pytest.fixture
def told(server: Running) -> Iterator[Told]:
    with collecting() as collector:
        found = Told(server, collector, [])
        yield found
        server.telemetry.spans = None
        found.telemetry.close()


# -- the server --


def test_a_request_is_a_span_in_the_trace_that_its_header_names(told: Told) -> None:
    answer = told.ask(headers={"traceparent": PARENT}, temperature=0.5, top_p=0.9, max_tokens=7, seed=3, stop=["#"])
    (span,) = told.spans(1)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == ("a" * 32, "b" * 16, SERVER)
    assert span.name == "chat demo" and span.end_time_unix_nano > span.start_time_unix_nano
    assert abs(span.start_time_unix_nano / 1e9 - time.time()) < 60
    assert values(span.attributes) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "firsthand.client": "anyone",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "firsthand",
        "gen_ai.request.model": "demo",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["#"],
        "gen_ai.response.id": answer.json()["id"],
        "gen_ai.response.model": "demo",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    (event,) = span.events
    assert event.name == "firsthand.first_token"
    assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano
    assert told.collector.resources[0]["service.name"] == "firsthand"


def test_streams_several_answers_and_other_routes_are_told_too(told: Told) -> None:
    assert "[DONE]" in told.ask(stream=True, n=2).text
    told.ask("/v1/completions", prompt=["a", "b c"], max_tokens=5)
    told.ask("/v1/responses", input="hello")
    HTTP.get(told.running.url + "/v1/models")
    HTTP.get(told.running.url + "/health")
    stream, completion, response, models = told.spans(4)
    assert values(stream.attributes).items() >= {
        "gen_ai.request.stream": True,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.finish_reasons": ["stop", "stop"],
    }.items()  # fmt: skip
    assert values(stream.attributes)["gen_ai.response.time_to_first_chunk"] >= 0
    assert completion.name == "text_completion demo"
    assert values(completion.attributes)["gen_ai.usage.input_tokens"] == 3  # both prompts
    assert response.name == "chat demo" and values(response.attributes)["gen_ai.response.id"].startswith("resp_")
    assert models.name == "GET /v1/models" and "gen_ai.operation.name" not in values(models.attributes)


def test_messages_are_told_only_where_that_is_asked_for(server: Running) -> None:
    for content in (False, True):
        with collecting() as collector:
            told = Told(server, collector, [], content=content)
            told.ask(logit_bias=None)
            (span,) = told.spans(1)
            found = values(span.attributes)
            assert ("secret" in repr(found)) is content
            if content:
                asked = [{"role": "user", "parts": [{"type": "text", "content": "the secret word"}]}]
                assert json.loads(found["gen_ai.input.messages"]) == asked
                told_back = [{**asked[0], "role": "assistant", "finish_reason": "stop"}]
                assert json.loads(found["gen_ai.output.messages"]) == told_back
            server.telemetry.spans = None
            told.telemetry.close()


@pytest.mark.parametrize(
    ("given", "captured"),
    [("true", True), ("TRUE", True), ("span_only", True), ("span_and_event", True), ("", False), ("false", False),
     ("event_only", False), ("no_content", False), ("yes please", False)],
)  # fmt: skip
def test_the_standard_variable_says_whether_messages_are_told(given: str, captured: bool) -> None:
    assert genai.captures_content({genai.CAPTURE: given}) is captured


def test_what_fails_says_why(told: Told) -> None:
    told.ask(temperature=-1)
    told.ask(model="another")
    wrong, unknown = told.spans(2)
    assert [values(span.attributes)["error.type"] for span in (wrong, unknown)] == ["400", "404"]
    assert [span.status.code for span in (wrong, unknown)] == [0, 0]  # a client's mistake is no error of the server
    assert wrong.name == "chat"


def test_a_failing_model_is_an_error_before_and_in_a_stream() -> None:
    model = Scripted(echo, name="scripted", error=ModelError("the GPU fell off"))
    with serving(model) as running, collecting() as collector:
        told = Told(running, collector, [])
        assert [told.ask(stream=stream).status_code for stream in (False, True)] == [500, 500]
        for span in told.spans(2):
            assert values(span.attributes)["error.type"] == "500"
            assert (span.status.code, span.status.message) == (2, "the GPU fell off")
        told.telemetry.close()


@pytest.mark.slow
def test_a_refused_key_and_a_client_that_left_are_told(tmp_path: Path) -> None:
    keys = Keys((Client("ann", ClientLimits(), hashlib.sha256(b"k" * 16).digest()),))
    with serving(Scripted(echo, name="scripted", delay_s=30), keys=keys) as running, collecting() as collector:
        told = Told(running, collector, [])
        told.ask(headers={"authorization": "Bearer wrong-wrong-wrong-wrong"})
        with pytest.raises(httpx.ReadTimeout):
            right = {"authorization": "Bearer " + "k" * 16}
            HTTP.post(running.url + CHAT, json=HI, headers=right, timeout=0.3)
        refused, left = told.spans(2)
        assert values(refused.attributes)["error.type"] == "401" and "wrong-wrong" not in str(refused)
        assert values(left.attributes).items() >= {"error.type": "499", "firsthand.client": "ann"}.items()
        told.telemetry.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    ["", "x", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01", PARENT[:-3],
     "ff" + PARENT[2:], PARENT + "-extra", "00-" + "g" * 32 + "-" + "b" * 16 + "-01", "a" * 20_000, "00-é-é-01"],
)  # fmt: skip
def test_a_header_that_names_no_trace_begins_a_new_one(told: Told, header: str) -> None:
    sent = [(b"traceparent", header.encode("utf-8")), (b"tracestate", b"\xff=;;,,=" * 40), (b"baggage", b"a=%ZZ;" * 99)]
    assert told.ask(headers=sent).status_code == 200
    (span,) = told.spans(1)
    assert span.parent_span_id == b"" and span.trace_id.hex() != "a" * 32


def test_a_trace_that_is_not_recorded_elsewhere_is_not_recorded_here(told: Told) -> None:
    told.ask(headers={"traceparent": PARENT[:-2] + "00"})
    told.ask()
    assert len(told.spans(1)) == 1 and told.telemetry.ended == 1


def test_text_that_no_utf8_can_say_loses_no_other_span(server: Running) -> None:
    with collecting() as collector:
        told = Told(server, collector, [], content=True)
        body = b'{"messages": [{"role": "user", "content": "\\ud800 half"}], "stop": ["\\udfff"]}'
        HTTP.post(server.url + CHAT, content=body, headers={"content-type": "application/json"})
        told.ask()
        assert len(told.spans(2)) == 2
        server.telemetry.spans = None
        told.telemetry.close()


def test_long_prompts_are_cut_to_what_may_wait_in_memory(server: Running) -> None:
    with collecting() as collector:
        told = Told(server, collector, [], content=True)
        long = {"role": "user", "content": "x\n" * 100_000}
        told.ask(messages=[long])
        told.ask(messages=[long, {"role": "assistant", "content": "y"}, {"role": "user", "content": "the last"}])
        for span, kept in zip(told.spans(2), (1, 2), strict=True):
            text = values(span.attributes)["gen_ai.input.messages"]
            assert len(text) <= genai.MAX_CONTENT_CHARS and len(json.loads(text)) == kept
        server.telemetry.spans = None
        told.telemetry.close()


# -- a collector that is not well --


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hangs", "refuses", "is not there"])
def test_a_collector_costs_no_request_and_the_end_does_not_wait_for_it(server: Running, kind: str) -> None:
    problems: list[str] = []
    with collecting(hang=kind == "hangs", status=400) as collector:
        if kind == "is not there":
            collector.url = "http://127.0.0.1:9"
        told = Told(server, collector, problems)
        began = time.monotonic()
        threads = [threading.Thread(target=told.telemetry._processor.force_flush, daemon=True) for _ in range(2)]
        assert told.ask().status_code == 200
        until(lambda: told.telemetry.ended == 1)
        for thread in threads:  # the sending hangs, or fails, while requests come
            thread.start()
        for _ in range(20):
            assert told.ask().status_code == 200
        until(lambda: told.telemetry.ended == 21)
        told.telemetry.close(within_s=0.5)
        assert time.monotonic() - began < 9  # the exporter's own patience is 10 s
        assert told.telemetry.sent == 0
        metrics = HTTP.get(server.url + "/metrics").text
        assert 'firsthand_spans_total{state="ended"} 21' in metrics
        assert 'firsthand_spans_total{state="sent"} 0' in metrics
        if kind == "refuses":
            assert problems == ["spans cannot be sent: Failed to export spans batch code: 400, reason: Bad Request"]
        server.telemetry.spans = None
        assert told.ask().status_code == 200


def test_a_problem_is_told_once_until_it_is_over() -> None:
    problems: list[str] = []
    telemetry = Telemetry("http://127.0.0.1:9", on_problem=problems.append)
    for succeeded in (False, False, True, False):
        telemetry.note(3, succeeded)
    assert len(problems) == 2 and (telemetry.sent, telemetry.failed) == (3, 9)
    telemetry.close()


def test_a_full_queue_loses_spans_and_keeps_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with collecting(hang=True) as collector:
        telemetry = Telemetry(collector.url)
        telemetry.send(Span(f"s{i}", 5, 6 + i, None, 1, 2) for i in range(1000))
        assert telemetry.ended == 1000
        assert len(telemetry._processor._batch_processor._queue) <= 8
        telemetry.close(within_s=0.1)


# -- attempts --


def task(**metadata: str) -> Task:
    return Task("t1", "What is 2 + 3?", metadata=metadata, secret={"target": "5"})


def exact(task: Task, trace: Trace) -> Score:
    return Score("exact", float(trace.answer == task.secret["target"]))


SUM = Benchmark("sum", lambda seed: [task()], scorers=(exact,))


async def native(task: Task, ctx: Context) -> str:
    """Tool calls of the model's own form until it answers in words."""
    ctx = ctx.say(task.prompt)
    while True:
        ctx = await ctx.generate(tools=ctx.tools)
        if not ctx.last.tool_calls:
            return ctx.text
        for result in await ctx.call_all(ctx.last.tool_calls):
            ctx = ctx.say(result)


def agent(model: Any = None) -> Agent:
    script = [assistant("", ToolCall("call_1", "calculator", {"expression": "2 + 3"})), "5"]
    return Agent(
        "native", model or Scripted(script), native, {}, (calculator,), Sampling(max_tokens=9, temperature=0.5)
    )


def attempt() -> Trace:
    return asyncio.run(rollout(agent(), task(), benchmark=SUM))


def test_an_attempt_is_an_agent_with_its_generations_and_tools_below_it() -> None:
    trace = attempt()
    assert trace.error is None and [call.kind for call in trace.calls] == ["generate", "tool", "generate"]
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans_of(trace, "run-1", content=True))
        root, first, ran, second = collector.wait(4)
        telemetry.close()
    assert [root.name, first.name, ran.name, second.name] == [
        "invoke_agent native", "chat scripted", "execute_tool calculator", "chat scripted",
    ]  # fmt: skip
    assert {span.trace_id for span in (root, first, ran, second)} == {root.trace_id}
    assert root.parent_span_id == b"" and {s.parent_span_id for s in (first, ran, second)} == {root.span_id}
    assert [root.kind, first.kind, ran.kind] == [INTERNAL, CLIENT, INTERNAL]
    assert root.end_time_unix_nano >= second.end_time_unix_nano >= second.start_time_unix_nano
    assert values(root.attributes).items() >= {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "native", "gen_ai.request.model": "scripted",
        "gen_ai.conversation.id": trace.id, "firsthand.run": "run-1", "firsthand.benchmark": "sum", "firsthand.task": "t1",
        "gen_ai.usage.input_tokens": trace.usage.prompt_tokens, "gen_ai.usage.output_tokens": trace.usage.completion_tokens,
    }.items()  # fmt: skip
    (score,) = [event for event in root.events if event.name == "gen_ai.evaluation.result"]
    assert values(score.attributes) == {"gen_ai.evaluation.name": "exact", "gen_ai.evaluation.score.value": 1.0}
    assert values(first.attributes).items() >= {
        "gen_ai.operation.name": "chat", "gen_ai.request.max_tokens": 9, "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ["tool_calls"],
    }.items()  # fmt: skip
    assert values(ran.attributes).items() >= {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "calculator", "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": '{"expression": "2 + 3"}', "gen_ai.tool.call.result": '"5"',
    }.items()  # fmt: skip
    said = json.loads(values(second.attributes)["gen_ai.input.messages"])
    assert said[-1] == {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "5"}]}
    told = json.loads(values(first.attributes)["gen_ai.output.messages"])
    assert told[0]["finish_reason"] == "tool_call" and told[0]["parts"][-1]["name"] == "calculator"


def test_without_content_and_for_protected_tasks_no_word_leaves() -> None:
    trace = attempt()
    secret = asyncio.run(rollout(agent(), task(protected="it is not to be seen"), benchmark=SUM))
    quoting = asyncio.run(rollout(agent(Scripted([])), task(), benchmark=SUM))
    assert quoting.error is not None and "What is" in quoting.error.message
    told = spans_of(quoting)
    assert [span.error for span in told] == ["", ""] and told[0].attributes["error.type"] == "ModelError"
    for spans in (spans_of(trace), spans_of(secret, content=True), told):
        assert not re.search(r"What is|2 [+] 3", repr(spans))
    assert "What is 2 + 3?" in repr(spans_of(trace, content=True))


def test_names_are_those_of_the_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv.attributes import error_attributes, http_attributes

    known = {
        value
        for module in (gen_ai_attributes, error_attributes, http_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    text = "".join(Path(module.__file__).read_text() for module in (genai, sys.modules[spans_of.__module__]))
    text += Path(sys.modules[RequestSpans.__module__].__file__ or "").read_text()
    used = set(re.findall(r'"((?:gen_ai|http|error)\.[a-z_.]+)"', text))
    used |= {f"gen_ai.request.{name}" for name, _, _ in genai._SETTINGS}
    used |= {"gen_ai.request.frequency_penalty", "gen_ai.request.presence_penalty"}
    assert len(used) > 25 and used - known == {"gen_ai.evaluation.result"}  # which is the name of an event


def test_an_endpoint_that_an_attempt_asks_is_part_of_its_trace(told: Told, tmp_path: Path) -> None:
    model = OpenAIModel("demo", f"{told.running.url}/v1")
    place = Place(agent(model), SUM, task())
    with store.create(tmp_path, {}, "sum", command=[]) as run:
        sender = Sender(told.telemetry, run.id)
        asyncio.run(execute(run, [place], on_trace=sender.ended, listener=sender.listeners(lambda place: None)))
        (trace,) = run.traces()
        generated = [call for call in trace.calls if call.kind == "generate"]
        spans = told.spans(1 + len(trace.calls) + len(generated))
    by_id = {span.span_id: span for span in spans}
    served = [span for span in spans if span.kind == SERVER]
    assert len(served) == len(generated) > 0
    for span in served:
        above = by_id[span.parent_span_id]
        assert above.kind == CLIENT and above.trace_id == span.trace_id
        assert above.start_time_unix_nano <= span.start_time_unix_nano + 2_000_000  # a trace begins at a millisecond
        assert values(span.attributes).get("gen_ai.request.stream") is None  # nobody watches, so nothing is streamed
    assert parent_of(trace.place, run.id).trace_id == int.from_bytes(served[0].trace_id, "big")


def test_a_stored_run_is_exported_and_twice_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with store.create(tmp_path, {}, "sum", command=[]) as run:
        asyncio.run(execute(run, [Place(agent(), SUM, task())]))
    with collecting() as collector:
        assert export.main(export.Config(otlp=collector.url)) == 0
        assert export.main(export.Config(trace="sum/t1", otlp=collector.url + "/v1/traces")) == 0
        assert capsys.readouterr().out == "sent: 1 attempt as 4 spans\n" * 2
        first, second = collector.spans[:4], collector.spans[4:]
        assert [(s.trace_id, s.span_id) for s in first] == [(s.trace_id, s.span_id) for s in second]
    with collecting(status=403) as collector, pytest.raises(ConfigError, match=r"accepted 0 attempts .* 403"):
        export.main(export.Config(otlp=collector.url))


@pytest.mark.parametrize("url", ["", "localhost:4318", "ftp://x", "http://", "http://[", "//x"])
def test_what_is_no_collector_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        otlp_export.traces_url(url)


def test_where_spans_go() -> None:
    assert otlp_export.traces_url(" http://x:4318/ ") == "http://x:4318/v1/traces"
    assert otlp_export.traces_url("https://x/api/otel/v1/traces") == "https://x/api/otel/v1/traces"


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_the_environment_alone_may_ask(environment: dict[str, str], asked: bool) -> None:
    assert otlp_export.is_asked_for(environment) is asked


def test_what_the_environment_asks_in_vain_stops_nothing_and_a_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert otlp_export.open_telemetry(False, on_problem=problems.append) is None
    assert "spans are sent as http/protobuf" in problems[0]
    with pytest.raises(ConfigError, match="grpc"):
        otlp_export.open_telemetry(True)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert otlp_export.open_telemetry(True) is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra, match=r"pip install 'firsthand\[otel\]'"):
        otlp_export.open_telemetry(True)


@pytest.mark.slow
def test_a_model_that_runs_here_tells_its_queue_and_its_cache(tmp_path: Path) -> None:
    model = Local(write_model(tmp_path / "m"), config=EngineConfig(kv_memory_bytes=1 << 22, threads=1, max_sequences=1))
    with serving(model, name="tiny") as running, collecting() as collector:
        told = Told(running, collector, [])
        threads = [threading.Thread(target=lambda: told.ask(max_tokens=40)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [values(span.attributes) for span in told.spans(3)]  # they arrive in any order
        found.sort(key=lambda each: each["firsthand.time_in_queue"])
        waits = [each["firsthand.time_in_queue"] for each in found]
        assert 0 <= waits[0] < waits[1] < waits[2] < 60  # one at a time is computed
        read = sorted(each["gen_ai.usage.cache_read.input_tokens"] for each in found)
        assert read[0] == 0 < read[1]  # the first to be computed, which need not have waited least
        assert all(each["gen_ai.usage.output_tokens"] > 0 for each in found)
        told.telemetry.close()


def test_a_run_on_the_command_line_tells_its_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.commands import run

    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    config = run.Config(benchmarks=("arithmetic",), model=("scripted:echo",), limit=2, otel=True)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert run.main(config) == 0
        names = [span.name for span in collector.wait(4)]
        assert sorted(names) == ["chat scripted:echo"] * 2 + ["invoke_agent direct"] * 2
        assert "--otel" not in config.command()  # where spans went is no part of what was run
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        assert run.main(run.Config(benchmarks=("arithmetic",), model=("scripted:echo",), limit=1)) == 0
        assert len(collector.spans) == 4


def test_a_servers_log_says_once_that_spans_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    log = tmp_path / "log"
    with serving(Scripted(echo, name="scripted"), log=log) as running:
        running.telemetry.open_spans()
        assert running.telemetry.spans is None
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
        with collecting(status=400) as collector:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            running.telemetry.open_spans()
            spans = running.telemetry.spans
            assert spans is not None
            for _ in range(2):
                assert HTTP.post(running.url + CHAT, json=HI).status_code == 200
            until(lambda: spans.telemetry.ended == 2, 60)
            spans.close()
            assert spans.telemetry.failed == 2
    told = [line["error"] for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "telemetry"]
    assert len(told) == 2 and "grpc" in told[0] and "code: 400" in told[1]


def test_numbers_that_otlp_cannot_hold_lose_no_span() -> None:
    trace = replace(attempt(), seed=2**70, events=(Event("odd", 0.1, {"count": -(2**65), "share": 0.5}),))
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans_of(trace))
        root = collector.wait(4)[0]
        telemetry.close()
    assert values(root.attributes)["firsthand.seed"] == str(2**70)
    assert values(root.events[0].attributes) == {"firsthand.count": str(-(2**65)), "firsthand.share": 0.5}


def test_otel_without_its_extra_leaves_no_run_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert cli.main(["run", "arithmetic", "--limit", "1", "--model", "scripted:echo", "--otel"]) != 0
    benchmark = Benchmark("b", lambda seed: [Task("1", "?")], ())
    with pytest.raises(MissingExtra, match=r"firsthand\[otel\]"):
        Experiment([Agent("a", Scripted(lambda *_: "x"), direct)], benchmark).run(otel=True)
    assert not (tmp_path / "home" / "runs").exists()


def test_an_export_to_nobody_names_the_address_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    store.create(tmp_path, {}, "sum", command=[]).close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert cli.main(["export", "last", "--otlp", url]) != 0
        assert f"no collector answers at {url}/v1/traces (Connection refused)" in capsys.readouterr().err
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert cli.main(["export", "last", "--otlp"]) != 0
        assert f"no collector answers at {url}/v1/traces" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1/"}, "http://c:1/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/t", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"},
            "http://c:1/t",
        ),
    ],
)
def test_the_address_of_a_collector_is_the_one_that_the_sdk_sends_to(
    environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert otlp_export.collector_url(None, environment) == url == otlp_export._exporter(None)._endpoint
