"""Reads a number that a stated answer spells out: `seven`, `twenty-four apples`, `five hundred`.

Larger compounds (`two hundred and six`) stay words, and are no number to a scorer.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.value_words import MULTIPLES, SMALL_NUMBERS

_TENS = {
    word: 10 * at for at, word in enumerate(["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 3)
}
_VALUES = {word: int(digits) for digits, word in SMALL_NUMBERS.items()} | _TENS
_WORD = "|".join(sorted(_VALUES, key=len, reverse=True))
_UNIT = "one|two|three|four|five|six|seven|eight|nine"
_SPELLED = re.compile(
    r"((?:about|around|approximately|exactly|only|just|a[ \t]+total[ \t]+of)[ \t]+)?[*_]{0,3}"
    rf"(?:an?(?=[ \t]+(?:{'|'.join(MULTIPLES)})\b)|(twenty|{'|'.join(_TENS)})[ \t-]({_UNIT})\b|({_WORD})\b)",
    re.IGNORECASE,
)
_ONE_ALONE = re.compile(rf"[*_\"'”)]*(?:[.!]|$|[ \t]+(?:{'|'.join(MULTIPLES)})\b)", re.IGNORECASE)


def with_digits(stated: str) -> str:
    """Return a stated answer without digits with its first word as a number, if it begins with one.

    `one` is a number where it stands alone, since `one of the boys` is none.
    """
    found = None if re.search(r"\d", stated) else _SPELLED.match(stated)
    if found is None:
        return stated
    rest = stated[found.end() :]
    _, tens, unit, word = found.groups()
    if word and word.casefold() == "one" and not _ONE_ALONE.match(rest):
        return stated
    value = _VALUES[tens.casefold()] + _VALUES[unit.casefold()] if tens else _VALUES[word.casefold()] if word else 1
    return f"{value}{rest}"
