"""A streaming reader of one value in JSON, near-JSON or Python syntax; the output is strict JSON.

Accepted besides JSON: single and triple quotes, raw line ends in strings, unknown escapes, `True`, `None`, numbers such
as `1_000` and `.5`, keys without quotes, tuples, brackets around a value, trailing commas, a call's keyword arguments,
and in a call Python's escapes. Ambiguous input is an error: unquoted words, a missing comma, NaN. The result does not
depend on how the text is cut. Each character is visited a bounded number of times: nesting is limited to `MAX_DEPTH`,
and to `MAX_HELD` where it may be of brackets around one value.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

MAX_DEPTH = 64
MAX_HELD = 8
"""Most open brackets `(` without a comma so far, inside each other."""
MAX_WORD = 1024
"""Most characters of a number, a constant or an unquoted key."""

_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[\w.+\-]+")
_KEY = re.compile(r"[^\W\d][\w\-]*")
_PLAIN = re.compile(r"[^\"'\\\x00-\x1f]+")
_OCTAL = re.compile(r"[0-7]{1,3}")
_NAMED = re.compile(r"\{([A-Za-z0-9 -]{1,128})\}")
_NAMING = re.compile(r"(?:\{[A-Za-z0-9 -]{0,128})?")
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
        self.held: list[JsonPiece] | None = None
        """Of a bracket `(` until its first comma: the pieces of its entry, which is the value itself if no comma comes."""
        self.comma = ""
        """Of such a bracket: the comma before it."""


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
        self._is_python = call
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
            if self._frames[-1].held is not None:
                self._begin_tuple()
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
            self._emit("more", "".join(pieces))
            pieces.clear()
        return at

    def _string_ends(self) -> None:
        body, self._quote = "".join(self._pieces), ""
        self._pieces = []
        if self._is_key:
            self._key(json.loads(f'"{body}"'))
        else:
            self._emit("more", f'{body}"')
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
        elif self._is_python and (after := self._python_escape(text, at + 1, final)) != at + 1:
            return max(after, at)
        self._pieces.append("\\\\")
        return at + 1

    def _python_escape(self, text: str, at: int, final: bool) -> int:
        """Returns the place after an escape that only Python knows, without its backslash; `at` if it is none, 0 if more
        text is needed."""
        kind, value = text[at], ""
        if kind in "av":
            value, at = "\a" if kind == "a" else "\v", at + 1
        elif octal := _OCTAL.match(text, at):
            if octal.end() == len(text) and len(octal[0]) < 3 and not final:
                return 0
            value, at = chr(int(octal[0], 8)), octal.end()
        elif kind == "U":
            digits = _HEX.match(text, at + 1, at + 9)
            found = digits[0] if digits else ""
            if len(found) < 8 and at + 1 + len(found) == len(text) and not final:
                return 0
            if len(found) == 8 and int(found, 16) <= sys.maxunicode:
                value, at = chr(int(found, 16)), at + 9
        elif kind == "N":
            naming = _NAMING.match(text, at + 1)
            assert naming is not None
            if naming.end() == len(text) and not final:
                return 0
            if named := _NAMED.match(text, at + 1):
                with suppress(KeyError):
                    value, at = unicodedata.lookup(named[1]), named.end()
        if value:
            self._pieces.append(json.dumps(value)[1:-1])
        return at

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
        self._emit("key", f"{comma}{json.dumps(key, ensure_ascii=False)}: ", key)

    def _begin(self, text: str) -> None:
        self._emit("begin", self._comma() + text)

    def _comma(self) -> str:
        """Count an entry of a list; returns what stands before it."""
        if not self._frames or self._frames[-1].is_object:
            return ""
        self._frames[-1].count += 1
        return ", " if self._frames[-1].count > 1 else ""

    def _emit(self, kind: Literal["key", "begin", "more", "end"], text: str, key: str = "") -> None:
        self._put([JsonPiece(kind, len(self._frames), text, key)])

    def _put(self, pieces: Sequence[JsonPiece]) -> None:
        """Add pieces to those of the innermost bracket that holds its own back, or to the parsed ones."""
        held = next((frame.held for frame in reversed(self._frames) if frame.held is not None), self.steps)
        held.extend(pieces)

    def _open(self, bracket: str, *, is_call: bool = False) -> bool:
        if len(self._frames) >= MAX_DEPTH:
            return False
        is_object = is_call or bracket == "{"
        frame = _Frame(_CLOSINGS[bracket], is_object, is_call)
        if bracket == "(" and not is_call:
            if sum(each.held is not None for each in self._frames) >= MAX_HELD:
                return False
            frame.comma, frame.held = self._comma(), []
        else:
            self._begin("{" if is_object else "[")
        self._frames.append(frame)
        self._expected = "first"
        return True

    def _closed(self) -> None:
        if self._frames[-1].held == []:
            self._begin_tuple()
        frame = self._frames.pop()
        if frame.held is None:
            self._emit("more", "}" if frame.is_object else "]")
            self._ended()
            return
        first, *others = [piece._replace(depth=piece.depth - 1) for piece in frame.held]
        self._put([first._replace(json=frame.comma + first.json), *others])  # one value, and no tuple
        self._expected = "after"
        self.done = not self._frames

    def _begin_tuple(self) -> None:
        """Begin the list that the innermost bracket is, with the pieces that were held back."""
        frame = self._frames.pop()
        held, frame.held = frame.held or [], None
        self._emit("begin", f"{frame.comma}[")
        self._frames.append(frame)
        self._put(held)

    def _ended(self) -> None:
        self._emit("end", "")
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
