"""Counts the values of a JSON text before it is decoded: two bytes of it can be an object of 64 bytes."""

from __future__ import annotations

import json
import re
from typing import Any

_AT_ONCE = 1 << 20


def values_in(raw: bytes, most: int, few: int | None = None) -> int:
    """About how many values a JSON text has; counting stops above `most`.

    Takes time linear in the text, and a few megabytes. A string ends with its line, as JSON's do.

    Args:
        few: Marks inside strings count as values while all are at most so many, by default `most`. Whoever adds up results
            gives 0, and `most` is what is left.
    """
    found = _marks(raw)
    if found <= (most if few is None else min(few, most)):
        return found
    counted = ValueCount()
    for start in range(0, len(raw), _AT_ONCE):  # all at once, each string would be a piece of memory of its own
        if counted.add(raw[start : start + _AT_ONCE]) > most:
            break
    return counted.values


def values_in_text(text: str, most: int, few: int | None = None) -> int:
    """As `values_in`, of a text that is decoded already, lone surrogates included."""
    found = text.count(",") + text.count("[") + text.count("{")
    if found <= (most if few is None else min(few, most)):
        return found
    return values_in(text.encode("utf-8", "surrogatepass"), most, few)


MAX_LINE_VALUES = 2_000_000
"""JSON values of a line of a .jsonl file."""


class TooManyValues(ValueError):
    """A text of JSON holds more values than are decoded."""


def decoded_line(line: str) -> Any:
    """The value of a line of a .jsonl file; ValueError or RecursionError if it is none, or `TooManyValues`."""
    if values_in_text(line, MAX_LINE_VALUES) > MAX_LINE_VALUES:
        raise TooManyValues(f"it holds more than {MAX_LINE_VALUES:,} JSON values: one record a line was expected")
    return json.loads(line)


def has_id_of_no_text(raw: bytes) -> bool:
    """True if the `id` of a JSON-RPC request, or of one of several, holds a lone surrogate: no answer can repeat it."""
    if b"\\u" not in raw:
        return False
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):  # whoever reads it says so
        return False
    ids = [each.get("id") for each in (body if isinstance(body, list) else [body]) if isinstance(each, dict)]
    return any("\ud800" <= character <= "\udfff" for id in ids if isinstance(id, str) for character in id)


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


class ValueCount:
    """Counts the values of JSON that comes in pieces: one text, or the events of a stream.

    A string ends with any control character, which JSON has in no string, so that no quote in a comment or in what is no
    JSON hides what comes after it.
    """

    def __init__(self) -> None:
        self.values = 0
        self._open = b""

    def add(self, piece: bytes) -> int:
        """Returns about how many values came so far, those inside of strings left out."""
        outside = _PIECES.sub(rb"\1\2", self._open + piece)
        self.values += _marks(outside)
        quote = outside.rfind(b'"')
        self._open = outside[quote:] if quote >= 0 else b""
        return self.values


_INSIDE = rb'[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+'
_PIECES = re.compile(rb'"' + _INSIDE + rb'(?:"|\\?(?=[\x00-\x1f]))|(")' + _INSIDE + rb"(\\?)\Z")
"""A string that ends, or the begin and the last backslash of one that goes on in the next piece."""
