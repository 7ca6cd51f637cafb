"""The words and numbers of a text, each whole: `1,500`, `75.2` and `-5` are one number, and a quotation cuts none."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache, lru_cache

from firsthand.retrieval.store.unspaced_words import has_unspaced
from firsthand.retrieval.store.word_marks import marked, marks

_MINUS = "-\u2010\u2011\u2013\u2212"
_CURRENCY = "$£¥\u20a0-\u20cf"
_ARABIC = str.maketrans("\u066b\u066c", ".,")
_GROUPED = re.compile(r"['’\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"-?(?:\d+,\d{1,2}|0,\d+)(?![\d,])")
_THOUSANDS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?![\d,])")
_NEGATED = re.compile(r"['’]t\b")


def whole_words(text: str) -> list[str]:
    """The words and numbers of a text in order. Numbers of one value are alike as `1,500` and `1500`, `2,5` and `2.5`,
    and keep their minus and what is written behind them without a blank."""
    return [part for found in _word().finditer(text) for part in _parts(found[0])]


def is_whole(text: str, start: int, end: int) -> bool:
    """True if a span of a text begins and ends within no word or number; between Chinese or Thai letters it may."""
    if _NEGATED.match(text, end):
        return False
    cut = (place for place in (start, end) if 0 < place < len(text) and not has_unspaced(text[place - 1 : place + 1]))
    return not any(_is_within_word(text, place) for place in cut)


def _is_within_word(text: str, place: int) -> bool:
    starts, ends = _spans(text)
    at = bisect_left(starts, place) - 1
    if at < 0 or place >= ends[at]:
        return False
    before, after = text[starts[at] : place], text[place : ends[at]]
    return bool(before.strip("_") and after.strip("_"))  # a `_` at an edge is of Markdown's emphasis


@lru_cache(maxsize=2)
def _spans(text: str) -> tuple[list[int], list[int]]:
    """The places where words begin and end. Cached: a short quotation may occur at thousands of places of a text."""
    spans = [found.span() for found in _word().finditer(text)]
    return [start for start, _ in spans], [end for _, end in spans]


@cache
def _word() -> re.Pattern[str]:
    """A word, or a number with the minus before it and the points and commas within it."""
    letter = rf"[\w{marks()}]"
    return re.compile(
        rf"(?:(?<![^\s(\[{{<>=~≈|/:;,\"'“‘«*^{_CURRENCY}])(?<!\w[\"'*])(?<!\w\*\*)(?<!\d[{_CURRENCY}])"
        rf"[{_MINUS}](?=[{_CURRENCY}]?\.?\d)[{_CURRENCY}]?)?"  # else a hyphen or a range
        rf"(?:(?<![\w.,)\]])\.(?=\d))?{letter}+"
        rf"(?:(?<=\d)(?:[.,\u066b\u066c](?=\d)|{_GROUPED.pattern}){letter}+)*"
    )


def _parts(word: str) -> list[str]:
    """A word as it is compared; a list of numbers without blanks is its numbers."""
    word = marked(word).casefold().translate(_ARABIC)
    if not any(letter.isdigit() for letter in word):
        return [word]
    minus = "-" if word[0] in _MINUS else ""
    word = minus + re.sub(r"^\.", "0.", _GROUPED.sub("", re.sub(rf"^[{_MINUS}{_CURRENCY}]+", "", word)))
    if _DECIMAL.match(word):
        return [word.replace(",", ".")]
    return [word.replace(",", "")] if _THOUSANDS.match(word) else word.split(",")
