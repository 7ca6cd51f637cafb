"""Reads what an OTLP collector answers: it may accept a request and still reject some of its spans (partial success)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

from firsthand.system.protobuf_values import varint


class RejectedSpans(NamedTuple):
    """Spans of a request that a collector did not take."""

    number: int
    why: str


def rejected_spans(body: bytes, sent: int) -> RejectedSpans:
    """The rejected spans of a request of `sent` spans, by its reply in JSON or protobuf; none if it is neither."""
    try:
        count, why = _of_either(body)
    except (ValueError, OverflowError, IndexError, TypeError, RecursionError, AttributeError):
        return RejectedSpans(0, "")
    if count >= 1 << 63:  # a negative number
        return RejectedSpans(0, "")
    told = " ".join(why.split())[:300]
    return RejectedSpans(max(0, min(count, sent)), f"the collector rejected spans: {told or 'it does not say why'}")


def _of_either(body: bytes) -> tuple[int, str]:
    if body.lstrip()[:1] == b"{":
        with suppress(ValueError):  # a message in protobuf of 123 bytes begins with a line break and a brace, too
            return _of_json(body)
    return _of_protobuf(body)


def _of_json(body: bytes) -> tuple[int, str]:
    partial = json.loads(body).get("partialSuccess") or {}
    return int(partial.get("rejectedSpans") or 0), str(partial.get("errorMessage") or "")


def _of_protobuf(body: bytes) -> tuple[int, str]:
    partial = _fields(_fields(body).get(1, b""))
    return int(partial.get(1, 0)), bytes(partial.get(2, b"")).decode("utf-8", "replace")


def _fields(raw: bytes) -> dict[int, Any]:
    """Field number -> the number or the bytes of a message."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(raw):
        tag, at = varint(raw, at)
        value, at = varint(raw, at)  # of other kinds there are none in this message
        if tag & 7 == 2:
            if at + value > len(raw):
                raise ValueError("it is cut")
            found[tag >> 3], at = raw[at : at + value], at + value
        elif tag & 7 == 0:
            found[tag >> 3] = value
        else:
            raise ValueError("it is no reply of a collector")
    return found
