"""Counts the values of a protobuf message before it is decoded: two bytes can be an object of 300 bytes."""

from __future__ import annotations

from functools import cache
from typing import Any


def protobuf_holds_more(raw: bytes, message: Any, most: int) -> bool:
    """True for more than `most` fields with a length, those of inner messages included, or four times as many of all fields.

    What is no protobuf is left to the decoder.

    Args:
        message: The descriptor of the message's type.
    """
    if len(raw) <= 2 * most:  # such a field takes two bytes at least
        return False
    number = steps = 0
    inner = [(0, len(raw), message)]
    try:
        while inner:
            at, end, type = inner.pop()
            nested = _nested(type)
            while at < end:
                tag, at = (raw[at], at + 1) if raw[at] < 128 else varint(raw, at)
                steps += 1
                if steps > 4 * most:
                    return True
                match tag & 7:
                    case 0:
                        _, at = varint(raw, at)
                    case 1:
                        at += 8
                    case 2:
                        length, at = (raw[at], at + 1) if raw[at] < 128 else varint(raw, at)
                        number += 1
                        if number > most:
                            return True
                        if length and tag >> 3 in nested:
                            inner.append((at, min(at + length, end), nested[tag >> 3]))
                        at += length
                    case 5:
                        at += 4
                    case _:
                        pass  # the marks of a group: its fields follow and are of no type that we know
    except IndexError:  # cut in the middle of a number
        return False
    return False


def varint(raw: bytes, at: int) -> tuple[int, int]:
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
