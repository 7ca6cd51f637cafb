"""Decodes JSON of a file that somebody else may have written: size and values are counted before, depth and shape after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from firsthand.system.json_values import values_in_text

MAX_DEPTH = 100
"""Lists and objects within each other; whoever walks a value, or writes it again, has room for so many."""


def decoded_column(column: object, most_chars: int, most_values: int) -> Any:
    """The value of a column that holds JSON; ValueError, which says why, for anything else or too much of it."""
    if not isinstance(column, str | bytes):
        raise ValueError(f"JSON was expected, and there is {type(column).__name__}")
    if len(column) > most_chars:
        raise ValueError(f"its JSON is larger than {most_chars:,} characters")
    text = column if isinstance(column, str) else column.decode("utf-8", "surrogatepass")
    if values_in_text(text, most_values) > most_values:
        raise ValueError(f"its JSON holds more than {most_values:,} values")
    try:
        value = json.loads(text)
    except RecursionError:
        value, too_deep = None, True
    else:
        too_deep = is_deep(value)
    if too_deep:
        raise ValueError(f"its JSON is nested deeper than {MAX_DEPTH}")
    return value


def decoded_object(column: object, most_chars: int, most_values: int) -> dict[str, Any]:
    """The object of a column that holds one as JSON; ValueError for anything else or too much of it."""
    value = decoded_column(column, most_chars, most_values)
    if not isinstance(value, dict):
        raise ValueError(f"an object of JSON was expected, and there is {type(value).__name__}")
    return value


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """True if more than `most` lists and objects of the value are within each other."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(most):
        inside = (inner for each in level for inner in (each.values() if isinstance(each, dict) else each))
        level = [inner for inner in inside if isinstance(inner, list | dict)]
        if not level:
            return False
    return True


def changed_key(value: object) -> str:
    """The place of a key of a mapping that JSON would change, for it is not text; empty if there is none."""
    waiting = [("", value)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, Mapping):
            for key, inner in part.items():
                here = f"{path}[{key!r:.60}]"
                if not isinstance(key, str):
                    return here[-300:]
                waiting.append((here[-300:], inner))
        elif isinstance(part, list | tuple):
            waiting += ((path, inner) for inner in part)
    return ""
