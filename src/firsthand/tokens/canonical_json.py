"""Writes a JSON value as its schema's grammar does: properties in the schema's order, few escapes, plain numbers.

For checking answers of endpoints, which may write a value otherwise. The value is never changed, so a text that a grammar
accepts fits its schema. Text and schema come from strangers: call this only in a process with bounds (`grammar_process.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from io import StringIO
from typing import Any, NamedTuple
from urllib.parse import unquote

MAX_EXPONENT = 400
"""A larger or smaller number stays as it is written; floats reach from 1e-324 to 1e308."""


_LITERAL = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?')
"""A string of JSON, or the beginning of one at the end of a text."""


class _Number(NamedTuple):
    """A number in plain decimal digits, so that equal ones are equal texts; not one of `1` and `"1"`, or `1` and `true`."""

    text: str


def canonical_json(text: str, schema: str) -> str:
    """Returns the value as the schema's grammar writes it; ValueError or RecursionError if the text is no JSON value.

    An object with a key that comes twice is none. Where the branches of a schema disagree on an order, that of the first
    branch whose types, constants and required properties allow the value is taken.
    """
    root = _decoded(schema)
    writer = _Writer(root)
    writer.write(_decoded(text), [root])
    return writer.text.getvalue().replace("\x7f", "\\u007f")


def plain_json(text: str) -> str:
    r"""Returns JSON, or the beginning of some, with escapes only where a character needs one; ValueError or RecursionError
    if a key comes twice in an object, or objects lie too deep to tell.

    A grammar knows a property by one spelling: one that is written as `"\u0061"` would pass for any other property.
    """
    try:
        json.loads(text, object_pairs_hook=_object, parse_int=str, parse_float=str)
    except _RepeatedKey:
        raise
    except ValueError:  # a beginning, or no JSON, as the grammar will tell
        pass
    return _LITERAL.sub(_plain, text) if "\\" in text else text


def _plain(literal: re.Match[str]) -> str:
    try:
        return _string(json.loads(literal[0])) if "\\" in literal[0] else literal[0]
    except ValueError:
        return literal[0]


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class _RepeatedKey(ValueError):
    """A key comes twice in an object: readers differ in which value they take."""


def _decoded(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_no_constant
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _RepeatedKey("a key comes twice in an object")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _number(text: str) -> _Number:
    try:
        number = Decimal(text)
        if not number:
            return _Number("0")
        if abs(number.adjusted()) > MAX_EXPONENT:
            return _Number(text)
    except ArithmeticError:  # an exponent beyond those of decimals
        return _Number(text)
    plain = format(number, "f")
    return _Number(plain.rstrip("0").rstrip(".") if "." in plain else plain)


class _Writer:
    """Writes a value by its schema."""

    def __init__(self, root: Any):
        self.text = StringIO()
        self._root = root
        self._found: dict[tuple[int, int], list[tuple[str, Any]]] = {}
        """The rules of schemas for values, by identity: branches ask for those of a value's parts again and again."""

    def write(self, value: Any, schemas: list[Any]) -> None:
        """Append a value to the text."""
        rules = [rule for schema in schemas for rule in self._rules(schema, value)]
        equal = (each for keyword, body in rules for each in _constants(keyword, body) if each == value)
        if (constant := next(equal, None)) is not None:
            self.write(constant, [])
        elif isinstance(value, dict):
            self.text.write("{")
            for number, name in enumerate(sorted(value, key=_order(rules))):
                self.text.write(f"{', ' if number else ''}{json.dumps(name, ensure_ascii=False)}: ")
                self.write(value[name], _schemas_of(name, rules))
            self.text.write("}")
        elif isinstance(value, list):
            self.text.write("[")
            for number, each in enumerate(value):
                self.text.write(", " if number else "")
                self.write(each, _schemas_at(number, rules))
            self.text.write("]")
        else:
            is_number = isinstance(value, _Number)
            self.text.write(_spelled(value, rules) if is_number else json.dumps(value, ensure_ascii=False))

    def _rules(self, schema: Any, value: Any) -> list[tuple[str, Any]]:
        """The keywords for a value and what they say, in order, references followed, without branches that refuse it."""
        if not isinstance(schema, dict):
            return []
        at = (id(schema), id(value))
        if at not in self._found:
            self._found[at] = []  # a reference that comes back to itself adds nothing
            self._found[at] = list(self._followed(schema, value))
        return self._found[at]

    def _followed(self, schema: dict[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
        for keyword, body in schema.items():
            if keyword == "$ref" and isinstance(body, str):
                yield from self._rules(self._referred(body), value)
            elif keyword in ("allOf", "anyOf", "oneOf") and isinstance(body, list):
                fit = body if keyword == "allOf" else [each for each in body if not self._refuses(each, value)]
                for branch in fit:
                    yield from self._rules(branch, value)
                if body and not fit:
                    yield "enum", []  # no value fits
            else:
                yield keyword, body

    def _refuses(self, schema: Any, value: Any) -> bool:
        """True if the types, constants and required properties of a schema are others than the value's."""
        for keyword, body in self._rules(schema, value):
            match keyword, body:
                case "type", str() | list():
                    if not _is_of(value, [body] if isinstance(body, str) else body):
                        return True
                case "const" | "enum", _:
                    if value not in _constants(keyword, body):
                        return True
                case "required", list() if isinstance(value, dict):
                    if any(isinstance(name, str) and name not in value for name in body):
                        return True
                case "properties", dict() if isinstance(value, dict):
                    if any(name in value and self._refuses(each, value[name]) for name, each in body.items()):
                        return True
        return False

    def _referred(self, reference: str) -> Any:
        """The schema that a reference within the document names; None for any other."""
        own = self._root.get("$id")
        base, _, pointer = reference.partition("#")
        if (base and base != own) or (pointer and not pointer.startswith("/")):
            return None
        found = self._root
        for step in unquote(pointer).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and len(name) < 7 and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return None
        return found


def _spelled(number: _Number, rules: list[tuple[str, Any]]) -> str:
    """The number, with zeros up to the digits of steps, or of a bound on its side away from 0 that has the same whole part.

    llguidance refuses 99.9 where 99.99 is the maximum, 0.5 among multiples of 0.25, and zeros at the end of 0.5 where 0 is
    excluded.
    """
    whole, _, digits = number.text.partition(".")
    outer = ("minimum", "exclusiveMinimum") if whole.startswith("-") else ("maximum", "exclusiveMaximum")
    bounds = [body.text.partition(".") for keyword, body in rules if keyword in outer and isinstance(body, _Number)]
    steps = [body.text.partition(".") for name, body in rules if name == "multipleOf" and isinstance(body, _Number)]
    most = max((len(each[2]) for each in steps or [each for each in bounds if each[0] == whole]), default=0)
    return number.text + "0" * (most - len(digits)) if digits else number.text


def _constants(keyword: str, body: Any) -> list[Any]:
    if keyword == "const":
        return [body]
    return body if keyword == "enum" and isinstance(body, list) else []


def _order(rules: list[tuple[str, Any]]) -> Callable[[str], int]:
    """The key that sorts names as a grammar has them: properties, those that are only required, others as they came."""
    names = [name for keyword, body in rules if keyword == "properties" and isinstance(body, dict) for name in body]
    names += [
        name
        for keyword, body in rules
        if keyword == "required" and isinstance(body, list)
        for name in body
        if isinstance(name, str)
    ]
    ranks = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return lambda name: ranks.get(name, len(ranks))


def _schemas_of(name: str, rules: list[tuple[str, Any]]) -> list[Any]:
    """The schemas of a property: its own, or those of properties that are not named."""
    own = [body[name] for keyword, body in rules if keyword == "properties" and isinstance(body, dict) and name in body]
    if own:
        return own
    patterns = [body for keyword, body in rules if keyword == "patternProperties" and isinstance(body, dict)]
    others = [body for keyword, body in rules if keyword == "additionalProperties"]
    return [each for body in patterns for each in body.values()] + others


def _schemas_at(place: int, rules: list[tuple[str, Any]]) -> list[Any]:
    """The schemas of an item of a list."""
    first = [
        body[place]
        for keyword, body in rules
        if keyword == "prefixItems" and isinstance(body, list) and place < len(body)
    ]
    return first or [body for keyword, body in rules if keyword == "items"]


def _is_of(value: Any, types: list[Any]) -> bool:
    match value:
        case None:
            return "null" in types
        case bool():
            return "boolean" in types
        case _Number(text):
            return "number" in types or ("integer" in types and "." not in text)
        case str():
            return "string" in types
        case list():
            return "array" in types
    return "object" in types
