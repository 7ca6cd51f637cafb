"""Finds the numbers of a JSON schema that llguidance, which reads numbers as doubles, would follow as other numbers.

Of an integer beyond 2^53 a double may hold only a neighbour: `{"const": 1234567890123456789}` would force
1234567890123456768. And it lets an excluded whole bound through where the other one lies in the unit beyond it, away from 0,
as 0 of `{"exclusiveMinimum": 0, "maximum": 0.5}`: such a bound is moved inwards by a part of 10^30, or to the next double.
Where schemas are combined, by `allOf` or `$ref`, the other bound may stand anywhere else. Of multiples of a fraction such
as 0.25, which it wants written with as many digits, a bound such as 7.5 or an excluded 0 would refuse some: it becomes
another one between the same two of them.
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from typing import Any

from firsthand.errors import ConfigError

_LOW = ("minimum", "exclusiveMinimum")
_RANGES = (*_LOW, "maximum", "exclusiveMaximum")
BOUNDS = (*_RANGES, "multipleOf")
_VALUES = ("const", "enum")
_NO_SCHEMAS = frozenset({*_VALUES, *BOUNDS, "default", "examples", "example"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_MAY_DIFFER = re.compile(r"\d{16}|\"(?:exclusiveM|multipleOf)")
_INWARDS = 1e-30
_MOST_STEPS = 1 << 40
"""From 0 to a bound: beyond, a double no longer surely holds the multiple next to it."""
_COMBINED = re.compile(r"\"(?:allOf|anyOf|oneOf|\$ref)\"")


def exact_schema(source: str, *, lenient: bool = False) -> str:
    """Returns a JSON schema whose numbers llguidance follows. ConfigError naming a value that no double holds.

    A bound that no double holds, such as 2^63 - 1, becomes the next one within the range: what is drawn fits the schema.
    If `lenient`, it becomes the next one outside, other keywords are left out, and of values only the type is required.
    """
    if not _MAY_DIFFER.search(source):
        return source
    try:
        schema = json.loads(source, parse_float=_float, parse_constant=_constant)
    except ValueError as error:  # an integer of more digits than Python reads
        raise ConfigError(f"the schema cannot be read: {str(error)[:200]}") from None
    near = _Near() if _COMBINED.search(source) else None
    made = _schema(schema, lenient, near)
    return json.dumps(made if near is None else _all_moved(made, near), ensure_ascii=False)


def _schema(schema: Any, lenient: bool, near: _Near | None) -> Any:
    """The schema with numbers that are followed; `near` gets its bounds, which are otherwise moved at once."""
    if isinstance(schema, list):
        return [_schema(each, lenient, near) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for keyword, body in schema.items():
        if keyword in _BY_NAME and isinstance(body, dict):
            made[keyword] = {name: _schema(each, lenient, near) for name, each in body.items()}
        elif keyword not in _NO_SCHEMAS:
            made[keyword] = _schema(body, lenient, near)
        elif keyword not in (*BOUNDS, *_VALUES) or (number := _first_inexact(body, keyword in _VALUES)) is None:
            made[keyword] = body
        elif keyword in _RANGES and (moved := _next_double(number, up=(keyword in _LOW) != lenient)) is not None:
            made[keyword] = moved
        elif not lenient:
            raise ConfigError(
                f"the schema's {keyword} has the number {str(number)[:40]}, which a grammar cannot follow exactly: "
                "give integers beyond 2^53 as strings"
            )
        elif keyword in _VALUES and "type" not in schema and _are_integers(body):
            made["type"] = "integer"
    made = _between_steps(made)
    own = _Near() if near is None else near
    own.add(made)
    return made if near is not None else made | own.moved(made)


def _between_steps(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with bounds at multiples of its fraction: towards 0 the outermost one, away from 0 the next, excluded."""
    step: Any = schema.get("multipleOf")
    if schema.get("type") == "integer" or _fraction(step) is None or step <= 0:
        return schema
    size = Fraction(str(step))
    low, high = _multiples(schema, size, 1), _multiples(schema, size, -1)
    if max(map(abs, low + high), default=0) > _MOST_STEPS or (low and high and max(low) > min(high)):
        return schema
    made = {name: body for name, body in schema.items() if name not in _RANGES or not _is_number(body)}
    if low:
        least = max(low)
        closed = (
            least >= 0 or (least - 1) * size <= -1 < least * size
        )  # of -0.5 it takes zeros at the end only above -1
        made |= {"minimum": float(least * size)} if closed else {"exclusiveMinimum": float((least - 1) * size)}
    if high:
        most = min(high)
        made |= {"maximum": float(most * size)} if most <= 0 else {"exclusiveMaximum": float((most + 1) * size)}
    return made


def _multiples(schema: dict[str, Any], step: Fraction, sign: int) -> list[int]:
    """The outermost multiples that the bounds at one end of a range allow, in steps. `sign`: 1 for the lower end, or -1."""
    closed, excluded = ("minimum", "exclusiveMinimum") if sign > 0 else ("maximum", "exclusiveMaximum")
    found: list[int] = []
    if _is_number(bound := schema.get(closed)):
        found.append(sign * math.ceil(sign * Fraction(str(bound)) / step))
    if _is_number(bound := schema.get(excluded)):
        found.append(sign * (math.floor(sign * Fraction(str(bound)) / step) + 1))
    return found


def _all_moved(schema: Any, near: _Near) -> Any:
    """The schema with each of its bounds moved for which another one of them is near."""
    if isinstance(schema, list):
        return [_all_moved(each, near) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for keyword, body in schema.items():
        if keyword in _BY_NAME and isinstance(body, dict):
            made[keyword] = {name: _all_moved(each, near) for name, each in body.items()}
        else:
            made[keyword] = body if keyword in _NO_SCHEMAS else _all_moved(body, near)
    return made | near.moved(made)


class _Near:
    """The units between whole numbers in which fractions bound numbers of a schema."""

    def __init__(self) -> None:
        self.high: set[int] = set()
        """The whole numbers just below upper bounds."""
        self.low: set[int] = set()
        """The whole numbers just above lower bounds."""

    def add(self, schema: dict[str, Any]) -> None:
        """Take note of the bounds of one schema."""
        for name in ("maximum", "exclusiveMaximum"):
            if (bound := _fraction(schema.get(name))) is not None:
                self.high.add(math.floor(bound))
        for name in ("minimum", "exclusiveMinimum"):
            if (bound := _fraction(schema.get(name))) is not None:
                self.low.add(math.ceil(bound))

    def moved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The excluded whole bound of a schema that has the other bound in the unit beyond it, a little further in.

        Only where the range leads away from 0: of the others llguidance follows the bound as it is, and 4.9 below 5, too.
        """
        if schema.get("type") == "integer":
            return {}
        moved: dict[str, Any] = {}
        for name, others, away in (("exclusiveMinimum", self.high, 1), ("exclusiveMaximum", self.low, -1)):
            bound: Any = schema.get(name)
            if not _is_number(bound) or bound != bound // 1 or bound * away < 0 or bound not in others:
                continue
            step = away * _INWARDS
            moved[name] = bound + step if bound + step != bound else math.nextafter(bound, away * math.inf)
        return moved


def _fraction(bound: Any) -> float | None:
    """A bound that is no whole number; None for any other."""
    return float(bound) if isinstance(bound, float) and math.isfinite(bound) and not bound.is_integer() else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ConfigError(
            f"the schema has the number {text[:40]}, which is beyond those of a double: give a smaller one"
        )
    return number


def _constant(name: str) -> float:
    raise ConfigError(f"the schema cannot be read: {name} is no number of JSON")


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


def _next_double(number: int, *, up: bool) -> int | None:
    """The double next to an integer that none equals, above or below it; None beyond all of them."""
    try:
        near = float(number)
        return int(near if (near > number) == up else math.nextafter(near, math.inf if up else -math.inf))
    except OverflowError:
        return None


def _is_exact(number: int) -> bool:
    try:
        return int(float(number)) == number
    except OverflowError:
        return False
