"""Filters in two forms: as a predicate on one chunk, which defines them, and as SQL over the stored fields.

Values compare as JSON does: true is not 1, 1 is 1.0, lists and objects are equal if all in them is. A whole number beyond
64 bits compares as the nearest float. Text is ordered by code points. The names "document", "source" and "title" mean the
document's own, whatever the chunk's `meta` holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from firsthand.errors import ConfigError
from firsthand.retrieval.retriever import Filter

JsonValue = Any
"""null, a boolean, a number, a string, a list or an object."""
RESERVED = ("document", "source", "title")
NULL, BOOLEAN, NUMBER, TEXT, NESTED = range(5)
"""Kinds of values; equal values are of one kind."""
MAX_VALUES = 10_000
"""Values of a list in one statement: SQLite takes 32,766 parameters."""
MAX_LISTED = 200_000
"""Values of all lists of a filter: LanceDB takes 6 s and 0.6 GB for them."""
MAX_CONDITIONS = 100
"""Conditions of a filter, what is within a "not" counted too: engines nest them in each other."""
Field = tuple[int, Any]
"""The kind of a value, and what is compared: 0 or 1, a number, UTF-8, or the canonical JSON of a list or object."""


def field_of(value: JsonValue) -> Field:
    """The kind of a JSON value and its comparable form. ConfigError if it is no JSON."""
    if value is None:
        return NULL, 0
    if isinstance(value, bool):
        return BOOLEAN, int(value)
    if isinstance(value, int | float):
        return NUMBER, _number(value)
    if isinstance(value, str):
        return TEXT, value.encode("utf-8", "surrogatepass")
    return NESTED, canonical(value).encode()


def canonical(value: JsonValue) -> str:
    """JSON with sorted keys and equal numbers written alike. ConfigError if the value is no JSON."""
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{str(value)[:80]!r} is no JSON ({error}): use strings, numbers, lists and objects"
        ) from None


def matches(where: Filter, meta: Mapping[str, JsonValue], reserved: Mapping[str, str]) -> bool:
    """True if a chunk passes a filter: its meta, and its document's id, source and title under the reserved names."""
    for key, condition in where.items():
        values: Mapping[str, JsonValue] = reserved if key in RESERVED else meta
        found = field_of(values[key]) if key in values else None
        if not _holds(condition, found):
            return False
    return True


def condition_sql(condition: JsonValue) -> tuple[str, list[Any]]:
    """SQL on the columns `kind` and `value`, with its values; not for {"not": ...} or lists above `MAX_VALUES`."""
    if isinstance(condition, list | tuple):
        return _any_sql([field_of(item) for item in condition])
    if isinstance(condition, Mapping):
        low, high = ends(condition)
        pairs = [(sign, end) for sign, end in ((">=", low), ("<=", high)) if end is not None]
        sql = " AND ".join(["kind = ?", *(f"value {sign} ?" for sign, _ in pairs)])
        return sql, [pairs[0][1][0], *(end[1] for _, end in pairs)]
    return _equal_sql(condition)


def excluded(condition: JsonValue) -> tuple[JsonValue] | None:
    """The condition within {"not": condition}, in a tuple; None if it is no exclusion."""
    if isinstance(condition, Mapping) and "not" in condition:
        if len(condition) > 1:
            raise ConfigError(
                f'the condition {_short(condition)} has more than "not": give one of them a filter of its own'
            )
        return (condition["not"],)
    return None


def ends(condition: Mapping[str, JsonValue]) -> tuple[Field | None, Field | None]:
    """The ends of {"min": a, "max": b}, of one kind. ConfigError if it is something else."""
    if not condition or condition.keys() - {"min", "max"}:
        raise ConfigError(
            f'the condition {_short(condition)} is not known: give a value, a list, "min" and "max", or "not"'
        )
    low, high = (field_of(condition[key]) if key in condition else None for key in ("min", "max"))
    kinds = {end[0] for end in (low, high) if end is not None}
    if len(kinds) != 1 or not kinds <= {NUMBER, TEXT}:
        raise ConfigError(f"the range {_short(condition)} has no order: give two numbers or two strings")
    return low, high


def _short(condition: Mapping[str, JsonValue]) -> str:
    """The condition as an error quotes it."""
    return f"{dict(condition)!r:.200}"


def check_filter(where: Filter) -> None:
    """ConfigError if a filter cannot be understood, has too many conditions, or lists too many values."""
    if not isinstance(where, Mapping):
        raise ConfigError(f"the filter is {str(where)[:80]!r}: an object of fields and conditions was expected")
    left, listed = MAX_CONDITIONS - len(where), 0
    for key, condition in where.items():
        if not isinstance(key, str):
            raise ConfigError(f"the filter's key {str(key)[:80]!r} is no string: give the name of a field")
        while inner := excluded(condition):
            condition, left = inner[0], left - 1
        if left < 0:
            raise ConfigError(
                f"the filter has more than {MAX_CONDITIONS} conditions: give fewer, or one with a list of values"
            )
        listed += len(condition) if isinstance(condition, list | tuple) else 0
        if listed > MAX_LISTED:
            raise ConfigError(
                f"the filter lists {listed:,} values, the last of them of {key[:80]!r}, and {MAX_LISTED:,} are the most: "
                "give a field that the chunks share"
            )
        _holds(condition, None)


def _holds(condition: JsonValue, found: Field | None) -> bool:
    inner = excluded(condition)
    if inner is not None:
        return not _holds(inner[0], found)
    if isinstance(condition, list | tuple):
        items = [field_of(item) for item in condition]
        return found in items if found is not None else False
    if isinstance(condition, Mapping):
        low, high = ends(condition)
        kind = (low or high or (NULL, 0))[0]
        if found is None or found[0] != kind:
            return False
        return (low is None or found[1] >= low[1]) and (high is None or found[1] <= high[1])
    return field_of(condition) == found


def _any_sql(fields: list[Field]) -> tuple[str, list[Any]]:
    """SQL that is true for each of the fields: a list for each kind, as SQLite bounds the depth of an expression."""
    by_kind: dict[int, list[Any]] = {}
    for kind, value in fields:
        by_kind.setdefault(kind, []).append(value)
    parts = [f"(kind = ? AND value IN ({', '.join('?' * len(values))}))" for values in by_kind.values()]
    return " OR ".join(parts) or "0", [each for kind, values in by_kind.items() for each in (kind, *values)]


def _equal_sql(value: JsonValue) -> tuple[str, list[Any]]:
    return "kind = ? AND value = ?", list(field_of(value))


def _number(value: int | float) -> int | float:
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return value
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"the number {str(value)[:40]}... is too large: give it as a string") from None
    if not math.isfinite(value):
        raise ConfigError(f"the number {value} is no JSON: give a finite one")
    return int(value) if value.is_integer() and -(2.0**63) <= value < 2.0**63 else value


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ConfigError(f"an object of the keys {[*value][:5]!r} is no JSON: keys must be strings")
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise TypeError(f"a {type(value).__name__}")
