"""Finds words and numbers in a text as wholes: 24 is not in 240, 0.24, 1,024, 12:24, -24 or 24 million.

Numbers are compared as they are written, save for grouping commas and noughts at the end of decimals.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.value_words import MULTIPLES, NUMBER_WORDS, SIZES, folded

_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ]|[\u00a0\u2009\u202f]|,(?:\\!)?)(?=\d{3}(?!\d))")
# A number with its sign and what joins its digits; a word with what makes another name of it: C++, non-profit.
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w)\]%])-\$?)?(?:(?<![\w.])\.)?\d+(?:(?:[.:/^]|(?<!,\d)(?<!,\d\d),(?=\d{1,2}(?![\d,])))\d+)*\w*)"
    r"|(?:\b(?:non|un|anti|ex)-)?\w+(?:[+#]+(?!\w))?"
)
_DATE = re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}")
_TENS = frozenset(each for each in NUMBER_WORDS if each.endswith("ty")) | MULTIPLES.keys()
_UNITS = NUMBER_WORDS - _TENS
_LARGER = MULTIPLES.keys() | SIZES
_BESIDE = 40


def has_words(text: str, wanted: str) -> bool:
    """Return whether a text contains words in their order, side by side; a text without words contains none."""
    ours, theirs = _words(wanted), _words(text)
    if not ours.strip():
        return False
    first, last = ours.split()[0], ours.split()[-1]
    at = theirs.find(ours)
    while at >= 0:
        end = at + len(ours) - 1
        before, after = theirs[max(0, at - _BESIDE) : at].split(), theirs[end : end + _BESIDE].split()
        if not _is_part(before[-1] if before else "", first, last, after[0] if after else ""):
            return True
        at = theirs.find(ours, at + 1)
    return False


def _is_part(before: str, first: str, last: str, after: str) -> bool:
    """True if the words beside make another number: `24` in `minus 24` or `24 million`, `four` in `twenty-four`."""
    if _is_number(first) and before in ("minus", "negative"):
        return True
    if first in _UNITS and before in _TENS:
        return True
    return (_is_number(last) and after in _LARGER) or (last in _TENS and after in _UNITS)


def _is_number(word: str) -> bool:
    return word[-1:].isdigit() or word in NUMBER_WORDS


def _words(text: str) -> str:
    """Return the text in lower case, its words and numbers between single spaces."""
    found: list[str] = []
    for token in _TOKEN.finditer(folded(_GROUPS.sub("", text.casefold()))):
        if token["number"] is None:
            found.append(token[0])
        elif _DATE.fullmatch(token[0]):
            found += re.split("[/.]", token[0])
        else:
            found.append(re.sub(r"(\.\d*?)0+$", r"\1", token[0]).rstrip(".").replace("$", ""))
    return f" {' '.join(found)} "
