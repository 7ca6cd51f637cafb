"""Prefixes, bodies, metrics and log lines of the server, without a socket, at their limits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import (
    ConfigError,
)
from firsthand.message import ToolCall, assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.admission import metered_answers
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import (
    ClientLimits,
)
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.metered_answers import metered
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.anthropic.message_parts import ended_json, tool_input, usage_json
from firsthand.serve.http.mounted_app import MountedApp, find_app
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.request_body import MAX_DEPTH, MAX_KEYS, MAX_VALUES, parse_object, read_body
from firsthand.serve.telemetry.metrics import BETWEEN_S, FIRST_S, Histogram, Metrics
from firsthand.serve.telemetry.request_log import RequestLog
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

ANN = Client("ann", ClientLimits(concurrency=2, tokens_per_minute=10))


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app."""


def test_the_longest_prefix_has_a_path_and_then_the_first_that_knows_it() -> None:
    def known(*paths: str) -> Any:
        return lambda path: path if path in paths else None

    root, also = MountedApp(nothing, route_of=known("/a", "/b")), MountedApp(nothing, route_of=known("/b", "/c"))
    short, long = (
        MountedApp(nothing, "/m", route_of=known("/", "/x")),
        MountedApp(nothing, "/m/n", route_of=known("/x/")),
    )
    fallback = MountedApp(nothing)
    for apps in ([root, also, short, long], [long, short, root, also]):
        for path, app, route in (
            ("/a", root, "/a"), ("/b", root, "/b"), ("/c", also, "/c"), ("/d", fallback, "other"), ("/m", short, "/m"),
            ("/m/x", short, "/m/x"), ("/m/y", short, "other"), ("/m/n/x/", long, "/m/n/x"), ("/m/n", long, "other"),
            ("/mn", fallback, "other"), ("/m/nx", short, "other"),
        ):  # fmt: skip
            assert find_app(apps, path, fallback) == (app, route), path
    for prefix in ("mcp", "/mcp/", "/"):
        with pytest.raises(ConfigError, match="give a path such as '/mcp', or nothing"):
            MountedApp(nothing, prefix)


def test_a_body_is_read_up_to_its_limit() -> None:
    def read(*pieces: bytes, most: int = 4, declared: str | None = None, leaves: bool = False) -> bytes:
        waiting = list(pieces)

        async def receive() -> Any:
            if not waiting:
                if leaves:
                    return {"type": "http.disconnect"}
                await asyncio.sleep(9)
            body = waiting.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(waiting) or leaves}

        return asyncio.run(read_body(receive, most, 0.02, declared))

    assert (
        read(b"ab", b"", b"cd") == b"abcd" and read(b"abcd", declared="4") == b"abcd" and read(b"", declared="0") == b""
    )
    for pieces, declared, status, said in (
        ((b"abc", b"de"), None, 413, "the body has more than 4 bytes"),
        ((b"a",), "5", 413, "the body has more than 4 bytes"),
        ((b"a",), "0" * 19, 413, "more than 4 bytes"),
        ((b"a",), "-1", 400, "Content-Length is '-1'"),
        ((b"a",), "\u0663", 400, "a number was expected"),
        ((), None, 408, "the body did not come within 0.02 s"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            read(*pieces, declared=declared)
        assert caught.value.status == status
        assert caught.value.headers == ({} if status == 400 else {"connection": "close"})


def test_a_body_is_one_object_of_strict_json() -> None:
    def of(raw: bytes, kind: str | None = "application/json") -> Any:
        return parse_object(raw, kind)

    assert of(b'{"a": [1, "x"]}', " Application/JSON ; charset=utf-8") == {"a": [1, "x"]}
    deepest = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert of(deepest)["a"] and of(b'{"a": "' + b"[" * 100 + b'"}') == {"a": "[" * 100}
    assert of(b'{"a": [' + b",".join([b"[]"] * 100) + b"]}")["a"] == [[]] * 100
    for raw, kind, status, said in (
        (b"{}", "text/plain", 415, "Content-Type is 'text/plain': send application/json"),
        (b"{}", None, 415, "Content-Type is 'missing'"),
        (b'{"a": "\xff"}', "application/json", 400, "not valid UTF-8 (byte 7)"),
        (deepest.replace(b"[]", b"[[]]"), "application/json", 400, "more than 64 deep"),
        (b"[]", "application/json", 400, "the body is a JSON list: an object was expected"),
        (b'{"a": 1, "b": 2, "a": 3}', "application/json", 400, "the key 'a' comes twice"),
        (b'{"a": NaN}', "application/json", 400, "NaN is no JSON"),
        (b'{"a": }', "application/json", 400, "the body is not valid JSON"),
        (b'{"a": [' + b"1," * 500_001 + b"1]}", "application/json", 400, "the body holds more than 500000 values"),
        (b"{" + b",".join(b'"%d":1' % at for at in range(10_001)) + b"}", "application/json", 400, "has 10001 keys"),
    ):
        with pytest.raises(Refusal) as caught:
            of(raw, kind)
        assert caught.value.status == status and said in caught.value.message


def test_a_body_holds_exactly_as_many_keys_and_values_as_are_taken() -> None:
    def of(raw: str) -> Any:
        return parse_object(raw.encode(), "application/json")

    def keys(count: int) -> str:
        return "{" + ",".join(f'"{at}":1' for at in range(count)) + "}"

    assert of(keys(MAX_KEYS)) == {str(at): 1 for at in range(MAX_KEYS)} and of("{}") == {} and MAX_KEYS == 10_000
    assert of(f'{{"a": {keys(MAX_KEYS)}, "b": [{keys(MAX_KEYS)}, {keys(2)}]}}')["b"][1] == {"0": 1, "1": 1}
    wide = f'{{"a": [{"1," * MAX_VALUES}1]}}'
    assert len(of(wide)["a"]) == MAX_VALUES + 1
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH  # brackets are counted one by one from here on
    twice = f'{{"a": {nested[1:-1]}, "b": {nested[1:-1]}, "c\\"[": "\\\\"}}'
    assert of(twice)['c"['] == "\\" and of(twice)["a"] == of(twice)["b"] != []
    half = keys(MAX_KEYS)[:-1] + f',"0":{keys(3)[:-1]},"2":1}}}}'
    for raw, told in (
        (keys(MAX_KEYS + 1), "an object has 10001 keys, and at most 10000 are taken"),
        (f'{{"a": [{keys(MAX_KEYS + 2)}]}}', "an object has 10002 keys, and at most 10000 are taken"),
        (keys(MAX_KEYS - 1)[:-1] + ',"7":2}', "the key '7' comes twice"),
        (half, "the key '2' comes twice"),
        ('{"a": {"b": 1, "c": 2, "c": 3, "b": 4}}', "the key 'c' comes twice"),
        (f'{{"{"k" * 61}": 1, "{"k" * 61}": 1}}', f"the key '{'k' * 60}' comes twice"),
        ('{"a": Infinity}', "Infinity is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
    ):
        with pytest.raises(Refusal) as caught:
            of(raw)
        assert (caught.value.status, caught.value.message) == (400, f"the body is not valid JSON: {told}")
    with pytest.raises(Refusal) as caught:
        of(wide.replace("[", "[1,", 1))
    assert (caught.value.status, caught.value.message) == (400, "the body holds more than 500000 values")
    with pytest.raises(Refusal) as caught:
        of(f'{{"a": {nested}}}')
    assert (caught.value.status, caught.value.message) == (400, "the body nests lists and objects more than 64 deep")


def test_a_histogram_counts_up_to_its_bounds() -> None:
    histogram = Histogram((0.5, 1.0))
    for value in (0.5, 0.25, 0.75, 2.0):
        histogram.observe(value)
    assert list(histogram.lines("h")) == [
        'h_bucket{le="0.5"} 2', 'h_bucket{le="1"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 3.5", "h_count 4",
    ]  # fmt: skip
    assert list(FIRST_S) == sorted(FIRST_S) and list(BETWEEN_S) == sorted(BETWEEN_S)


def test_the_metrics_of_a_server_are_told_one_by_one() -> None:
    metrics = Metrics()
    assert metrics.mean_request_s() == 1.0
    metrics.count_request("/b", 200, 2.0)
    metrics.count_request("/a", 404, 1.0)
    metrics.count_request("/b", 200, 6.0)
    metrics.tokens.update(prompt=5, cached=2, completion=3)
    metrics.disconnects, metrics.log_failures = 4, 7
    metrics.first_token.observe(0.25)
    metrics.between_tokens.observe(0.5)
    assert metrics.mean_request_s() == 3.0
    engine = {
        "running": 2.0,
        "num_blocks": 8.0,
        "used_blocks": 6.0,
        "prompt_tokens": 10.0,
        "cached_tokens": 4.0,
        "odd": 1.0,
    }
    lines = metrics.text(engine, ready=True, in_flight=9).splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "_bucket" not in line)
    assert values == {
        "firsthand_time_to_first_token_seconds_sum": "0.25", "firsthand_time_to_first_token_seconds_count": "1",
        "firsthand_inter_token_latency_seconds_sum": "0.5", "firsthand_inter_token_latency_seconds_count": "1",
        "firsthand_request_seconds_sum": "9", "firsthand_request_seconds_count": "3",
        'firsthand_requests_total{route="/a",code="404"}': "1", 'firsthand_requests_total{route="/b",code="200"}': "2",
        'firsthand_tokens_total{kind="prompt"}': "5", 'firsthand_tokens_total{kind="cached"}': "2",
        'firsthand_tokens_total{kind="completion"}': "3", "firsthand_requests_in_flight": "9",
        "firsthand_disconnects_total": "4", "firsthand_log_failures_total": "7", "firsthand_ready": "1",
        "firsthand_engine_running": "2", "firsthand_engine_num_blocks": "8", "firsthand_engine_used_blocks": "6",
        "firsthand_engine_prompt_tokens_total": "10", "firsthand_engine_cached_tokens_total": "4",
        "firsthand_engine_kv_usage_ratio": "0.75", "firsthand_engine_cache_hit_ratio": "0.4",
    }  # fmt: skip
    assert "# TYPE firsthand_engine_prompt_tokens_total counter" in lines and "# TYPE firsthand_ready gauge" in lines
    routes = [line for line in lines if line.startswith("firsthand_requests_total")]
    assert routes == sorted(routes)
    bare = metrics.text({"num_blocks": 0.0, "prompt_tokens": 0.0}, ready=False, in_flight=0)
    assert "ratio" not in bare and "firsthand_ready 0" in bare and bare.endswith("\n")


def test_every_series_has_its_own_help_and_kind() -> None:
    engine = ("running", "waiting", "oldest_wait_s", "num_blocks", "adapters", "used_blocks", "cached_blocks", "requests",
              "refused", "steps", "prompt_tokens", "cached_tokens", "prefill_tokens", "decode_tokens", "forced_tokens",
              "preemptions")  # fmt: skip
    values = {name: float(at) for at, name in enumerate(engine, 1)}
    lines = Metrics().text(values, ready=False, in_flight=0).splitlines()
    kinds = dict(line.removeprefix("# TYPE firsthand_").split(" ") for line in lines if line.startswith("# TYPE"))
    gauges = {*(f"engine_{name}" for name in engine[:7]), "engine_kv_usage_ratio", "engine_cache_hit_ratio", "ready",
              "requests_in_flight"}  # fmt: skip
    counters = {*(f"engine_{name}_total" for name in engine[7:]), "requests_total", "tokens_total", "disconnects_total",
                "log_failures_total"}  # fmt: skip
    histograms = {"time_to_first_token_seconds", "inter_token_latency_seconds", "request_seconds"}
    assert kinds == dict.fromkeys(gauges, "gauge") | dict.fromkeys(counters, "counter") | dict.fromkeys(
        histograms, "histogram"
    )
    told = dict(line.rsplit(" ", 1) for line in lines if line.startswith("firsthand_engine_"))
    numbers = {f"firsthand_engine_{name}{'' if at <= 7 else '_total'}": str(at) for at, name in enumerate(engine, 1)}
    assert told == numbers | {
        "firsthand_engine_kv_usage_ratio": "1.5", "firsthand_engine_cache_hit_ratio": f"{12 / 11:.9g}",
    }  # fmt: skip
    helps = [line.split(" ", 3) for line in lines if line.startswith("# HELP")]
    assert [each[2].removeprefix("firsthand_") for each in helps] == list(kinds) and len(
        {each[3] for each in helps}
    ) == 27
    told = {each[2].removeprefix("firsthand_"): each[3] for each in helps}
    assert told["request_seconds"] == "From the first byte to the end of the answer."
    assert told["engine_oldest_wait_s"] == "Seconds that the oldest waiting answer has waited."
    order = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert order[:3] == [f"firsthand_{name}" for name in ("time_to_first_token_seconds", "inter_token_latency_seconds",
                                                          "request_seconds")]  # fmt: skip


def test_answers_are_metered_by_their_first_piece_their_gaps_and_their_end() -> None:
    telemetry, admission = ServerTelemetry(TelemetrySettings(log="none")), Admission(Keys((ANN,)))
    request = ActiveRequest("r", ANN, "/x")
    done = Completion(assistant("ab"), "stop", Usage(3, 1, 2))

    async def pieces() -> Any:
        yield Delta("", index=0)
        yield Delta("a", index=0)
        await asyncio.sleep(0.003)
        yield Delta("", index=1, token_ids=(5,))
        yield Delta("b", index=0)
        yield Delta("whole", done, index=0)
        yield Delta("", Completion(assistant("c"), "stop", Usage(0, 0, 4)), index=1)

    async def run() -> list[str]:
        texts = []
        async for delta in metered(pieces(), request, admission, telemetry):
            texts.append(delta.text)
            first_ms.append(request.notes.get("ttft_ms"))
        return texts

    first_ms: list[Any] = []
    assert asyncio.run(run()) == ["", "a", "", "b", "whole", ""]
    assert first_ms[0] is None and first_ms[1] is not None and len(set(first_ms[1:])) == 1, "the first of all answers"
    metrics = telemetry.metrics
    assert (sum(metrics.first_token.counts), sum(metrics.between_tokens.counts)) == (2, 1)
    assert metrics.tokens == {"prompt": 3, "cached": 1, "completion": 6}
    notes = {key: value for key, value in request.notes.items() if key != "ttft_ms"}
    assert notes == {"prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 6} and request.notes["ttft_ms"] < 1000
    assert [count for _, count in admission._spent["ann"]] == [5, 4]


def test_the_time_between_tokens_is_from_the_one_before_of_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(metered_answers, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    telemetry, admission = ServerTelemetry(TelemetrySettings(log="none")), Admission(Keys((ANN,)))
    request, metrics = ActiveRequest("r", ANN, "/x"), telemetry.metrics
    told: list[tuple[float, float]] = []

    async def pieces() -> Any:
        done = Completion(assistant("x"), "stop", Usage(1, 0, 1))
        for after, delta in (
            (0.5, Delta("", index=1)), (1.5, Delta("a", index=1)), (0.25, Delta("b", index=1)),
            (0.5, Delta("c", index=0)), (1.0, Delta("d", index=1)), (0.125, Delta("", index=0, token_ids=(5,))),
            (2.0, Delta("", index=0)), (0.25, Delta("e", index=0)), (4.0, Delta("whole", done, index=0)),
            (8.0, Delta("t", done, index=1, token_ids=(6,))),
        ):  # fmt: skip
            clock[0] += after
            yield delta

    async def run() -> None:
        async for _ in metered(pieces(), request, admission, telemetry):
            told.append((metrics.first_token.total, metrics.between_tokens.total))

    asyncio.run(run())
    assert told == [
        (0.0, 0.0), (2.0, 0.0), (2.0, 0.25), (4.75, 0.25), (4.75, 1.75), (4.75, 2.875), (4.75, 2.875), (4.75, 5.125),
        (4.75, 5.125), (4.75, 5.125 + 14.375),
    ]  # fmt: skip
    assert request.notes["ttft_ms"] == 2000.0
    assert (sum(metrics.first_token.counts), sum(metrics.between_tokens.counts)) == (2, 5)


def test_a_log_line_leaves_out_what_is_none_and_counts_what_it_cannot_write(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "log"
    log = RequestLog(path, metrics)
    log.write("request", id="é", status=0, error=None, where=Path("x"))
    (line,) = path.read_text().splitlines()
    body = json.loads(line)
    at = body.pop("at")
    assert body == {"event": "request", "id": "é", "status": 0, "where": "x"} and at.endswith("+00:00")
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()
    log.write("late")
    log.close()
    assert len(path.read_text().splitlines()) == 1 and metrics.log_failures == 0
    full = RequestLog("/dev/full", metrics)
    full.write("x")
    assert metrics.log_failures == 1
    full.close()
    with pytest.raises(ConfigError, match=r"the log .* cannot be opened"):
        RequestLog(tmp_path / "no" / "log", metrics)
    RequestLog(None, metrics).write("x")


def test_the_end_of_a_message_has_its_reason_and_counts() -> None:
    job = SimpleNamespace(sampling=SimpleNamespace(max_tokens=5), served=SimpleNamespace(facts=object()))
    for reason, stopped, tokens, expected in (
        ("stop", None, 5, ("end_turn", None)), ("stop", "###", 5, ("stop_sequence", "###")),
        ("length", "x", 5, ("max_tokens", None)),
        ("length", None, 4, ("model_context_window_exceeded", None)), ("length", None, 0, ("max_tokens", None)),
        ("tool_calls", "x", 5, ("tool_use", None)), ("content_filter", None, 5, ("refusal", None)),
    ):  # fmt: skip
        completion = Completion(assistant(""), reason, Usage(0, 0, tokens), stop_string=stopped)  # type: ignore[arg-type]
        found = ended_json(job, completion)  # type: ignore[arg-type]
        assert (found["stop_reason"], found["stop_sequence"]) == expected
    job.served.facts = None
    cut = Completion(assistant(""), "length", Usage(0, 0, 4))
    assert ended_json(job, cut)["stop_reason"] == "max_tokens", "an endpoint may have a limit of its own"  # type: ignore[arg-type]
    assert usage_json(Usage(10, 3, 4, cache_write_tokens=2)) == {
        "input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 4,
    }  # fmt: skip
    assert usage_json(Usage(1, 3, 4))["input_tokens"] == 0
    assert tool_input(ToolCall("1", "a", {"x": 1}), "{}") == {"x": 1}
    assert tool_input(ToolCall("1", "a", {}, "raw"), "{") == {"INVALID_JSON": "{"}
