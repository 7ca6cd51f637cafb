"""Placeholders for untrusted text while a template renders, to tell trusted text from untrusted afterwards.

Each string is replaced by a mask: a number and a quotation mark between two private-use characters. Where the template
writes JSON the quotation mark comes out escaped, which shows how to escape the string that takes its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from firsthand.errors import TemplateError
from firsthand.message import Json
from firsthand.tokens.tokenizer import TextRun

_FIRST, _LAST = 0xF0000, 0xFFFFD  # a private use area of Unicode


class TextMasks:
    """The masks of one rendering. `names_control` returns whether a text names a special token."""

    def __init__(self, texts: Iterable[str], names_control: Callable[[str], bool]) -> None:
        used = set().union(*map(set, texts))
        free = (chr(code) for code in range(_FIRST, _LAST) if chr(code) not in used)
        try:
            self._open, self._close = next(free), next(free)
        except StopIteration:
            raise TemplateError("the messages use up all private characters of Unicode; send ordinary text") from None
        self.place = self._open + self._close
        """A mark that no masked text contains and no escaping changes, to find a place again."""
        self._names_control = names_control
        self._texts: list[str] = []
        self._pattern = re.compile(f'{self._open}(\\d+)(\\\\*)"{self._close}')

    def mask(self, text: str) -> str:
        """Returns a mask for the text; whitespace at its ends stays, so that a template can strip it."""
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        self._texts.append(core)
        return f'{text[:start]}{self._open}{len(self._texts) - 1}"{self._close}{text[start + len(core) :]}'

    def mask_within(self, value: Any, *, always: bool) -> Any:
        """Returns the value with its strings masked: all, or only those that name a special token."""
        match value:
            case str():
                return self.mask(value) if always or self._names_control(value) else value
            case dict():
                return {
                    self.mask_within(key, always=False): self.mask_within(inner, always=always)
                    for key, inner in value.items()
                }
            case list() | tuple():
                return [self.mask_within(inner, always=always) for inner in value]
            case _:
                return value

    def mask_message(self, message: Json) -> Json:
        """Returns a message's dict with content and arguments masked, and any other string that names a special token."""
        masked: Json = self.mask_within(
            {key: value for key, value in message.items() if key != "tool_calls"}, always=False
        )
        masked["content"] = self.mask(message["content"])
        if "tool_calls" in message:
            masked["tool_calls"] = [
                self.mask_within(call, always=False)
                | {
                    "function": {
                        "name": self.mask_within(call["function"]["name"], always=False),
                        "arguments": self.mask_within(call["function"]["arguments"], always=True),
                    }
                }
                for call in message["tool_calls"]
            ]
        return masked

    def runs(self, rendered: str) -> list[TextRun] | None:
        """Returns the rendered text with the strings back in place, untrusted; None if a mask was damaged."""
        runs: list[TextRun] = []
        at = 0
        for match in self._pattern.finditer(rendered):
            runs.append(TextRun(rendered[at : match.start()], True))
            text = self._texts[int(match[1])] if int(match[1]) < len(self._texts) else ""
            for _ in range((len(match[2]) + 1).bit_length() - 1):  # 0, 1, 3, 7 backslashes: escaped 0, 1, 2, 3 times
                text = json.dumps(text, ensure_ascii=False)[1:-1]
            runs.append(TextRun(text, False))
            at = match.end()
        runs.append(TextRun(rendered[at:], True))
        escaped = json.dumps(self._open)[1:-1]
        broken = any(
            self._open in run.text or self._close in run.text or escaped in run.text for run in runs if run.trusted
        )
        return None if broken else runs
