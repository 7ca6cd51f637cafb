"""Finds words and numbers in a text as wholes: 24 is not in 240, 0.24, 1,024, 12:24, -24, √24, 24 1/2 or 24 million.

Numbers are compared as they are written, save for grouping signs and noughts at the end of decimals.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from typing import NamedTuple

from firsthand.patterns.parts.filler import without_filler
from firsthand.patterns.parts.plain_values import joined_groups
from firsthand.patterns.parts.value_expressions import part_of_expression
from firsthand.patterns.parts.value_words import MULTIPLES, NUMBER_WORDS, PARTS, SIZES, folded

_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ]|[\u00a0\u2009\u202f]|,(?:\\!)?)(?=\d{3}(?!\d))")
_EMPHASIS = re.compile(r"(?<![^\W_])_{1,3}(?=[^\W_])|(?<=[^\W_])_{1,3}(?![\w{])")
_WRAPPED_MINUS = re.compile(r"(?<![\w)\]%])[-−][(\[{|*_`\\]{1,9}(?=\$?\.?\d)")  # -**5**, -(5)
_SPACED_MINUS = re.compile(r"(?<![\w)\]%])(?<![\w)\]%] )[−➖][ \t\u00a0]+(?=\$?\.?\d)")
# A number with its sign and what joins its digits; a word with what makes another name of it: C++, non-profit.
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w)\]%])-\$?)?(?:(?<![\w.])\.)?\d+(?:(?:[.:/^]|(?<!,\d)(?<!,\d\d),(?=\d{1,2}(?![\d,])))\d+)*\w*)"
    r"|(?:\b(?:non|un|anti|ex)-)?\w+(?:[+#]+(?!\w))?"
)
_DATE = re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}")
_TENS = frozenset(each for each in NUMBER_WORDS if each.endswith("ty")) | MULTIPLES.keys()
_UNITS = NUMBER_WORDS - _TENS
_LARGER = MULTIPLES.keys() | SIZES | {each for each in PARTS if each.endswith("s")} | {"squared", "cubed", "factorial"}
_SMALLER = frozenset({"minus", "negative", "twice", "thrice", "double", "triple"})
_OPERATORS = frozenset({"times", "over", "plus", "minus", "divided", "multiplied"})
_BESIDE = 40


class _Words(NamedTuple):
    """The words of a text between single blanks, where each begins in that, and in the text itself."""

    joined: str
    places: list[int]
    spans: list[tuple[int, int]]
    text: str


def has_words(text: str, wanted: str) -> bool:
    """Return whether a text contains words in their order, side by side; a text without words contains none."""
    ours, theirs = _words(wanted).joined, _words(text)
    if not ours.strip():
        return False
    first, last = ours.split()[0], ours.split()[-1]
    at = theirs.joined.find(ours)
    while at >= 0:
        end = at + len(ours) - 1
        before, after = theirs.joined[max(0, at - _BESIDE) : at].split(), theirs.joined[end : end + _BESIDE].split()
        if not _is_part(before, first, last, after) and not _is_operand(theirs, at, end, first, last):
            return True
        at = theirs.joined.find(ours, at + 1)
    return False


def _is_part(before: list[str], first: str, last: str, after: list[str]) -> bool:
    """True if the words beside make another number: `24` in `minus 24` or `24 million`, `four` in `twenty-four`."""
    previous, following = (before or [""])[-1], (after or [""])[0]
    if _is_number(first) and (previous in _SMALLER or (previous == "of" and before[-2:-1] and before[-2] in PARTS)):
        return True
    if first in _UNITS and previous in _TENS:
        return True
    if (
        _is_number(last)
        and following in _OPERATORS
        and any(map(_is_number, after[2:3] if after[1:2] == ["by"] else after[1:2]))
    ):
        return True
    if _is_number(last) and following == "and" and len(after) > 2 and after[2] in PARTS:
        return True
    return (_is_number(last) and following in _LARGER) or (last in _TENS and following in _UNITS)


def _is_operand(theirs: _Words, at: int, end: int, first: str, last: str) -> bool:
    """True if the number that the words begin or end with is a part of an expression in the text: `√24`, `24 × 10^3`."""
    begin, stop = (
        theirs.spans[bisect_left(theirs.places, place)] for place in (at + 1, theirs.joined.rfind(" ", 0, end) + 1)
    )
    text = theirs.text
    before, after = text[max(0, begin[0] - 200) : begin[0]], text[stop[1] : stop[1] + 200]
    return (first[-1:].isdigit() and part_of_expression(before, "")) or (
        last[-1:].isdigit() and part_of_expression("", after)
    )


def _is_number(word: str) -> bool:
    return word[-1:].isdigit() or word in NUMBER_WORDS


def _words(text: str) -> _Words:
    """Return the words and numbers of the text in lower case."""
    text = _SPACED_MINUS.sub("-", unicodedata.normalize("NFC", without_filler(text)).casefold())
    text = _WRAPPED_MINUS.sub("-", text)
    text = _EMPHASIS.sub("", folded(joined_groups(_GROUPS.sub("", text))))
    found: list[str] = []
    spans: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text):
        if token["number"] is None:
            words = [token[0]]
        elif _DATE.fullmatch(token[0]):
            words = re.split("[/.]", token[0])
        else:
            words = [_without_zeros(token[0]).replace("$", "")]
        found += words
        spans += [token.span()] * len(words)
    places, at = [], 1
    for word in found:
        places.append(at)
        at += len(word) + 1
    return _Words(f" {' '.join(found)} ", places, spans, text)


def _without_zeros(number: str) -> str:
    """The number without the zeros at the end of its decimal places: 24 for 24.00."""
    whole, point, places = number.rpartition(".")
    return f"{whole}{point}{places.rstrip('0')}".rstrip(".") if point and (places.isdigit() or not places) else number
