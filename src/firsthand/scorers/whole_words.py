"""Finds words and numbers in a text as wholes: 24 is not in 240, 0.24, 1,024, 12:24, -24, √24, 24 1/2 or 24 million.

Numbers are compared as they are written, save for grouping signs and noughts at the end of decimals: 1.50 is 1.5. Dotted
names are no decimals: 192.168.1.10 is not 192.168.1.1, and a reference Python 3.1 is not Python 3.10. Chinese and Japanese,
which have no blanks, are found by characters, so that 東京 is in 東京です; runs of katakana and of numerals are words.
Left out: other languages without blanks (Thai, Khmer), Korean particles, and names with one point in the text alone: Python
3.10 contains 3.1 as an amount would.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from fractions import Fraction
from typing import NamedTuple

from firsthand.patterns.parts.filler import without_filler
from firsthand.patterns.parts.plain_values import joined_groups
from firsthand.patterns.parts.value_expressions import part_of_expression
from firsthand.patterns.parts.value_words import MULTIPLES, NUMBER_WORDS, PARTS, SIZES, folded
from firsthand.system.normalised_text import normalised_text

_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ]|[\u00a0\u2009\u202f]|,(?:\\!)?)(?=\d{3}(?!\d))")
_EMPHASIS = re.compile(r"(?<![^\W_])_{1,3}(?=[^\W_])|(?<=[^\W_])_{1,3}(?![\w{])")
_WRAPPED_MINUS = re.compile(r"(?<![\w)\]%])[-−][(\[{|*_`\\]{1,9}(?=\$?\.?\d)")  # -**5**, -(5)
_SPACED_MINUS = re.compile(r"(?<![\w)\]%])(?<![\w)\]%] )[−➖][ \t\u00a0]+(?=\$?\.?\d)")
_NUMERALS = "〇零一二三四五六七八九十百千万萬億亿兆两両"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_LETTERS = f"[^\\W\u3005-\u3007\u3041-\u309f{_KATAKANA}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
# A reference that is a grade or an ion, whose minus makes another one: A, BBB, and with a minus Cl-, NO3-.
_GRADE = re.compile(r"[A-FO]|A{2,3}|B{2,3}|C{2,3}|AB")
_ION = re.compile(r"(?:[A-Z][a-z]?\d?){1,4}")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[‐‑](?!\w)")
_SIGN = r"[*_`}$]{0,4}(?:[ \t]?[-−]|\^?\{?1?[-−⁻])(?![-\w>])"
_MINUS = re.compile(rf"{_SIGN}(?<! -)|{_SIGN}(?![ \t]*\w)|[ -]minus\b", re.IGNORECASE)
# One that ends a phrase (`A-.`, `A- or better`), not a dash (`A- because`) or the hyphen of `B- and T-cells`.
_MINUS_AT_END = re.compile(
    rf"{_SIGN}(?!(?:, ?\w{{1,20}}-){{0,3}},? (?:and|or|to) \w{{1,20}}-\w)"
    r"(?=[ \t]?[*_`}$)\]\"'’”]{0,6}(?:[.,;:!?/|]|[ \t]*(?:\n|\||\Z)|[ \t](?:and|or)\b))"
)
_AMOUNT = r"\d{1,15}(?:\.\d{1,15})?"
_DIFFERENCE = re.compile(rf"(?<![\w.,:/-])({_AMOUNT})[ \t]?[-−][ \t]?(\$?)({_AMOUNT})(?=[ \t]?=[ \t]?\$?({_AMOUNT}))")
# A multiple side by side with a numeral, 24万, not a unit, 24千克; and what stands above or below it in a fraction.
_MULTIPLE_AFTER = re.compile(
    r"[十万萬億亿]|百(?![分帕])|千(?![克米瓦卡赫帕伏安焦升牛欧]|字节)|兆(?![帕瓦赫焦伏欧]|字节|比特)|分之"
)
_MULTIPLE_BEFORE = re.compile(r"(?:[十百千万萬億亿兆]|(?<!百)分之)\Z")
# A number with its sign and what joins its digits; a word with what makes another name of it: C++, non-profit.
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w)\]%])-\$?)?(?:(?<![\w.])\.)?\d+"
    rf"(?:(?:[.:/^]|(?<!,\d)(?<!,\d\d),(?=\d{{1,2}}(?![\d,])))\d+)*{_LETTERS}*)"
    rf"|(?:\b(?:non|un|anti|ex)-)?{_LETTERS}+(?:[+#]+(?!\w))?"
    rf"|[{_KATAKANA}]+|[{_NUMERALS}]+(?:[点點][{_NUMERALS}]+)?|\w",
    re.IGNORECASE,
)
# What stands before a number that is a name's part: `version `, `§ `, or in a reference a word with a capital letter.
_NAMER = r"(?:\b(?i:versions?|ver\.?|sections?|chapters?|clauses?)|§)[ \t]?$"
_NAME_IN_ANSWER = re.compile(_NAMER)
_NAME_IN_REFERENCE = re.compile(
    rf"{_NAMER}|\b(?!(?:Euros?|Dollars?|Pounds?|Rupees?|Rs|Yen|Yuan)\b)[A-Z](?:[a-z]|[A-Z]{{3}})\w*[ -]$"
)
_DATE = re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}")
_TENS = frozenset(each for each in NUMBER_WORDS if each.endswith("ty")) | MULTIPLES.keys()
_UNITS = NUMBER_WORDS - _TENS
_LARGER = MULTIPLES.keys() | SIZES | {each for each in PARTS if each.endswith("s")} | {"squared", "cubed", "factorial"}
_SMALLER = frozenset({"minus", "negative", "twice", "thrice", "double", "triple", "负", "負"})
_OPERATORS = frozenset({"times", "over", "plus", "minus", "divided", "multiplied"})
_NUMERALS_SET = frozenset(_NUMERALS)
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
            or _is_other_grade(wanted_words, theirs, bisect_left(theirs.places, at + 1))
        ):
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
    if (_is_number(first) and _MULTIPLE_BEFORE.search(before)) or (_is_number(last) and _MULTIPLE_AFTER.match(after)):
        return True
    return (first[-1:].isdigit() and part_of_expression(before, "")) or (
        last[-1:].isdigit() and part_of_expression("", after)
    )


def _is_other_name(wanted: _Words, theirs: _Words, begin: int) -> bool:
    """True if a decimal is written with other noughts in the text, and is a part of a name: `Python 3.10` for 3.1."""
    return any(
        written != theirs.written[begin + at] and (at in wanted.names or begin + at in theirs.names)
        for at, written in enumerate(wanted.written)
    )


def _is_other_grade(wanted: _Words, theirs: _Words, at: int) -> bool:
    """True if what is wanted is a grade or an ion, and only one of both has a minus: `A-` for A, `Cl` for Cl-."""
    if len(wanted.spans) != 1:
        return False
    (begin, end), (their_begin, their_end) = wanted.spans[0], theirs.spans[at]
    if _MINUS.match(wanted.text, end) and (
        _ION.fullmatch(wanted.text, begin, end) or _GRADE.fullmatch(wanted.text, begin, end)
    ):
        return not _MINUS.match(theirs.text, their_end)
    grades = _GRADE.fullmatch(wanted.text, begin, end) and _GRADE.fullmatch(theirs.text, their_begin, their_end)
    return bool(grades and _MINUS_AT_END.match(theirs.text, their_end))


def _as_sum(found: re.Match[str]) -> str:
    """Return `24 - 1` before `= 23` with a plus, whose operands are no numbers of their own, and any other text as it is."""
    if Fraction(found[1]) - Fraction(found[3]) != Fraction(found[4]):
        return found[0]
    return f"{found[1]} + {found[2]}{found[3]}"


def _is_number(word: str) -> bool:
    return word[-1:].isdigit() or word in NUMBER_WORDS or word[:1] in _NUMERALS_SET


def _words(text: str, name: re.Pattern[str]) -> _Words:
    """Return the words and numbers of the text in lower case; `name` matches what makes a decimal a part of a name."""
    text = _HYPHEN.sub("-", _DIFFERENCE.sub(_as_sum, normalised_text("NFC", without_filler(text))))
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
