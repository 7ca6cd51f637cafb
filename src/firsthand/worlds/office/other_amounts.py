"""Finds amounts in a text that differ from the one it is to state: `12k`, `9.99 euros`, `9e9`, `forty thousand`.

Sizes and exponents are applied before a number is taken for an amount or not. Roman numerals, numbers in words of other
languages and amounts that are only described (`ten times that`) are not read.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from firsthand.patterns.parts.value_words import DOTLESS, MULTIPLES, NUMBER_WORDS, SMALL_NUMBERS
from firsthand.system.normalised_text import normalised_text

LEAST_AMOUNT = 100
"""Smaller numbers are amounts only with a currency beside them or where a total is named: `in 3 parts` is none."""
_SIZES = {
    **MULTIPLES, "k": 10**3, "tsd": 10**3, "thou": 10**3, "grand": 10**3, "mille": 10**3, "lakh": 10**5, "crore": 10**7,
    "mio": 10**6, "mln": 10**6, "bn": 10**9, "bln": 10**9, "mrd": 10**9, "tn": 10**12,
    "quadrillion": 10**15, "quintillion": 10**18, "十": 10, "百": 100, "千": 10**3, "万": 10**4, "萬": 10**4,
    "亿": 10**8, "億": 10**8, "兆": 10**12,
}  # fmt: skip
_LETTERS = {"M": 10**6, "B": 10**9}
"""Sizes as capital letters right behind the digits."""
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: int(digits) for digits, word in SMALL_NUMBERS.items()} | dict(
    zip(_TENS, range(30, 100, 10), strict=True)
)
_BETWEEN = r"[\s*_()\[\]{}\"'“”‘’-]*"
_SIZE = rf"(?:{'|'.join(sorted(_SIZES, key=len, reverse=True))})s?(?![^\W\d_])"
_DIGITS = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)?)"
    r"(?:[eE](?P<e>[+-]?\d+)|\s*[×x*·]\s*10\s*(?:\^|\*\*)\s*\{?(?P<ten>[+-]?\d+)|\s*(?:\^|\*\*)\s*\{?(?P<power>[+-]?\d+))?"
    rf"(?P<letter>[MB](?!\w))?(?P<sizes>(?:{_BETWEEN}(?i:{_SIZE})){{0,3}})"
)
_WORD = rf"(?:{'|'.join(sorted(NUMBER_WORDS | MULTIPLES.keys(), key=len, reverse=True))}|grand)s?(?![^\W\d_])"
_IN_WORDS = re.compile(
    rf"(?<![^\W_])(?:(?:half[\s-]+)?an?[\s-]+(?:{'|'.join(MULTIPLES)})(?![^\W\d_])|{_WORD})"
    rf"(?:{_BETWEEN}(?:(?:and|&)\s+)?{_WORD})*",
    re.IGNORECASE,
)
_COUNTED = re.compile(rf"half|{'|'.join(NUMBER_WORDS)}", re.IGNORECASE)
_NAMED_MONEY = r"(?:euros?|eur|cents?|dollars?|usd|pounds?|gbp|sterling|francs?|chf|yen|jpy|bucks?|quid)"
_SIGN = f"[{''.join(each for each in map(chr, range(0x20, 0x20D0)) if unicodedata.category(each) == 'Sc')}]"
MONEY_AFTER = rf"[ \t*_)\]\"'-]*(?:{_NAMED_MONEY}(?![^\W\d_])|{_SIGN})(?![ \t*_(]*\.?\d)"
"""A currency behind a number, and not before the next one, as an expression."""
_MONEY_AFTER = re.compile(MONEY_AFTER, re.IGNORECASE)
_MONEY_BEFORE = re.compile(
    rf"(?<!\d)(?<!\d[ \t*_)])(?:(?<![^\W\d_]){_NAMED_MONEY}|{_SIGN})[ \t*_(\[]*\Z", re.IGNORECASE
)
_TOTAL_BEFORE = re.compile(
    r"\b(?:total|sum|amount|figure|result|answer)\b[^.\n;!?\d]{0,60}?(?:\b(?:is|was|be|equals|to)\b|[:=])[ \t*_\"'(]*\Z",
    re.IGNORECASE,
)
_NO_NOUN_AFTER = re.compile(r"[\s*_)\]\"']*(?:$|\n|[^\w\s]|(?:and|or|not|in|as|instead|now|but)\b)", re.IGNORECASE)
_PERCENT = re.compile(r"[\s*_)-]*(?:[%‰]|per[ \t]?(?:cent|mill)\b)", re.IGNORECASE)

_YEAR = re.compile(r"(?:19|20)\d\d")
_MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
_YEAR_BEFORE = re.compile(
    rf"\b(?:(?:in|during|since|(?:fiscal )?years?|fy|q[1-4]|{_MONTH}(?: \d{{1,2}},?)?)"
    r"|(?:report|budget|figures?|plan|forecast|accounts?|total) for) \Z",
    re.IGNORECASE,
)
_ENDS_LIKE_A_YEAR = re.compile(r"(?:[.,;:!?)]|\Z| (?:is|was|are|were|comes|amounts|and)\b|\s*\n)", re.IGNORECASE)
"""Matches the text after a year. With a noun, `instead` or `more` after it the number is an amount."""


class Amount(NamedTuple):
    """A value, the place value of its last digit, and where it stands; `bare` as in `a thousand thanks`."""

    value: float
    step: float
    start: int
    end: int
    bare: bool = False


def other_amount(text: str, fact: str) -> str | None:
    """Return the first amount in a text that is neither `fact` nor that rounded (`24.2k` for 24242); None without one."""
    text = normalised_text("NFKC", text).translate(DOTLESS)
    right = float(fact)
    for each in _amounts(text):
        rounded = abs(each.value - right) * 2 <= each.step <= right
        if each.value != right and not rounded and _is_amount(each, text):
            return text[each.start : each.end]
    return None


def _amounts(text: str) -> Iterator[Amount]:
    """The numbers in digits and in words with their sizes; one beyond what a float holds is infinite."""
    for found in _DIGITS.finditer(text):
        number = found["number"].replace(",", ".")
        factor = float(f"1e{found['e'] or found['ten'] or 0}") * _LETTERS.get(found["letter"] or "", 1)
        for size in re.findall(_SIZE, found["sizes"], re.IGNORECASE):
            factor *= _size(size)
        try:
            value = float(number) ** float(found["power"] or 1) * factor
        except (OverflowError, ZeroDivisionError):
            value = math.inf
        step = factor * 10.0 ** -len(number.partition(".")[2]) if factor > 1 else 0.0
        yield Amount(value, step, *found.span())
    for found in _IN_WORDS.finditer(text):
        yield Amount(*_in_words(found[0]), *found.span(), bare=_COUNTED.search(found[0]) is None)


def _size(word: str) -> float:
    word = word.casefold()
    return float(_SIZES.get(word) or _SIZES[word.removesuffix("s")])


def _in_words(text: str) -> tuple[float, float]:
    """The value of a number in words, and the size of its last word; digits one by one (`nine nine`) stand side by side."""
    total, part, last = 0.0, 0.0, 1.0
    words = re.findall(r"[^\W\d_]+", text.casefold())
    for word in words:
        word = (
            word if word in _SMALL or word in _SIZES or word in ("half", "a", "an", "and") else word.removesuffix("s")
        )
        if word in ("a", "an", "and"):
            continue
        if word == "half":
            part = 0.5
        elif word in _SMALL:
            small, last = float(_SMALL[word]), 1.0
            fits = part % 100 == 0 or (part % 10 == 0 and part % 100 >= 20 and 0 < small < 10)
            part = part + small if fits else part * (10.0 if small < 10 else 100.0) + small
        else:
            last = float(_SIZES[word])
            if word in ("hundred", "dozen"):
                part = (part or 1.0) * last
            else:
                total, part = (total + (part or 1.0) * last, 0.0) if part or not total else (total * last, 0.0)
    return total + part, last if last > 1 else 0.0


def _is_amount(amount: Amount, text: str) -> bool:
    before, after = text[max(0, amount.start - 120) : amount.start], text[amount.end : amount.end + 40]
    if _PERCENT.match(after):
        return False
    if _MONEY_AFTER.match(after) or _MONEY_BEFORE.search(before):
        return True
    if _TOTAL_BEFORE.search(before) and _NO_NOUN_AFTER.match(after):
        return True
    return amount.value >= LEAST_AMOUNT and not amount.bare and not _is_year(amount, text)


def _is_year(amount: Amount, text: str) -> bool:
    """Return whether a number of four digits is told as a year: `in 2026`, `the report for 2026 is`, `May 2026`."""
    if _YEAR.fullmatch(text[amount.start : amount.end]) is None:
        return False
    before, after = text[max(0, amount.start - 40) : amount.start], text[amount.end : amount.end + 40]
    return _YEAR_BEFORE.search(before) is not None and _ENDS_LIKE_A_YEAR.match(after) is not None
