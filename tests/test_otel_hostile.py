"""Export of hostile attempts to hostile collectors: what one attempt holds loses no span of another, and keys stay here."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from collector import collecting, values
from firsthand.message import Message, Text, ToolCall, assistant, user
from firsthand.model import Usage
from firsthand.telemetry import genai, otlp_export
from firsthand.telemetry.live_export import Sender
from firsthand.telemetry.otlp_export import Telemetry
from firsthand.telemetry.trace_spans import Span, spans_of
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

GOOD = Span("good", 77, 78, None, 1, 2)
TEXTS = ["\ud800", "\x00\x1b]52;c;x\x07", "a" * 300_000, "漢\udfff" * 40_000, ""]


def hostile(text: str) -> Trace:
    """An attempt with the text wherever a text can be."""
    call = ToolCall(text, text, {text: text})
    foreign = Message(text, (Text(text),))  # type: ignore[arg-type]  # a stored trace may hold any role
    nodes = (Node(None, user(text)), Node(0, assistant(text, call)), Node(1, foreign))
    settings = {"stop": [text] * 300, "seed": 2**80, "temperature": math.nan}
    told = {"name": text, "arguments": {text: text}, "result": text, "operation": text, "model": text, "prompt": text}
    told |= {"finish_reasons": [text] * 300, "sampling": settings}
    kinds: Any = ("generate", "tool", "score", "guard", "memory")
    calls = tuple(Call(f":{kind}{text}", kind, 1, 0.0, 0.5, text, Usage(2**70, 2**65, 3), (1,), told, error=text)
                  for kind in kinds)  # fmt: skip
    events = (Event(text, 0.1, {text: 1, "n": -(2**300), "x": text}),)
    scores = Score(text, 1.0), Score(text, 0.0, {"scorer_failed": text})
    made = Trace(
        text, text, text, {"name": text, "model": text, "fingerprint": text}, 2**70, 2**90, "2026-11-25T00:00:00", 1.0
    )
    return replace(made, nodes=nodes, calls=calls, events=events, answer=text, scores=scores, error=Failure(text, text),
                   stop_reason=text)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("text", TEXTS, ids=["surrogate", "controls", "long", "long in bytes", "empty"])
def test_hostile_text_loses_no_span_and_is_bounded(text: str, content: bool) -> None:
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        spans = [*spans_of(hostile(text), text, content=content), GOOD]
        assert telemetry.deliver(spans), telemetry.problem
        assert len(collector.spans) == len(spans) == 7
        telemetry.close()
    for span in collector.spans:
        for value in values(span.attributes).values():
            assert not isinstance(value, str) or len(value) <= genai.MAX_CONTENT_CHARS
            assert not isinstance(value, list) or len(value) <= genai.MAX_LIST_VALUES
        assert max(map(len, [span.name, span.status.message, *values(span.attributes)])) <= genai.MAX_NAME_CHARS


@pytest.mark.slow
@pytest.mark.parametrize("started_at", ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "1969-01-01", "x", ""])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e300, 1.5])
def test_times_that_no_clock_has_shown_lose_no_span(started_at: str, seconds: float) -> None:
    calls = (Call(":0", "tool", None, seconds, seconds, "r"),)
    events = (Event("e", seconds, {}),)
    trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, started_at, seconds, (), calls, events)
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver([*spans_of(trace), GOOD]), telemetry.problem
        telemetry.close()
    assert len(collector.spans) == 3
    assert all(0 < span.end_time_unix_nano < 2**63 or span.end_time_unix_nano == 0 for span in collector.spans)


def test_a_time_that_a_clock_has_shown_is_told_to_the_nanosecond() -> None:
    trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, "2026-11-25T00:00:01+00:00", 2.5, ())
    (span,) = spans_of(trace)
    assert (span.start_ns, span.end_ns) == (1_795_564_801_000_000_000, 1_795_564_803_500_000_000)


def test_every_time_of_an_attempt_counts_from_its_start() -> None:
    calls = (Call(":0", "tool", None, 0.25, 0.5, "r"), Call(":1", "generate", None, 1.0, 0.125, "r"))
    events, scores = (Event("e", 0.75, {"n": 1, "text": "x"}),), (Score("exact", 1.0),)
    trace = Trace(
        "i", "b", "t", {"name": "a"}, 0, 0, "1970-01-01T00:01:40+00:00", 2.5, (), calls, events, scores=scores
    )
    whole, first, second = spans_of(trace)
    start = 100_000_000_000
    assert (whole.start_ns, whole.end_ns) == (start, start + 2_500_000_000)
    assert (first.start_ns, first.end_ns) == (start + 250_000_000, start + 750_000_000)
    assert (second.start_ns, second.end_ns) == (start + 1_000_000_000, start + 1_125_000_000)
    assert [(event.name, event.at_ns) for event in whole.events] == [
        ("e", start + 750_000_000), ("gen_ai.evaluation.result", whole.end_ns),
    ]  # fmt: skip
    assert whole.events[0].attributes == {"firsthand.n": 1}


@pytest.mark.parametrize("fingerprint", ["local:abc", "openai:m@x", ""])
def test_work_that_another_process_may_do_is_a_clients_span(fingerprint: str) -> None:
    kinds: Any = ("generate", "score", "guard", "tool", "memory")
    calls = tuple(Call(f":{kind}", kind, None, 0.0, 1.0, "r") for kind in kinds)
    trace = Trace("i", "b", "t", {"name": "a", "fingerprint": fingerprint}, 0, 0, "2026-11-25T00:00:00", 1.0, (), calls)
    asked = "internal" if fingerprint.startswith("local:") else "client"
    assert [span.kind for span in spans_of(trace)] == ["internal", asked, asked, asked, "internal", "internal"]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (2**63 - 1, 2**63 - 1), (2**63, str(2**63)), (-(2**63), -(2**63)), (-(2**63) - 1, str(-(2**63) - 1)),
        (2**256 - 1, str(2**256 - 1)), (2**256, "too large"), (-(2**256), "too large"), (True, True), (0.5, 0.5),
    ],
)  # fmt: skip
def test_a_number_is_told_as_one_up_to_64_bits(number: float, told: object) -> None:
    found = genai.exportable({"n": number})
    assert found == {"n": told} and type(found["n"]) is type(told)


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_messages_are_kept_without_a_gap_and_as_many_as_fit(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice((10, 2_000, 20_000, 40_000)) for _ in range(12)] + [rng.choice((10, 30_000))]
    asked = [user(f"{place}:" + "x" * size) for place, size in enumerate(sizes)]
    kept = json.loads(str(genai.prompt(asked)["gen_ai.input.messages"]))
    places = [int(message["parts"][0]["content"].partition(":")[0]) for message in kept]
    assert places == list(range(len(sizes) - len(places), len(sizes))) and 0 < len(places) < len(sizes)
    assert sum(sizes[-len(places) - 1 :]) > genai.MAX_CONTENT_CHARS - 2_000, "one more would not have fitted"
    assert len(json.dumps(kept)) <= genai.MAX_CONTENT_CHARS


def test_a_collector_that_redirects_gets_no_second_request_and_counts_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=secret")
    problems: list[str] = []
    with collecting() as other, collecting(redirect=f"{other.url}/v1/traces") as collector:
        telemetry = Telemetry(collector.url, on_problem=problems.append)
        assert not telemetry.deliver([GOOD])
        telemetry.close()
    assert other.requests == 0 and collector.requests == 1
    assert (telemetry.sent, telemetry.failed) == (0, 1)
    assert len(problems) == 1 and "a redirect: give the address it leads to" in problems[0]


def test_a_body_without_end_is_not_read() -> None:
    with collecting(body=None) as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver([GOOD]) and len(collector.spans) == 1
        telemetry.close()


@pytest.mark.parametrize("garbage", [b"\x00" * 4096, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500,
                                     b"HTTP/1.1 400 \x1b]0;x\x07\xff\r\ncontent-length: 0\r\n\r\n"])  # fmt: skip
def test_an_answer_that_is_no_http_is_a_problem_and_no_crash(monkeypatch: pytest.MonkeyPatch, garbage: bytes) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")  # it would be asked again for 10 s
    problems: list[str] = []
    with collecting(garbage=garbage) as collector:
        telemetry = Telemetry(collector.url, on_problem=problems.append)
        assert not telemetry.deliver([GOOD])
        telemetry.close()
    assert telemetry.failed == 1 and len(problems) == 1 and len(problems[0]) < 400


def test_a_refusal_with_a_long_body_is_told_without_it() -> None:
    problems: list[str] = []
    with collecting(status=403, body=b"no " * 100_000) as collector:
        telemetry = Telemetry(collector.url, on_problem=problems.append)
        assert not telemetry.deliver([GOOD])
        telemetry.close()
    assert "403" in problems[0] and len(problems[0]) < 400


def test_many_large_spans_are_sent_in_requests_that_a_collector_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_export, "_REQUEST_BYTES", 1 << 20)
    large = {"gen_ai.input.messages": "漢" * 60_000}
    spans = [replace(GOOD, span_id=100 + n, attributes=large if n % 2 else {}) for n in range(40)]
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans)
        telemetry.close()
    assert [span.span_id for span in collector.spans] == [span.span_id.to_bytes(8, "big") for span in spans]
    assert max(collector.sizes) < 1 << 20 and len(collector.sizes) < 8


@pytest.mark.slow
def test_an_attempt_of_thousands_of_calls_is_delivered_whole() -> None:
    calls = tuple(Call(f":{n}", "tool", None, 0.0, 0.1, "r", detail={"name": "t"}) for n in range(3000))
    trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.0, (), calls)
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans_of(trace)) and len(collector.spans) == 3001
        telemetry.close()


class Listened:
    """Stands where spans are sent from: it keeps them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.problems: list[str] = []

    def send(self, spans: list[Span]) -> None:
        self.spans += spans

    def note_problem(self, text: str) -> None:
        self.problems.append(text)


@pytest.mark.parametrize("content", [False, True])
def test_a_sender_tells_messages_only_if_it_is_to(content: bool) -> None:
    trace = replace(hostile("a word of the prompt"), started_at="2026-11-25T00:00:00")
    listened: Any = Listened()
    Sender(listened, "run-1", content=content).ended(trace)
    told = [name for span in listened.spans for name in span.attributes if name.endswith(".messages")]
    assert len(listened.spans) == 6 and bool(told) == content and not listened.problems
    assert listened.spans[0].attributes["firsthand.run"] == "run-1"
    Sender(None, "run-1").ended(trace)


def test_a_listener_beside_the_sender_says_itself_whether_it_wants_streams() -> None:
    def plain(step: Any) -> None: ...

    class Quiet:
        streams = False

        def __call__(self, step: Any) -> None: ...

    sender: Any = Sender(Listened(), "r")  # type: ignore[arg-type]
    place: Any = type("At", (), {"id": "p"})()
    found = [sender.listeners(lambda _, other=other: other)(place).streams for other in (None, plain, Quiet())]
    assert found == [False, True, False]
    others = lambda place: None  # noqa: E731
    assert Sender(None, "r").listeners(others) is others
