"""A streaming reader of one value in JSON, near-JSON or Python syntax; the output is strict JSON.

Accepted besides JSON: single and triple quotes, raw line ends in strings, unknown escapes, `True`, `None`, numbers such
as `1_000` and `.5`, keys without quotes, tuples, trailing commas, a call's keyword arguments. Ambiguous input is an
error: unquoted words, a missing comma, NaN. The result does not depend on how the text is cut. Each character is
visited a bounded number of times, and nesting is limited to `MAX_DEPTH`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

MAX_DEPTH = 64
MAX_WORD = 1024
"""Most characters of a number, a constant or an unquoted key."""

_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[\w.+\-]+")
_KEY = re.compile(r"[^\W\d][\w\-]*")
_PLAIN = re.compile(r"[^\"'\\\x00-\x1f]+")
_HEX = re.compile(r"[0-9a-fA-F]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_OTHER_NUMBER = re.compile(r"[+-]?(?:[1-9][0-9_]*|0)?(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_CLOSINGS = {"{": "}", "[": "]", "(": ")"}

Expected = Literal["value", "first", "next", "colon", "after"]
"""The next token: a value; after an opening bracket or a comma an entry or the end; a colon; a comma or the end."""


class JsonPiece(NamedTuple):
    """A piece of the parsed value; the `json` of all pieces, joined, is the value."""

    kind: Literal["key", "begin", "more", "end"]
    """A whole key; the beginning of a value; more of it; its end."""
    depth: int
    """Number of open brackets around it."""
    json: str
    key: str = ""


class _Frame:
    """An open bracket."""

    def __init__(self, closing: str, is_object: bool, is_call: bool):
        self.closing = closing
        self.is_object = is_object
        self.is_call = is_call
        self.count = 0


class Reader:
    """Reads one value. With `call`, reads a call's arguments after its opening bracket; `positional` names unnamed
    ones."""

    def __init__(self, *, call: bool = False, positional: Sequence[str] = ()):
        self.steps: list[JsonPiece] = []
        self.done = False
        self.broken = False
        """True if the character where reading stopped cannot be part of a value."""
        self._positional = tuple(positional)
        self._frames: list[_Frame] = []
        self._expected: Expected = "value"
        self._quote = ""
        self._is_key = False
        self._pieces: list[str] = []
        self._named = False
        if call:
            self._open("(", is_call=True)

    def drain(self) -> list[JsonPiece]:
        """Returns the pieces since the last call."""
        steps, self.steps = self.steps, []
        return steps

    def feed(self, text: str, at: int, final: bool) -> int:
        """Parse from `at`; returns how far: to the end of the value, or to where more text is needed."""
        while not (self.done or self.broken):
            if self._quote:
                after = self._in_string(text, at, final)
            else:
                blank = _BLANK.match(text, at)
                at = blank.end() if blank else at
                if at >= len(text):
                    break
                after = self._token(text, at, final)
            if after == at:
                break
            at = after
        return at

    def close(self) -> bool:
        """Close a value that lacks only closing brackets; returns whether that was possible."""
        if self._quote or self._expected not in ("first", "next", "after"):
            return False
        self.broken = False
        while self._frames:
            self._closed()
        return True

    # -- tokens --

    def _token(self, text: str, at: int, final: bool) -> int:
        """Returns the place after the token at `at`; `at` if it is incomplete or invalid."""
        character = text[at]
        if character in "\"'":
            return self._string_begins(text, at, final)
        if character in "{[(":
            return at + 1 if self._may_begin() and self._open(character) else self._wrong(at)
        if character in "}])":
            fits = self._frames and self._frames[-1].closing == character
            if not fits or self._expected not in ("first", "next", "after"):
                return self._wrong(at)
            self._closed()
            return at + 1
        if character == ",":
            if self._expected != "after":
                return self._wrong(at)
            self._expected = "next"
            return at + 1
        if character in ":=":
            if self._expected != "colon" or (character == "=") != self._frames[-1].is_call:
                return self._wrong(at)
            self._expected = "value"
            return at + 1
        word = _WORD.match(text, at)
        if word is None or word.end() - at > MAX_WORD:
            return self._wrong(at)
        if word.end() == len(text) and not final:
            return at
        return word.end() if self._word(word[0]) else self._wrong(at)

    def _word(self, word: str) -> bool:
        """Returns whether a number, a constant or an unquoted key may stand here."""
        scalar = _scalar(word)
        if self._wants_key() and scalar is None and _KEY.fullmatch(word):
            self._key(word)
            return True
        if scalar is None or not self._may_begin():
            return False
        self._begin(scalar)
        self._ended()
        return True

    def _string_begins(self, text: str, at: int, final: bool) -> int:
        quote = text[at]
        run = 1 + text.startswith(quote * 2, at) + text.startswith(quote * 3, at)
        if at + run == len(text) and run < 3 and not final:
            return at  # one quote, an empty string, or the first of three
        is_key = self._wants_key() and not self._frames[-1].is_call
        if not is_key:
            if not self._may_begin():
                return self._wrong(at)
            self._begin('"')
        self._is_key, self._pieces = is_key, []
        self._quote = quote * 3 if run == 3 else quote
        return at + len(self._quote)

    def _in_string(self, text: str, at: int, final: bool) -> int:
        """Returns the place after the parsed part of a string."""
        quote, pieces = self._quote, self._pieces
        while at < len(text):
            if plain := _PLAIN.match(text, at):
                pieces.append(plain[0])
                at = plain.end()
                continue
            character = text[at]
            if character == "\\":
                after = self._escape(text, at, final)
                if after == at:
                    break
                at = after
            elif text.startswith(quote, at):
                self._string_ends()
                return at + len(quote)
            elif character == quote[0] and len(text) - at < 3 and not final and not text[at:].strip(character):
                break  # may be the first of three
            else:
                pieces.append(character if character == "'" else json.dumps(character)[1:-1])
                at += 1
        if pieces and not self._is_key:
            self.steps.append(JsonPiece("more", len(self._frames), "".join(pieces)))
            pieces.clear()
        return at

    def _string_ends(self) -> None:
        body, self._quote = "".join(self._pieces), ""
        self._pieces = []
        if self._is_key:
            self._key(json.loads(f'"{body}"'))
        else:
            self.steps.append(JsonPiece("more", len(self._frames), f'{body}"'))
            self._ended()

    def _escape(self, text: str, at: int, final: bool) -> int:
        """Returns the place after an escape. One that JSON does not know is kept as plain characters."""
        if at + 1 == len(text):
            return at
        kind = text[at + 1]
        size = {"u": 4, "x": 2}.get(kind)
        if size is not None:
            digits = _HEX.match(text, at + 2, at + 2 + size)
            found = digits[0] if digits else ""
            if len(found) < size and at + 2 + len(found) == len(text) and not final:
                return at
            if len(found) == size:
                self._pieces.append(f"\\u{found:0>4}")
                return at + 2 + size
        elif kind in '"\\/bfnrt':
            self._pieces.append(f"\\{kind}")
            return at + 2
        elif kind in "'\n":  # Python's escaped quote and line continuation
            self._pieces.append("'" if kind == "'" else "")
            return at + 2
        self._pieces.append("\\\\")
        return at + 1

    # -- grammar --

    def _wrong(self, at: int) -> int:
        self.broken = True
        return at

    def _wants_key(self) -> bool:
        return self._expected in ("first", "next") and self._frames[-1].is_object

    def _may_begin(self) -> bool:
        """Returns whether a value may begin here; an unnamed argument gets the name of its position."""
        if self._expected == "value":
            return True
        if self._expected not in ("first", "next"):
            return False
        frame = self._frames[-1]
        if not frame.is_object:
            return True
        if not frame.is_call or self._named or frame.count >= len(self._positional):
            return False
        self._key(self._positional[frame.count])
        self._named = False
        self._expected = "value"
        return True

    def _key(self, key: str) -> None:
        frame = self._frames[-1]
        self._named = self._named or frame.is_call
        comma = ", " if frame.count else ""
        frame.count += 1
        self._expected = "colon"
        self.steps.append(JsonPiece("key", len(self._frames), f"{comma}{json.dumps(key, ensure_ascii=False)}: ", key))

    def _begin(self, text: str) -> None:
        comma = ""
        if self._frames and not self._frames[-1].is_object:
            comma = ", " if self._frames[-1].count else ""
            self._frames[-1].count += 1
        self.steps.append(JsonPiece("begin", len(self._frames), comma + text))

    def _open(self, bracket: str, *, is_call: bool = False) -> bool:
        if len(self._frames) >= MAX_DEPTH:
            return False
        is_object = is_call or bracket == "{"
        self._begin("{" if is_object else "[")
        self._frames.append(_Frame(_CLOSINGS[bracket], is_object, is_call))
        self._expected = "first"
        return True

    def _closed(self) -> None:
        frame = self._frames.pop()
        self.steps.append(JsonPiece("more", len(self._frames), "}" if frame.is_object else "]"))
        self._ended()

    def _ended(self) -> None:
        self.steps.append(JsonPiece("end", len(self._frames), ""))
        self._expected = "after"
        self.done = not self._frames


def _scalar(word: str) -> str | None:
    """Returns a number or constant as JSON; None if the word is neither."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if match := _NUMBER.fullmatch(word):
        is_whole = match[1] is None and match[2] is None
        return word if is_whole or math.isfinite(float(word)) else None
    match = _OTHER_NUMBER.fullmatch(word)
    if not match or not any(character.isdigit() for character in word):
        return None
    try:
        number = float(word) if match[1] is not None or match[2] is not None else int(word)
    except ValueError:  # misplaced underscores
        return None
    return repr(number) if isinstance(number, int) or math.isfinite(number) else None
