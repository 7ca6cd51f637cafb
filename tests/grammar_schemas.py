"""Schemas as people write them for APIs, tools and extraction; each is held against answers of a random model."""
# ruff: noqa: E501

from __future__ import annotations

from typing import Any


def obj(properties: dict[str, Any], required: list[str] | None = None, **rest: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False, **rest}
    return body | {"required": list(properties) if required is None else required}


STR, INT, NUM, BOOL = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}

SCHEMAS: dict[str, Any] = {
    # parameters of tools and APIs
    "weather": obj({"city": STR, "units": {"enum": ["celsius", "fahrenheit"]}}),
    "weather, optional days": obj({"city": STR, "days": {"type": "integer", "minimum": 1, "maximum": 14}}, ["city"]),
    "search": obj({"query": {"type": "string", "minLength": 1, "maxLength": 60}, "limit": {"type": "integer", "minimum": 1, "maximum": 100}}),
    "calculator": obj({"expression": {"type": "string", "pattern": r"^[0-9+*/(). -]{1,30}$"}}),
    "send mail": obj({"to": {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1, "maxItems": 3}, "subject": STR, "cc": {"type": ["string", "null"]}}),
    "create event": obj({"title": STR, "start": {"type": "string", "format": "date-time"}, "duration_minutes": {"type": "integer", "multipleOf": 15, "minimum": 15, "maximum": 240}}),
    "book flight": obj({"from": {"type": "string", "pattern": "^[A-Z]{3}$"}, "to": {"type": "string", "pattern": "^[A-Z]{3}$"}, "on": {"type": "string", "format": "date"}, "class": {"enum": ["economy", "business", "first"]}}),
    "sql": obj({"statement": {"type": "string", "pattern": "^SELECT [a-z_, ]+ FROM [a-z_]+$", "maxLength": 60}}),
    "http fetch": obj({"url": {"type": "string", "format": "uri"}, "method": {"enum": ["GET", "HEAD"]}, "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": 30}}),
    "write file": obj({"path": {"type": "string", "pattern": "^[a-z0-9_./-]{1,40}$"}, "text": STR, "append": BOOL}),
    "no arguments": obj({}),
    "only optional": obj({"page": INT, "sort": {"enum": ["asc", "desc"]}}, []),
    "currency": obj({"amount": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD", "JPY"]}}),
    "coordinates": obj({"lat": {"type": "number", "minimum": -90, "maximum": 90}, "lon": {"type": "number", "minimum": -180, "maximum": 180}}),
    "colour": obj({"rgb": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"}}),
    "pagination": obj({"offset": {"type": "integer", "minimum": 0}, "limit": {"enum": [10, 20, 50]}, "cursor": {"anyOf": [STR, {"type": "null"}]}}),
    # records
    "person": obj({"name": STR, "age": {"type": "integer", "minimum": 0, "maximum": 120}, "email": {"type": "string", "format": "email"}}),
    "uuid and version": obj({"id": {"type": "string", "format": "uuid"}, "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}}),
    "address": obj({"street": STR, "number": {"type": ["integer", "string"]}, "zip": {"type": "string", "pattern": r"^\d{5}$"}}),
    "nested": obj({"user": obj({"name": STR, "contact": obj({"phone": {"type": "string", "pattern": r"^\+\d{6,12}$"}})}), "ok": BOOL}),
    "order": obj({"lines": {"type": "array", "minItems": 1, "maxItems": 3, "items": obj({"sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}, "quantity": {"type": "integer", "minimum": 1, "maximum": 99}})}, "total": {"type": "number", "minimum": 0}}),
    "log entry": obj({"level": {"enum": ["debug", "info", "warning", "error"]}, "at": {"type": "string", "format": "date-time"}, "message": {"type": "string", "maxLength": 50}}),
    "host": obj({"ipv4": {"type": "string", "format": "ipv4"}, "port": {"type": "integer", "minimum": 1, "maximum": 65535}}),
    "ipv6": obj({"address": {"type": "string", "format": "ipv6"}}),
    "hostname": {"type": "string", "format": "hostname"},
    "time": obj({"at": {"type": "string", "format": "time"}}),
    "duration": obj({"lasts": {"type": "string", "format": "duration"}}),
    "settings with any values": {"type": "object", "properties": {"debug": BOOL}, "required": ["debug"], "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
    "a map": {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    "at least two": {"type": "object", "additionalProperties": {"enum": [0, 1]}, "minProperties": 2, "maxProperties": 3},
    "patternProperties": {"type": "object", "patternProperties": {"^x-[a-z]{1,5}$": {"type": "integer", "minimum": 0, "maximum": 9}}, "additionalProperties": False},
    # judging and extraction
    "verdict": obj({"reasoning": {"type": "string", "maxLength": 120}, "score": {"type": "integer", "minimum": 1, "maximum": 5}}),
    "preference": obj({"winner": {"enum": ["A", "B", "tie"]}}),
    "entities": obj({"entities": {"type": "array", "maxItems": 4, "items": obj({"text": STR, "kind": {"enum": ["person", "place", "date"]}})}}),
    "triples": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "array", "prefixItems": [STR, {"enum": ["is", "has"]}, STR], "items": False, "minItems": 3}},
    "sentiment": {"enum": ["positive", "negative", "neutral"]},
    "multiple choice": obj({"answer": {"type": "string", "pattern": "^[A-D]$"}}),
    "steps": obj({"steps": {"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "string", "maxLength": 40}}, "answer": NUM}),
    "plan": {"type": "array", "minItems": 1, "maxItems": 3, "items": obj({"id": {"type": "integer", "minimum": 1, "maximum": 9}, "tool": {"enum": ["search", "calculator"]}, "after": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "maxItems": 2}})},
    # variants
    "anyOf": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "string", "maxLength": 5}, {"type": "null"}]},
    "oneOf by tag": {"oneOf": [obj({"kind": {"const": "circle"}, "radius": {"type": "number", "minimum": 0}}), obj({"kind": {"const": "square"}, "side": {"type": "number", "minimum": 0}})]},
    "oneOf by type": {"oneOf": [{"type": "boolean"}, {"type": "integer"}]},
    "action": {"anyOf": [obj({"action": {"const": "search"}, "query": STR}), obj({"action": {"const": "finish"}, "answer": STR}), obj({"action": {"const": "noop"}})]},
    "allOf": {"allOf": [obj({"a": {"type": "integer", "minimum": 0}, "b": BOOL}), {"properties": {"a": {"maximum": 10}}}]},
    "const": {"const": {"fixed": [1, "two", None]}},
    "enum of many kinds": {"enum": ["x", 1, 2.5, None, True, {"a": [1]}]},
    "nullable": obj({"value": {"anyOf": [{"type": "number"}, {"type": "null"}]}}),
    "string or list": obj({"tags": {"anyOf": [STR, {"type": "array", "items": STR, "maxItems": 2}]}}),
    # numbers
    "open interval": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "negative": {"type": "integer", "minimum": -1000, "maximum": -10},
    "far bounds": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "halves": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 10},
    "percent": {"type": "number", "minimum": 0, "maximum": 100},
    # arrays
    "matrix": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 0, "maximum": 9}}},
    "pair": {"type": "array", "prefixItems": [INT, BOOL], "items": False, "minItems": 2},
    "numbers": {"type": "array", "items": NUM, "maxItems": 5},
    "empty or one": {"type": "array", "items": BOOL, "maxItems": 1},
    # recursion and references
    "tree": {"$ref": "#/$defs/node", "$defs": {"node": obj({"value": {"type": "integer", "minimum": 0, "maximum": 9}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}})}},
    "linked list": {"$ref": "#/$defs/cell", "$defs": {"cell": obj({"head": BOOL, "tail": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/cell"}]}})}},
    "definitions": {"definitions": {"id": {"type": "string", "pattern": "^[a-f0-9]{8}$"}}, **obj({"parent": {"$ref": "#/definitions/id"}, "child": {"$ref": "#/definitions/id"}})},
    "expression": {"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, obj({"op": {"enum": ["+", "*"]}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}})]}}},
    # strings
    "unicode": obj({"日本": {"enum": ["é", "ñ", "😀"]}, "quote\"d": {"const": "a\\b\n"}}),
    "short": {"type": "string", "minLength": 3, "maxLength": 6},
    "several constraints": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 8},
    "date": {"type": "string", "format": "date"},
}  # fmt: skip
