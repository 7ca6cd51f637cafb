"""Finds the numbers of a JSON schema that llguidance, which reads numbers as doubles, would follow as other numbers.

Of an integer beyond 2^53 a double may hold only a neighbour: `{"const": 1234567890123456789}` would force
1234567890123456768.
"""

from __future__ import annotations

import json
import re
from typing import Any

from firsthand.errors import ConfigError

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_VALUES = ("const", "enum")
_NO_SCHEMAS = frozenset({*_VALUES, *_BOUNDS, "default", "examples", "example"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_MAY_BE_LARGE = re.compile(r"\d{16}")


def exact_schema(source: str, *, lenient: bool = False) -> str:
    """Returns a JSON schema all of whose integers a double holds; ConfigError naming the first that none does.

    If `lenient`, the keyword of such an integer is left out instead, and of values only the type is required.
    """
    if not _MAY_BE_LARGE.search(source):
        return source
    try:
        schema = json.loads(source)
    except ValueError as error:  # an integer of more digits than Python reads
        raise ConfigError(f"the schema cannot be read: {str(error)[:200]}") from None
    return json.dumps(_schema(schema, lenient), ensure_ascii=False)


def _schema(schema: Any, lenient: bool) -> Any:
    if isinstance(schema, list):
        return [_schema(each, lenient) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for keyword, body in schema.items():
        if keyword in _BY_NAME and isinstance(body, dict):
            made[keyword] = {name: _schema(each, lenient) for name, each in body.items()}
        elif keyword not in _NO_SCHEMAS:
            made[keyword] = _schema(body, lenient)
        elif keyword not in (*_BOUNDS, *_VALUES) or (number := _first_inexact(body, keyword in _VALUES)) is None:
            made[keyword] = body
        elif not lenient:
            raise ConfigError(
                f"the schema's {keyword} has the number {str(number)[:40]}, which a grammar cannot follow exactly: "
                "give integers beyond 2^53 as strings"
            )
        elif keyword in _VALUES and "type" not in schema and _are_integers(body):
            made["type"] = "integer"
    return made


def _are_integers(body: Any) -> bool:
    values = body if isinstance(body, list) else [body]
    return all(isinstance(each, int) and not isinstance(each, bool) for each in values)


def _first_inexact(body: Any, is_written: bool) -> int | None:
    """The first integer in a JSON value that no double equals, or, if it is to be written, that takes more than 64 bits."""
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, int) and not (_is_exact(value) and (abs(value) < 1 << 64 or not is_written)):
            return value
    return None


def _is_exact(number: int) -> bool:
    try:
        return int(float(number)) == number
    except OverflowError:
        return False
