"""Reads numbers and values that tools and readers state: none loses its digits, and what may be two numbers is none.

`12,50` may be twelve and a half or 1250.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from firsthand.message import Json
from firsthand.tool_arguments import kinds_of, schema_parts

_PLAIN = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+\.[0-9]+|(?:,[0-9]{3}){2,})")
"""Commas between thousands are told by a point behind them, or by a second one."""


_WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_EXACT = 2**53
"""Up to here a float tells whole numbers apart."""


class StatedNumber(str):
    """A text that is a number, as a tool wrote it: a number beside numbers, and else the text, whose digits stay."""

    __slots__ = ()


def as_number(value: Any) -> float:
    """The number that a text states in digits, with a point before decimals; any other number as it is.

    A whole number without a point is an int, and one of many digits keeps each of them. ValueError for a comma that may
    stand before decimals (`12,50`, `1,000`), decimals of a number above 2**53 and what is not finite; TypeError for a list.
    """
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        elif not _PLAIN.fullmatch(text):
            raise ValueError("no number in digits")
        value = text
    found = float(value)
    if not isfinite(found):
        raise ValueError("no finite number")
    if isinstance(value, str) and "e" not in value.lower():
        if "." not in value:
            return int(value)
        if abs(found) >= _EXACT:
            if not _WHOLE.fullmatch(value):
                raise ValueError("no number that keeps its digits")
            return int(value.partition(".")[0])
    return found


def numbers(values: Sequence[Any]) -> list[Any]:
    """The values, texts that state numbers as those numbers if there are only such texts and numbers."""
    if all(isinstance(each, StatedNumber | int | float) for each in values):
        return [as_number(each) if isinstance(each, StatedNumber) else each for each in values]
    return list(values)


def fitted(value: Any, schema: Any, whole: Json) -> Any:
    """The value with its stated numbers as a schema takes them: as numbers where it takes no texts, else as plain texts.

    `whole` is the schema whose definitions `schema` refers to.
    """
    parts = schema_parts(schema, whole)
    if isinstance(value, StatedNumber):
        kinds = set(kinds_of(schema, whole))
        if "string" in kinds or not kinds & {"number", "integer"}:
            return str(value)
        number = as_number(value)
        return int(Decimal(value)) if "number" not in kinds and number == int(number) else number
    if isinstance(value, list):
        items = {"anyOf": [each.get("items") for each in parts]}
        return [fitted(each, items, whole) for each in value]
    if isinstance(value, dict):
        return {key: fitted(each, _field(parts, key), whole) for key, each in value.items()}
    return value


def _field(parts: Sequence[Json], key: str) -> Json:
    others = [each.get("additionalProperties") for each in parts]
    named = [each["properties"] if isinstance(each.get("properties"), dict) else {} for each in parts]
    return {"anyOf": [fields.get(key, other) for fields, other in zip(named, others, strict=True)]}


def is_true(value: Any) -> bool:
    """True if a condition holds where this is its value: a text that states zero does not."""
    return bool(as_number(value) if isinstance(value, StatedNumber) else value)


def decoded(text: str) -> Any:
    """The list, object, bool or None that a tool's text is in JSON; a number as `StatedNumber`; else the text.

    An object with two equal keys is a text, and so are NaN and infinite numbers.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=str, parse_float=_finite)
        if isinstance(found, int | float) and not isinstance(found, bool):
            as_number(text)
            return StatedNumber(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(found, str) else found


def _finite(text: str) -> float | str:
    return found if isfinite(found := float(text)) else text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two equal keys")
    return found
