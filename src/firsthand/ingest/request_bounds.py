"""Bounds what a request of OTLP becomes where it is kept: two bytes of protobuf can be an object of 300 bytes, a control
character is six letters in JSON, and what many spans share is handled once for each of them.

A body of ordinary spans holds a few hundred thousand values at most, however long its texts are.
"""

from __future__ import annotations

import json
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.system.json_values import values_in
from firsthand.system.protobuf_values import protobuf_holds_more

MAX_VALUES = 2_000_000
"""Fields and values of one request; as objects they take up to about 700 MB."""
MAX_SPANS = 50_000
"""Of one request; batches of SDKs hold 512, those of a collector some 8,000."""
MAX_EVENTS = 100_000
"""Events and links of one request; SDKs keep 128 of a span."""
MAX_WRITTEN_BYTES = 192 << 20
"""Of one request, as JSON: half as much again as it may have when it arrives."""
MAX_SCOPE_CHARS = 1000
"""Of the name of an instrumentation, which each of its spans repeats."""
MAX_RESOURCE_BYTES = 16 << 10
"""Of the attributes of a program as JSON, which a trace may name for each of its spans."""
_CONTROL = bytes(range(32))


def check_json_values(raw: bytes, most: int = MAX_VALUES) -> None:
    """DataError if a JSON text holds more than `most` values. Takes time linear in the text, and 50 MB at most."""
    if values_in(raw, most) > most:
        raise DataError(_too_many(most))


def check_protobuf_values(raw: bytes, message: Any, most: int = MAX_VALUES) -> None:
    """DataError if a message holds more than `most` fields with a length, those of its inner messages included.

    Of all fields, numbers among them, there may be four times as many: each is a step here.

    What is no protobuf is left to the decoder.

    Args:
        message: The descriptor of the message's type.
    """
    if protobuf_holds_more(raw, message, most):
        raise DataError(_too_many(most))


def check_written_bytes(raw: bytes, most: int = MAX_WRITTEN_BYTES) -> None:
    """DataError if the texts of a protobuf message would take more than `most` bytes in JSON.

    Control characters take six bytes there. Those that are numbers of the message are counted too.
    """
    size = len(raw)
    if 6 * size > most and 6 * size - 5 * len(raw.translate(None, _CONTROL)) > most:
        raise DataError(
            f"the request would take more than {most >> 20} MiB as JSON, where a control character is six: send less at once"
        )


def check_spans(spans: int, events: int) -> None:
    """DataError for a request of too many spans, or of too many events and links."""
    for number, most, noun in ((spans, MAX_SPANS, "spans"), (events, MAX_EVENTS, "events and links")):
        if number > most:
            raise DataError(f"the request holds {number:,} {noun}, more than {most:,}: send less at once")


def scope_name(name: str) -> str:
    """The name of an instrumentation; only its length for one that is no name."""
    return name if len(name) <= MAX_SCOPE_CHARS else f"[a name of {len(name):,} characters]"


def bounded_resource(resource: Json, most: int = MAX_RESOURCE_BYTES) -> Json:
    """The attributes of a program; of more than `most` bytes the shortest, and how much was left out."""
    sizes = {key: len(json.dumps([key, value], default=str)) for key, value in resource.items()}
    if sum(sizes.values()) <= most:
        return resource
    kept: set[str] = set()
    for key in sorted(sizes, key=lambda key: (key != "service.name", sizes[key])):
        most -= sizes[key]
        if most < 0:
            break
        kept.add(key)
    left_out = [key for key in resource if key not in kept]
    said = {"left out": f"{len(left_out):,} attributes of {sum(sizes[key] for key in left_out):,} bytes"}
    return {key: value for key, value in resource.items() if key in kept} | said


def _too_many(most: int) -> str:
    return f"the request holds more than {most:,} values: send less at once"
