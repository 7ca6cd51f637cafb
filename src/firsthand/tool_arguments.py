"""Reads the arguments of a tool call: JSON that a model wrote, with its common mistakes, as the data that the tool gets.

Left out: types, which `Tool.validate` checks.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from firsthand.errors import ToolError
from firsthand.message import Json

JSON_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
MAX_PARTS = 100
"""The most alternatives of a schema that are looked at."""
WRAPPERS = ("arguments", "parameters", "args", "kwargs", "input")
"""The keys that a model puts around the arguments."""


class RepeatedKey(ValueError):
    """A JSON object with two equal keys, of which readers take different ones; the message names the key."""


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,16}\b")
"""The address of an object in its text, which differs in each process."""


def loads_arguments(text: str) -> Any:
    """The value of a JSON text. RepeatedKey for two equal keys in one object, another ValueError for what is no JSON."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RepeatedKey(f"the key {repeated[:64]!r} comes twice in one object: write it once")
    return found


def read_arguments(text: str) -> Json | None:
    """The arguments in a text that is almost a JSON object, or None. ToolError for an object with two equal keys.

    Models put the object into a string, or a code fence around it.
    """
    inside = text.strip()
    if inside.startswith("```") and inside.endswith("```"):
        inside = inside[3:-3].removeprefix("json")
    try:
        body = loads_arguments(inside)
        body = loads_arguments(body) if isinstance(body, str) else body
    except RepeatedKey as error:
        raise ToolError(f"the arguments are ambiguous: {error}") from None
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def repaired(arguments: Json, parameters: Json) -> Json:
    """The arguments with common mistakes repaired, where there is only one way to read them; ToolError for two equal keys.

    An object wrapped in one key that the tool does not have, lists and objects written as strings, and null for an argument
    that may be left out. What is repaired already stays as it is.
    """
    properties: Json = parameters.get("properties", {})
    if len(arguments) == 1 and not properties.keys() & arguments.keys():
        ((key, value),) = arguments.items()
        if key in WRAPPERS:
            inner = read_arguments(value) if isinstance(value, str) else value
            arguments = inner if isinstance(inner, dict) else arguments
    required = parameters.get("required", ())
    mended = {}
    for key, value in arguments.items():
        schema = properties.get(key, {})
        kinds = set(kinds_of(schema, parameters))
        if value is None and key in properties and key not in required and "null" not in kinds:
            continue
        if isinstance(value, str) and "string" not in kinds and kinds & {"array", "object"}:
            value = _parsed(key, value)
        mended[key] = value
    return mended


def kinds_of(schema: Any, parameters: Json) -> tuple[str, ...]:
    """The JSON types that a schema and its parts name, as `schema_parts` finds them; what is no JSON type is left out."""
    named = [each.get("type") for each in schema_parts(schema, parameters)]
    flat = [kind for each in named for kind in (each if isinstance(each, list) else [each])]
    return tuple(kind for kind in dict.fromkeys(each for each in flat if isinstance(each, str)) if kind in JSON_TYPES)


def schema_parts(schema: Any, whole: Json) -> list[Json]:
    """The schema, its alternatives and the definitions of `whole` that they refer to, at most `MAX_PARTS`.

    A server may have written them, and may refer in a circle.
    """
    found: list[Json] = []
    waiting = deque([schema])
    while waiting and len(found) < MAX_PARTS:
        part = waiting.popleft()
        if not isinstance(part, dict):
            continue
        found.append(part)
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += part[key] if isinstance(part.get(key), list) else []
        head, _, name = str(part.get("$ref", "")).rpartition("/")
        definitions = whole.get(head.removeprefix("#/"))
        waiting += [definitions[name]] if isinstance(definitions, dict) and name in definitions else []
    return found


def _parsed(name: str, text: str) -> Any:
    try:
        return loads_arguments(text)
    except RepeatedKey as error:
        raise ToolError(f"the argument {name!r:.64} is ambiguous: {error}") from None
    except (ValueError, RecursionError):
        return text


def as_json_data(checked: Mapping[str, Any]) -> Json:
    """Checked arguments as JSON data: models, dataclasses and enums by their values, other types as text."""
    if all(type(value) in (str, int, float, bool, type(None)) for value in checked.values()):
        return dict(checked)
    data: Json = json.loads(json.dumps(checked, default=plain))
    return data


def plain(value: Any) -> Any:
    """A value that JSON has no type for: models, dataclasses, enums and sets as data, others as text without addresses."""
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # a resumed attempt must find it in the same order
    return value.value if isinstance(value, Enum) else _ADDRESS.sub("", str(value))
