"""Bytes as other trackers write them, put together by hand: protobuf fields, event files, logs of W&B."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable

from firsthand.runs.event_files import masked_crc
from firsthand.runs.wandb_files import BLOCK


def number(value: int) -> bytes:
    """An integer, seven bits a byte, the lowest first; a negative one in 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def whole(field: int, value: int) -> bytes:
    """A field that is an integer."""
    return number(field << 3) + number(value)


def part(field: int, body: bytes) -> bytes:
    """A field of bytes."""
    return number(field << 3 | 2) + number(len(body)) + body


def four(field: int, body: bytes) -> bytes:
    """A field of four bytes."""
    return number(field << 3 | 5) + body


def eight(field: int, body: bytes) -> bytes:
    """A field of eight bytes."""
    return number(field << 3 | 1) + body


def record(body: bytes) -> bytes:
    """A record of an event file, with the sums of its size and of its body."""
    size = struct.pack("<Q", len(body))
    return size + struct.pack("<I", masked_crc(size)) + body + struct.pack("<I", masked_crc(body))


def event(step: int, at: float, *values: bytes) -> bytes:
    """An Event with a summary of these values."""
    return eight(1, struct.pack("<d", at)) + whole(2, step) + part(5, b"".join(part(1, value) for value in values))


def simple(name: str, value: float) -> bytes:
    """A value of a summary in its first form."""
    return part(1, name.encode()) + four(2, struct.pack("<f", value))


def item(name: str | Iterable[str], text: str) -> bytes:
    """An item of W&B: a name, or the parts of a nested one, and JSON."""
    names = part(1, name.encode()) if isinstance(name, str) else b"".join(part(2, each.encode()) for each in name)
    return names + part(16, text.encode())


def history(step: int | None, **values: object) -> bytes:
    """The Record of a history row, without a step of its own if it is None."""
    items = b"".join(part(1, item(name, json.dumps(value))) for name, value in values.items())
    return part(2, items + (b"" if step is None else part(2, whole(1, step))))


def wandb_log(*records: bytes) -> bytes:
    """A log as W&B writes it: records in pieces that end at blocks, each with its checksum."""
    data = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    for body in records:
        is_first = True
        while True:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                left = BLOCK
            piece, body = body[: left - 7], body[left - 7 :]
            kind = 1 if is_first and not body else 2 if is_first else 4 if not body else 3
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            is_first = False
            if not body:
                break
    return data
