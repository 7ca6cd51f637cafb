"""Delivery of spans to a collector and the count of it: batches, failures that are over, problems told once, ids."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collector import collecting
from firsthand import __version__
from firsthand.telemetry import otlp_export
from firsthand.telemetry.otlp_export import Telemetry, _ids
from firsthand.telemetry.trace_spans import Span


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(otlp_export, "_BATCH", 2)


def spans(count: int) -> list[Span]:
    return [Span(f"s{n}", 9, n + 1, None if n == 0 else 1, 10 + n, 20 + n) for n in range(count)]


def test_a_delivery_counts_its_own_failures_and_not_those_before() -> None:
    told: list[str] = []
    with collecting() as collector:
        telemetry = Telemetry(collector.url, on_problem=told.append)
        telemetry.note(3, False)
        assert telemetry.failed == 3 and told == ["spans cannot be sent: the collector did not take them"]
        assert telemetry.deliver(spans(5)) and telemetry.deliver(iter(()))
        telemetry.close()
    assert [span.name for span in collector.spans] == ["s0", "s1", "s2", "s3", "s4"] and collector.requests == 3
    assert (telemetry.ended, telemetry.sent, telemetry.failed) == (5, 5, 3)


def test_a_delivery_ends_with_the_first_batch_that_is_refused() -> None:
    told: list[str] = []
    with collecting(status=400) as collector:
        telemetry = Telemetry(collector.url, on_problem=told.append)
        assert telemetry.deliver(spans(5)) is False and collector.requests == 1
        assert (telemetry.ended, telemetry.sent, telemetry.failed) == (2, 0, 2)
        assert telemetry.deliver(spans(1)) is False and telemetry.failed == 3 and len(told) == 1
        telemetry.close()
    assert "400" in telemetry.problem


def test_spans_that_a_collector_accepts_and_rejects_are_not_sent() -> None:
    told: list[str] = []
    why = b"quota\nexceeded"
    with collecting(body=b"\x0a" + bytes([4 + len(why)]) + b"\x08\x01\x12" + bytes([len(why)]) + why) as collector:
        telemetry = Telemetry(collector.url, on_problem=told.append)
        assert telemetry.deliver(spans(5)) is False and collector.requests == 1
        assert (telemetry.sent, telemetry.failed) == (1, 1)
        assert telemetry.deliver(spans(1)) is False and (telemetry.sent, telemetry.failed) == (1, 2)
        telemetry.close()
    assert told == ["spans cannot be sent: the collector rejected spans: quota exceeded"]
    with collecting(body=b"\x0a\x02\x08\x00") as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans(3)) is True and (telemetry.sent, telemetry.failed) == (3, 0)
        telemetry.close()


REJECTED = b"\x0a\x09\x08\x01\x12\x05quota"
WHOLE = b"\x0a\xfc\xff\x03\x08\x01\x12\xf6\xff\x03" + b"a" * 65_526  # 64 KiB
LONG = b"\x0a\xfd\xff\x03\x08\x01\x12\xf7\xff\x03" + b"a" * 65_527
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "is_rejected"),
    [
        (CHUNKED + b"b\r\n" + REJECTED + b"\r\n0\r\n\r\n", True),
        (CHUNKED + b"4\r\n" + REJECTED[:4] + b"\r\n7\r\n" + REJECTED[4:] + b"\r\n0\r\n\r\n", True),
        (b"\r\n" + REJECTED, True),  # up to the connection's end
        (b"\r\n" + WHOLE, True),
        (b"\r\n" + LONG, False),
        (CHUNKED + b"b\r\n" + REJECTED[:9], False),
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"b\r\n" + REJECTED + b"\r\n0\r\n\r\n", False),
        (b"Content-Length: 12\r\n\r\n" + REJECTED, False),
    ],
    ids=["chunked", "two chunks", "no length", "64 KiB", "too long", "broken off", "another coding", "cut"],
)  # fmt: skip
def test_a_rejection_is_read_from_a_body_of_any_framing(reply: bytes, is_rejected: bool) -> None:
    with collecting(garbage=b"HTTP/1.1 200 OK\r\n" + reply) as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans(1)) is not is_rejected and telemetry.failed == is_rejected
        telemetry.close()


def test_a_problem_is_told_when_sending_begins_to_fail_with_the_words_of_the_sdk() -> None:
    told: list[str] = []
    telemetry = Telemetry("http://127.0.0.1:1", on_problem=told.append)
    logger = logging.getLogger("opentelemetry.sdk")
    logger.info("not a warning")
    assert telemetry.problem == ""
    logger.warning("a\n  b %s", "c" * 400)
    assert telemetry.problem == "a b " + "c" * 296
    for succeeded in (False, False, True, False):
        telemetry.note(2, succeeded)
    assert told == [f"spans cannot be sent: {telemetry.problem}"] * 2
    assert (telemetry.sent, telemetry.failed) == (2, 6)
    telemetry.close()
    logger.warning("after the end")
    assert (
        telemetry.problem.startswith("a b ") and telemetry._listener not in logging.getLogger("opentelemetry").handlers
    )

    def breaks(text: str) -> Any:
        raise ValueError(text)

    telemetry._on_problem = breaks
    telemetry.note_problem("x")  # whoever is told may fail


def test_ids_are_used_once_and_each_for_itself() -> None:
    made = _ids()
    made.use(5, 7)
    assert (made.generate_trace_id(), made.generate_span_id()) == (5, 7)
    trace, span = made.generate_trace_id(), made.generate_span_id()
    assert trace not in (0, 5) and span not in (0, 7)
    made.use(5, 0)
    assert made.generate_span_id() not in (0, 5) and made.generate_trace_id() == 5
    fresh = _ids()  # and a thread that was told none begins with random ones
    with ThreadPoolExecutor(1) as thread:
        first = [thread.submit(each).result() for each in (fresh.generate_trace_id, fresh.generate_span_id)]
    assert min(first) > 1


def test_what_a_sampler_leaves_out_takes_what_lies_below_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans(3)) and telemetry._unsampled == 9
        assert collector.requests == 0 and telemetry.ended == 0
        telemetry.close()


@pytest.mark.parametrize(
    ("service", "attributes", "name"),
    [
        (None, None, "firsthand"), ("", "", "firsthand"), ("mine", None, "mine"), ("mine", "service.name=other", "mine"),
        (None, "service.name=other", "other"), ("", "a=b,service.name=other", "other"),
        (None, "a=b, service.name = other ,c=d", "other"), (None, "service.namespace=x", "firsthand"),
        (None, "a=service.name", "firsthand"), (None, "peer.service.name=x", "firsthand"),
        (None, "service.name=", "firsthand"), (None, "service.name", "firsthand"), (None, "a=service.name=x", "firsthand"),
        (None, "service.name.old=x", "firsthand"), (None, "service.name=one,service.name=two", "two"),
        (None, "service.name=one,service.name", "one"), (None, "service.name=one,service.name=", "firsthand"),
        (None, "service.name=a=b", "a=b"),
    ],
)  # fmt: skip
def test_spans_are_of_the_service_firsthand_unless_the_environment_names_another(
    monkeypatch: pytest.MonkeyPatch, service: str | None, attributes: str | None, name: str
) -> None:
    for variable, value in (("OTEL_SERVICE_NAME", service), ("OTEL_RESOURCE_ATTRIBUTES", attributes)):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
    with collecting() as collector:
        telemetry = Telemetry(collector.url)
        assert telemetry.deliver(spans(1))
        telemetry.close()
    (resource,) = collector.resources
    assert (resource["service.name"], resource["service.version"]) == (name, __version__)
    assert resource.get("service.namespace") == ("x" if attributes == "service.namespace=x" else None)
    assert resource.get("a") == (attributes.split(",")[0][2:] if (attributes or "").startswith("a=") else None)
