"""Reads an answer as a numeral of the base that the question asks for, so that 2112 answers `2112_6` in base 6."""

from __future__ import annotations

import re

from firsthand.scorers.mathematics.answer_text import plain
from firsthand.scorers.mathematics.latex_tokens import BASE_WORDS

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_BASE = rf"base[- ]?(?P<base>\d{{1,2}}|{'|'.join(BASE_WORDS)})\b"
_ASKED = re.compile(
    rf"\b(?:in|to|into) (?:the |a )?{_BASE}"
    rf"|\b{_BASE.replace('<base>', '<form>')}[- ](?:equivalent|representation|form|notation)"
    r"|\b(?:in|to|into) (?P<word>binary|octal|hexadecimal)\b",
    re.IGNORECASE,
)
_SYSTEMS = {"binary": "2", "octal": "8", "hexadecimal": "16"}
_NUMERAL = re.compile(
    r"(?P<left>(?:[A-Za-z]\w{0,9} ?= ?)?-?) ?\(?(?P<digits>[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?)\)?"
    r"(?: ?_ ?\{?(?P<base>\d{1,2})\}?)?"
)


def with_asked_base(answer: str, reference: str, question: str | None) -> str:
    """Return the answer with the base of the reference, in capitals, where the question asks for that base alone.

    An answer that states a base, or is no numeral (`x = 2112` is one), comes back as it is, but for its letters.
    """
    theirs, ours = _NUMERAL.fullmatch(plain(reference)), _NUMERAL.fullmatch(plain(answer))
    if theirs is None or ours is None or ours["base"] not in (None, theirs["base"]):
        return answer
    if _asked_bases(question) != {theirs["base"]}:
        return answer
    return f"{ours['left']}{ours['digits'].upper()}_{{{theirs['base']}}}"


def _asked_bases(question: str | None) -> set[str]:
    """Return the bases that a question asks for, save 10, in which it often says what is given."""
    text = " ".join((question or "")[-MAX_CHARS:].replace("$", "").split())
    found = {(each["base"] or each["form"] or each["word"]).casefold() for each in _ASKED.finditer(text)}
    return {_SYSTEMS.get(each) or BASE_WORDS.get(each, each) for each in found} - {"10"}
