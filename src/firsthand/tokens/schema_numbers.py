"""Finds the numbers of a JSON schema that llguidance, which reads numbers as doubles, would follow as other numbers.

Of an integer beyond 2^53 a double may hold only a neighbour: `{"const": 1234567890123456789}` would force
1234567890123456768. And it lets an excluded whole bound through where the other one lies within the same unit, as 0 of
`{"exclusiveMinimum": 0, "maximum": 0.5}`: such a bound is moved inwards by a part of 10^12.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from firsthand.errors import ConfigError

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_VALUES = ("const", "enum")
_NO_SCHEMAS = frozenset({*_VALUES, *BOUNDS, "default", "examples", "example"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_MAY_DIFFER = re.compile(r"\d{16}|\"exclusiveM")
_INWARDS = 1e-12


def exact_schema(source: str, *, lenient: bool = False) -> str:
    """Returns a JSON schema whose numbers llguidance follows; ConfigError naming the first integer that no double holds.

    If `lenient`, the keyword of such an integer is left out instead, and of values only the type is required.
    """
    if not _MAY_DIFFER.search(source):
        return source
    try:
        schema = json.loads(source, parse_float=_float)
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
        elif keyword not in (*BOUNDS, *_VALUES) or (number := _first_inexact(body, keyword in _VALUES)) is None:
            made[keyword] = body
        elif not lenient:
            raise ConfigError(
                f"the schema's {keyword} has the number {str(number)[:40]}, which a grammar cannot follow exactly: "
                "give integers beyond 2^53 as strings"
            )
        elif keyword in _VALUES and "type" not in schema and _are_integers(body):
            made["type"] = "integer"
    return made | _moved(made)


def _moved(schema: dict[str, Any]) -> dict[str, Any]:
    """The excluded whole bounds of a schema whose range is shorter than 1, a little further in."""
    low = [schema[name] for name in ("minimum", "exclusiveMinimum") if _is_number(schema.get(name))]
    high = [schema[name] for name in ("maximum", "exclusiveMaximum") if _is_number(schema.get(name))]
    if schema.get("type") == "integer" or not low or not high or not 0 < (room := min(high) - max(low)) < 1:
        return {}
    moved = {}
    for name, towards in (("exclusiveMinimum", math.inf), ("exclusiveMaximum", -math.inf)):
        bound = schema.get(name)
        if bound is not None and _is_number(bound) and bound == int(bound):
            step = math.copysign(min(_INWARDS, room / 1000), towards)
            moved[name] = bound + step if bound + step != bound else math.nextafter(bound, towards)
    return moved


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ConfigError(
            f"the schema has the number {text[:40]}, which is beyond those of a double: give a smaller one"
        )
    return number


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
