"""Recorded spans on their way: destinations given twice, order of ends, queues that are full, forks and odd values."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import firsthand.runs.store as run_store
from firsthand.ingest import recording, span_sender
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.recording import ActiveSpan, current_span, flush_traces, trace_to, traced
from firsthand.ingest.redaction import PUT
from firsthand.ingest.span_sender import OtlpSender, RunRecorder, _headers
from firsthand.system import trace_context
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
        "none": "null", "path": '"' + repr(Path("p")).replace('"', '\\"') + '"', "items": '[1, "é"]', "output.value": "own",
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


# -- the sender --


class Kept(OtlpSender):
    """Keeps the batches that it would send."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "shop", {})
        self.batches: list[list[str]] = []
        self.came = threading.Event()

    def _sent(self, client: Any, batch: Sequence[IncomingSpan]) -> bool:
        self.batches.append([each.name for each in batch])
        if "last" in self.batches[-1]:
            self.came.set()
        return "bad" not in self.batches[-1]


def named(name: str, trace: int = 1, **attributes: Any) -> IncomingSpan:
    held = {key.replace("__", "."): value for key, value in attributes.items()}
    return IncomingSpan(f"{trace:032x}", f"{trace:016x}", "", name, 10, 30, held)


def test_a_whole_batch_is_sent_at_once_and_less_waits(
    destination: recording._Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_sender, "BATCH", 3)
    monkeypatch.setattr(span_sender, "EVERY_S", 20.0)
    sender = Kept()
    assert sender.flush(0.0) is True, "nothing waits"
    sender.put(named("bad"), False)
    assert sender.flush(10.0) is True and sender.batches == [["bad"]] and sender.dropped == 1
    end = time.monotonic() + 10
    while not sender._changed._waiters and time.monotonic() < end:  # type: ignore[attr-defined]
        time.sleep(0.001)
    for name in ("bad", "b", "last"):
        sender.put(named(name), False)
    assert sender.came.wait(10.0) and sender.batches[1:] == [["bad", "b", "last"]]
    assert sender.flush(10.0) and sender.dropped == 4 and len(sender.batches) == 2, "and never an empty one"


def test_a_forked_process_starts_a_sender_of_its_own_and_waits_for_none_that_is_gone(
    destination: recording._Destination,
) -> None:
    sender = Kept()
    sender._pid = os.getpid() + 1
    sender._waiting.append(named("a"))
    began = time.monotonic()
    assert sender.flush(30.0) is False and time.monotonic() - began < 10
    sender.put(named("last"), True)
    assert sender._pid == os.getpid() and sender.flush(10.0) is True
    assert [name for batch in sender.batches for name in batch] == ["a", "last"]


def test_headers_that_are_given_win_over_the_environment_and_our_own(
    destination: recording._Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", " a = %20b ,content-type=x")
    assert _headers(" a = %20b%2C ,=v,b,c==") == {"a": " b,", "": "v", "c": "="}
    came: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        came.append(request)
        return httpx.Response(204)

    sender = OtlpSender("http://h//", "s", {"content-type": "application/json; v=2", "Authorization": "Bearer k"})
    assert sender.url == "http://h//"
    assert OtlpSender("http://h:1/", "s", {}).url == "http://h:1/v1/traces"
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert sender._sent(client, [named("n")]) is True
    (request,) = came
    assert [request.headers[name] for name in ("a", "content-type", "authorization", "content-encoding")] == [
        " b", "application/json; v=2", "Bearer k", "gzip",
    ]  # fmt: skip
    assert str(request.url) == "http://h//" and request.method == "POST"


# -- the run --


def test_a_run_goes_on_after_it_was_closed_and_what_cannot_be_kept_is_counted(
    destination: recording._Destination, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    nowhere = RunRecorder(tmp_path / "file" / "run", "shop")
    nowhere.put(named("n"), True)
    assert nowhere.dropped == 1 and nowhere._open == {} and nowhere.flush(1.0) is True
    folder = tmp_path / "deep" / "run"
    recorder = RunRecorder(folder, "shop")
    tool = {"openinference__span__kind": "TOOL", "tool__name": "t"}
    recorder.put(named("n\ud800", 1, input__value={"n": 2}, output__value={"password": "hunter22"}, **tool), True)
    assert recorder.flush(0.0) is True and recorder.dropped == 0 and recorder.flush(0.0) is True
    with run_store.open_run(folder, folder.parent) as run:
        assert run.status == "done"
        (kept,) = run.traces()
    digest = hashlib.sha256(b'{"n": 2}').hexdigest()[:12]
    assert (kept.task_id, kept.agent, kept.answer) == (
        f"n\ud800-{digest}", {"name": "shop", "model": ""}, f'{{"password": "{PUT}"}}',
    )  # fmt: skip
    assert [(call.kind, call.detail["arguments"], call.duration_s) for call in kept.calls] == [
        ("tool", {"n": 2}, 20e-9)
    ]
    recorder.put(named("n", 2, openinference__span__kind="CHAIN", input__value="é\ud800?", output__value="a"), True)
    low = IncomingSpan(f"{3:032x}", f"{9:016x}", f"{3:016x}", "low", 12, 20, {"api_key": "abcdefgh", **{
        "openinference.span.kind": "LLM", "llm.token_count.prompt": 4, "llm.token_count.completion": 3}})  # fmt: skip
    recorder.put(low, False)
    recorder.put(named("n", 3, openinference__span__kind="CHAIN", input__value="why", output__value="so"), True)
    recorder.flush(9.0)
    assert low.attributes["api_key"] == PUT and low.redactions == 1
    with run_store.open_run(folder, folder.parent) as run:
        traces = list(run.traces())
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in ("é\ud800?", "why")]
    assert [each.task_id for each in traces[1:]] == [f"n-{digest}" for digest in digests]
    assert (traces[2].answer, traces[2].duration_s, traces[2].usage.total_tokens) == ("so", 20e-9, 7)
