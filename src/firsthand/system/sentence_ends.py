"""Marks that end a sentence without white space behind them, as in Chinese, Japanese, Hindi, Urdu, Burmese and Armenian.

Thai and Lao put no mark between sentences, and so have none here. The Latin `.`, `!` and `?` are
left to each reader of text.
"""

from __future__ import annotations

import re
from itertools import pairwise

SENTENCE_MARKS = "。｡．！？﹒﹖﹗‼⁇⁈⁉।॥؟۔։።፧፨။។៕"
"""For a regular expression's set of characters."""
_CLOSING = "\"'”’»)」』）】》〉"
SENTENCE_END = (
    rf"(?<![{SENTENCE_MARKS}])[{SENTENCE_MARKS}][{SENTENCE_MARKS}.!?]{{0,30}}+(?<!\d[۔．](?=\d))"
    rf"(?:[{_CLOSING}]++(?!と|って))?+(?![{_CLOSING}])"
)
"""A regular expression of such marks, with the quotation marks and brackets that close behind them; `3．5` ends nothing, and
neither does a quotation before the Japanese `と` or `って`. It takes linear time."""


def parts_of(text: str, ends: re.Pattern[str]) -> list[str]:
    """The parts of a text that end behind a match, without the white space around them; none is blank."""
    places = [0, *(found.end() for found in ends.finditer(text)), len(text)]
    return [part for start, end in pairwise(places) if (part := text[start:end].strip())]
