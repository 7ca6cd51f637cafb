"""Marks within words, at which SQLite's tokenizer would part them.

Vowel signs and viramas of Brahmic scripts (Devanagari, Bengali, Tamil and others), of Thaana and Tibetan make another word:
each is written as a private letter, which the tokenizer keeps. Points of Hebrew, Arabic and Syriac, which most texts leave
out, the tatweel, other combining marks and soft hyphens are dropped. Text without any of them is left as it is.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from firsthand.system.normalised_text import normalised_text

_SPELLED = (
    *((0x7A6, 0x7B0), (0x900, 0xDFF), (0xF00, 0xFFF), (0x1700, 0x177F), (0x1900, 0x1AAD), (0x1B00, 0x1CFF)),
    *((0xA800, 0xABFF), (0x11000, 0x11FFF)),
)
"""Blocks whose marks are written in every text. Those of Burmese and Khmer are in `unspaced_words`."""
_POINTS = (0x332, 0x8FF)
"""Blocks with the marks that a word is the same without; the tokenizer drops those before."""
_DROPPED = "\u00ad\u0640"
_COMPOSED = ((0x900, 0xFFF), (0xFB1D, 0xFB4F))
"""Blocks with letters that NFC takes apart into a letter and a mark, such as the Hindi ड़ and the Hebrew שׁ."""
_RUN = re.compile(r"\S+")
_NEAR = re.compile(
    r"[\u00ad\u0332-\u036f\u0483-\u0489\u0590-\u0fff\u1700-\u177f"
    r"\u1900-\u1cff\ua800-\uabff\ufb1d-\ufb4f\U00011000-\U00011fff]"
)
"""Some characters with all of the marks and letters among them: few ranges, which are soon looked for in other texts."""


def marked(text: str) -> str:
    """The text with the marks of its words as the tokenizer keeps them together; without any it is the same text."""
    if text.isascii() or not _NEAR.search(text) or not _expressions()[0].search(text):
        return text
    return _RUN.sub(lambda run: _marked_run(run[0]), text)  # each by itself, so that a word is alike in every text


def _marked_run(run: str) -> str:
    if not _expressions()[0].search(run):
        return run
    return _expressions()[1].sub("", normalised_text("NFC", run)).translate(_letters())


def words_with_marks(text: str) -> list[str]:
    """The words of a text as they are written, each whole with its marks, but for joiners beside these."""
    if text.isascii() or not _NEAR.search(text):
        return re.findall(r"\w+", text)
    return _expressions()[2].findall(_expressions()[1].sub("", text))


@cache
def marks() -> str:
    """All these marks, for a regular expression's set of characters: none of them is in its `\\w`."""
    return "".join(map(chr, _letters()))


@cache
def _letters() -> dict[int, str]:
    """The private letter that stands for each mark, or nothing."""
    dropped = (place for place in range(_POINTS[0], _POINTS[1] + 1) if unicodedata.category(chr(place)) == "Mn")
    places = (place for first, last in _SPELLED for place in range(first, last + 1))
    spelled = {place: _private(place) for place in places if unicodedata.category(chr(place)) in ("Mn", "Mc")}
    return dict.fromkeys([*map(ord, _DROPPED), *dropped], "") | spelled


def _private(place: int) -> str:
    """One for each mark, below U+100000: the tokenizer takes those above for separators."""
    return chr(place + (0xF0000 if place < 0x10000 else 0xE1000))


@cache
def _expressions() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Any of the marks, or a letter with one; the joiners that shape a letter beside one; a word with its marks."""
    spelled = "".join(chr(place) for place, letter in _letters().items() if letter)
    letters = (chr(place) for first, last in _COMPOSED for place in range(first, last + 1))
    composed = "".join(
        each for each in letters if not _letters().keys().isdisjoint(map(ord, normalised_text("NFC", each)))
    )
    joiners = re.compile(f"(?<=[{spelled}])[\u200c\u200d]|[\u200c\u200d](?=[{spelled}])")
    return re.compile(f"[{marks()}{composed}]"), joiners, re.compile(rf"[\w{marks()}]+")
