"""The span of each kind of function: what it gave, its error, its items and its end; and where spans go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import firsthand.runs.store as run_store
from firsthand.errors import ConfigError
from firsthand.ingest import recording, span_sender
from firsthand.ingest.incoming_span import CUT, IncomingSpan
from firsthand.ingest.recording import MAX_VALUE_CHARS, current_span, flush_traces, trace_to, traced
from firsthand.ingest.span_sender import OtlpSender, RunRecorder, stored_of
from firsthand.model import Usage
from firsthand.system import trace_context


class Sink:
    """Takes spans in memory."""

    def __init__(self) -> None:
        self.spans: list[tuple[IncomingSpan, bool]] = []

    def put(self, span: IncomingSpan, is_root: bool) -> None:
        self.spans.append((span, is_root))

    def flush(self, within_s: float) -> bool:
        return within_s == 5.0

    def take(self) -> IncomingSpan:
        """The one span that came, which has ended."""
        ((span, _),) = self.spans
        self.spans.clear()
        assert span.end_ns >= span.start_ns > 1_700_000_000 * 10**9 and span.kind == 1
        return span


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Sink:
    made = Sink()
    monkeypatch.setattr(recording, "_destination", recording._Destination(made, True, 1.0))  # type: ignore[arg-type]
    return made


def held(span: IncomingSpan) -> dict[str, Any]:
    return {
        name.removesuffix(".value"): value
        for name, value in span.attributes.items()
        if name != "openinference.span.kind"
    }


def test_a_function_and_a_coroutine_are_recorded_alike(sink: Sink) -> None:
    @traced(kind="tool", name="add")
    def add(a: int, *, b: Any = 2) -> Any:
        if b is None:
            raise KeyError("no b")
        return None if b == 0 else a + b

    @traced
    async def later(a: int, **more: Any) -> Any:
        await asyncio.sleep(0)
        if a < 0:
            raise ValueError("x" * (MAX_VALUE_CHARS + 1))
        return {"a": a, **more}

    assert (add(1), add.__name__) == (3, "add")
    span = sink.take()
    assert span.name == "add" and span.attributes["openinference.span.kind"] == "TOOL"
    assert held(span) == {"tool.name": "add", "input": '{"a": 1}', "output": "3"} and span.error is None
    assert add(1, b=0) is None and held(sink.take()) == {"tool.name": "add", "input": '{"a": 1, "b": 0}'}
    with pytest.raises(KeyError):
        add(1, b=None)
    span = sink.take()
    assert (span.error, [event["name"] for event in span.events]) == ("KeyError: 'no b'", ["exception"])
    assert span.events[0]["attributes"] == {"exception.type": "KeyError", "exception.message": "'no b'"}
    assert span.start_ns <= span.events[0]["at_ns"] and "output" not in held(span)
    assert asyncio.run(later(1, é=2)) == {"a": 1, "é": 2}
    span = sink.take()
    assert span.name == "test_a_function_and_a_coroutine_are_recorded_alike.later"
    assert held(span) == {"input": '{"a": 1, "more": {"é": 2}}', "output": '{"a": 1, "é": 2}'}
    with pytest.raises(ValueError, match="xxx"):
        asyncio.run(later(-1))
    span = sink.take()
    assert span.error == f"ValueError: {'x' * MAX_VALUE_CHARS}"[:MAX_VALUE_CHARS]
    assert len(span.events[0]["attributes"]["exception.message"]) == MAX_VALUE_CHARS
    assert current_span() is None and trace_context.current() is None


def test_a_generator_gives_takes_and_returns_as_it_would_alone(sink: Sink) -> None:
    closed: list[str] = []

    @traced(name="count")
    def count(n: int) -> Any:
        got: list[Any] = []
        try:
            for number in range(n):
                assert current_span() is not None
                try:
                    got.append((yield str(number)))
                except KeyError as error:
                    got.append(str(error))
            return got
        finally:
            closed.append("closed")

    made = count(3)
    assert (next(made), made.send("sent"), made.throw(KeyError("k"))) == ("0", "1", "2") and current_span() is None
    with pytest.raises(StopIteration) as stop:
        next(made)
    assert stop.value.value == ["sent", "'k'", None] and closed == ["closed"]
    assert held(sink.take()) == {"input": '{"n": 3}', "output": "012", "firsthand.items": 3}
    left = count(3)
    next(left)
    left.close()
    span = sink.take()
    assert closed == ["closed"] * 2 and (span.error, span.events, held(span)["firsthand.items"]) == (None, [], 1)
    failing = count(3)
    next(failing)
    with pytest.raises(OSError, match="thrown"):
        failing.throw(OSError("thrown"))
    span = sink.take()
    assert span.error == "OSError: thrown" and held(span)["output"] == "0" and closed == ["closed"] * 3
    assert list(count(0)) == [] and held(sink.take()) == {"input": '{"n": 0}'}
    assert len(list(count(450))) == 450, "as many as it gives are kept"
    assert held(sink.take()) == {
        "input": '{"n": 450}', "output": "".join(map(str, range(450))), "firsthand.items": 450,
    }  # fmt: skip


def test_what_is_too_long_is_cut_and_says_so(sink: Sink) -> None:
    @traced
    def given(pieces: list[Any]) -> Iterator[Any]:
        yield from pieces

    @traced
    def back(value: Any) -> Any:
        return value

    def kept(function: Any, value: Any) -> tuple[str, str]:
        called = function(value)
        _ = list(called) if function is given else called
        span = sink.take()
        return span.attributes["output.value"], span.attributes.get(CUT, "")

    most = MAX_VALUE_CHARS
    for length, cut in ((most, "input.value output.value"), (most - 1, "input.value output.value")):
        assert kept(back, "x" * (length + 1)) == ("x" * most, cut if length == most else "")
    assert kept(given, ["x"] * 3 + ["y"] * 2) == ("xxxyy", "")
    half = ["x" * (most // 2)] * 2
    assert kept(given, half)[0] == "x" * most and kept(given, half)[1] == "input.value", "the list of them is longer"
    assert kept(given, [*half, "y"]) == ("x" * most, "input.value output.value")
    assert kept(given, [*half, "y", "z" * most])[0] == "x" * most
    assert kept(given, ["a", 1, None, {"é": [2]}, "b"]) == ('["a", 1, null, {"é": [2]}, "b"]', "")
    whole = [*half, 1]
    assert kept(given, whole) == (json.dumps(whole)[:most], "input.value output.value")
    small = ["x" * (most - 8), 12]
    assert kept(given, small) == (json.dumps(small), "input.value"), "brackets and commas count"
    small = ["x" * (most - 7), 12]
    assert kept(given, small) == (json.dumps(small)[:most], "input.value output.value")
    circle: list[Any] = []
    circle.append(circle)
    assert json.loads(kept(given, [circle, Odd(), {1}])[0]) == ["[[...]]", "<Odd>", "{1}"]

    @traced
    def own() -> Iterator[str]:
        span = current_span()
        assert span is not None
        span.set(note=["n" * most], output__value="mine")
        span.set(note=["n"])
        yield "x" * (most + 1)

    assert len(list(own())) == 1
    assert held(sink.take()) == {"input": "{}", "output": "mine", "note": '["n"]', "firsthand.items": 1}


def test_an_async_generator_takes_what_is_sent_and_thrown(sink: Sink) -> None:
    @traced(name="takes")
    async def takes() -> AsyncGenerator[Any, Any]:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append((yield list(got)))
                await asyncio.sleep(0)
            except ValueError as error:
                assert current_span() is not None
                got.append(str(error))
        yield got

    async def main() -> None:
        made = takes()
        assert await made.asend(None) == [] and await made.asend("a") == ["a"] and current_span() is None
        assert await made.athrow(ValueError("no")) == ["a", "no"]
        assert await anext(made) == ["a", "no", None]
        with pytest.raises(StopAsyncIteration):
            await made.asend("late")
        span = sink.take()
        assert (span.error, span.attributes["firsthand.items"]) == (None, 4)
        made = takes()
        await anext(made)
        with pytest.raises(OSError, match="thrown"):
            await made.athrow(OSError("thrown"))
        assert sink.take().error == "OSError: thrown"
        made = takes()
        await anext(made)
        await made.aclose()
        assert sink.take().error is None

    asyncio.run(main())


def test_an_async_generator_is_closed_with_what_is_inside_of_it(sink: Sink) -> None:
    closed: list[int] = []

    @traced(name="steps")
    async def steps(n: int) -> AsyncIterator[Any]:
        try:
            for number in range(n):
                await asyncio.sleep(0)
                assert current_span() is not None
                yield number
            if n == 2:
                raise ValueError("end")
        finally:
            closed.append(n)

    async def main() -> None:
        assert [each async for each in steps(3)] == [0, 1, 2]
        assert closed == [3] and held(sink.take()) == {"input": '{"n": 3}', "output": "[0, 1, 2]", "firsthand.items": 3}
        with pytest.raises(ValueError, match="end"):
            [each async for each in steps(2)]
        span = sink.take()
        assert (span.error, held(span)["output"]) == ("ValueError: end", "[0, 1]")
        async with contextlib.aclosing(steps(9)) as some:  # type: ignore[type-var]
            assert await anext(some) == 0 and current_span() is None
        span = sink.take()
        assert closed == [3, 2, 9] and (span.error, held(span)["firsthand.items"]) == (None, 1)

    asyncio.run(main())


def test_what_is_called_inside_lies_below_and_goes_where_its_root_goes(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    @traced(share=0.0, content=False)
    def inner(x: int) -> int:
        span = current_span()
        assert span is not None
        span.set(session__id="s", n=1, half=0.5, yes=True, obj={"é": 1}, none=None)
        return x

    @traced(content=False)
    def outer() -> int:
        return inner(1)

    assert outer() == 1
    (below, is_root), (above, above_is_root) = sink.spans
    assert (is_root, above_is_root) == (False, True) and above.parent_id == ""
    assert (below.trace_id, below.parent_id) == (above.trace_id, above.span_id) and below.span_id != above.span_id
    assert (len(above.trace_id), len(above.span_id)) == (32, 16)
    assert held(below) == {"session.id": "s", "n": 1, "half": 0.5, "yes": True, "obj": '{"é": 1}', "none": "null"}
    assert held(above) == {}
    sink.spans.clear()
    assert inner(2) == 2 and sink.spans == [], "a root of share 0 is not recorded"
    draws = iter([0.3, 0.29])
    monkeypatch.setattr(recording.random, "random", lambda: next(draws))
    some = traced(share=0.3)(lambda: current_span().is_sampled)  # type: ignore[union-attr]
    assert (some(), some(), len(sink.spans)) == (False, True, 1)


def test_opentelemetry_stands_after_a_call_where_it_stood(sink: Sink) -> None:
    api = pytest.importorskip("opentelemetry.trace", reason="opentelemetry is not installed")
    before, seen = api.get_current_span(), []
    traced(lambda: seen.append(api.get_current_span().get_span_context().span_id))()
    assert api.get_current_span() is before and f"{seen[0]:016x}" == sink.take().span_id


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    @traced
    def method(self, text: str) -> str:
        return text

    @classmethod
    @traced(name="made")
    def build(cls, *parts: int) -> int:
        return len(parts)


def test_arguments_are_shown_by_name_and_never_harm_the_call(sink: Sink) -> None:
    def shown(function: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(TypeError):
            function(*args, **kwargs)
        return held(sink.take()).get("input")

    @traced
    def plain(a: Any, b: Any = 1) -> None: ...

    assert shown(Odd().method, "words") == "words" and shown(Odd.build, 1, 2) == '{"parts": [1, 2]}'
    assert shown(plain, "x" * (MAX_VALUE_CHARS + 1)) == "x" * MAX_VALUE_CHARS
    assert shown(plain, "x", "y") == '{"a": "x", "b": "y"}' and shown(plain, {1, 2}) == '{"a": "{1, 2}"}'
    assert shown(plain, Odd()) == '{"a": "<Odd>"}' and shown(plain, 1, 2, 3) == '{"args": [1, 2, 3]}'
    assert shown(plain, 1, c=2) == '{"args": [1], "c": 2}'
    assert shown(traced(name="dict")(dict), a=1) == '{"args": [], "a": 1}'
    circle: list[Any] = []
    circle.append(circle)
    assert shown(plain, circle) == "{'a': [[...]]}"


def test_objects_are_kept_whole_and_a_cut_of_one_is_marked(sink: Sink) -> None:
    @dataclass
    class Reply:
        text: str

    @traced(name="made")
    def made(length: int, listed: bool) -> Any:
        reply = Reply("w" * length + " THE END")
        return [reply] if listed else reply

    for length, listed, is_whole in (
        (3000, False, True), (3000, True, True), (MAX_VALUE_CHARS, False, False), (MAX_VALUE_CHARS, True, False),
    ):  # fmt: skip
        made(length, listed)
        span = sink.take()
        output = span.attributes["output.value"]
        assert ("THE END" in output) == is_whole and len(output) <= MAX_VALUE_CHARS
        assert span.attributes.get(CUT) == (None if is_whole else "output.value")

    @traced
    def returned() -> Any:
        return circle

    for text, is_cut in (("w" * (MAX_VALUE_CHARS - len("['', [...]]")), False), ("w" * (MAX_VALUE_CHARS - 10), True)):
        circle: list[Any] = [text]
        circle.append(circle)  # no JSON can hold it
        returned()
        attributes = sink.take().attributes
        assert len(attributes["output.value"]) == MAX_VALUE_CHARS and (CUT in attributes) == is_cut


# -- destinations --


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(recording, "_destination", recording._Destination())
    yield
    flush_traces(1.0)


def test_the_environment_names_the_address_where_the_program_does_not(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def address() -> Any:
        monkeypatch.setattr(recording, "_destination", recording._Destination())
        sink = recording._sink()
        return (sink.url, sink._service) if isinstance(sink, OtlpSender) else sink

    monkeypatch.setattr(recording.sys, "argv", ["/x/script.py"])
    assert address() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a")
    assert address() == ("http://a/v1/traces", "script")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/x")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    assert address() == ("http://b/x", "shop")
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True")
    assert address() is None and recording._sink() is None
    monkeypatch.setattr(recording.sys, "argv", ["-c"])
    trace_to("http://c", share=0.25, headers={"k": "v"})
    sink = recording._sink()
    assert isinstance(sink, OtlpSender) and (sink._service, sink._headers["k"]) == ("shop", "v")
    assert recording._destination.share == 0.25
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    trace_to("http://c", service="mine")
    assert recording._sink()._service == "mine"  # type: ignore[union-attr]
    trace_to("http://c")
    assert recording._sink()._service == "python" and recording._destination.share == 1.0  # type: ignore[union-attr]
    trace_to(None)
    assert recording._sink() is None and flush_traces()
    for target, share, said in (
        ("x://y", 1.0, "give an address"),
        ("http://h", 1.01, "share is 1.01"),
        ("http://h", -0.1, "share"),
    ):
        with pytest.raises(ConfigError, match=said):
            trace_to(target, share=share)


def test_flushing_gives_the_sender_its_time(sink: Sink) -> None:
    assert flush_traces() and not flush_traces(3.0)


def test_a_run_keeps_each_root_with_what_it_called_and_drops_what_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_sender, "MAX_OPEN_TRACES", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="which is a file: give a folder"):
        RunRecorder(tmp_path / "file", "shop")
    recorder = RunRecorder(tmp_path / "run", "shop")

    def span(trace: int, number: int, parent: str = "", **attributes: Any) -> IncomingSpan:
        named = {key.replace("__", "."): value for key, value in attributes.items()}
        return IncomingSpan(f"{trace:032x}", f"{number:016x}", parent, f"n{number}", 10, 20 + number, named)

    for trace in (1, 2, 3):
        recorder.put(span(trace, 2, f"{1:016x}"), False)
    assert recorder.dropped == 1 and list(recorder._open) == [f"{2:032x}", f"{3:032x}"], (
        "the one that waits longest goes"
    )
    kind = {"openinference__span__kind": "CHAIN"}
    recorder.put(span(2, 1, input__value="q", output__value="a", **kind), True)
    recorder.put(span(3, 1, input__value="q2", **kind), True)
    assert recorder.flush(0.0) and recorder._open == {}
    recorder.put(span(4, 1, input__value="q", **kind), True)
    assert recorder.flush(0.0) and recorder._run is None
    with run_store.open_run(tmp_path / "run", tmp_path) as run:
        traces = list(run.traces())
        assert [(each.answer, len(each.events), each.agent["name"], each.benchmark) for each in traces] == [
            ("a", 2, "shop", "traced"), (None, 2, "shop", "traced"), (None, 1, "shop", "traced"),
        ]  # fmt: skip
        assert traces[0].task_id == traces[2].task_id != traces[1].task_id and traces[0].task_id.startswith("n1-")
        assert sorted(task.prompt for task in run.tasks().values()) == ["q", "q2"]
    g = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m", "gen_ai__agent__name": "g"}
    counts = {
        "gen_ai__usage__input_tokens": 5,
        "gen_ai__usage__cache_read__input_tokens": 2,
        "gen_ai__usage__output_tokens": 3,
    }
    stored = stored_of(7, span(1, 1, gen_ai__usage__cost=0.5, **g, **counts))
    assert (stored.seq, stored.what, stored.label, stored.model, stored.usage) == (
        7,
        "generate",
        "g",
        "m",
        Usage(5, 2, 3, 0.5),
    )


# -- gRPC --


def test_grpc_answers_each_end_of_a_request_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    import otlp_requests as otlp
    from firsthand.errors import StoreError
    from firsthand.ingest.otlp_grpc import _shows_key, serve_grpc
    from firsthand.ingest.redaction import Redactor
    from firsthand.ingest.span_writer import SpanWriter
    from firsthand.ingest.trace_store import SpanPreparer, TraceStore

    store = TraceStore(tmp_path, create=True)
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    port, end = serve_grpc(writer, 0)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")

            def answer(raw: bytes) -> Any:
                try:
                    partial = ExportTraceServiceResponse.FromString(export(raw, timeout=30)).partial_success
                    return partial.rejected_spans, partial.error_message
                except grpc.RpcError as error:
                    return error.code().name, error.details()

            assert answer(otlp.as_protobuf(otlp.span(1, 1))) == (0, "")
            lost = otlp.as_protobuf(otlp.span(0, 1), otlp.span(1, 2), otlp.span(1, 0))
            assert answer(lost) == (2, "spans without valid ids were left out")
            code, said = answer(b"\x0a\xff")
            assert code == "INVALID_ARGUMENT" and said.startswith("the body is no OTLP request in protobuf")

            def full(spans: Any) -> int:
                raise StoreError("the disk is full")

            with monkeypatch.context() as patched:
                patched.setattr(store, "add", full)
                assert answer(otlp.as_protobuf(otlp.span(1, 3))) == ("UNAVAILABLE", "the disk is full")
            writer.close()
            assert answer(b"") == ("UNAVAILABLE", "too many requests wait: send it again later")
    finally:
        end()
        store.close()
    assert _shows_key([("Authorization", "Bearer  k ")], "k") and _shows_key([("x-api-key", "ké")], "ké")
    assert not any(_shows_key(given, "k") for given in ([], [("authorization", "Bearer ")], [("x-api-key", "l")]))
    assert not _shows_key([], "")
