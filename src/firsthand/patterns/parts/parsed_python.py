"""Bounds Python that a model wrote before it is parsed in this process.

CPython 3.11 takes time that grows with the square of an f-string's fields, all versions with that of the marks on a letter
of a name, and some 500 bytes of memory for a character. Without this, `ast.parse` is for code of our own and of benchmarks.
"""

from __future__ import annotations

from firsthand.system.normalised_text import MAX_MARKS, has_long_marks

MAX_CHARS = 50_000
MAX_BRACES = 2_500
"""The most `{` of a text, each of which may open a field of an f-string."""


def parsable(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return the text for `ast.parse`; SyntaxError, as for text that is no Python, if that would take too long."""
    if len(text) > max_chars:
        raise SyntaxError(f"{len(text)} characters: at most {max_chars} are parsed")
    if (braces := text.count("{")) > MAX_BRACES:
        raise SyntaxError(f"{braces} opening braces: at most {MAX_BRACES} are parsed")
    if has_long_marks(text):
        raise SyntaxError(f"a letter has too many combining marks: at most {MAX_MARKS} are parsed")
    return text
