"""Bounds what a request of OTLP becomes before it is decoded: two bytes of protobuf can be an object of 300 bytes.

A body of ordinary spans holds a few hundred thousand values at most, however long its texts are.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from firsthand.errors import DataError

MAX_VALUES = 2_000_000
"""Fields and values of one request; as objects they take up to about 700 MB."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def check_json_values(raw: bytes, most: int = MAX_VALUES) -> None:
    """DataError if a JSON text holds more than `most` values. Takes time linear in the text."""
    if _marks(raw) > most and _marks(_STRING.sub(b"", raw)) > most:
        raise DataError(_too_many(most))


def check_protobuf_values(raw: bytes, message: Any, most: int = MAX_VALUES) -> None:
    """DataError if a message holds more than `most` fields with a length, those of its inner messages included.

    Of all fields, numbers among them, there may be four times as many: each is a step here.

    What is no protobuf is left to the decoder.

    Args:
        message: The descriptor of the message's type.
    """
    if len(raw) <= 2 * most:  # such a field takes two bytes at least
        return
    number = steps = 0
    inner = [(0, len(raw), message)]
    try:
        while inner:
            at, end, type = inner.pop()
            nested = _nested(type)
            while at < end:
                tag, at = (raw[at], at + 1) if raw[at] < 128 else _varint(raw, at)
                steps += 1
                if steps > 4 * most:
                    raise DataError(_too_many(most))
                match tag & 7:
                    case 0:
                        _, at = _varint(raw, at)
                    case 1:
                        at += 8
                    case 2:
                        length, at = (raw[at], at + 1) if raw[at] < 128 else _varint(raw, at)
                        number += 1
                        if number > most:
                            raise DataError(_too_many(most))
                        if length and tag >> 3 in nested:
                            inner.append((at, min(at + length, end), nested[tag >> 3]))
                        at += length
                    case 5:
                        at += 4
                    case _:
                        pass  # the marks of a group: its fields follow and are of no type that we know
    except IndexError:  # cut in the middle of a number
        return


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    byte = raw[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while byte > 127 and shift < 70:
        at += 1
        byte = raw[at]
        value |= (byte & 127) << shift
        shift += 7
    return value, at + 1


@cache
def _nested(type: Any) -> dict[int, Any]:
    """Field number -> the descriptor of the messages that the field holds."""
    return {field.number: field.message_type for field in type.fields if field.message_type is not None}


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _too_many(most: int) -> str:
    return f"the request holds more than {most:,} values: send less at once"
