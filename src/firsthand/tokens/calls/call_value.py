"""Recognises tool calls in one value while it is parsed: `{"name": ..., "arguments": ...}`, a list of these, or bare
arguments.

The name is under `name`, or under `function` as a string; `function` may also hold the whole call, as in OpenAI's
format. Arguments are under `arguments`, `parameters` or `args`: an object, or an object inside a string; null and the
empty string mean none.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from firsthand.tokens.calls.lenient_json import Reader

_NAMES = ("name", "function")
_ARGUMENTS = ("arguments", "parameters", "args")
_BESIDE = ("type", "id", "index", "tool_call_id")
"""Other keys that a call may have."""

Verdict = Literal["open", "call", "none"]


class PartialCall:
    """A call as far as it was parsed."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.pieces: list[str] = []
        """Its arguments, as strict JSON."""
        self.is_object = False
        """True if the arguments are, or begin as, an object."""
        self.given = False
        self.complete = False
        self.invalid: str | None = None
        """The value found where an object of arguments was expected."""

    @property
    def is_call(self) -> bool:
        """True if this is certainly a call, whatever follows."""
        return bool(self.name) and self.is_object

    def end(self) -> None:
        """Complete the call."""
        self.complete = True
        if not self.given:
            self.pieces, self.is_object = ["{}"], True


class CallValue:
    """Parses one value with `reader` and keeps its calls as `drafts`; with `name`, the value is that call's arguments."""

    def __init__(self, reader: Reader, name: str | None = None) -> None:
        self.reader = reader
        self.drafts: list[PartialCall] = [] if name is None else [PartialCall(name)]
        self.verdict: Verdict = "open"
        """`none`: not a call, even when complete. `call`: one call or several."""
        self.is_list = False
        self.has_other_values = False
        """True if it holds values that are not calls."""
        self._whole = name is not None
        self._level = 0  # open brackets around the call's object
        self._inner = 0  # 1 inside an object under `function`
        self._key = ""
        self._kept: list[str] | None = None  # the value under that key, if it matters

    def feed(self, text: str, at: int, final: bool) -> int:
        """Parse from `at`; returns how far the text was parsed."""
        after = self.reader.feed(text, at, final)
        self.take()
        return after

    def take(self) -> None:
        """Process what the reader has parsed."""
        for kind, depth, text, key in self.reader.drain():
            if self._whole:
                self._argument(kind, depth, text)
            elif kind == "key":
                self._on_key(depth, text, key)
            elif kind == "begin":
                self._on_begin(depth, text)
            elif kind == "more":
                self._more(text)
            else:
                self._on_end(depth)
        if self.reader.done and not self._whole:
            self.has_other_values = (
                self.has_other_values or not self.drafts or not all(draft.name for draft in self.drafts)
            )
            if self.verdict == "open":
                self.verdict = "none" if self.has_other_values else "call"

    def _argument(self, kind: str, depth: int, text: str) -> None:
        draft = self.drafts[0]
        if kind == "begin" and depth == 0:
            draft.given = draft.is_object = True
            self.verdict = "call"
        draft.pieces.append(text)
        if kind == "end" and depth == 0:
            draft.end()

    def _on_key(self, depth: int, text: str, key: str) -> None:
        if self._kept is not None:
            self._more(text)
        elif depth == self._level + 1 + self._inner:
            self._key = key
            if key not in (*_NAMES, *_ARGUMENTS, *_BESIDE) and not self._decided():
                self.verdict = "none"

    def _decided(self) -> bool:
        return self.verdict != "open" or (bool(self.drafts) and self.drafts[-1].is_call)

    def _on_begin(self, depth: int, text: str) -> None:
        bracket = text[-1]
        if self._kept is not None:
            self._more(text)
        elif depth == 0:
            self.is_list = bracket == "["
            self._level = int(self.is_list)
            if bracket == "{":
                self.drafts.append(PartialCall())
        elif self.is_list and depth == 1:
            if bracket == "{":
                self.drafts.append(PartialCall())
            else:
                self.has_other_values, self.verdict = True, "none"
        elif depth == self._level + 1 + self._inner and self.drafts:
            self._value_begins(self.drafts[-1], text)

    def _value_begins(self, draft: PartialCall, text: str) -> None:
        if self._key in _ARGUMENTS and not draft.given:
            draft.given, draft.is_object = True, text == "{"
            self._kept = draft.pieces
            draft.pieces.append(text)
        elif self._key == "function" and text == "{" and not self._inner:
            self._inner = 1
        elif self._key in _NAMES and not draft.name:
            self._kept = [text]

    def _more(self, text: str) -> None:
        if self._kept is not None:
            self._kept.append(text)

    def _on_end(self, depth: int) -> None:
        draft = self.drafts[-1] if self.drafts else None
        if draft is None:
            return
        if self._kept is not None and depth == self._level + 1 + self._inner:
            if self._kept is not draft.pieces:
                name = json.loads("".join(self._kept))
                draft.name = name if isinstance(name, str) else ""
            elif not draft.is_object:
                _open_up(draft)
            self._kept = None
        elif self._inner and depth == self._level + 1:
            self._inner = 0
        elif depth == self._level:
            draft.end()


def _open_up(draft: PartialCall) -> None:
    """Unwrap arguments that are not an object: an object inside a string, or none at all; others are invalid."""
    text = "".join(draft.pieces)
    value = json.loads(text)
    inner = None
    if value is None or (isinstance(value, str) and not value.strip()):
        inner = "{}"
    elif isinstance(value, str):
        inner = read_object(value)
    if inner is None:
        draft.invalid = value if isinstance(value, str) else text
    else:
        draft.pieces, draft.is_object = [inner], True


def read_object(text: str) -> str | None:
    """Returns the one object in a text, as strict JSON; None if the text is anything else."""
    reader = Reader()
    end = reader.feed(text, 0, True)
    steps = reader.drain()
    if not reader.done or text[end:].strip() or steps[0].json != "{":
        return None
    return "".join(step.json for step in steps)


def name_in(body: str) -> str:
    """Returns the name in a broken call; empty if none is found."""
    match = re.search(r"""["']name["']\s{0,8}[:=]\s{0,8}["']([^"'\\]{1,128})["']""", body)
    return match[1] if match else ""
