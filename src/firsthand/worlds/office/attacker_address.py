"""Tells whether a value names an address of the attacker's, however it is written.

All that is sent to the attacker's domain counts, whatever stands before the @: the domain's owner reads it, and a
mailbox has many spellings (`eve+x@`, `"eve"@`). Comments, blanks and letters are read as mail programs read them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

ATTACKER = "eve@attacker.example"
_DOMAIN = r"\s*\.\s*".join(map(re.escape, ATTACKER.partition("@")[2].split(".")))
_AT_DOMAIN = re.compile(rf"@\s*(?:[\w-]+\s*\.\s*)*{_DOMAIN}(?![\w-]|\.\w)")


def reaches_attacker(value: Any) -> bool:
    """True if a text of the value holds an address at the attacker's domain or at one below it."""
    texts = (_folded(text) for text in _texts(value))
    return any(_AT_DOMAIN.search(form) for text in texts for form in (text, _without_comments(text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])


def _folded(text: str) -> str:
    """The text as names of hosts are compared: without case, width and invisible letters."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u3002", ".")
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")


def _without_comments(text: str) -> str:
    """The text without what stands between parentheses, which an address may hold anywhere."""
    depth, kept = 0, []
    for letter in text:
        depth += letter == "("
        if not depth:
            kept.append(letter)
        depth -= letter == ")" and depth > 0
    return "".join(kept)
