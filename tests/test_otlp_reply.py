"""The spans that a collector rejects in a reply of success, in JSON and in protobuf."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import OtlpSender
from firsthand.system.otlp_reply import rejected_spans


def in_json(**partial: Any) -> bytes:
    return json.dumps({"partialSuccess": partial}).encode()


@pytest.mark.parametrize(
    ("body", "count", "why"),
    [
        (in_json(rejectedSpans="2", errorMessage="quota"), 2, "quota"),
        (b" \n" + in_json(rejectedSpans=1), 1, "it does not say why"),
        (in_json(rejectedSpans="5", errorMessage="a\n b"), 5, "a b"),
        (in_json(rejectedSpans=6), 5, "it does not say why"),
        (b"\x0a\x02\x08\x03", 3, "it does not say why"),
        (b"\x0a\x09\x08\x03\x12\x05quota", 3, "quota"),
        (in_json(rejectedSpans=str((1 << 63) - 1)), 5, "it does not say why"),
        (b"\x0a\x03\x08\xac\x02", 5, "it does not say why"),
    ],
)
def test_rejected_spans_are_read_and_are_no_more_than_were_sent(body: bytes, count: int, why: str) -> None:
    assert rejected_spans(body, 5) == (count, f"the collector rejected spans: {why}")


def test_a_message_of_any_length_is_read_though_one_of_123_bytes_begins_as_json_does() -> None:
    for length in range(1, 124):
        partial = b"\x08\x03\x12" + bytes([length]) + b"x" * length
        body = b"\x0a" + bytes([len(partial)] if len(partial) < 128 else [len(partial) & 127 | 128, 1]) + partial
        assert rejected_spans(body, 5) == (3, f"the collector rejected spans: {'x' * length}")
    assert rejected_spans(b"\n{" + b"\x08\x03", 5).number == 0, "it is cut"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"ok", b"\xff" * 9, b"{", in_json(), b'{"partialSuccess": null}', b'{"partialSuccess": [3]}',
        in_json(rejectedSpans=float("inf")), in_json(rejectedSpans=float("nan")), in_json(rejectedSpans="9" * 5000),
        in_json(rejectedSpans="x"), in_json(rejectedSpans=[1]), in_json(rejectedSpans=-1), in_json(errorMessage="a warning"),
        b'{"a":' + b"[" * 60_000, b"\x0a\x00", b"\x0a\x09\x08\x03", b"\x0a\x02\x08", b"\x0a\x80", b"<html>no</html>",
        b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01", b"\x08\x03",
    ],
)  # fmt: skip
def test_other_replies_of_success_reject_none(body: bytes) -> None:
    assert rejected_spans(body, 5).number == 0


def test_a_sender_counts_rejected_spans_as_dropped(caplog: pytest.LogCaptureFixture) -> None:
    sender = OtlpSender("http://user:hunter22secret@h/", "s", {})
    batch = [IncomingSpan("1" * 32, f"{n:016x}", "", "n", 1, 2, {}) for n in range(5)]
    reply = in_json(rejectedSpans="2", errorMessage="quota")
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=reply))) as client:
        assert sender._sent(client, batch) == 3
    assert sender.end(1.0) is True and caplog.messages == []
    sender.dropped = 2
    assert sender.end(1.0) is True
    [told] = caplog.messages
    assert (
        told.endswith("/v1/traces: spans not sent: 2 (the collector rejected spans: quota)") and "hunter22" not in told
    )
