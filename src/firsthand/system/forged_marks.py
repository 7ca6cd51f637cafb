"""Finds the fixed marks of a published judge prompt in judged text, in any spelling that reads as the mark.

Texts are compared without case, blanks, accents, characters that are not seen and most punctuation, and with letters and
brackets that look like others as those. Positions are kept, so that only the forged mark is changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from firsthand.system.normalised_text import normalised_text

_ALIKE = dict(
    zip(
        "авеһіјкмнорсԁтухѕԛԝαεικνορτυχսոᴜ【〔⟦❲】〕⟧❳‹〈⟨›〉⟩ǀ∣￨",
        "abehijkmhopcdtyxsqwaeikvoptuxunu[[[[]]]]<<<>>>|||",
        strict=True,
    )
)
_QUOTES = '"“”„‟«»＂″‶❝❞〝〞'
_KEPT = frozenset('[]<>|#":')
_TRIPLE = re.compile(rf"[{_QUOTES}](?:[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*[{_QUOTES}]){{2,}}")
TRIPLE_QUOTE = '"""'


def defused(text: str, marks: Sequence[str]) -> tuple[str, int]:
    """Return the text with each of the marks changed so that it is none any more, and how many there were.

    Marks that begin with `[`, `<` or a quote are found anywhere, others where they are a line of their own,
    or begin one if they end in a colon.
    """
    count = 0
    if TRIPLE_QUOTE in marks:
        text, count = _TRIPLE.subn(lambda found: '\\"' * sum(each in _QUOTES for each in found.group()), text)
    spans = sorted(span for mark in marks if mark != TRIPLE_QUOTE for span in _places(text, mark))
    parts, done = [], 0
    for begin, end in spans:
        if begin >= done:
            plain = text[begin:end].strip("[]<>|［］｜【】#\"': ").replace(":", " -")
            parts += [text[done:begin], f"({plain})"]
            done, count = end, count + 1
    return "".join([*parts, text[done:]]), count


def _places(text: str, mark: str) -> list[tuple[int, int]]:
    wanted = "".join(map(_folded, mark))
    if mark[0] in '[<"':
        return _found(text, wanted)
    places, at = [], 0
    for line in text.splitlines(keepends=True):
        plain = "".join(map(_folded, line))
        begins = wanted.endswith(":") and plain.startswith(wanted)
        if begins or (plain.strip("#:") == wanted.strip("#:") and ("#" in plain or ":" in plain)):
            places.append((at, at + len(line.rstrip("\r\n"))))
        at += len(line)
    return places


def _found(text: str, wanted: str) -> list[tuple[int, int]]:
    pieces = [(folded, place) for place, each in enumerate(text) for folded in _folded(each)]
    plain = "".join(folded for folded, _ in pieces)
    places, at = [], 0
    while (at := plain.find(wanted, at)) >= 0:
        places.append((pieces[at][1], pieces[at + len(wanted) - 1][1] + 1))
        at += len(wanted)
    return places


_BRACKETS = re.compile("[<＜﹤≮‹〈⟨〈❮ᐸ˂]")


def openings(text: str, mark: str) -> list[int]:
    """The places of the brackets that open something which reads as `mark`, such as `<untrusted`, or as its end."""
    wanted = "".join(map(_folded, mark))
    return [found.end() for found in _BRACKETS.finditer(text) if _opens(text, found.end(), wanted[1:])]


def _opens(text: str, at: int, wanted: str) -> bool:
    plain, stop = "", at
    while len(plain) < len(wanted) and stop < len(text):
        plain += "u" if text[stop] in "уУ" else _folded(text[stop])  # y elsewhere, and read as u before a consonant
        stop += 1
        if not wanted.startswith(plain):
            return False
    return plain == wanted


@lru_cache(maxsize=65_536)
def _known(character: str) -> str:
    parts = normalised_text("NFKD", character).casefold()
    alike = "".join('"' if each in _QUOTES else _ALIKE.get(each, each) for each in parts)
    return "".join(each for each in alike if each.isalnum() or each in _KEPT)


def _folded(character: str) -> str:
    return character if "a" <= character <= "z" else _known(character)
