"""Undoes the escapes by which JSON and program text spell characters, so that words can be compared."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[bfnrt])")
"""An escaped character: without this, the n of a line break stands amid a word."""


def unescaped(text: str) -> str:
    """The text with `\\uXXXX` as the character it spells, and a blank for an escaped line break or tab."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", text)
