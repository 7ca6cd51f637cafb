r"""Writes the patterns of a JSON schema so that llguidance follows them.

llguidance reads a class of all control characters and a few more, such as `[^"]`, as one that has the escapes `\"` and `\\`
too. So classes are written without the character U+0000, and a text that has it fits no class of a pattern.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VALUES = frozenset({"const", "enum", "default", "examples", "example"})
"""Keywords whose value is no schema."""
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_PART = re.compile(r"\\[pP](?:\{[^}]*+\}|.)|\\(?:x00|u0000|U0{8}|[xuU]\{0++\})|\0|\\.|\(\?P?<[^>]*+>|\[\^?\]?|\]")
"""A class, an escape, the name of a group, or the beginning or the end of a class in brackets."""


def followed_schema(source: str) -> str:
    """Returns a JSON schema with patterns that llguidance follows; RecursionError if it is nested too deeply."""
    if '"pattern' not in source:
        return source
    return json.dumps(_schema(json.loads(source)), ensure_ascii=False)


def followed_pattern(pattern: str) -> str:
    r"""Returns a regular expression (Rust's syntax) whose classes leave out U+0000: `[[^"]--\x00]` for `[^"]`."""
    written: list[str] = []
    at = start = depth = 0
    for part in _PART.finditer(pattern):
        text = part[0]
        if text[0] == "[":
            start = start if depth else part.start()
            depth += 1
        elif text == "]" and depth:
            depth -= 1
            if not depth:
                written += [pattern[at:start], _without_nul(pattern[start : part.end()])]
                at = part.end()
        elif not depth and (
            text == "\0" or text[:2] in ("\\p", "\\P") or (text[:2] in ("\\x", "\\u", "\\U") and len(text) > 2)
        ):
            written += [pattern[at : part.start()], _without_nul(text)]
            at = part.end()
    return "".join(written) + pattern[at:]


def _without_nul(characters: str) -> str:
    return rf"[{characters}--\x00]"


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for keyword, body in schema.items():
        if keyword == "pattern" and isinstance(body, str):
            made[keyword] = followed_pattern(body)
        elif keyword in _SCHEMAS_BY_NAME and isinstance(body, dict):
            is_pattern = keyword == "patternProperties"
            made[keyword] = {
                followed_pattern(name) if is_pattern else name: _schema(each) for name, each in body.items()
            }
        else:
            made[keyword] = body if keyword in _VALUES else _schema(body)
    return made
