"""Reads the arguments of a tool call: JSON that a model wrote, with its common mistakes, as the data that the tool gets.

Left out: types, which `Tool.validate` checks.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any

from firsthand.errors import ToolError
from firsthand.message import Json

JSON_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
MAX_PARTS = 100
"""The most alternatives of a schema that are looked at."""
MAX_DEPTH = 32
"""The levels of lists and objects within an argument that are repaired."""
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


def field_of(argument: str, hint: Any) -> tuple[str, Any]:
    """The name and annotation of an argument's field in a pydantic model, which models call by the argument's own name.

    A model has attributes of its own, such as `json` and `copy`: pydantic warns of a field with such a name.
    """
    from pydantic import BaseModel, Field

    if argument.startswith(("_", "model_")) or not hasattr(BaseModel, argument):
        return argument, hint
    return f"argument {argument}", Annotated[hint, Field(alias=argument)]


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


def repaired_within(arguments: Json, parameters: Json) -> Json:
    """Repaired arguments of a call that the tool refuses, with what their lists and objects hold repaired by the schema too.

    Lists and objects written as strings, a number or truth value as a string where the schema lists some (and the other way
    round), a number for a string, and null for what may be left out. ToolError for two equal keys.
    """
    properties: Json = parameters.get("properties", {})
    return {key: _mended(value, properties.get(key), parameters, key) for key, value in arguments.items()}


def _mended(value: Any, schema: Any, whole: Json, name: str, depth: int = 0) -> Any:
    """A value repaired by its schema, with what it holds; `name` is for messages."""
    if depth > MAX_DEPTH or not isinstance(schema, dict):
        return value
    parts = schema_parts(schema, whole)
    kinds = kinds_of(schema, whole)
    if isinstance(value, str) and "string" not in kinds and {"array", "object"} & set(kinds):
        value = _parsed(name, value)
    if isinstance(value, list):
        firsts = max((len(_sequence_of(part.get("prefixItems"))) for part in parts), default=0)
        rest = _of_item(parts, firsts)
        schemas = [*(_of_item(parts, at) for at in range(min(firsts, len(value)))), *[rest] * (len(value) - firsts)]
        return [_mended(each, of, whole, name, depth + 1) for each, of in zip(value, schemas, strict=True)]
    if isinstance(value, dict):
        return _mended_object(value, parts, whole, name, depth + 1)
    value = _listed_value(value, parts, kinds)
    is_text = {"string"} == set(kinds) - {"null"} and not any("format" in part for part in parts)
    return str(value) if is_text and type(value) in (int, float) else value


def _mended_object(value: Json, parts: Sequence[Json], whole: Json, name: str, depth: int) -> Json:
    """An object's values repaired, without null where a value cannot be: the checks refuse an object that needs one."""
    mended = {}
    parts = [part for part in parts if _may_be(part, value)] or parts
    for key, each in value.items():
        schema, is_property = _of_key(parts, key)
        kinds = kinds_of(schema, whole)
        if each is None and is_property and kinds and "null" not in kinds:
            continue
        mended[key] = _mended(each, schema, whole, f"{name}.{key}", depth)
    return mended


def _may_be(part: Json, value: Json) -> bool:
    """False of an alternative that lists what one of its properties may be, such as `kind`, where the object has another."""
    held = part.get("properties")
    for key, schema in held.items() if isinstance(held, dict) else ():
        listed = _listed_of(schema) if isinstance(schema, dict) else []
        if listed and key in value and str(value[key]) not in map(str, listed):
            return False
    return True


def _listed_of(part: Json) -> list[Any]:
    """The values that a schema lists."""
    return [*_sequence_of(part.get("enum")), *([part["const"]] if "const" in part else [])]


def _of_key(parts: Sequence[Json], key: str) -> tuple[Json, bool]:
    """Return the schema of a key's value, of all parts that have one, and True if a part names the key."""
    named = [held[key] for part in parts if isinstance(held := part.get("properties"), dict) and key in held]
    return {"anyOf": named or [part.get("additionalProperties") for part in parts]}, bool(named)


def _of_item(parts: Sequence[Json], at: int) -> Json:
    """The schema of a list's item, of all parts that have one."""
    firsts = [_sequence_of(part.get("prefixItems")) for part in parts]
    own = [first[at] for first in firsts if at < len(first)]
    return {"anyOf": own or [part.get("items") for part in parts]}


def _sequence_of(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _listed_value(value: Any, parts: Sequence[Json], kinds: Sequence[str]) -> Any:
    """The number, truth value or string that a schema lists and whose text the value is; else the value."""
    listed = [each for part in parts for each in _listed_of(part)]
    if isinstance(value, str) and "string" not in kinds and value not in listed:
        said = value.strip()
        found = [each for each in listed if type(each) in (int, float) and str(each) == said]
        found += [each for each in listed if type(each) is bool and str(each).lower() == said.lower()]
    elif type(value) in (int, float) and value not in listed:
        found = [each for each in listed if isinstance(each, str) and each == str(value)]
    else:
        return value
    return found[0] if found else value


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
