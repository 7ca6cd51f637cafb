"""Hides the keys and passwords of an endpoint in what it says, before any of it is cut.

A secret is found as it is, percent-encoded, in JSON or HTML escapes, and with unseen characters between its letters. Not
found: a part of it, and encodings that mix its letters, but for the Base64 of HTTP's own Basic authentication.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

_GAP = r"(?:[^\x21-\x7e]|\\u(?!00)[0-9a-fA-F]{4}){0,16}"
"""Characters that are not seen, or blanks: no letter of a secret is one, so that a match takes one way only."""
_GAPS_FROM, _WORDS_BELOW = 8, 3
"""Lengths of secrets: from the first, gaps are looked for; below the second (`x`, for a local server), whole words alone."""
_CHAR_REACH = 32


def endpoint_secrets(key: str, base_url: str, headers_variable: str = "") -> tuple[str, ...]:
    """Returns what no error may show: the key, the URL's password, and what is in headers of the environment."""
    parts = urlsplit(base_url)
    found = [key, parts.password or ""]
    if parts.password:
        found.append(b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password)}".encode()).decode())
    lines = os.environ.get(headers_variable, "").split("\n") if headers_variable else []
    values = [value.strip().removeprefix("Bearer ").strip() for _, _, value in (line.partition(":") for line in lines)]
    return (*found, *(value for value in values if len(value) >= _GAPS_FROM))


def hide(text: str, secrets: Sequence[str], until: int | None = None) -> str:
    """Returns the text without the secrets; of a long one the first `until` characters, with no secret cut in two."""
    end = len(text) if until is None else min(until, len(text))
    finder, reach = _finder(tuple(filter(None, secrets)))
    if finder is None:
        return text[:end]
    window, kept, at = text[: end + reach], [], 0
    for found in finder.finditer(window):
        if found.start() >= end:
            break
        kept += [window[at : found.start()], "***"]
        at = found.end()
    return "".join([*kept, window[at:end]])


@lru_cache(maxsize=64)
def _finder(secrets: tuple[str, ...]) -> tuple[re.Pattern[str] | None, int]:
    """Returns what finds the secrets, the longest first, and the most characters that one may take."""
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe="")) if form}
    longest = sorted(forms, key=lambda form: (-len(form), form))
    pattern = re.compile("|".join(map(_pattern, longest))) if longest else None
    return pattern, _CHAR_REACH * 4 * max(map(len, longest), default=0)


def _pattern(secret: str) -> str:
    seen = all("\x21" <= char <= "\x7e" for char in secret)
    found = (_GAP if seen and len(secret) >= _GAPS_FROM else "").join(map(_char, secret))
    return found if len(secret) >= _WORDS_BELOW else rf"(?<![^\W_]){found}(?![^\W_])"


def _char(char: str) -> str:
    """Returns what finds a character as it is, and in its escapes."""
    number = ord(char)
    escapes = [f"(?i:{quote(char, safe='') if quote(char, safe='') != char else f'%{number:02x}'})"]
    if number <= 0xFFFF:
        escapes.append(rf"\\u(?i:{number:04x})")
    escapes.append(rf"&#(?:0{{0,8}}{number}|[xX]0{{0,8}}(?i:{number:x}));")
    return f"(?:{'|'.join([re.escape(char), *escapes])})"
