"""One spelling of each word of a text, whatever its case, its Unicode form, and the blanks and marks between its words.

Characters are compared after case folding in form NFKC. Blanks, punctuation and symbols beyond ASCII become blanks;
characters that nobody sees (soft hyphens, joiners, zero-width spaces, marks of direction, variation selectors) are left out.
Of scripts without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character is a word. A text that is all ASCII
stays as it is: the hashes of n-grams take its letters in any case and all else but digits as a blank.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from firsthand.system.normalised_text import normalised_text

_NO_BLANKS = (
    (0x3000, 0x9FFF), (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Code points of scripts that write words without blanks between them."""
_UNSEEN = ((0x034F, 0x034F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
"""Code points without a shape of their own that are marks by their category."""
_LONG, _FEW = 2000, 16
"""Characters of a text from which it is quicker to replace one character after another, and how many distinct ones."""


def plain_words(text: bytes) -> bytes:
    """The words of a text in UTF-8, in one spelling each; bytes that are not UTF-8 stay as they are."""
    if text.isascii():
        return text
    composed = normalised_text("NFC", text.decode("utf-8", "surrogateescape"))
    seen = _spelt(composed)
    folded = normalised_text("NFKC", seen.casefold())
    plain = folded if folded == seen else _spelt(folded)
    return plain.encode("utf-8", "surrogateescape")


def _spelt(text: str) -> str:
    """The text with each character as `_SPELLINGS` has it."""
    if len(text) < _LONG:
        return text.translate(_SPELLINGS)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct = np.flatnonzero(np.bincount(points)).tolist()
    changed = [point for point in distinct if _SPELLINGS[point] != chr(point)]
    if len(changed) > _FEW:
        return text.translate(_SPELLINGS)
    for point in changed:
        text = text.replace(chr(point), _SPELLINGS[point])
    return text


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
