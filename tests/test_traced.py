"""The decorator that records one's own functions: what nests, what fails, what is sampled, where it goes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand.errors import ConfigError
from firsthand.ingest import recording, span_sender
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.recording import current_span, flush_traces, trace_to, traced
from firsthand.ingest.span_sender import OtlpSender, otlp_json
from firsthand.runs import store
from firsthand.system.trace_context import TraceParent, current, enter


class Sink:
    """Takes spans in memory."""

    def __init__(self) -> None:
        self.spans: list[IncomingSpan] = []

    def put(self, span: IncomingSpan, is_root: bool) -> None:
        self.spans.append(span)

    def flush(self, within_s: float) -> bool:
        return True

    def tree(self) -> dict[str, str]:
        """Name -> name of its parent."""
        names = {span.span_id: span.name for span in self.spans}
        return {span.name: names.get(span.parent_id, "") for span in self.spans}

    def __getitem__(self, name: str) -> IncomingSpan:
        return next(span for span in self.spans if span.name == name)


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Sink:
    made = Sink()
    monkeypatch.setattr(recording, "_destination", recording._Destination(made, True, 1.0))
    return made


def test_calls_within_calls_are_spans_below_them(sink: Sink) -> None:
    @traced(name="inner", kind="tool")
    def inner(x: int) -> int:
        return x + 1

    @firsthand.trace(name="outer")
    def outer(question: str) -> int:
        span = current_span()
        assert span is not None
        span.set(session__id="s1", rank=3, parts=["a"])
        return inner(1) + inner(2)

    assert outer("how many?") == 5
    assert [span.name for span in sink.spans] == ["inner", "inner", "outer"] and sink.tree() == {
        "inner": "outer",
        "outer": "",
    }
    assert len({span.trace_id for span in sink.spans}) == 1 and current_span() is None
    assert sink["outer"].attributes["input.value"] == "how many?" and sink["outer"].attributes["output.value"] == "5"
    assert sink["outer"].attributes["session.id"] == "s1" and sink["outer"].attributes["parts"] == '["a"]'
    assert sink["inner"].attributes | {"x": 1} == {
        "openinference.span.kind": "TOOL", "tool.name": "inner", "input.value": '{"x": 1}', "output.value": "2", "x": 1,
    }  # fmt: skip
    assert sink["outer"].end_ns >= sink["outer"].start_ns > 0


def test_the_module_is_the_decorator_and_stays_a_module(sink: Sink) -> None:
    from firsthand.trace import Trace

    @firsthand.trace
    def plain() -> None:
        "Words."

    plain()
    assert firsthand.trace.Trace is Trace and sink.spans[0].name.endswith("plain") and plain.__doc__ == "Words."


def test_an_error_is_recorded_and_raised_on(sink: Sink) -> None:
    @traced(name="breaks")
    def breaks() -> None:
        raise KeyError("gone")

    @traced(name="around")
    def around() -> str:
        try:
            breaks()
        except KeyError:
            return "saved"
        return "never"

    assert around() == "saved"
    assert sink["breaks"].error == "KeyError: 'gone'" and sink["around"].error is None
    assert sink["breaks"].events[0]["attributes"]["exception.type"] == "KeyError"


def test_coroutines_of_one_loop_do_not_mix(sink: Sink) -> None:
    @traced(name="leaf")
    async def leaf(name: str) -> str:
        await asyncio.sleep(0)
        return name

    @traced(name="root")
    async def root(name: str) -> str:
        await asyncio.sleep(0)
        return "".join(await asyncio.gather(leaf(name), leaf(name + "2")))

    async def main() -> list[str]:
        return await asyncio.gather(*(root(name) for name in "abc"))

    assert asyncio.run(main()) == ["aa2", "bb2", "cc2"]
    roots = {span.span_id: span for span in sink.spans if span.name == "root"}
    assert len(roots) == 3 and len({span.trace_id for span in sink.spans}) == 3
    for span in sink.spans:
        if span.name == "leaf":
            assert span.attributes["input.value"].startswith(roots[span.parent_id].attributes["input.value"])


def test_cancellation_is_recorded_and_passes(sink: Sink) -> None:
    @traced(name="waits")
    async def waits() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert (sink["waits"].error or "").startswith("CancelledError")


def test_a_generator_is_one_span_and_keeps_its_protocol(sink: Sink) -> None:
    @traced(name="helper")
    def helper() -> str:
        return "x"

    @traced(name="items")
    def items(n: int) -> Iterator[str]:
        got = []
        try:
            for number in range(n):
                try:
                    got.append((yield helper() + str(number)))
                except ValueError as error:
                    got.append(str(error))
                    yield "caught"
        finally:
            got.append("end")
        return got

    made = items(3)
    assert sink.spans == [] and next(made) == "x0" and made.send("a") == "x1"
    assert current_span() is None, "between two items nothing is open"
    assert made.throw(ValueError("no")) == "caught"
    assert made.send("c") == "x2"
    with pytest.raises(StopIteration) as stop:
        made.send("d")
    assert stop.value.value == ["a", "no", "d", "end"]
    span = sink["items"]
    assert span.attributes["output.value"] == "x0x1caughtx2" and span.attributes["firsthand.items"] == 4
    assert sink.tree()["helper"] == "items" and span.error is None


@pytest.mark.slow
def test_a_generator_that_is_left_ends_its_span_without_an_error(sink: Sink) -> None:
    closed = []

    @traced(name="items")
    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    for item in items():
        assert item == 1
        break
    gc.collect()
    assert closed == [True] and sink["items"].error is None and sink["items"].attributes["firsthand.items"] == 1


def test_async_generators_are_one_span(sink: Sink) -> None:
    @traced(name="items")
    async def items() -> AsyncIterator[str]:
        for word in ("a", "b"):
            await asyncio.sleep(0)
            yield word
        raise OSError("cut")

    async def main() -> list[str]:
        got = []
        try:
            async for each in items():
                got.append(each)
        except OSError:
            got.append("cut")
        return got

    assert asyncio.run(main()) == ["a", "b", "cut"]
    assert sink["items"].attributes["output.value"] == "ab" and sink["items"].error == "OSError: cut"


def test_an_async_generator_that_is_left_early_has_not_failed_and_one_that_is_cancelled_has(sink: Sink) -> None:
    @traced(name="items")
    async def items() -> AsyncIterator[str]:
        for word in ("a", "b"):
            yield word
            await asyncio.sleep(30)

    async def left() -> None:
        async for _ in items():
            break

    async def cancelled() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                async for _ in items():
                    pass

    for main, error in ((left, None), (cancelled, "CancelledError: ")):
        asyncio.run(main())
        gc.collect()
        span = sink.spans.pop()
        assert span.error == error and span.attributes["firsthand.items"] == 1 and not sink.spans


def test_methods_and_odd_values_are_recorded_without_harm(sink: Sink) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

        @traced(name="method")
        def method(self, value: Any, *rest: int, **named: Any) -> Any:
            return value

    loop: list[Any] = []
    loop.append(loop)
    for value in (Odd(), loop, "x" * 100_000, b"\xff", float("nan"), {1: {2}}, "\ud800"):
        assert Odd().method(value, 1, key=2) is value
    with pytest.raises(TypeError):
        Odd().method()  # type: ignore[call-arg]
    assert len(sink.spans) == 8 and all("self" not in span.attributes["input.value"][:8] for span in sink.spans)
    assert max(len(span.attributes["input.value"]) for span in sink.spans) <= recording.MAX_VALUE_CHARS
    decode_json(json.dumps(otlp_json(sink.spans, "s")).encode())


def test_a_root_that_is_not_sampled_records_nothing_below_it(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    @traced(name="inner")
    def inner() -> None: ...

    @traced(name="never", share=0.0)
    def never() -> None:
        inner()

    @traced(name="half", share=0.5)
    def half() -> None:
        inner()

    never()
    assert sink.spans == []
    draws = iter([0.4, 0.6, 0.5, 0.0])
    monkeypatch.setattr("firsthand.ingest.recording.random.random", lambda: next(draws))
    for _ in range(4):
        half()
    assert [span.name for span in sink.spans] == ["inner", "half"] * 2


def test_content_can_be_left_out(sink: Sink) -> None:
    @traced(name="private", content=False)
    def private(secret: str) -> str:
        return secret

    private("hidden")
    assert sink["private"].attributes == {"openinference.span.kind": "CHAIN"}


def test_without_content_an_error_is_known_by_its_kind(sink: Sink) -> None:
    @traced(name="fails", content=False)
    def fails(secret: str) -> None:
        raise ValueError(f"no card {secret}")

    with pytest.raises(ValueError, match="no card hidden"):
        fails("hidden")
    span = sink["fails"]
    assert span.error == "ValueError" and [each["attributes"] for each in span.events] == [
        {"exception.type": "ValueError"}
    ]


def test_class_methods_and_static_methods_stay_what_they_are(sink: Sink) -> None:
    class Shop:
        @traced(name="made")
        @classmethod
        def made(cls, x: int) -> tuple[type, int]:
            return cls, x

        @traced
        @staticmethod
        def bare(x: int) -> int:
            return x

        @classmethod
        @traced(name="below")
        def below(cls, x: int) -> tuple[type, int]:
            return cls, x

    class Other(Shop): ...

    assert Other.made(1) == Other().made(1) == Other.below(1) == (Other, 1) and Shop.bare(2) == Shop().bare(2) == 2
    assert [span.attributes["input.value"] for span in sink.spans] == ['{"x": 1}'] * 3 + ['{"x": 2}'] * 2
    with pytest.raises(ConfigError, match=r"^traced was given a property: put it below that, on the function itself$"):
        traced(property(lambda self: 1))  # type: ignore[type-var]


def test_the_span_around_a_root_is_its_parent(sink: Sink) -> None:
    @traced(name="below")
    def below() -> TraceParent | None:
        return current()

    def inside() -> TraceParent | None:
        enter(TraceParent(0xABC, 0xDEF))
        return below()

    inner = contextvars.copy_context().run(inside)
    assert (sink["below"].trace_id, sink["below"].parent_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert inner == TraceParent(0xABC, int(sink["below"].span_id, 16)), "what is called joins the trace"


def test_spans_of_opentelemetry_nest_with_ours(sink: Sink) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry is not installed")
    tracer = sdk.TracerProvider().get_tracer("t")

    @traced(name="ours")
    def ours() -> Any:
        with tracer.start_as_current_span("theirs") as span:
            return span

    with tracer.start_as_current_span("around") as around:
        theirs = ours()
    assert sink["ours"].parent_id == f"{around.get_span_context().span_id:016x}"
    assert theirs.parent.span_id == int(sink["ours"].span_id, 16)


def test_threads_begin_traces_of_their_own(sink: Sink) -> None:
    @traced(name="work")
    def work() -> None: ...

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({span.trace_id for span in sink.spans}) == 4


# -- where it goes --


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recording, "_destination", recording._Destination())
    yield


def test_without_an_address_nothing_is_recorded(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)

    @traced
    def work() -> int:
        return 1

    assert work() == 1 and recording._destination.sink is None


@pytest.mark.parametrize(
    ("target", "share"), [("ftp://x", 1.0), ("http://", 1.0), ("http://h", 1.5), ("http://h", -0.1)]
)
def test_a_target_that_is_none_is_one_sentence(unset: None, target: str, share: float) -> None:
    with pytest.raises(ConfigError):
        trace_to(target, share=share)


def test_a_folder_gets_a_run_with_an_attempt_for_each_root(unset: None, tmp_path: Path) -> None:
    @traced(name="look", kind="tool")
    def look(key: str) -> str:
        return f"password={key}hunter2222"

    @traced(name="answer")
    def answer(question: str) -> str:
        if question == "bad":
            raise ValueError("cannot")
        look("k")
        return "42"

    trace_to(tmp_path / "run", service="shop")
    assert answer("why?") == answer("why?") == "42"
    with pytest.raises(ValueError, match="cannot"):
        answer("bad")
    assert flush_traces()
    trace_to(tmp_path / "run")  # it goes on in the same run
    answer("more?")
    assert flush_traces()
    with store.open_run(tmp_path / "run", tmp_path) as run:
        traces = list(run.traces())
        assert [trace.answer for trace in traces] == ["42", "42", None, "42"]
        assert traces[2].error is not None and "cannot" in traces[2].error.message
        assert traces[0].task_id == traces[1].task_id != traces[3].task_id
        assert {task.prompt for task in run.tasks().values()} == {"why?", "bad", "more?"}
        (call,) = traces[0].calls
        assert (
            call.kind == "tool"
            and call.detail["name"] == "look"
            and "hunter2222" not in json.dumps(traces[0].to_json())
        )


def test_spans_arrive_at_an_otlp_address_as_they_were(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    got: list[tuple[str, dict[str, str], list[IncomingSpan]]] = []
    statuses = [503, 200, 400]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
            status = statuses.pop(0)
            if status == 200:
                got.append((self.path, dict(self.headers), decode_json(body)[0]))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20k,x=y")
        trace_to(f"http://127.0.0.1:{server.server_port}", service="shop")

        @traced(name="répond")
        def work(text: str) -> dict[str, Any]:
            return {"text": text, "n": 1}

        work("\u202e<b>")
        assert flush_traces(20)
        (path, headers, (span,)) = got[0]
        assert path == "/v1/traces" and headers["authorization"] == "Bearer k" and span.name == "répond"
        assert span.attributes["input.value"] == "\u202e<b>" and span.resource["service.name"] == "shop"
        assert json.loads(span.attributes["output.value"]) == {"text": "\u202e<b>", "n": 1}
        work("refused")
        flush_traces(20)
        assert isinstance(recording._destination.sink, OtlpSender) and recording._destination.sink.dropped == 1
    finally:
        server.shutdown()
        server.server_close()


def test_what_cannot_be_sent_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "MAX_WAITING", 3)
    sender = OtlpSender("http://127.0.0.1:9", "s", {})
    monkeypatch.setattr(sender, "_sent", lambda client, batch: False)
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    for number in range(5):
        sender.put(IncomingSpan("1" * 32, f"{number:016x}", "", "s", 1, 2), True)
    assert sender.dropped == 2 and not sender.flush(0.05)
