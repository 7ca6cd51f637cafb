"""Line breaks and marks of raised digits that PDFium's text lacks, found by the baselines of characters.

PDFium takes single digits that stand below each other for one line, and writes 10 with a raised 6 as 106. Only words with a
digit or of one character, and those beside them, are looked at: the place of a character takes longer than its text.
"""

from __future__ import annotations

import ctypes
import math
import unicodedata
from typing import Any, NamedTuple

from firsthand.system.raised_text import Level, mark_between

LEAVES_LINE = 0.8
"""The distance of two baselines at which another line begins, in sizes of the larger character."""
_SMALLER = 0.85
_SHIFT_OF_SMALLER, _SHIFT_OF_EQUAL = 0.1, 0.2
"""The least shift of raised and lowered characters, in sizes of the character on the line."""
_SAME_DIRECTION = 0.99
_BLANKS, _BREAKS = frozenset((0x20, 0xA0)), frozenset((2, 10, 13, 0xFFFE))
_WIDE = frozenset("WF")
"""East Asian characters, which are also written downwards."""
RAISED, LOWERED = "\x1e", "\x1f"
"""Stand for `^` and `_` until the lines are chosen: blanks to str.split, and no character of a document (see `code_of`)."""
_STANDS_FOR: dict[str, str] = {"^": RAISED, "_": LOWERED}


class _Character(NamedTuple):
    """A character that the page draws: its origin, the direction at right angles to its baseline, and its size in points."""

    sign: str
    x: float
    y: float
    up_x: float
    up_y: float
    size: float


def code_of(shown: Any, raw: Any, index: int) -> int:
    """The UTF-16 unit of a character; those that this file gives a meaning are a space."""
    code = int(raw.FPDFText_GetUnicode(shown, index))
    return ord(" ") if code in (ord(RAISED), ord(LOWERED)) else code


def marks_before(shown: Any, raw: Any) -> dict[int, str]:
    """Return the signs before the characters of a text page, by index: a line break, a space, RAISED or LOWERED."""
    marks: dict[int, str] = {}
    base = last = None
    level: Level = ""
    blank = False
    codes = [code_of(shown, raw, index) for index in range(shown.count_chars())]
    beside_numbers = _beside_numbers(codes)
    for index, code in enumerate(codes):
        if code in _BLANKS:
            blank = True
            continue
        if not beside_numbers[index]:
            base = last = None
            continue
        here = None if code in _BREAKS else _character(shown, raw, index, code)
        if here is None or base is None or last is None or not _same_direction(base, here):
            base, level = here, ""
        elif _leaves_line(last, here):
            marks[index] = "\n"
            base, level = here, ""
        else:
            now = _level(base, here)
            level = level or _level(here, base)  # a line may begin with its raised digit
            if now != level and not blank and (mark := mark_between(last.sign, here.sign, now)):
                marks[index] = _STANDS_FOR.get(mark, mark)
            base, level = (base if now else here), now
        last, blank = here, False
    return marks


def _beside_numbers(codes: list[int]) -> bytearray:
    """1 for each character of a word that has a digit or is one character, and of the words around it."""
    found, words, begin = bytearray(len(codes)), [], 0
    for index in range(len(codes) + 1):
        if index == len(codes) or codes[index] in _BLANKS or codes[index] in _BREAKS:
            if index > begin:
                words.append((begin, index))
            begin = index + 1
    for at, (begin, end) in enumerate(words):
        if end - begin == 1 or any(chr(code).isdigit() for code in codes[begin:end]):
            first, last = words[max(0, at - 1)][0], words[min(len(words) - 1, at + 1)][1]
            found[first:last] = b"\1" * (last - first)
    return found


def whole_text(shown: Any, raw: Any, marks: dict[int, str]) -> str:
    """All characters of a text page, with these marks."""
    units = [
        marks.get(index, "") + chr(code) for index in range(shown.count_chars()) if (code := code_of(shown, raw, index))
    ]
    return "".join(units).replace(" \n", "\n").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def without_signs(text: str) -> str:
    """PDFium's own text, in which the signs of this file are spaces."""
    return text.replace(RAISED, " ").replace(LOWERED, " ")


def written(text: str) -> str:
    """The text with `^` and `_` in the places of their marks."""
    return text.replace(RAISED, "^").replace(LOWERED, "_")


def _character(shown: Any, raw: Any, index: int, code: int) -> _Character | None:
    matrix, x, y = raw.FS_MATRIX(), ctypes.c_double(), ctypes.c_double()
    if not raw.FPDFText_GetMatrix(shown, index, matrix) or not raw.FPDFText_GetCharOrigin(shown, index, x, y):
        return None
    along = math.hypot(matrix.a, matrix.b)
    area = matrix.a * matrix.d - matrix.b * matrix.c
    if not along or not area:
        return None
    size = abs(area) / along * abs(raw.FPDFText_GetFontSize(shown, index))
    up = math.copysign(1 / along, area)  # at right angles to the baseline, for slanted letters too
    return _Character(chr(code), x.value, y.value, -matrix.b * up, matrix.a * up, size) if size > 0 else None


def _same_direction(one: _Character, other: _Character) -> bool:
    return one.up_x * other.up_x + one.up_y * other.up_y > _SAME_DIRECTION


def _rise(one: _Character, other: _Character) -> float:
    """By how many points the second stands above the baseline of the first."""
    return (other.x - one.x) * one.up_x + (other.y - one.y) * one.up_y


def _leaves_line(one: _Character, other: _Character) -> bool:
    if unicodedata.east_asian_width(one.sign) in _WIDE or unicodedata.east_asian_width(other.sign) in _WIDE:
        return False
    return abs(_rise(one, other)) >= LEAVES_LINE * max(one.size, other.size)


def _level(base: _Character, here: _Character) -> Level:
    rise = _rise(base, here)
    if base.size < _SMALLER * here.size:
        return ""  # what came before is raised or lowered, and this stands on the line
    least = _SHIFT_OF_SMALLER if here.size < _SMALLER * base.size else _SHIFT_OF_EQUAL
    if abs(rise) < least * base.size:
        return ""
    return "^" if rise > 0 else "_"
