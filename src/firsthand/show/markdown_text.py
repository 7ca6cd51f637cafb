"""Escapes texts of models, users and strangers for Markdown."""

from __future__ import annotations

import re

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = re.compile(r"([\\`*_{}\[\]|#!~@]|:(?=//)|(?i:(?<=www)\.))")
"""The last two are of bare addresses, `https://` and `www.`, which GitHub's Markdown links by itself."""


def without_controls(text: str) -> str:
    """The text with characters that XML 1.0 cannot hold written out, such as `\\x1b`."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escaped(text: str) -> str:
    """The text on one line, without a meaning in Markdown or HTML."""
    flat = without_controls(" ".join(text.split()))
    return _MARKS.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
