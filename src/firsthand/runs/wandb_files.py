"""Reads offline runs of Weights & Biases: `run-ID.wandb`, a log in LevelDB's format of protobuf Records.

The file begins with a header of seven bytes; blocks of 32 KiB hold records in one piece or several, each with a CRC-32 of
its type and data. History, config and the run's name are read; the rest is passed over.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.runs.event_files import LoggedValue, name_of, number_of
from firsthand.runs.logged_values import LoggedValues
from firsthand.runs.protobuf_fields import fields_of, signed
from firsthand.runs.track import MAX_NAME
from firsthand.system.json_values import values_in_text
from firsthand.system.ordinary_file import read_ordinary

BLOCK = 32768
HEADER = b":W&B"
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MAX_DEPTH = 16
MAX_FILE = 1 << 31
MAX_VALUES = 2_000_000
"""JSON values of one row of the history, and of all settings of a run."""
OWN_NAMES = frozenset({"_step", "_runtime", "_timestamp", "_wandb"})
"""Names in a row of the history that are W&B's own, and no metrics."""
_EXIT = 18
"""The field of a Record with a run's exit code."""


class _Allowance:
    """The JSON values that the items of one place may still hold, counted before they are decoded."""

    def __init__(self) -> None:
        self.used = 0

    def decoded(self, text: str, name: str) -> Any:
        """The value of an item; None if it is no JSON. DataError if the items so far hold too many values."""
        self.used += 1 + values_in_text(text, MAX_VALUES)
        if self.used > MAX_VALUES:
            raise DataError(
                f"with the item {name[:60]!r} there are more than {MAX_VALUES:,} JSON values in a row of the history or in "
                "the settings: log tables and arrays as files"
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None


@dataclass
class WandbRun:
    """The parts of an offline run that are read."""

    name: str = ""
    config: Json = field(default_factory=dict)
    values: list[LoggedValue] = field(default_factory=LoggedValues)


def read_wandb(path: Path) -> WandbRun:
    """The run of a `.wandb` file, up to where it was cut off; DataError if it is none, or a record is damaged."""
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes: at most {MAX_FILE:,} are read")
    run, last, settings = WandbRun(values=LoggedValues(path.parent.name or path.stem)), -1, _Allowance()
    for body in _records(path):
        for number, value in fields_of(body):
            if not isinstance(value, bytes):
                continue
            if number == 2:
                last = _history(value, run, last)
            elif number == 5:
                run.config |= _config(value, settings)
            elif number == 17:
                for part, each in fields_of(value):
                    if part == 8 and isinstance(each, bytes):
                        run.name = name_of(each)
                    elif part == 4 and isinstance(each, bytes):
                        run.config |= _config(each, settings)
    return run


def has_ended(path: Path) -> bool:
    """True if the log holds the record that ends a run; DataError as from `read_wandb`."""
    return any(number == _EXIT for body in _records(path) for number, _ in fields_of(body))


def _records(path: Path) -> Iterator[bytes]:
    data = read_ordinary(path, MAX_FILE)
    if data[:4] != HEADER:
        raise DataError(f"{path} is no log of W&B: it does not begin with {HEADER.decode()!r}")
    position, pieces = 7, bytearray()
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        checksum, size, kind = struct.unpack("<IHB", data[position : position + 7])
        body = data[position + 7 : position + 7 + size]
        if len(body) < size or (kind == 0 and not any(data[position : position + left])):
            return
        if zlib.crc32(bytes([kind]) + body) != checksum:
            raise DataError(f"{path}: the record at byte {position} is damaged: its checksum does not fit")
        if kind in (_FULL, _FIRST):
            pieces = bytearray(body)
        elif kind in (_MIDDLE, _LAST):
            pieces += body
        else:
            raise DataError(f"{path}: the record at byte {position} has the unknown type {kind}")
        position += 7 + size
        if kind in (_FULL, _LAST):
            yield bytes(pieces)


def _history(body: bytes, run: WandbRun, last: int) -> int:
    """Adds the numbers of a history row; returns its step."""
    step, row, allowance = None, {}, _Allowance()
    for number, value in fields_of(body):
        if number == 2 and isinstance(value, bytes):
            step = next((signed(each) for part, each in fields_of(value) if part == 1 and isinstance(each, int)), 0)
        elif number == 1 and isinstance(value, bytes):
            name, found = _item(value, allowance)
            row[name] = found
    if step is None:
        own = row.get("_step")
        step = int(own) if isinstance(own, int) or (isinstance(own, float) and math.isfinite(own)) else last + 1
    at = row.get("_timestamp", 0.0)
    for name, found in row.items():
        for key, number_found in _numbers(name, found):
            if key.partition(".")[0] not in OWN_NAMES:
                run.values.append(
                    LoggedValue(key, step, number_found, number_of(at) if isinstance(at, int | float) else 0.0)
                )
    return step


def _item(body: bytes, allowance: _Allowance) -> tuple[str, Any]:
    """Name and value of an item; parts of a nested name are joined by dots."""
    name, nested, text = "", "", "null"
    for number, value in fields_of(body):
        if isinstance(value, bytes):
            if number == 1:
                name = name_of(value)
            elif number == 2 and len(nested) < MAX_NAME:
                nested += f".{name_of(value)}"
            elif number == 16:
                text = value.decode("utf-8", "replace")
    name = name or nested[1 : MAX_NAME + 1]
    return name, allowance.decoded(text, name)


def _numbers(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, float]]:
    """The numbers of a value, by names whose parts are joined by dots."""
    if isinstance(value, int | float):
        yield name, number_of(value)
    elif value in ("NaN", "Infinity", "-Infinity"):
        yield name, {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value]
    elif isinstance(value, dict) and "_type" not in value and len(value) < 200 and depth < _MAX_DEPTH:
        for key, each in value.items():
            yield from _numbers(f"{name}.{key}"[:MAX_NAME], each, depth + 1)


def _config(body: bytes, allowance: _Allowance) -> Json:
    found = {}
    for number, value in fields_of(body):
        if number == 1 and isinstance(value, bytes):
            name, each = _item(value, allowance)
            if name and not name.startswith("_"):
                found[name] = each.get("value") if isinstance(each, dict) and "value" in each else each
    return found
