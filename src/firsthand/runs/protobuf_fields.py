"""Reads the fields of protobuf messages without their schema, as untrusted bytes: enough for logs of other trackers."""

from __future__ import annotations

from collections.abc import Iterator

from firsthand.errors import DataError

Field = tuple[int, int | bytes]
"""Number and value: an integer (varint, or 4 and 8 bytes as they are) or the bytes of a length-delimited field."""


def fields_of(body: bytes) -> Iterator[Field]:
    """The fields of a message in their order; DataError if the bytes are no message."""
    position, end = 0, len(body)
    while position < end:
        tag, position = varint(body, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = varint(body, position)
            yield number, value
            continue
        if kind == 2:
            size, position = varint(body, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise DataError(f"a message has a field of the unknown kind {kind} at byte {position}")
        if number == 0 or position + size > end:
            raise DataError(f"a message ends inside a field at byte {position}")
        yield number, body[position : position + size]
        position += size


def varint(body: bytes, position: int) -> tuple[int, int]:
    """The integer at a place of at most ten bytes, and the place after it; DataError if there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(body):
            break
        byte = body[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise DataError(f"a number does not end at byte {position}")


def signed(value: int) -> int:
    """An integer of 64 bits as protobuf's int64."""
    return value - (1 << 64) if value >= 1 << 63 else value
