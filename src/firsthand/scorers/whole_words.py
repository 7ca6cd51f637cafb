"""Finds words and numbers in a text as wholes: 24 is not in 240, 0.24, 1,024, 12:24, -24, √24, 24 1/2 or 24 million.

Numbers are compared as they are written, save for grouping signs and noughts at the end of decimals: 1.50 is 1.5. Dotted
names are no decimals: 192.168.1.10 is not 192.168.1.1, and Python 3.10 is not Python 3.1. Chinese and Japanese, which have
no blanks, are found by characters, so that 東京 is in 東京です; runs of katakana and of numerals are words.
Left out: other languages without blanks (Thai, Khmer), and Korean particles.
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
_NUMERALS = "〇零一二三四五六七八九十百千万萬億亿兆两両"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_LETTERS = f"[^\\W\u3005-\u3007\u3041-\u309f{_KATAKANA}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
# The minus of a grade or an ion (A-, BBB-, Cl-), not the hyphen of `US- and UK-based`.
_GRADE = r"(?:(?<=\b[^\W\d_])|(?<=\b[^\W\d_]{2})|(?<=\b[^\W\d_]{3}))"
_NOT_HANGING = r"(?![-\w>])(?!(?:, ?\w{1,20}-){0,3},? (?:and|or|to) \w{1,20}-\w)"
_GRADE_MINUS = re.compile(rf"{_GRADE}(?:[‐‑]|–(?![ \t]*\w)){_NOT_HANGING}")
# A minus that takes one number from another: 24−1, 24 - 1 = 23, not 1939-1945.
_SUBTRACTION = re.compile(r"(?<=\d)[ \t]?(?:−|-(?=[ \t]?\$?\.?\d[\d.,]{0,20}[ \t]?=))[ \t]?(?=\$?\.?\d)")
# A number with its sign and what joins its digits; a word with what makes another name of it: C++, A-, non-profit.
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w)\]%])-\$?)?(?:(?<![\w.])\.)?\d+"
    rf"(?:(?:[.:/^]|(?<!,\d)(?<!,\d\d),(?=\d{{1,2}}(?![\d,])))\d+)*{_LETTERS}*)"
    rf"|(?:\b(?:non|un|anti|ex)-)?{_LETTERS}+(?:[+#]+(?!\w)|{_GRADE}-{_NOT_HANGING})?"
    rf"|[{_KATAKANA}]+|[{_NUMERALS}]+(?:[点點][{_NUMERALS}]+)?|\w",
    re.IGNORECASE,
)
# What stands before a number that is a name's part: `version `, `§ `, or a word with a capital letter. That may open the
# reference, but no sentence of the answer, as in `About 3.50`.
_NAMER = r"(?:\b(?i:versions?|ver\.?|releases?|sections?|sec\.|chapters?|articles?|clauses?|figures?|tables?)|§)[ \t]?$"
_CAPITAL = r"(?!(?:Euros?|Dollars?|Pounds?|Rupees?|Rs|Yen|Yuan)\b)[A-Z](?:[a-z]|[A-Z]{3})\w*[ -]$"
_NAME_IN_REFERENCE = re.compile(rf"{_NAMER}|\b{_CAPITAL}")
_NAME_IN_ANSWER = re.compile(rf"{_NAMER}|(?<=[\w,;] )[(*_`\"']{{0,4}}{_CAPITAL}")
_DATE = re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}")
_TENS = frozenset(each for each in NUMBER_WORDS if each.endswith("ty")) | MULTIPLES.keys()
_UNITS = NUMBER_WORDS - _TENS
_LARGER = MULTIPLES.keys() | SIZES | {each for each in PARTS if each.endswith("s")} | {"squared", "cubed", "factorial"}
_SMALLER = frozenset({"minus", "negative", "twice", "thrice", "double", "triple", "负", "負"})
_OPERATORS = frozenset({"times", "over", "plus", "minus", "divided", "multiplied"})
_NUMERALS_SET = frozenset(_NUMERALS)
_MYRIADS = frozenset("十百千万萬億亿兆")
_BESIDE = 40


class _Words(NamedTuple):
    """The words of a text between single blanks, where each begins in that, and in the text itself.

    `written` has the decimals among them with their noughts, and `names` the places of those that are parts of a name.
    """

    joined: str
    places: list[int]
    spans: list[tuple[int, int]]
    text: str
    written: list[str]
    names: set[int]


def has_words(text: str, wanted: str) -> bool:
    """Return whether a text contains words in their order, side by side; a text without words contains none."""
    wanted_words, theirs = _words(wanted, _NAME_IN_REFERENCE), _words(text, _NAME_IN_ANSWER)
    ours = wanted_words.joined
    if not ours.strip():
        return False
    first, last = ours.split()[0], ours.split()[-1]
    at = theirs.joined.find(ours)
    while at >= 0:
        end = at + len(ours) - 1
        before, after = theirs.joined[max(0, at - _BESIDE) : at].split(), theirs.joined[end : end + _BESIDE].split()
        if not (
            _is_part(before, first, last, after)
            or _is_operand(theirs, at, end, first, last)
            or _is_other_name(wanted_words, theirs, bisect_left(theirs.places, at + 1))
        ):
            return True
        at = theirs.joined.find(ours, at + 1)
    return False


def _is_part(before: list[str], first: str, last: str, after: list[str]) -> bool:
    """True if the words beside make another number: `24` in `minus 24` or `24 million`, `four` in `twenty-four`."""
    previous, following = (before or [""])[-1], (after or [""])[0]
    if (_is_number(first) and previous[-1:] in _MYRIADS) or (_is_number(last) and following[:1] in _MYRIADS):
        return True
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


def _is_other_name(wanted: _Words, theirs: _Words, begin: int) -> bool:
    """True if a decimal is written with other noughts in the text, and is a part of a name: `Python 3.10` for 3.1."""
    return any(
        written != theirs.written[begin + at] and (at in wanted.names or begin + at in theirs.names)
        for at, written in enumerate(wanted.written)
    )


def _is_number(word: str) -> bool:
    return word[-1:].isdigit() or word in NUMBER_WORDS or word[:1] in _NUMERALS_SET


def _words(text: str, name: re.Pattern[str]) -> _Words:
    """Return the words and numbers of the text in lower case; `name` matches what makes a decimal a part of a name."""
    text = _GRADE_MINUS.sub("-", _SUBTRACTION.sub(" + ", unicodedata.normalize("NFC", without_filler(text))))
    text = _WRAPPED_MINUS.sub("-", _SPACED_MINUS.sub("-", text))
    text = _EMPHASIS.sub("", folded(joined_groups(_GROUPS.sub("", text))))
    found: list[str] = []
    written: list[str] = []
    names: set[int] = set()
    spans: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text):
        as_written = token[0].casefold().replace("$", "")
        words = [as_written]
        if token["number"] is not None and _DATE.fullmatch(token[0]):
            words = re.split("[/.]", token[0])
        elif token["number"] is not None and not _is_dotted(text, token):
            words = [_without_zeros(as_written)]
            if "." in words[0] and name.search(text, max(0, token.start() - _BESIDE), token.start()):
                names.add(len(found))
        written += [as_written] if len(words) == 1 and "." in words[0] else words
        found += words
        spans += [token.span()] * len(words)
    places, at = [], 1
    for word in found:
        places.append(at)
        at += len(word) + 1
    return _Words(f" {' '.join(found)} ", places, spans, text, written, names)


def _is_dotted(text: str, token: re.Match[str]) -> bool:
    """True if a number has several points, or goes on behind one: 192.168.1.10, v1.2.30, 1.10.x."""
    before, after = text[max(0, token.start() - 2) : token.start()], text[token.end() : token.end() + 2]
    return (
        token[0].count(".") > 1
        or (before[1:] == "." and before[0].isdigit())
        or (after[:1] == "." and after[1:].islower())
    )


def _without_zeros(number: str) -> str:
    """The number without the zeros at the end of its decimal places: 24 for 24.00."""
    whole, point, places = number.rpartition(".")
    return f"{whole}{point}{places.rstrip('0')}".rstrip(".") if point and (places.isdigit() or not places) else number
