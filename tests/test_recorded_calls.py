"""One recorded call at a time: its place, its sampling, what is kept of arguments, items and errors, where it is sent."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import firsthand.runs.store as run_store
from firsthand.ingest import recording, span_sender
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_environment import pairs_of
from firsthand.ingest.recorded_values import MAX_VALUE_CHARS, shown_arguments, shown_object, shown_value
from firsthand.ingest.recording import (
    ActiveSpan,
    _enter_opentelemetry,
    _place,
    _Recorded,
    _wrapped,
    current_span,
    traced,
)
from firsthand.ingest.redaction import PUT
from firsthand.ingest.span_sender import OtlpSender, RunRecorder, _span_json, _value, otlp_json, stored_of
from firsthand.model import Usage
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from test_ingest_recorded import Sink


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    made = Sink()
    monkeypatch.setattr(recording, "_destination", recording._Destination(made, True, 1.0))  # type: ignore[arg-type]
    trace_context.enter(None)
    yield made
    assert current_span() is None and trace_context.current() is None


class Hostile:
    def __repr__(self) -> str:
        raise ValueError("no")


# -- values --


def test_arguments_are_named_and_values_are_texts() -> None:
    def given(self: Any, a: Any, *rest: Any, cls: Any = 0, **more: Any) -> None: ...

    signature = inspect.signature(given)
    assert shown_arguments(signature, (1, 2, 3, 4), {"cls": 5, "é": 6}) == '{"a": 2, "rest": [3, 4], "more": {"é": 6}}'
    assert shown_arguments(signature, (1, "x" * (MAX_VALUE_CHARS + 1)), {}) == "x" * (MAX_VALUE_CHARS + 1), (
        "the span cuts it"
    )
    assert shown_arguments(signature, (1, 7), {}) == '{"a": 7}' and shown_arguments(signature, (1, "x"), {"b": 2}) == (
        '{"a": "x", "more": {"b": 2}}'
    )
    assert shown_arguments(signature, (), {"k": "v"}) == '{"args": [], "k": "v"}', "what does not fit the signature"
    assert shown_arguments(None, ("x",), {}) == '{"args": ["x"]}' and shown_arguments(
        None, (), {"self": 1, "k": 2}
    ) == ('{"args": [], "k": 2}')
    assert (
        shown_value("é").text == "é"
        and shown_value({"é": [1, None]}).text == '{"é": [1, null]}'
        and shown_value(True).text == "true"
    )
    assert (
        shown_value({"a": {1}}).text == '{"a": "{1}"}'
        and shown_value([Hostile()]).text == '["<Hostile>"]'
        and shown_value(Hostile()).text == '"<Hostile>"'
    )
    assert shown_value({(1, 2): 3}).text == "{(1, 2): 3}", "what JSON cannot name"
    assert shown_object("x" * 2 * MAX_VALUE_CHARS) == "'" + "x" * MAX_VALUE_CHARS, (
        "one character more than a span keeps"
    )
    assert shown_object(Hostile()) == "<Hostile>" and shown_object(None) == "None"
    span = IncomingSpan("a", "b", "", "n", 1, 2, {"old": 0})
    active = ActiveSpan(span, True, None)
    active.set(session__id="4", a_b=1, c=0.5, d=False, e=[1, "é"], f=None)
    assert span.attributes is active.attributes and span.attributes == {
        "old": 0, "session.id": "4", "a_b": 1, "c": 0.5, "d": False, "e": '[1, "é"]', "f": "null",
    }  # fmt: skip


# -- one call --


def test_a_call_begins_with_its_kind_and_arguments_if_it_is_sampled(sink: Sink) -> None:
    asked: list[int] = []

    def arguments() -> str:
        asked.append(1)
        return "given"

    plain, tool = _Recorded("n", "chain", None, True, arguments), _Recorded("f", "tool", None, False, arguments)
    assert asked == [1] and plain._is_root and plain.active.sink is sink
    span = plain.active.span
    assert (span.name, span.parent_id, span.end_ns, span.kind, span.error) == ("n", "", 0, 1, None)
    assert len(span.trace_id) == 32 and len(span.span_id) == 16 and int(span.trace_id, 16) and int(span.span_id, 16)
    assert span.attributes == {"openinference.span.kind": "CHAIN", "input.value": "given"}
    assert tool.active.attributes == {"openinference.span.kind": "TOOL", "tool.name": "f"}
    assert tool.active.span.trace_id != span.trace_id
    destination = recording._destination
    for share, wanted, sampled in ((1.0, None, True), (1.0, 0.0, False), (0.0, None, False), (0.0, 1.0, True)):
        destination.share = share
        assert _Recorded("n", "chain", wanted, True, arguments).active.is_sampled is sampled, (share, wanted)
    destination.share = 0.5
    assert {_Recorded("n", "chain", None, True, arguments).active.is_sampled for _ in range(80)} == {True, False}
    destination.share = 1.0
    left_out = _Recorded("n", "chain", 0.0, True, arguments)
    with left_out.running():
        below = _Recorded("m", "llm", 1.0, True, arguments)
    assert not below.active.is_sampled and below.active.attributes == {} and not below._is_root
    assert (below.active.span.trace_id, below.active.span.parent_id) == (
        left_out.active.span.trace_id, left_out.active.span.span_id,
    )  # fmt: skip
    with plain.running():
        destination.sink = None
        inner = _Recorded("i", "llm", 0.0, True, arguments)
    assert inner.active.is_sampled and inner.active.sink is sink, "a call goes where its root goes"
    nowhere = _Recorded("n", "chain", None, True, arguments)
    assert not nowhere.active.is_sampled and nowhere.active.sink is None
    nowhere.ended()
    left_out.ended()
    assert sink.spans == []


def test_what_a_call_gave_is_kept_until_it_ends(sink: Sink) -> None:
    def ended(
        *items: Any, content: bool = True, result: Any = None, error: BaseException | None = None
    ) -> dict[str, Any]:
        one = _Recorded("n", "chain", None, content, lambda: "in")
        for item in items:
            one.gave(item)
        one.returned(result)
        if error is not None:
            one.failed(error)
        one.ended()
        ((span, is_root),) = sink.spans
        assert is_root and 0 <= span.end_ns - span.start_ns < 10**11 and abs(time.time_ns() - span.start_ns) < 10**11
        assert all(span.start_ns <= event["at_ns"] <= time.time_ns() for event in span.events)
        sink.spans.clear()
        events = [(event["name"], event["attributes"]) for event in span.events]
        return {"out": span.attributes.get("output.value"), "items": span.attributes.get("firsthand.items"),
                "error": span.error, "events": events}  # fmt: skip

    none = {"out": None, "items": None, "error": None, "events": []}
    assert ended() == none and ended(result={"é": 1}) == {**none, "out": '{"é": 1}'}
    assert ended(result=0) == {**none, "out": "0"} and ended(result="x", content=False) == none
    assert ended("a", "b") == {**none, "out": "ab", "items": 2} and ended("a", 1) == {
        **none,
        "out": '["a", 1]',
        "items": 2,
    }
    assert ended("a", result="whole") == {**none, "out": "whole", "items": 1}
    assert ended(*["x"] * 5000) == {**none, "out": "x" * 5000, "items": 5000}
    assert ended("a", content=False)["items"] == 1 and not ended("a", content=False)["out"]
    told = {"exception.type": "KeyError", "exception.message": "'k'"}
    assert ended(error=KeyError("k")) == {**none, "error": "KeyError: 'k'", "events": [("exception", told)]}
    assert ended(error=GeneratorExit()) == none, "a generator that is closed has not failed"
    long = ended(error=ValueError("y" * (MAX_VALUE_CHARS + 5)))
    assert long["error"] == "ValueError: " + "y" * (MAX_VALUE_CHARS - 12)
    assert long["events"][0][1]["exception.message"] == "y" * MAX_VALUE_CHARS


def test_a_running_call_is_the_current_span_and_the_one_before_comes_back(sink: Sink) -> None:
    from opentelemetry import trace

    outer, inner = (_Recorded(name, "chain", None, True, lambda: "") for name in ("outer", "inner"))
    before = TraceParent(5, 6, False)
    trace_context.enter(before)

    def parent(one: _Recorded) -> TraceParent:
        return TraceParent(int(one.active.span.trace_id, 16), int(one.active.span.span_id, 16), True)

    with outer.running():
        assert current_span() is outer.active and trace_context.current() == parent(outer)
        with pytest.raises(KeyError), inner.running():
            assert current_span() is inner.active and trace_context.current() == parent(inner)
            here = trace.get_current_span().get_span_context()
            assert (here.trace_id, here.span_id) == (parent(inner).trace_id, parent(inner).span_id)
            assert here.trace_flags == 1 and not here.is_remote
            raise KeyError
        assert current_span() is outer.active and trace_context.current() == parent(outer)
    assert current_span() is None and trace_context.current() == before
    assert not trace.get_current_span().get_span_context().is_valid
    leave = _enter_opentelemetry(TraceParent(7, 8, False))
    assert trace.get_current_span().get_span_context().trace_flags == 0
    assert _place(None) == (f"{5:032x}", f"{6:016x}"), "a trace context that was entered goes first"
    trace_context.enter(None)
    assert _place(None) == (f"{7:032x}", f"{8:016x}") and _place(outer.active) == (
        outer.active.span.trace_id, outer.active.span.span_id,
    )  # fmt: skip
    leave()
    first, second = _place(None), _place(None)
    assert first[1] == second[1] == "" and first[0] != second[0] and len(first[0]) == 32


def test_each_kind_of_function_is_wrapped_as_itself(sink: Sink) -> None:
    def take() -> tuple[Any, ...]:
        ((span, _),) = sink.spans
        sink.spans.clear()
        return span.name, span.attributes.get("input.value"), span.attributes.get("output.value"), span.error

    where = "test_each_kind_of_function_is_wrapped_as_itself."

    def plain(a: int) -> int:
        """Says twice."""
        return a * 2

    async def later(a: int) -> int:
        return a * 3

    def items(a: int) -> Any:
        try:
            got = yield a
        except KeyError:
            got = "caught"
        yield got
        return "end"

    async def stream(a: int) -> AsyncIterator[int]:
        yield a
        yield a + 1

    called = _wrapped(plain, "", "chain", None, True)
    assert called(2) == 4 and (called.__name__, called.__doc__) == ("plain", "Says twice.")
    assert take() == (f"{where}plain", '{"a": 2}', "4", None)
    assert asyncio.run(_wrapped(later, "own", "llm", None, False)(2)) == 6 and take() == ("own", None, None, None)
    yielded = _wrapped(items, "g", "chain", None, True)

    def returns(*steps: Any) -> list[Any]:
        made, found = yielded(7), [0]
        found = [next(made)]
        for step in steps:
            try:
                found.append(made.throw(step) if isinstance(step, BaseException) else made.send(step))
            except StopIteration as stop:
                found.append(("returned", stop.value))
        made.close()
        return found

    assert returns("x", None) == [7, "x", ("returned", "end")] and take() == ("g", '{"a": 7}', '[7, "x"]', None)
    assert returns(KeyError()) == [7, "caught"] and take() == ("g", '{"a": 7}', '[7, "caught"]', None)
    with pytest.raises(ValueError, match="no"):
        returns(ValueError("no"))
    assert take() == ("g", '{"a": 7}', "[7]", "ValueError: no")

    async def all_of() -> list[int]:
        return [item async for item in _wrapped(stream, "s", "chain", None, True)(4)]

    assert asyncio.run(all_of()) == [4, 5] and take() == ("s", '{"a": 4}', "[4, 5]", None)
    made = _wrapped(dict, "", "chain", None, True)
    assert made([("a", 1)]) == {"a": 1} and take() == ("dict", '{"args": [[["a", 1]]]}', '{"a": 1}', None)
    decorated = traced(name="n", kind="agent", share=0.0)(plain)
    assert decorated(1) == 2 and sink.spans == [] and traced(plain)(1) == 2 and take()[0] == f"{where}plain"
    assert traced(content=False)(plain)(3) == 6 and take() == (f"{where}plain", None, None, None)


# -- sending --


def test_a_span_is_written_in_otlp_s_json() -> None:
    event = {"name": "e", "at_ns": 7, "attributes": {"k": 1}}
    span = IncomingSpan("t" * 32, "s" * 16, "", "n", 5, 9, {"a": "x", "b": True}, [event])
    told = {
        "traceId": "t" * 32, "spanId": "s" * 16, "name": "n", "kind": 1, "startTimeUnixNano": "5", "endTimeUnixNano": "9",
        "attributes": [{"key": "a", "value": {"stringValue": "x"}}, {"key": "b", "value": {"boolValue": True}}],
        "events": [{"name": "e", "timeUnixNano": "7", "attributes": [{"key": "k", "value": {"intValue": "1"}}]}],
        "status": {},
    }  # fmt: skip
    assert _span_json(span) == told
    span.parent_id, span.error, span.kind = "p" * 16, "", 3
    failed = {**told, "parentSpanId": "p" * 16, "kind": 3, "status": {"code": 2, "message": ""}}
    assert _span_json(span) == failed
    own = {"service.name": "shop", "telemetry.sdk.language": "python", "telemetry.sdk.name": "firsthand"}
    resource = {"attributes": [{"key": key, "value": {"stringValue": value}} for key, value in own.items()]}
    scopes = [{"scope": {"name": "firsthand.traced"}, "spans": [failed, failed]}]
    assert otlp_json([span, span], "shop") == {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}
    for plain, value in (
        (False, {"boolValue": False}), (0, {"intValue": "0"}), (2**63 - 1, {"intValue": str(2**63 - 1)}),
        (2**63, {"stringValue": str(2**63)}), (-(2**63), {"intValue": str(-(2**63))}), (-0.5, {"doubleValue": -0.5}),
        (-(2**63) - 1, {"stringValue": str(-(2**63) - 1)}), (float("-inf"), {"stringValue": "-inf"}),
        (float("nan"), {"stringValue": "nan"}), ("é", {"stringValue": "é"}), (None, {"stringValue": "None"}),
    ):  # fmt: skip
        assert _value(plain) == value
    assert pairs_of(" a = b%20c , x=1=2,none,") == {"a": "b c", "x": "1=2"} and pairs_of("") == {}


def test_a_batch_is_tried_three_times_with_longer_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(span_sender.time, "sleep", waits.append)
    sender, urls = OtlpSender("http://127.0.0.1:1/x", "s", {}), []

    def sent(*answers: int) -> int:
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            urls.append(str(request.url))
            if (status := left.pop(0)) == 0:
                raise httpx.ReadTimeout("late")
            return httpx.Response(status)

        with httpx.Client(transport=httpx.MockTransport(answer)) as client:
            return sender._sent(client, [IncomingSpan("t", id, "", "n", 5, 9) for id in ("s", "r")])

    assert sent(502, 0, 429) == 0 and waits == pytest.approx([0.2, 0.8, 3.2])
    waits.clear()
    assert sent(504, 204) == 2 and waits == pytest.approx([0.2])
    waits.clear()
    assert sent(500) == 0 and sent(404) == 0 and waits == [] and set(urls) == {"http://127.0.0.1:1/x"}


def test_a_full_queue_drops_the_span_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "MAX_WAITING", 2)
    sender = OtlpSender("http://127.0.0.1:1", "s", {})
    sender._pid = span_sender.os.getpid()  # no thread takes any
    for number in range(3):
        sender.put(IncomingSpan("t", str(number), "", "n", 5, 9), True)
    assert [span.span_id for span, _ in sender._waiting] == ["0", "1"] and sender.dropped == 1
    assert sender.flush(0.0) is False
    sender._waiting.clear()
    assert sender.flush(0.0) is True
    sender._sending = 1
    assert sender.flush(0.0) is False
    threading.Timer(0.02, lambda: setattr(sender, "_sending", 0)).start()
    assert sender.flush(5.0) is True


def test_a_root_is_kept_as_an_attempt_with_its_question_and_secrets_removed(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    recorder = RunRecorder(folder, "shop")
    kind, g = {"openinference.span.kind": "CHAIN"}, {"openinference.span.kind": "TOOL", "tool.name": "f"}
    secret = {"api_key": "abc123456789", "input.value": f'{{"x": "sk-{"a" * 20}"}}', "output.value": "2"}
    recorder.put(IncomingSpan("a" * 32, "2" * 16, "1" * 16, "tool", 12_000, 14_000, g | secret), False)
    root = IncomingSpan(
        "a" * 32, "1" * 16, "", "root", 10_000, 20_000, kind | {"input.value": "é?", "output.value": "yes"}
    )
    recorder.put(root, True)
    assert recorder._open == {} and recorder.dropped == 0 and root.resource == {"service.name": "shop"}
    recorder.put(IncomingSpan("b" * 32, "1" * 16, "", "root", 1, 2, kind | {"input.value": "other"}), True)
    assert recorder.flush(0.0) and recorder._run is None and recorder.flush(0.0)
    with run_store.open_run(folder, tmp_path) as run:
        first, second = run.traces()
        digest = hashlib.sha256("é?".encode()).hexdigest()[:12]
        assert (first.id, first.benchmark, first.task_id, first.answer) == ("a" * 32, "traced", f"root-{digest}", "yes")
        assert first.agent == {"name": "shop", "model": ""} and first.duration_s == 1e-05
        (call,) = first.calls
        assert (call.kind, call.detail["name"], call.detail["arguments"], call.detail["result"]) == (
            "tool",
            "f",
            {"x": PUT},
            "2",
        )
        assert second.id == "b" * 32 and run.tasks()["traced", f"root-{digest}"].prompt == "é?"
    facts = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m",
        "llm.token_count.prompt": 5,
        "llm.cost.total": 0.5,
    }
    facts |= {"llm.token_count.completion": 3, "llm.token_count.prompt_details.cache_read": 2, "tool.name": "g"}
    made = stored_of(4, span := IncomingSpan("t", "s", "", "n", 1, 2, facts))
    assert made == (4, span, "generate", "g", "m", Usage(5, 2, 3, 0.5), 0, 0)
