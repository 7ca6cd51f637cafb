"""What an agent can do besides talking: a Tool is a typed function, its JSON schema, and its declared effect.

The schema comes from the signature and the docstring, so a tool is written once:

    @tool(effect="read")
    def weather(city: str, days: int = 1) -> str:
        '''Return the forecast for a city.

        Args:
            city: The city's name, in English.
            days: How many days ahead.
        '''
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from firsthand.errors import ConfigError, ToolError
from firsthand.message import Json
from firsthand.model import ToolSpec

Effect = Literal["read", "write", "external", "irreversible"]
"""What a tool may change. `read`: nothing. `write`: only the attempt's own environment, which a resumed attempt rebuilds by
running the call again. `external`: something outside that outlives the attempt. `irreversible`: the same, and it cannot be
undone. A call of the last two kinds is never run twice."""


@dataclass(frozen=True)
class Tool:
    """A function an agent may call. `await tool(arguments)` checks the arguments, runs it and gives its result as text."""

    spec: ToolSpec
    effect: Effect
    function: Callable[..., Any]
    validate: Callable[[Json], Json]
    """Arguments as the model gave them -> keyword arguments of the right types, or ToolError."""
    timeout_s: float = 30.0
    max_chars: int = 16_000
    """A longer result is cut here, and says so."""

    @property
    def name(self) -> str:
        """The name a model calls it by."""
        return self.spec.name

    async def __call__(self, arguments: Json) -> str:
        """The result as text: a string as it is, anything else as JSON. Every failure is a ToolError."""
        checked = self.validate(arguments)
        try:
            async with asyncio.timeout(self.timeout_s):
                if inspect.iscoroutinefunction(self.function):
                    result = await self.function(**checked)
                else:
                    result = await asyncio.to_thread(self.function, **checked)
        except TimeoutError:
            raise ToolError(f"{self.name} did not finish within {self.timeout_s:g} s") from None
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        if len(text) <= self.max_chars:
            return text
        return f"{text[: self.max_chars]}\n[cut after {self.max_chars} of {len(text)} characters]"


def tool(*, effect: Effect, name: str | None = None, timeout_s: float = 30.0) -> Callable[[Callable[..., Any]], Tool]:
    """A decorator that makes a Tool of a typed function, sync or async."""

    def make(function: Callable[..., Any]) -> Tool:
        return tool_from_function(function, effect=effect, name=name, timeout_s=timeout_s)

    return make


def tool_from_function(
    function: Callable[..., Any], *, effect: Effect, name: str | None = None, timeout_s: float = 30.0
) -> Tool:
    """The Tool of a function: its schema from the annotations, its texts from the docstring (Google style `Args:`)."""
    from pydantic import ConfigDict, Field, ValidationError, create_model

    tool_name = name or str(getattr(function, "__name__", "tool"))
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool_name):
        raise ConfigError(f"a tool is named {tool_name!r}: 1 to 64 letters, digits, _ or - were expected")
    summary, described = parse_docstring(inspect.getdoc(function) or "")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"tool {tool_name!r} takes *args, **kwargs or positional-only arguments: name each one")
        if parameter.name not in hints:
            raise ConfigError(f"tool {tool_name!r}: annotate the argument {parameter.name!r} with its type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], Field(default, description=described.get(parameter.name)))
    arguments_model = create_model(tool_name, __config__=ConfigDict(extra="forbid"), **fields)
    parameters = _without_titles(arguments_model.model_json_schema())
    parameters.setdefault("properties", {})

    def validate(arguments: Json) -> Json:
        try:
            checked = arguments_model.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            given = json.dumps(arguments, ensure_ascii=False, default=str)[:200]
            expected = ", ".join(_describe(n, p, parameters) for n, p in parameters["properties"].items()) or "nothing"
            raise ToolError(f"{tool_name} was called with {given} ({problems}): it takes {expected}") from None
        return {field: getattr(checked, field) for field in fields}

    return Tool(ToolSpec(tool_name, summary, parameters), effect, function, validate, timeout_s)


def parse_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text before `Args:` and the description of each argument under it."""
    summary, _, rest = docstring.partition("\nArgs:")
    described: dict[str, str] = {}
    current = None
    for line in rest.splitlines():
        if line and not line[0].isspace():
            break
        entry = re.match(r"^ {1,8}(\w+)(?: \([^)]*\))?: *(.*)$", line)
        if entry:
            current = entry.group(1)
            described[current] = entry.group(2).strip()
        elif current and line.strip():
            described[current] += " " + line.strip()
    return " ".join(summary.split()), described


def _describe(name: str, schema: Json, parameters: Json) -> str:
    required = name in parameters.get("required", ())
    kind = schema.get("type") or "/".join(option.get("type", "value") for option in schema.get("anyOf", ())) or "value"
    return f"{name}: {kind}{'' if required else ' (optional)'}"


def _without_titles(schema: Any) -> Any:
    """The schema without the titles that pydantic makes from names: they cost prompt tokens and say nothing."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if "properties" in kept:
        kept["properties"] = {name: _without_titles(value) for name, value in schema["properties"].items()}
    return {key: value if key == "properties" else _without_titles(value) for key, value in kept.items()}
