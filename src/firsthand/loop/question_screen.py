"""Draws a question to a person so that no text in it passes for a line of ours on the screen.

A line that is wider than the screen is folded here, for a terminal would go on at column 0; each further row begins with
`FOLD`. Marks that pile up on a letter or strike through a digit are escapes, so are vowels and finals of Hangul without a
consonant before them, which take no column, and letters that are written from right to
left are isolated (Unicode Bidirectional Algorithm, FSI and PDI), so that the digits beside them stay where they are.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

from rich.cells import cell_len

FOLD = "  | "
MAX_MARKS = 3
"""The most combining marks on one letter; Vietnamese, Thai, Hebrew and the scripts of India have no more."""
MIN_COLUMNS = 20
_HANGUL = re.compile("[\u1100-\u115e\ua960-\ua97c\uac00-\ud7a3]")
"""First consonants and syllables, which vowels and finals are drawn into."""
_FSI, _PDI = "\u2068", "\u2069"


def on_screen(text: str, columns: int) -> str:
    """The text in rows of `columns` columns, with marks as escapes where they hide something, and isolates."""
    rows = [row for line in text.split("\n") for row in _folded(_without_marks(line), max(MIN_COLUMNS, columns))]
    return "\n".join(map(_isolated, rows))


def columns_of(stream: Any) -> int:
    """The width of a terminal; 80 where it is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _folded(line: str, columns: int) -> list[str]:
    rows, row, width = [], "", 0
    for char in line:
        wide = 8 if char == "\t" else cell_len(char)
        if width + wide > columns:
            rows.append(row)
            row, width = FOLD, len(FOLD)
        row += char
        width += wide
    return [*rows, row]


def _without_marks(line: str) -> str:
    """The line with combining marks as escapes where they stand on no letter, or too many on one."""
    if line.isascii():
        return line
    made, marks, base = [], 0, ""
    for char in line:
        category = unicodedata.category(char)
        is_jamo = category[0] == "L" and cell_len(char) == 0  # a vowel or final that is drawn into the letter before
        if is_jamo or category in ("Mn", "Me", "Mc"):
            marks += 1
            fits = _HANGUL.match(base) is not None if is_jamo else unicodedata.category(base or " ")[0] == "L"
            fine = fits and marks <= MAX_MARKS and category != "Me" and not 0x334 <= ord(char) <= 0x338
            fine = fine or (char in "\ufe0e\ufe0f")  # the style of an emoji
            made.append(char if fine else char.encode("unicode_escape").decode())
            continue
        marks, base = 0, char
        made.append(char)
    return "".join(made)


def _isolated(line: str) -> str:
    """The line with each run of words from right to left between marks that keep what is around it in place."""
    return line if line.isascii() else _RIGHT_TO_LEFT.sub(lambda found: f"{_FSI}{found[0]}{_PDI}", line)


_LETTERS = "\u0590-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff"
_RIGHT_TO_LEFT = re.compile(f"[{_LETTERS}]+(?: +[{_LETTERS}]+)*")
