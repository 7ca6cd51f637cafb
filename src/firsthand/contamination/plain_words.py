"""One spelling of each word of a text, whatever its case, its Unicode form, and the blanks and marks between its words.

Characters are compared after case folding in form NFKC. Blanks, punctuation and symbols part words; characters that nobody
sees (soft hyphens, joiners, zero-width spaces, marks of direction, variation selectors) are left out. Of scripts without
blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character is a word. ASCII is left as it stands: the hashes of
n-grams take its letters in any case and all else of it as a blank.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_OTHER = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")
"""Characters beyond ASCII, with the one before them, which an accent may belong to."""
_NO_BLANKS = (
    (0x3000, 0x9FFF), (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Code points of scripts that write words without blanks between them."""
_UNSEEN = ((0x034F, 0x034F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
"""Code points without a shape of their own that are marks by their category."""
_CACHED = 32
"""Characters of a run that is kept with its spelling."""


def plain_words(text: bytes) -> bytes:
    """The words of a text in UTF-8, in one spelling each; bytes that are not UTF-8 stay as they are."""
    if text.isascii():
        return text
    decoded = text.decode("utf-8", "surrogateescape")
    return _OTHER.sub(_plain_run, decoded).encode("utf-8", "surrogateescape")


def _plain_run(found: re.Match[str]) -> str:
    run = found[0]
    return _short(run) if len(run) <= _CACHED else _plain(run)


def _plain(run: str) -> str:
    composed = unicodedata.normalize("NFC", run)
    seen = composed.translate(_SPELLINGS)
    folded = unicodedata.normalize("NFKC", seen.casefold())
    return folded if folded == seen else folded.translate(_SPELLINGS)


_short = lru_cache(maxsize=4096)(_plain)


class _Spellings(dict[int, str]):
    """Code point -> what stands for it: itself, with a blank after it, a blank, or nothing."""

    def __missing__(self, point: int) -> str:
        char, kind = chr(point), unicodedata.category(chr(point))
        if point < 128:
            made = char
        elif kind == "Cf" or _is_within(point, _UNSEEN):
            made = ""
        elif kind[0] in "ZPS" or kind == "Cc":
            made = " "
        else:
            made = f"{char} " if _is_within(point, _NO_BLANKS) else char
        self[point] = made
        return made


def _is_within(point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in ranges)


_SPELLINGS = _Spellings()
