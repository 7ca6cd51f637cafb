"""The words and numbers of a text, each whole: `1,500`, `1 500`, `75.2`, `-5`, `1/2`, `12:30` and `10^6` are one number,
and a quotation cuts none. Ranges (`3-5`), dates (`12/05/2020`) and products (`2×500`) are several."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache, lru_cache
from itertools import groupby
from typing import NamedTuple

from firsthand.retrieval.answers.divided_words import divided
from firsthand.retrieval.store.unspaced_words import has_unspaced
from firsthand.retrieval.store.word_marks import marked, marks
from firsthand.system.normalised_text import normalised_text

_MINUS = "-\u2010\u2011\u2013\u2212"
_HYPHENS = "-\u2010\u2011"
_CURRENCY = "$£¥\u20a0-\u20cf"
_ARABIC = str.maketrans("\u066b\u066c", ".,")
_GROUPED = re.compile(r"['’\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"-?(?:\d+,\d{1,2}|0,\d+)(?![\d,])")
_THOUSANDS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?![\d,])")
_CONTINENTAL = re.compile(r"-?[1-9]\d{0,2}(?:\.\d{3})+,\d+(?![\d,.])")
_BLANKED = r"(?<!\d )\d{1,3}(?: \d{3}(?!\d))++(?! \d)"
"""Thousands behind blanks; numbers beside others may be a row of a table."""
_LABELLED = re.compile(
    r"(?:\b(?:[Tt]able|[Ff]igure|[Ff]ig\.|[Cc]hapter|[Ss]ection|[Aa]ppendix|January|February|March|April|May|June|July"
    r"|August|September|October|November|December) \d{1,3}) (?=\d{3}(?!\d))"
)
"""The number of a table or chapter, or a day, with the blank before another number: `Table 1 500`, `May 5 200`."""
_ROW = re.compile(r"\d [-−]?\d[\d.,%]*(?<!\.)$")
_COLUMNS = re.compile(r"\d (?!\d{3}(?!\d))\d[\d.,%]*(?![\d/⁄])")
"""Two numbers behind one blank that are no thousands."""
_GAP = re.compile(r"(?<=\d) (?=(?!000)\d{3}(?!\d))")
_VULGAR = "¼-¾⅐-⅞↉"
_VULGARS = re.compile(rf"\s?([{_VULGAR}])")
_RAISED = "⁰¹²³⁴-⁹"
_NO_DATE = r"(?<!\d{4})(?<![/⁄]\d)(?<![/⁄]\d\d)(?<![/⁄]\d{3})"
_FRACTION = rf"{_NO_DATE}[/⁄](?=\d)(?!(?:19|20)\d\d(?!\d))(?!\d{{1,8}}/)"
"""The stroke of a fraction, none of a date or of months and years (`12/05/2020`, `05/2020`, `2019/20`)."""
_JOINT = (
    rf"(?<=\d)(?::(?=\d)|{_FRACTION}|\^[{{(]?[+{_MINUS}]?(?=\d)|[⁺⁻](?=[{_RAISED}])"
    rf"|(?: [x×*·⋅] |[x×*·⋅])(?=10[\^⁺⁻{_RAISED}])"
    rf"|{_NO_DATE}[ \u00a0\u2009\u202f](?=[{_VULGAR}]|\d{{1,2}}[/⁄]\d{{1,2}}(?![\d/]|[.,]\d)))"
    rf"|(?<=\d[eE])[+{_MINUS}](?=\d)"
)
"""Signs that join two numbers into one: times and ratios, fractions, powers, multiples of powers of 10, mixed numbers."""
_PLAIN_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_JOINTS = re.compile(r"([/:^×]| (?=\d))")
_NEGATED = re.compile(r"['’]t\b")


def whole_words(text: str) -> list[str]:
    """The words and numbers of a text in order. Numbers of one value are alike as `1,500` and `1500`, `2,5` and `2.5`,
    and keep their minus and what is written behind them without a blank. Scripts without blanks are divided."""
    return placed_words(text).words


class PlacedWords(NamedTuple):
    """The words of a text and where they stand in it."""

    text: str
    """The text, its scripts without blanks divided."""
    spans: list[tuple[int, int, list[str]]]
    """The start and end of each word, and the words and numbers that it is."""

    @property
    def words(self) -> list[str]:
        """All words in order."""
        return [part for _, _, parts in self.spans for part in parts]


def placed_words(text: str) -> PlacedWords:
    """The words and numbers of a text as `whole_words` gives them, each with its place."""
    text = _apart(divided(text))
    return PlacedWords(text, [(*found.span(), _parts(found[0])) for found in _word().finditer(text)])


def _apart(text: str) -> str:
    """A text of the same length with tabs for the blanks between numbers of their own: behind labels, and in lines in a row
    that end with numbers of which some are no thousands, the rows of a table."""
    text = _LABELLED.sub(lambda found: f"{found[0][:-1]}\t", text)
    lines: list[str] = []
    for are_rows, group in groupby(text.split("\n"), key=lambda line: bool(_ROW.search(line.rstrip()))):
        rows = list(group)
        lines += [_GAP.sub("\t", row) for row in rows] if are_rows and any(map(_COLUMNS.search, rows)) else rows
    return "\n".join(lines)


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
    """The places where words begin and end; `non-toxic` is one. Cached: a short quotation may occur at thousands of
    places of a text."""
    starts: list[int] = []
    ends: list[int] = []
    for found in _word().finditer(_apart(text)):
        start, end = found.span()
        if ends and start == ends[-1] + 1 and text[ends[-1]] in _HYPHENS and _are_letters(text[start - 2], text[start]):
            ends[-1] = end
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


def _are_letters(*within: str) -> bool:
    """True if no character of a word is a digit or a `_`."""
    return not any(each.isnumeric() or each == "_" for each in within)


@cache
def _word() -> re.Pattern[str]:
    """A word, or a number with the minus before it and the points and commas within it."""
    letter = rf"[\w{marks()}]"
    return re.compile(
        rf"(?:(?<![^\s(\[{{<>=~≈|/:;,\"'“‘«*^{_CURRENCY}])(?<!\w[\"'*])(?<!\w\*\*)(?<!\d[{_CURRENCY}])"
        rf"[{_MINUS}](?=[{_CURRENCY}]?\.?[\d{_VULGAR}])[{_CURRENCY}]?)?"  # else a hyphen or a range
        rf"(?:(?<![\w.,)\]])\.(?=\d))?(?:{_BLANKED}{letter}*|{letter}+)"
        rf"(?:(?:(?<=\d)(?:[.,\u066b\u066c](?=\d)|{_GROUPED.pattern})|{_JOINT}){letter}+)*"
    )


def _parts(word: str) -> list[str]:
    """A word as it is compared; a list of numbers without blanks is its numbers."""
    word = marked(word).casefold().translate(_ARABIC)
    word = _VULGARS.sub(lambda found: " " + normalised_text("NFKC", found[1]), word).strip()
    if not any(letter.isdigit() for letter in word):
        return [word]
    minus = "-" if word[0] in _MINUS else ""
    word = minus + re.sub(r"^\.", "0.", _GROUPED.sub("", re.sub(rf"^[{_MINUS}{_CURRENCY}\s]+", "", word)))
    first, *rest = _JOINTS.split(_in_one_form(word))
    *parts, last = _numbers(first)
    whole = [last]
    for joint, number in zip(rest[::2], rest[1::2], strict=True):
        joined, *others = _numbers(number)
        whole += [joint, joined]
        if others:
            parts += ["".join(whole), *others[:-1]]
            whole = others[-1:]
    return [*parts, "".join(whole)]


def _in_one_form(number: str) -> str:
    """`1½` as `1 1/2`, `10⁻⁶` and `10^{-6}` as `10^-6`, `5 x 10^3` as `5×10^3`, and thousands without blanks."""
    number = re.sub(rf"(?<=\d)[⁺⁻]?[{_RAISED}]+", lambda found: "^" + found[0].translate(_PLAIN_RAISED), number)
    number = re.sub(
        rf"\^[{{(]?\+?([{_MINUS}]?)",
        lambda found: "^-" if found[1] else "^",
        re.sub(r"\s", " ", number.replace("⁄", "/")),
    )
    number = re.sub(r"(?<=\d) ?[x×*·⋅] ?(?=10\^)", "×", number)
    return re.sub(r" (?=\d{3}(?![\d/]))", "", number).strip()


def _numbers(word: str) -> list[str]:
    """A number without joints as it is compared, or those of a list."""
    if _DECIMAL.match(word):
        return [word.replace(",", ".")]
    if _CONTINENTAL.match(word):
        return [word.replace(".", "").replace(",", ".")]
    return [word.replace(",", "")] if _THOUSANDS.match(word) else word.split(",")
