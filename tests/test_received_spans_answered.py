"""The writer's answer to each request, metrics of exactly their window, and scorers up to their most."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from firsthand.errors import ConfigError, StoreError
from firsthand.ingest import trace_evaluation, trace_store
from firsthand.ingest.alert_rules import AlertRule, WindowValue
from firsthand.ingest.cold_segments import read_sealed
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf, spans_of_request
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome, inflated
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from received_spans import arrived, ready

NOW = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


# -- the writer --


def test_a_request_that_is_alone_may_be_as_large_as_it_likes(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.ingest import span_writer

    monkeypatch.setattr(span_writer, "MAX_WAITING_BYTES", 10)
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    writer.close()
    writer._closed = False
    told: list[tuple[str, WriteOutcome]] = []

    def put(name: str, size: int, found: Any) -> bool:
        def decode() -> Any:
            if isinstance(found, BaseException):
                raise found
            return found

        return writer.submit_spans(decode, size, lambda outcome: told.append((name, outcome)))

    span = IncomingSpan("a" * 32, "b" * 16, "", "n", 1, 2)
    assert [put("large", 11, ([span], 3)), put("none", 1, ([], 2)), put("none", 0, ([], 2))] == [True, False, False]
    writer._write_some()
    assert writer._size == 0 and told == [("large", WriteOutcome(1, 3))]
    told.clear()
    put("memory", 1, MemoryError())
    put("key", 2, KeyError("k"))
    put("own", 3, StoreError("full"))
    put("empty", 4, ([], 0))
    writer._write_some()
    assert told == [
        ("empty", WriteOutcome()),
        ("memory", WriteOutcome(problem="the request needs more memory than there is: send less at once")),
        ("key", WriteOutcome(problem="the request cannot be read (KeyError)")), ("own", WriteOutcome(problem="full")),
    ]  # fmt: skip
    assert writer._size == 0 and not writer._waiting
    for encoding, bits in (("gzip", 31), ("deflate", 15)):
        packer = zlib.compressobj(9, zlib.DEFLATED, bits)
        packed = packer.compress(b"abc" * 100) + packer.flush()
        assert inflated(packed + packed, encoding) == b"abc" * 200 and inflated(b"", encoding) == b""  # type: ignore[arg-type]
    assert inflated(packed, "identity") is packed and inflated(packed, "") is packed


# -- alerts and scores --


def test_a_metric_is_of_the_traces_in_its_window_alone(store: TraceStore) -> None:
    store.add([ready("a", "1", start=30 * 10**9, end=10 * 10**9), ready("b", "1", start=10**9, end=5 * 10**9)])
    arrived(store, a=100.0, b=160.0)
    rule = AlertRule.parse(" seconds > 1.5 / 1m ")
    assert (rule.text, rule.metric, rule.operator, rule.bound, rule.window_s) == (
        "seconds > 1.5 / 1m",
        "seconds",
        ">",
        1.5,
        60.0,
    )
    assert rule.measure(store, 100.0, 160.0) == WindowValue(0.0, 1), "a clock that ran backwards"
    assert rule.measure(store, 100.0, 160.5) == WindowValue(2.0, 2) and rule.measure(
        store, 100.5, 160.0
    ) == WindowValue(None, 0)
    found = rule.check(store, 160.5)
    assert found is not None and found.to_json() == {
        "rule": "seconds > 1.5 / 1m", "value": 4.0, "message": "seconds is 4, above 1.5, over 1 traces", "at": 160.5,
    }  # fmt: skip
    errors = AlertRule.parse("errors~2/1m")
    few = [WindowValue(share, 10) for share in (0.1, 0.3, 0.1, 0.3, 0.1, 0.3, 0.1, 0.3)]
    assert errors._charted(WindowValue(0.5, 40), [WindowValue(None, 0), *few], 7.0) is None, "0.2 / 1.128 is larger"
    steady = [WindowValue(0.2, count) for count in (10, 20, 10, 20, 10, 20, 10, 20)]
    assert errors._charted(WindowValue(0.4, 16), steady, 7.0) is None, "two sigmas of 0.1"
    told = errors._charted(WindowValue(0.45, 16), steady, 7.0)
    assert told is not None and (told.said, told.at_s, told.value) == (
        "errors is 0.45, above the limits 0 to 0.4 of the 8 windows before", 7.0, 0.45,
    )  # fmt: skip
    level = AlertRule.parse("tokens~3/1m")
    same = [WindowValue(5.0, 1)] * 8
    assert (
        level._charted(WindowValue(5.0, 1), same, 7.0) is None
        and level._charted(WindowValue(4.0, 1), same[1:], 7.0) is None
    )
    below = level._charted(WindowValue(4.0, 1), same, 7.0)
    assert below is not None and below.said == "tokens is 4, below the limits 5 to 5 of the 8 windows before"
    with pytest.raises(ConfigError, match="'0' is no number that can be compared with"):
        AlertRule.parse("spans~0/1m")


def test_each_scorer_scores_up_to_its_most_and_the_next_goes_on(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setattr(trace_evaluation, "_MOST", 2)

    async def one(task: Any, trace: Any) -> float:
        raise StoreError("x" * 600) if trace.id != "a" else KeyError("x" * 600)

    async def two(task: Any, trace: Any) -> float:
        return 0.0

    store.add([ready(trace, "1") for trace in "cab"])
    arrived(store, a=NOW - 10, b=NOW - 20, c=NOW - 9.5)
    evaluation = Evaluation((("one!", one), ("two!", two)))
    assert asyncio.run(evaluation.score_some(store, now_s=NOW)) == 4
    assert asyncio.run(evaluation.score_some(store, now_s=NOW)) == 0
    assert asyncio.run(evaluation.score_some(store, now_s=NOW + 0.5)) == 2
    rows = store.database.read("SELECT trace, name, scorer, value, failure FROM scores ORDER BY seq")
    failed = ("one", "one!", None, ("StoreError: " + "x" * 600)[:500])
    lost = ("one", "one!", None, f"KeyError: {'x' * 600!r}")
    assert rows == [
        ("b", *failed), ("a", *lost), ("b", "two", "two!", 0.0, None), ("a", "two", "two!", 0.0, None), ("c", *failed),
        ("c", "two", "two!", 0.0, None),
    ]  # fmt: skip
    assert trace_store.TraceStore.exists(store.home) and not TraceStore.exists(store.home / "other")


def test_a_round_that_fails_tells_each_problem_and_goes_on_to_the_next_rule(tmp_path: Path) -> None:
    class Broken:
        async def score_some(self, store: TraceStore, *, now_s: float) -> int:
            raise KeyError(f"{now_s:g}" * 100)

    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "alerts"
    problems: list[str] = []
    settings = IntakeSettings(
        alerts=parse_alerts(["errors>0.5/1m", "spans>2/1m", "traces>0/1m"]),
        alert_to=str(target),
        evaluation=Broken(),  # type: ignore[arg-type]
    )
    made = Intake(tmp_path, settings, on_problem=problems.append)
    try:
        made._end.set()
        made._keeper.join()
        problems.clear()
        target.parent.rmdir()
        made.store.add([ready("t", str(n), error="" if n else None) for n in range(3)])
        arrived(made.store, t=NOW - 60)
        made.score(NOW)
        made.tick(NOW)
        why = f"{target} cannot be written: No such file or directory"
        failed = ("KeyError: '" + "1e+06" * 100)[:300]
        told = [failed, *[f"an alert was not delivered to {target}, and is tried again: {why}"] * 3]
        assert problems == told
        made.score(NOW + 5)
        made.tick(NOW + 5)
        made.score(NOW + 9)
        made.tick(NOW + 9)
        assert problems[5:8] == told[1:] and len(problems) == 9, "the second pause is 5 s; scoring fails each time"
        rows = made.store.database.read("SELECT rule, value, said, at_s, delivered FROM alerts ORDER BY seq")
        assert rows == [
            ("errors>0.5/1m", 1.0, "errors is 1, above 0.5, over 1 traces", NOW, why),
            ("spans>2/1m", 3.0, "spans is 3, above 2, over 1 traces", NOW, why),
            ("traces>0/1m", 1.0, "traces is 1, above 0, over 1 traces", NOW, why),
        ]
        target.parent.mkdir()
        made.store.add([ready("u", "1")])
        arrived(made.store, t=NOW, u=NOW + 60)
        made.tick(NOW + 60.5)
        assert made._fired == {"errors>0.5/1m": False, "spans>2/1m": False, "traces>0/1m": True}

        def delivered() -> list[str]:
            return [json.loads(line)["rule"] for line in target.read_text().splitlines()]

        assert delivered() == ["errors>0.5/1m", "spans>2/1m", "traces>0/1m"]
        arrived(made.store, t=NOW + 120)
        made.tick(NOW + 121)
        assert delivered()[3:] == ["errors>0.5/1m", "spans>2/1m"], "the third has held since"
    finally:
        made.close()


def test_only_a_span_whose_status_is_an_error_failed_in_protobuf_as_in_json() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    given = [(None, ""), (0, ""), (0, "told"), (1, ""), (1, "told"), (2, ""), (2, "told")]
    for number, (code, message) in enumerate(given, start=1):
        span = spans.add(trace_id=b"\1" * 16, span_id=number.to_bytes(8, "big"), name="n")
        if code is not None:
            span.status.SetInParent()
            span.status.code, span.status.message = code, message
    made, rejected = spans_of_request(request)
    wanted = [None, None, None, None, None, "", "told"]
    assert ([each.error for each in made], rejected) == (wanted, 0)
    assert [each.error for each in decode_protobuf(request.SerializeToString())[0]] == wanted
    body = [
        {"traceId": "01" * 16, "spanId": f"{number:016x}", "name": "n"}
        | ({} if code is None else {"status": {"code": code, "message": message}})
        for number, (code, message) in enumerate(given, start=1)
    ]
    told = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": body}]}]}).encode()
    assert [each.error for each in decode_json(told)[0]] == wanted


def test_a_trace_is_quiet_since_its_newest_span(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(trace_store, "time", SimpleNamespace(time=lambda: clock[0]))
    store.add([ready("t", "1"), ready("u", "1")])
    before = store.summary("u")
    assert before.arrived_s == store.summary("t").arrived_s == 100.0
    for at_s, span, end in ((150.0, "2", 20), (170.0, "3", 0), (200.0, "3", 90)):  # more, and one that is replaced
        clock[0] = at_s
        store.add([ready("t", span, end=end)])
        assert store.summary("t").arrived_s == at_s
    assert store.summary("u") == before, "the other trace is as quiet as it was"
    assert store.summary("t").num_spans == 3 and store.summary("t").changed == 4
