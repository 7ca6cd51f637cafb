"""Replaces what matches a regular expression, in what models read or wherever else it is told to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from firsthand.errors import ConfigError
from firsthand.guard import BORDERS, AttemptView, GuardVerdict
from firsthand.message import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.tool import Tool


@dataclass(frozen=True)
class Redact:
    """The guard. It changes texts, and texts, numbers and inner keys of arguments; names of tools and of arguments stay."""

    name = "redact"
    pattern: str
    borders: tuple[str, ...] = ("prompt", "result")
    put: str = "[redacted]"
    expression: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "expression", re.compile(self.pattern))
        except re.error as error:
            raise ConfigError(
                f"redact has pattern={self.pattern!r}, which is not a regular expression: {error}"
            ) from None
        for border in self.borders:
            if border not in BORDERS:
                raise ConfigError(f"redact has the border {border!r}: prompt, call, result or answer was expected")

    def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        """Redacts the texts, calls and results of every message."""
        return self._verdict("prompt", messages, tuple(map(self._message, messages)))

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """Redacts the arguments."""
        return self._verdict("call", arguments, self._arguments(arguments))

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        """Redacts the content."""
        return self._verdict("result", result, replace(result, content=self._text(result.content)))

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        """Redacts the answer."""
        return self._verdict("answer", answer, self._text(answer))

    def _verdict(self, border: str, value: Any, redacted: Any) -> GuardVerdict:
        if border not in self.borders or value == redacted:
            return GuardVerdict.passed("redact")
        return GuardVerdict.replaced("redact", redacted)

    def _text(self, text: str) -> str:
        return self.expression.sub(lambda match: self.put, text)

    def _message(self, message: Message) -> Message:
        parts = tuple(map(self._part, message.parts))
        return message if parts == message.parts else message.edited(*parts)

    def _part(self, part: Part) -> Part:
        match part:
            case Text(text):
                return Text(self._text(text))
            case ToolCall():
                invalid = None if part.invalid is None else self._text(part.invalid)
                return replace(part, arguments=self._arguments(part.arguments), invalid=invalid)
            case ToolResult():
                return replace(part, content=self._text(part.content))
            case Reasoning():
                kept = self._within(part.state)  # a signed block that is changed is no longer valid: it is not sent
                return Reasoning(self._text(part.text), part.state if kept == part.state else {})

    def _arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._within(value) for name, value in arguments.items()}

    def _object(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The object with its keys redacted; of keys that become equal the later ones are numbered."""
        found: dict[str, Any] = {}
        for key, value in data.items():
            name = changed = self._text(key)
            number = 1
            while name in found or (name != key and name in data):
                number += 1
                name = f"{changed} {number}"
            found[name] = self._within(value)
        return found

    def _within(self, data: Any) -> Any:
        if isinstance(data, str):
            return self._text(data)
        if isinstance(data, Mapping):
            return self._object(data)
        if isinstance(data, list):
            return [self._within(each) for each in data]
        if isinstance(data, int | float) and not isinstance(data, bool):
            written = json.dumps(data)
            return data if self._text(written) == written else self._text(written)
        return data


def redact(*, pattern: str = "", borders: tuple[str, ...] = ("prompt", "result"), put: str = "[redacted]") -> Redact:
    """A guard that replaces each match of `pattern` by `put` at `borders` (prompt, call, result, answer)."""
    if not pattern:
        raise ConfigError("redact needs a pattern: write redact:pattern=REGEX, such as redact:pattern=sk-\\w+")
    return Redact(pattern, tuple(word for each in borders for word in each.split("+")), put)
