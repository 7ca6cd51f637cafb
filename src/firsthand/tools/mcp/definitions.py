"""Reads a server's definition of a tool as untrusted input: a name, a description and a schema that may be shown to a model.

All free text of the server, the descriptions of arguments included, goes into one description, between marks unless the
server is trusted. A schema keeps structure alone. Definitions have digests, so that a change after approval is seen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firsthand.errors import ToolError
from firsthand.message import Json, canonical
from firsthand.model import ToolSpec
from firsthand.system.terminal import printable
from firsthand.tool import as_text, marked
from firsthand.tools.mcp.bounded_schema import BoundedValidator, TooManySteps
from firsthand.tools.mcp.server_declaration import ServerDeclaration

MAX_DESCRIPTION = 2_000
"""The most characters of a tool's description, those of its arguments included."""
MAX_SCHEMA = 64_000
"""The most characters of a schema as JSON."""
MAX_DEPTH = 24
_PROSE = ("title", "description", "examples", "$comment", "default", "deprecated", "x-mcp-header")
"""Keywords whose values are words of the server, or that decide nothing about an argument."""
_KEPT = {
    "type", "properties", "required", "items", "prefixItems", "enum", "const", "anyOf", "oneOf", "allOf", "not",
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "format", "if", "then", "else",
    "dependentRequired", "dependentSchemas", "contains", "minContains", "maxContains", "propertyNames", "$ref", "$defs",
    "definitions", "$anchor", "$dynamicRef", "$dynamicAnchor", "unevaluatedProperties", "unevaluatedItems", "pattern",
}  # fmt: skip
_BY_NAME = ("properties", "$defs", "definitions", "dependentSchemas")


class UnusableDefinition(Exception):
    """A definition that no tool can be made of; the message says why."""


@dataclass(frozen=True)
class ToolDefinition:
    """A tool as its server defines it."""

    name: str
    """Its name at the server."""
    description: str
    schema: Json
    """As the server gave it."""
    hints: Json
    """The server's claims about effects; shown, and never believed."""

    @property
    def defaults(self) -> Json:
        """The values that arguments have where a call leaves them out. Models are not told: they are the server's words."""
        properties = self.schema.get("properties")
        named = properties.items() if isinstance(properties, dict) else ()
        return {str(name): each["default"] for name, each in named if isinstance(each, dict) and "default" in each}

    @property
    def approved(self) -> Json:
        """What a person approves: all of it that a model can be shown, of the description no more."""
        description = self.description.strip()[:MAX_DESCRIPTION]
        return {"name": self.name, "description": description, "schema": self.schema, "hints": self.hints}

    @property
    def digest(self) -> str:
        """SHA-256 of all that a person approves."""
        return hashlib.sha256(canonical(self.approved).encode("utf-8", "surrogatepass")).hexdigest()


def tool_name(server: str, tool: str) -> str:
    """The name of a server's tool among the agent's: 1 to 64 letters, digits, _ or -.

    Names that a server chooses for it can be equal here: approvals go by this name, and of two in one list one is left out.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    name = f"{server}__{plain}"
    if plain == tool and len(name) <= 64:
        return name
    return f"{name[:57]}_{hashlib.sha256(tool.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def spec_of(definition: ToolDefinition, server: ServerDeclaration, *, fenced: bool | None = None) -> ToolSpec:
    """The definition that the model is offered. UnusableDefinition if the schema is none for an object of arguments, or if
    a rule for the server's requests would be one for the tool."""
    if definition.name in server.requests:
        said = f"{definition.name} = false for {server.name}"
        raise UnusableDefinition(f"rules know the server's requests by its name: declare {said} to offer it")
    schema = definition.schema
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise UnusableDefinition("its schema is none for an object")
    try:
        size = len(json.dumps(schema))
    except (ValueError, RecursionError):
        size = MAX_SCHEMA + 1
    if size > MAX_SCHEMA:
        raise UnusableDefinition(f"its schema has more than {MAX_SCHEMA:,} characters")
    parameters = _structure(schema, 0)
    properties = parameters.get("properties", {})
    parameters["type"] = "object"
    parameters["properties"] = properties
    parameters["required"] = [each for each in parameters.get("required", ()) if each in properties]
    for name in properties:
        if len(name) > 64 or not name.isprintable():
            raise UnusableDefinition(f"its argument {name[:64]!r} has a name that is not printable or too long")
    text = _description(definition, schema)
    fence = (not server.trusted) if fenced is None else fenced
    if fence and text:
        text = marked(text, server.origin)
    return ToolSpec(tool_name(server.name, definition.name), text, parameters)


def _description(definition: ToolDefinition, schema: Json) -> str:
    """The description of the tool and of its arguments, cut."""
    lines = [definition.description.strip()]
    for name, inner in (schema.get("properties") or {}).items():
        said = inner.get("description") if isinstance(inner, dict) else None
        if isinstance(said, str) and said.strip():
            lines.append(f"{name}: {' '.join(said.split())}")
    text = printable("\n".join(line for line in lines if line))
    return text if len(text) <= MAX_DESCRIPTION else f"{text[:MAX_DESCRIPTION]} [cut]"


def _structure(schema: Any, depth: int) -> Any:
    """The schema without the server's prose. References may only point inside it."""
    if depth > MAX_DEPTH:
        raise UnusableDefinition(f"its schema is nested more than {MAX_DEPTH} deep")
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise UnusableDefinition(f"its schema has {as_text(schema, 60)} where a schema was expected")
    kept: Json = {}
    for key, value in schema.items():
        if key not in _KEPT or key in _PROSE:
            continue
        if key in ("$ref", "$dynamicRef") and not (isinstance(value, str) and value.startswith("#")):
            raise UnusableDefinition(f"its schema refers to {str(value)[:80]!r}, which is outside of it")
        if key in _BY_NAME:
            if not isinstance(value, dict):
                raise UnusableDefinition(f"its schema has no table at {key!r}")
            value = {str(name): _structure(each, depth + 1) for name, each in value.items()}
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if not isinstance(value, list):
                raise UnusableDefinition(f"its schema has no list at {key!r}")
            value = [_structure(each, depth + 1) for each in value]
        elif key in ("items", "not", "if", "then", "else", "contains", "propertyNames") or (
            key in ("additionalProperties", "unevaluatedProperties", "unevaluatedItems") and isinstance(value, dict)
        ):
            value = _structure(value, depth + 1)
        elif key == "required" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            raise UnusableDefinition("its schema has no list of names at 'required'")
        kept[key] = value
    return kept


class ArgumentChecker:
    """Checks a model's arguments against a tool's schema in bounded time; follows no reference that leaves it, and no
    regular expression.
    """

    def __init__(self, spec: ToolSpec):
        from jsonschema import SchemaError

        self.name = spec.name
        try:
            self._validator = BoundedValidator(spec.parameters)
        except SchemaError as error:
            raise UnusableDefinition(f"its schema is no JSON schema: {error.message[:120]}") from None
        except TooManySteps:
            raise UnusableDefinition("its schema takes too long to read") from None
        required = spec.parameters.get("required", ())
        self._optional = {
            name
            for name, schema in spec.parameters["properties"].items()
            if name not in required
            and schema.get("type", "null") not in ("null", None)
            and "null" not in schema["type"]
        }

    def __call__(self, arguments: Json) -> Json:
        """The arguments, if they fit, without nulls for what may be left out. ToolError names the first problem."""
        arguments = {key: value for key, value in arguments.items() if value is not None or key not in self._optional}
        try:
            problem = next(iter(self._validator.iter_errors(arguments)), None)
        except TooManySteps:
            raise ToolError(f"{self.name} has a schema that takes too long to apply to these arguments") from None
        except Exception as error:  # a reference that leads nowhere or in a circle
            raise ToolError(f"{self.name} has a schema that cannot be applied: {type(error).__name__}") from None
        if problem is not None:
            place = ".".join(map(str, problem.absolute_path)) or "arguments"
            given = as_text(arguments, 200)
            raise ToolError(f"{self.name} was called with {given}: {place}: {problem.message[:300]}")
        return arguments


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Json:
    """The parts of a definition that changed, each as it was and as it is."""
    return {
        key: {"was": old.get(key), "is": new.get(key)} for key in new if canonical(old.get(key)) != canonical(new[key])
    }
