"""Bounds how much longer a tokenizer's own steps may make a text before it is cut into tokens.

The steps of a tokenizer.json run in Rust, where nothing ends them: forty `Replace` steps of "a" by "aa" make 10^12
letters of one, and a replacement of 10 MB fills the memory with a short text. Real files replace a blank by a mark.
"""

from __future__ import annotations

import base64
import binascii
import re

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.tokens.token_bytes import steps

MAX_FACTOR = 256
"""Most characters that may come of one. NFKC makes 18 of U+FDFA, the most that a standard asks for."""
MAX_ADDED = 1 << 14
"""Most characters that may be added to any text."""
_EMPTY = re.compile(r"[*?|(^$]|\\[AbBGKyYzZ]|\{[0,]")
"""Found in an expression that may match nothing: alternatives, groups, anchors, and counts from 0."""


def check_growth(description: Json, source: str) -> None:
    """Raise ModelFileError for a tokenizer whose steps may make a text more than MAX_FACTOR times as long."""
    factor, added = 1, 0
    for step in (
        *steps(description.get("normalizer"), "normalizers"),
        *steps(description.get("pre_tokenizer"), "pretokenizers"),
    ):
        grows, adds = _growth(step)
        factor, added = factor * grows, added * grows + adds
        if factor > MAX_FACTOR or added > MAX_ADDED:
            raise ModelFileError(
                f"{source}: the tokenizer's normalizer may make a text more than {MAX_FACTOR} times as long, or put more "
                f"than {MAX_ADDED} characters before it: expected the replacements of a real tokenizer"
            )


def _growth(step: Json) -> tuple[int, int]:
    """The characters that a step makes of one, and those that it adds to a text."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return max(1, -(-len(new) // len(old))), 0
        case {"type": "Replace", "pattern": {"Regex": str(old)}, "content": str(new)} if not _EMPTY.search(old):
            return max(1, len(new)), 0
        case {"type": "Replace", "content": str(new)}:  # what may match nothing puts it between all characters
            return 1 + len(new), len(new)
        case {"type": "Prepend", "prepend": str(text)}:
            return 1, len(text)
        case {"type": "ByteLevel"}:  # each byte becomes a character of up to two bytes, as which the next one sees it
            return 2, 1
        case {"type": "Precompiled", "precompiled_charsmap": str(table)}:
            return max(1, _longest(table)), 0
    return 1, 0


def _longest(table: str) -> int:
    """The length in bytes of the longest text that a table of SentencePiece's normaliser maps to."""
    try:
        raw = base64.b64decode(table)
    except (binascii.Error, ValueError):
        return 1  # the library refuses it
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(map(len, texts.split(b"\0")), default=1)
