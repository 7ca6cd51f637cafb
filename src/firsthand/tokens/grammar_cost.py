"""Tells from its text whether a grammar is cheap: small, and free of what makes its automaton grow without bound.

llguidance bounds its work per token in fuel, except where a lexeme is an intersection or a complement: to see whether
one can still match anything, it explores the automaton of all operands, and one such step may take any time.
Intersections come from `&` and `~` in Lark, and in JSON schemas from keywords that narrow the same value twice
(`pattern` with `maxLength`, `allOf`), from `patternProperties` and from `multipleOf`. A grammar with none of these, of
bounded size and with bounded counts, is compiled in milliseconds and followed in this process. Any other one may be as
harmless, but that is not proved: it is compiled and followed in a process of its own (`grammar_process.py`). No keyword
that is not listed here is cheap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from typing import Any

from firsthand.grammar import Grammar

MAX_COST = 8_000
"""About one per character of rules, names and texts; descriptions cost nothing."""
MAX_COUNT = 1_000
"""Largest count of a repetition, and largest product of all `multipleOf` of a schema: states multiply."""
_MAX_CHARS = 1 << 16
_MAX_NUMBER = 1e15
_NUMBER = re.compile(r"[0-9]+")
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$schema"}
)
_DEFINITIONS = ("$defs", "definitions")
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LAYOUT = frozenset({"whitespace_flexible", "item_separator", "key_separator", "lenient", "coerce_one_of"})
_KEYWORDS = (
    _COUNTS | _BOUNDS | {"type", "properties", "required", "additionalProperties", "items", "prefixItems", "multipleOf"}
)
_ALONE = ("pattern", "format", "enum", "const")
"""Each is cheap beside `type` alone."""
_LARK_TOKEN = re.compile(
    r"""
      (?P<space>   (?:\#|//)[^\n]* | [ \t\r\n]+ )
    | (?P<string>  "(?:\\(?:["\\/bfnrt]|u[a-fA-F0-9]{4}|x[a-fA-F0-9]{2})|[^"\\\x00-\x1F\x7F])*" )
    | (?P<regex>   /(?:\\[^\n]|[^/\\])+/ )
    | (?P<json>    %json )
    | (?P<other>   %ignore | [^&~%@"/] )
    """,
    re.VERBOSE,
)
"""As llguidance's lexer reads Lark; what it does not match is not cheap. `::` is refused apart."""


class NotCheap(Exception):
    """The grammar holds something that is not known to be cheap."""


def is_cheap(grammar: Grammar) -> bool:
    """Returns whether a grammar is known to be compiled, and followed token by token, in bounded time and memory."""
    if len(grammar.source) > _MAX_CHARS:
        return False
    try:
        match grammar.kind:
            case "choice":
                return len(grammar.source) <= MAX_COST
            case "json_schema":
                cost = _whole_schema_cost(grammar.parsed())
            case "regex":
                cost = _text_cost(grammar.source)
            case "lark" | "gbnf":
                cost = _lark_cost(grammar.source)
    except (NotCheap, RecursionError):
        return False
    return cost <= MAX_COST


def _text_cost(text: str) -> int:
    """The cost of a regular expression or a rule."""
    if any(len(number) > 6 or int(number) > MAX_COUNT for number in _NUMBER.findall(text)):
        raise NotCheap
    return len(text)


def _lark_cost(text: str) -> int:
    cost = at = 0
    if "::" in text:  # parameters of rules, or GBNF's way to write a rule
        if "::=" not in text or "&" in text or "~" in text or "%" in text:
            raise NotCheap
        return _text_cost(text)
    while at < len(text):
        token = _LARK_TOKEN.match(text, at)
        if token is None:
            raise NotCheap
        at = token.end()
        match token.lastgroup:
            case "json":
                try:
                    schema, at = _DECODER.raw_decode(text, _NOT_SPACE.match(text, at).end())  # type: ignore[union-attr]
                except (ValueError, RecursionError):
                    raise NotCheap from None
                cost += _whole_schema_cost(schema)
            case "string":
                cost += len(token[0])
            case "regex":
                cost += _text_cost(token[0])
            case "other":
                digits = _NUMBER.match(text, token.start())
                cost += _text_cost(digits[0]) if digits else 1
                at = max(at, digits.end() if digits else at)
    return cost


_DECODER = json.JSONDecoder()
_NOT_SPACE = re.compile(r"[ \t\r\n]*")


def _whole_schema_cost(schema: Any) -> int:
    cost = _schema_cost(schema)
    if prod(_multiples(schema)) > MAX_COUNT:
        raise NotCheap
    return cost


def _multiples(value: Any) -> Iterator[int]:
    """Yields every `multipleOf` in a schema."""
    if isinstance(value, list):
        for each in value:
            yield from _multiples(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "multipleOf" and type(each) is int:
                yield each
            yield from _multiples(each)


def _schema_cost(schema: Any) -> int:
    if isinstance(schema, bool):
        return 1
    if not isinstance(schema, dict):
        raise NotCheap
    keys = schema.keys() - _ANNOTATIONS
    cost = 1
    for name in _DEFINITIONS:
        if name in keys:
            cost += _properties_cost(schema[name])
    keys -= set(_DEFINITIONS)
    if "x-guidance" in keys:
        options = schema["x-guidance"]
        if not isinstance(options, dict) or options.keys() - _LAYOUT:
            raise NotCheap
        keys -= {"x-guidance"}
    for alone in ("$ref", "anyOf", "allOf"):
        if alone in keys:
            if len(keys) > 1:
                raise NotCheap
            return cost + _combined_cost(alone, schema[alone])
    for narrow in _ALONE:
        if narrow in keys:
            if keys - {narrow, "type"}:
                raise NotCheap
            return cost + _narrow_cost(narrow, schema[narrow])
    if keys - _KEYWORDS:
        raise NotCheap
    return cost + sum(_keyword_cost(key, schema[key]) for key in keys)


def _combined_cost(keyword: str, value: Any) -> int:
    if keyword == "$ref":
        if not isinstance(value, str) or not value.startswith(("#/$defs/", "#/definitions/")) or value.count("/") != 2:
            raise NotCheap
        return 1
    if not isinstance(value, list) or (keyword == "allOf" and len(value) != 1):
        raise NotCheap
    return sum(map(_schema_cost, value))


def _narrow_cost(keyword: str, value: Any) -> int:
    match keyword:
        case "pattern" if isinstance(value, str):
            return _text_cost(value)
        case "format" if isinstance(value, str):
            return 100
        case "enum" | "const":
            return len(json.dumps(value))
    raise NotCheap


def _keyword_cost(key: str, value: Any) -> int:
    match key:
        case "type":
            return 1
        case "required" if isinstance(value, list):
            return sum(len(name) if isinstance(name, str) else 1 for name in value)
        case "properties":
            return _properties_cost(value)
        case "items" | "additionalProperties":
            return _schema_cost(value)
        case "prefixItems" if isinstance(value, list):
            return sum(map(_schema_cost, value))
        case "multipleOf" if type(value) is int and 0 < value <= MAX_COUNT:
            return value
        case _ if key in _COUNTS and type(value) is int and 0 <= value <= MAX_COUNT:
            return 1
        case _ if key in _BOUNDS and type(value) in (int, float) and abs(value) <= _MAX_NUMBER:
            return 30
    raise NotCheap


def _properties_cost(value: Any) -> int:
    if not isinstance(value, dict):
        raise NotCheap
    return sum(len(name) + _schema_cost(schema) for name, schema in value.items())
