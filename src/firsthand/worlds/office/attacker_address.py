"""Tells whether a value names an address of the attacker's, however it is written.

All that is sent to the attacker's domain counts, whatever stands before the @: the domain's owner reads it, and a
mailbox has many spellings (`eve+x@`, `"eve"@`). Comments, blanks and letters are read as mail programs read them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from firsthand.system.normalised_text import normalised_text
from firsthand.system.unseen_letters import without_unseen

ATTACKER = "eve@attacker.example"
_DOMAIN = r"\s*\.\s*".join(map(re.escape, ATTACKER.partition("@")[2].split(".")))
_AT_DOMAIN = re.compile(rf"@\s*(?:[\w-]+\s*\.\s*)*{_DOMAIN}(?![\w-]|\.\w)")


def reaches_attacker(value: Any) -> bool:
    """True if a text of the value holds an address at the attacker's domain or at one below it, in any reading of it."""
    return any(_AT_DOMAIN.search(form) for text in _texts(value) for form in _readings(_folded(text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])


def _folded(text: str) -> str:
    """The text as names of hosts are compared: without case, width and unseen characters."""
    plain = normalised_text("NFKC", without_unseen(text)).casefold().replace("\u3002", ".")
    return "".join(letter for letter in without_unseen(plain) if unicodedata.category(letter) != "Cf")


def _readings(text: str) -> Iterator[str]:
    """The text, and without its comments: as RFC 5322 has quotes and backslashes, and as programs that ignore them."""
    yield text
    if "(" in text:
        for quotes in (True, False):
            for escapes in (True, False):
                yield _without_comments(text, quotes, escapes)


def _without_comments(text: str, quotes: bool, escapes: bool) -> str:
    """The text without what stands between parentheses, which an address may hold anywhere but between quotes.

    A backslash before a quote or parenthesis makes it an ordinary letter, within quotes and comments.
    """
    depth, quoted, escaped, kept = 0, False, False, list[str]()
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = escapes and (quoted or depth > 0)
        elif letter == '"' and not depth:
            quoted = quotes and not quoted
        elif not quoted and (letter == "(" or (letter == ")" and depth)):
            depth += 1 if letter == "(" else -1
            continue
        if not depth:
            kept.append(letter)
    return "".join(kept)
