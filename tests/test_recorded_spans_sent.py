"""Recorded spans on their way: destinations given twice, order of ends, queues that are full, forks and odd values."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.ingest import recording
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.recording import ActiveSpan, current_span, flush_traces, trace_to, traced
from firsthand.ingest.span_sender import OtlpSender, RunRecorder
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from test_ingest_recorded import Sink

SERVICE = "OTEL_SERVICE_NAME"


@pytest.fixture
def destination(monkeypatch: pytest.MonkeyPatch) -> Iterator[recording._Destination]:
    """No destination is set, and the environment names none."""
    made = recording._Destination()
    monkeypatch.setattr(recording, "_destination", made)
    for name in (SERVICE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)
    trace_context.enter(None)
    yield made
    assert current_span() is None and trace_context.current() is None


@pytest.fixture
def sink(destination: recording._Destination) -> Sink:
    destination.sink = made = Sink()
    destination.is_set = True
    return made


# -- destinations --


def test_the_service_is_what_was_given_then_the_environment_s_then_the_script(
    destination: recording._Destination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def service(given: str, script: str, named: str | None = None) -> Any:
        monkeypatch.setattr(recording.sys, "argv", [script] if script != "none" else [])
        monkeypatch.delenv(SERVICE, raising=False)
        if named is not None:
            monkeypatch.setenv(SERVICE, named)
        trace_to(tmp_path / "never", service=given)
        assert isinstance(destination.sink, RunRecorder)
        return destination.sink._service

    assert [service("own", "/a/s.v2.py", "env"), service("", "/a/s.v2.py", "env"), service("", "/a/s.v2.py", "")] == [
        "own", "env", "s.v2",
    ]  # fmt: skip
    assert {service("", script) for script in ("", "-", "-c", "none")} == {"python"} and service("", "-m") == "-m"


def test_a_new_destination_flushes_the_one_before_and_a_wrong_one_leaves_it(
    destination: recording._Destination,
) -> None:
    flushed: list[float] = []

    class Waits(Sink):
        def flush(self, within_s: float) -> bool:
            flushed.append(within_s)
            return False

    destination.sink = first = Waits()
    for wrong in ({"share": 1.5}, {"share": float("nan")}):
        with pytest.raises(recording.ConfigError):
            trace_to(None, **wrong)
    assert flushed == [] and destination.sink is first and destination.share == 1.0 and not destination.is_set
    trace_to(None, share=0.0)
    assert flushed == [5.0] and (destination.sink, destination.share, destination.is_set) == (None, 0.0, True)
    destination.sink = first
    assert flush_traces() is False and flush_traces(0.25) is False and flushed == [5.0, 5.0, 0.25]
    trace_to("HTTP", share=1.0)
    assert isinstance(destination.sink, RunRecorder) and destination.sink._folder == Path("HTTP")


# -- one call --


def test_each_kind_of_call_says_what_it_is(sink: Sink) -> None:
    for kind in ("chain", "agent", "tool", "llm", "retriever", "embedding", "guardrail", "evaluator"):
        traced(lambda: 0, name=f"a {kind}", kind=kind)()  # type: ignore[call-overload]
        given = {"openinference.span.kind": kind.upper(), "input.value": "{}", "output.value": "0"}
        assert sink.take().attributes == given | ({"tool.name": "a tool"} if kind == "tool" else {})
    for result, shown in ((False, "false"), ("", ""), ([], "[]"), (0.0, "0.0"), ("é", "é"), ({"é": 1}, '{"é": 1}')):
        traced(lambda given: given, name="r", content=True)(result)
        assert sink.take().attributes["output.value"] == shown
    traced(lambda given: None, name="r")("asked")
    assert sink.take().attributes == {"openinference.span.kind": "CHAIN", "input.value": "asked"}


def test_a_generator_ends_before_its_span_does(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    put = sink.put

    def noted(span: IncomingSpan, is_root: bool) -> None:
        order.append(f"put {span.name} {is_root}")
        put(span, is_root)

    monkeypatch.setattr(sink, "put", noted)

    @traced(name="inner")
    def inner() -> Any:
        try:
            yield "a"
            yield "b"
        finally:
            order.append("closed")

    @traced(name="outer")
    def outer() -> Any:
        got = yield from inner()
        return [got, 7]

    made = outer()
    assert next(made) == "a"
    made.close()
    assert order == ["closed", "put inner False", "put outer True"]
    (low, _), (top, _) = sink.spans
    assert (low.parent_id, low.trace_id, top.parent_id) == (
        top.span_id,
        top.trace_id,
        "",
    ) and low.error is top.error is None
    sink.spans.clear()
    assert list(outer()) == ["a", "b"] and [span.attributes["output.value"] for span, _ in sink.spans] == ["ab", "ab"]


def test_what_is_set_of_a_span_stays_and_what_is_none_is_a_text(sink: Sink) -> None:
    @traced(name="set")
    def work(n: int) -> Any:
        active = current_span()
        assert isinstance(active, ActiveSpan)
        active.set(
            session__id="42", a_b=0, a__b__c=True, none=None, path=Path("p"), items=[1, "é"], output__value="own"
        )
        yield "x"

    assert list(work(5)) == ["x"]
    assert sink.take().attributes == {
        "openinference.span.kind": "CHAIN", "input.value": '{"n": 5}', "session.id": "42", "a_b": 0, "a.b.c": True,
        "none": "null",
            "path": '"' + repr(Path("p")).replace('"', '\\"') + '"', "items": '[1, "é"]', "output.value": "own",
        "firsthand.items": 1,
    }  # fmt: skip


def test_what_runs_below_an_unsampled_root_is_told_that_it_is_unsampled(sink: Sink) -> None:
    seen: list[Any] = []

    @traced(name="low", share=1.0)
    def low() -> None:
        seen.append((trace_context.current(), current_span()))

    @traced(name="top", share=0.0)
    def top() -> None:
        low()
        seen.append((trace_context.current(), current_span()))

    top()
    (below, _), (above, active) = seen
    assert (below.sampled, above.sampled, below.trace_id == above.trace_id, below.span_id == above.span_id) == (
        False, False, True, False,
    )  # fmt: skip
    assert sink.spans == [] and active.attributes == {} and active.is_sampled is False
    low()
    assert seen[-1][0].sampled is True and sink.take().name == "low"


def test_arguments_are_those_that_came_in_and_results_are_those_that_went_out(sink: Sink) -> None:
    @traced(name="grow")
    def grow(items: list[int], /, *more: int, key: str = "k", **rest: Any) -> list[int]:
        items.extend(more)
        return items

    grow([1], 2, 3, key="own", z=[0])
    taken = sink.take()
    assert taken.attributes["input.value"] == '{"items": [1], "more": [2, 3], "key": "own", "rest": {"z": [0]}}'
    assert taken.attributes["output.value"] == "[1, 2, 3]"

    class Calls:
        __signature__ = "none that can be read"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return [*args, kwargs]

        @traced
        def own(self, text: str) -> str:
            return text + "!"

        @classmethod
        @traced(content=False, kind="agent")
        def made(cls, text: str) -> str:
            return text

    assert traced(Calls())(1, a=2) == [1, {"a": 2}]
    taken = sink.take()
    assert (taken.name, taken.attributes["input.value"]) == ("call", '{"args": [1], "a": 2}')
    assert Calls().own("self is left out") == "self is left out!" and Calls.made("x") == "x"
    (own, _), (made, _) = sink.spans
    assert own.name.endswith("Calls.own") and "<locals>" not in own.name and own.name.startswith("test_arguments_are")
    assert own.attributes["input.value"] == "self is left out" and made.attributes == {
        "openinference.span.kind": "AGENT"
    }
    sink.spans.clear()
    with pytest.raises(TypeError):
        grow()
    taken = sink.take()
    assert taken.attributes["input.value"] == '{"args": []}' and str(taken.error).startswith("TypeError: ")


def test_a_coroutine_that_is_cancelled_or_fails_ends_its_span_and_the_next_is_whole(sink: Sink) -> None:
    began = asyncio.Event()

    @traced(name="slow", kind="llm")
    async def slow(wait_s: float, *, fail: bool = False) -> str:
        active = current_span()
        assert active is not None and active.span.name == "slow"
        began.set()
        await asyncio.sleep(wait_s)
        if fail:
            raise OSError(2, "no file")
        return "done"

    @traced(name="items")
    async def items() -> Any:
        yield "a"
        yield {"b": 1}
        raise KeyError("c")

    async def main() -> None:
        waiting = asyncio.create_task(slow(60.0))
        await began.wait()
        waiting.cancel()
        results = await asyncio.gather(waiting, slow(0.0, fail=True), slow(0.0), return_exceptions=True)
        assert (
            isinstance(results[0], asyncio.CancelledError) and isinstance(results[1], OSError) and results[2] == "done"
        )
        with pytest.raises(KeyError):
            [each async for each in items()]

    asyncio.run(main())
    told = [
        (span.name, span.error, len(span.events), span.attributes.get("output.value"))
        for span, root in sink.spans
        if root
    ]
    assert sorted(told, key=str) == sorted([
        ("slow", "CancelledError: ", 1, None), ("slow", "FileNotFoundError: [Errno 2] no file", 1, None), ("slow",
            None, 0, "done"),
        ("items", "KeyError: 'c'", 1, '["a", {"b": 1}]'),
    ], key=str)  # fmt: skip
    failed = next(span for span, _ in sink.spans if span.name == "items")
    event = failed.events[0]
    assert event["name"] == "exception" and event["attributes"] == {
        "exception.type": "KeyError",
        "exception.message": "'c'",
    }
    assert failed.start_ns <= event["at_ns"] <= time.time_ns() and len({span.trace_id for span, _ in sink.spans}) == 4


def test_the_environment_is_asked_once_and_its_own_address_for_traces_wins(
    destination: recording._Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert traced(lambda: 1)() == 1 and destination.is_set and destination.sink is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1/base")
    assert recording._sink() is None, "it was asked already"
    destination.is_set = False
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:2")
    found = recording._sink()
    assert isinstance(found, OtlpSender) and found.url == "http://127.0.0.1:2/v1/traces" and destination.share == 1.0
    destination.sink = None


def test_a_root_lies_below_what_is_open_around_it_and_else_has_ids_of_its_own(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import context, trace

    above = trace.SpanContext(0xAB, 0xC, is_remote=True, trace_flags=trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(above)))
    seen: list[Any] = []

    @traced(name="root")
    def root() -> None:
        seen.append((trace.get_current_span().get_span_context(), trace_context.current()))

    try:
        root()
        below = sink.take()
        assert (below.trace_id, below.parent_id) == (f"{0xAB:032x}", f"{0xC:016x}"), "a trace that others do not sample"
        ((inner, open_inside),) = seen
        assert (inner.trace_id, inner.is_remote, inner.trace_flags) == (
            0xAB,
            False,
            1,
        ) and f"{inner.span_id:016x}" == below.span_id
        assert open_inside == TraceParent(0xAB, int(below.span_id, 16), True)
        assert trace.get_current_span().get_span_context() == above
        trace_context.enter(TraceParent(0xF, 0xE, False))
        root()
        nearer = sink.take()
        assert (nearer.trace_id, nearer.parent_id) == (
            f"{0xF:032x}",
            f"{0xE:016x}",
        ) and trace_context.current() == TraceParent(0xF, 0xE, False)
        trace_context.enter(None)
    finally:
        context.detach(token)
    root()
    root()
    (one, _), (two, _) = sink.spans
    assert one.parent_id == two.parent_id == "" and len({one.trace_id, two.trace_id}) == 2 and len(one.trace_id) == 32
    sink.spans.clear()
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    traced(lambda: None, name="alone")()
    alone = sink.take()
    assert alone.parent_id == "" and len(alone.span_id) == 16


def test_a_function_is_traced_with_all_that_is_said_of_it_however_it_is_given(sink: Sink) -> None:
    def look(x: int) -> int:
        return x + 1

    given: dict[str, Any] = {"name": "search", "kind": "tool", "share": 1.0, "content": False}
    own = {"openinference.span.kind": "TOOL", "tool.name": "search"}
    for make in (lambda more: traced(look, **more), lambda more: traced(**more)(look)):
        assert make(given)(2) == 3
        span = sink.take()
        assert (span.name, span.attributes) == ("search", own)
        assert make({**given, "share": 0.0})(2) == 3 and sink.spans == [], "a share of 0 records nothing"
        assert make({**given, "content": True})(2) == 3
        assert sink.take().attributes == own | {"input.value": '{"x": 2}', "output.value": "3"}
        assert make({})(2) == 3
        plain = sink.take()
        assert plain.name == look.__qualname__.replace("<locals>.", "")
        assert plain.attributes == {"openinference.span.kind": "CHAIN", "input.value": '{"x": 2}', "output.value": "3"}
