"""Reads scalars of TensorBoard's event files: TFRecords of Event messages, each with two masked CRC-32C sums.

Both forms of a scalar are read: `simple_value`, which PyTorch and TensorFlow 1 write, and a tensor of one float, TensorFlow
2's. A file that is still written, or was cut off, is read up to its last whole record.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.errors import DataError
from firsthand.runs.protobuf_fields import fields_of, signed
from firsthand.runs.track import MAX_NAME
from firsthand.system.ordinary_file import open_ordinary

MAX_RECORD = 64 << 20
_FLOAT, _DOUBLE, _HALF = 1, 2, 19
"""Types of a tensor."""


@dataclass(frozen=True, slots=True)
class LoggedValue:
    """One number of another tracker's log."""

    name: str
    step: int
    value: float
    at: float
    """Seconds since 1970."""


def number_of(value: int | float) -> float:
    """A logged number as a float; infinite beyond the largest one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def name_of(raw: bytes) -> str:
    """The first `MAX_NAME` characters of a name: one of megabytes would be copied for each of its values."""
    return raw[: 4 * MAX_NAME].decode("utf-8", "replace")[:MAX_NAME]


def read_events(path: Path) -> Iterator[LoggedValue]:
    """The scalars of an event file; DataError if a record's sum is not that of its bytes, or a record is no Event."""
    with open_ordinary(path) as file:
        number = 0
        while len(head := file.read(12)) == 12:
            number += 1
            (size,) = struct.unpack("<Q", head[:8])
            if masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0] or size > MAX_RECORD:
                raise DataError(f"{path}: record {number} does not begin as an event file's: is it one?")
            body, foot = file.read(size), file.read(4)
            if len(body) < size or len(foot) < 4:
                return
            if masked_crc(body) != struct.unpack("<I", foot)[0]:
                raise DataError(f"{path}: record {number} is damaged: its checksum does not fit")
            yield from _scalars(body)


def _scalars(body: bytes) -> Iterator[LoggedValue]:
    at, step, summaries = 0.0, 0, []
    for number, value in fields_of(body):
        if number == 1 and isinstance(value, bytes) and len(value) == 8:
            (at,) = struct.unpack("<d", value)
        elif number == 2 and isinstance(value, int):
            step = signed(value)
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, each in fields_of(summary):
            if number == 1 and isinstance(each, bytes):
                name, found = _value(each)
                if name and found is not None:
                    yield LoggedValue(name, step, found, at)


def _value(body: bytes) -> tuple[str, float | None]:
    name, found = "", None
    for number, value in fields_of(body):
        if number == 1 and isinstance(value, bytes):
            name = name_of(value)
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (found,) = struct.unpack("<f", value)
        elif number == 8 and isinstance(value, bytes):
            found = _tensor(value)
    return name, found


def _tensor(body: bytes) -> float | None:
    """The number of a tensor of one float; None for any other."""
    kind, content, floats = 0, b"", b""
    for number, value in fields_of(body):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, bytes):
            content = value
        elif number in (5, 6) and isinstance(value, bytes):
            floats = (floats + value)[:16]  # longer than any one number
    form = {_FLOAT: "<f", _DOUBLE: "<d", _HALF: "<e"}.get(kind)
    data = content or floats
    if form is None or len(data) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, data)[0])


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of TFRecords: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), reflected polynomial 0x82F63B78."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)
