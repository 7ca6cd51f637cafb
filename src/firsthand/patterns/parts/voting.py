"""Counting votes: what several answers have in common, compared in normal form (72.0 is 72)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from firsthand.context import Context
from firsthand.patterns.parts.answers import MAX_NUMBER_CHARS, normal_form, parse_number

NO_ANSWER = "(no answer)"
_WORD = re.compile(r"(?<!\\)[^\W\d_]+|[%°$€£]")
_GOES_ON = re.compile(r"\w|[-‐‑'’]\w|(?<=\d)[.,:/–−]\d")
"""Matches after a flag that is only a part of a longer word or number: `No-one`, `5.3`."""
_CASED = re.compile(r"([kmgt]?i?b(?:ps)?|m(?:w|wh|hz|v|a|j|n|pa|ev)?)(?:(?<=b)s)?", re.IGNORECASE)
"""Units that differ by case alone: bits and bytes, which have a plural, milli and mega."""
_SIGNS = {"%": "percent", "$": "dollar", "€": "euro", "£": "pound", "°": "degree"}


@dataclass(frozen=True)
class Tally:
    """The votes for each answer, by its normal form; those without an answer did not vote, and are counted apart."""

    votes: Mapping[str, int]
    abstained: int
    winner: str | None
    """The most common answer in its most common spelling; of equally common ones the first seen; None if nobody voted."""

    @property
    def most(self) -> int:
        """The winner's votes."""
        return max(self.votes.values(), default=0)

    @property
    def cast(self) -> int:
        """The number of answers, abstentions included."""
        return sum(self.votes.values()) + self.abstained


def tallied(answers: Sequence[str | None]) -> Tally:
    """The tally of some answers, unweighted."""
    given = [answer for answer in answers if answer is not None]
    forms = _forms(given)
    votes = Counter(forms)
    best = votes.most_common(1)[0][0] if votes else None  # Counter keeps the order of first sight among equals
    spellings = Counter(answer for answer, form in zip(given, forms, strict=True) if form == best)
    winner = spellings.most_common(1)[0][0] if spellings else None
    return Tally(votes, len(answers) - len(given), winner)


def _forms(answers: Sequence[str]) -> list[str]:
    """The normal form of each answer; a number with fewer words takes that of the one answer which has them all.

    `18` and `18 apples` are a vote for `18 red apples`. `5` is none for `5 s` where `5 h` is an answer too,
    and `5 m`, `5 ms` and `5 M` are three.
    """
    forms = [normal_form(answer) for answer in answers]
    said: dict[Fraction, dict[str, frozenset[str]]] = {}
    for answer, form in zip(answers, forms, strict=True):
        value = parse_number(answer) if len(answer) <= MAX_NUMBER_CHARS else None
        if value is not None:
            words = {_word(each) for each in _WORD.findall(answer)}
            forms_of = said.setdefault(value, {})
            forms_of[form] = forms_of.get(form, frozenset()) | words
    fuller = {}
    for alike in said.values():
        most = {each for each in alike.values() if not any(each < other for other in alike.values())}
        first = {held: form for form, held in reversed(alike.items())}
        for form, held in alike.items():
            holding = [each for each in most if held <= each]
            fuller[form] = first[holding[0]] if len(holding) == 1 else form
    return [fuller.get(form, form) for form in forms]


def _word(text: str) -> str:
    """A word without case and plural; a unit of two letters has no plural: `ms` is not `m`."""
    if (unit := _CASED.fullmatch(text)) is not None:
        return "".join(each if each in "mMbB" else each.casefold() for each in unit[1])
    word = text.casefold()
    return _SIGNS.get(word, word.removesuffix("s") if len(word) > 2 else word)


def count(answers: Sequence[str | None], ctx: Context) -> Tally:
    """The tally of some answers, which is noted in the trace as a `vote`."""
    tally = tallied(answers)
    abstained = {NO_ANSWER: tally.abstained} if tally.abstained else {}
    shown: dict[str, int] = {}
    for answer, number in tally.votes.items():
        shown[_label(answer, shown | abstained)] = number
    ctx.note("vote", **shown | abstained)
    return tally


def _label(answer: str, taken: Mapping[str, int]) -> str:
    """The answer's first 200 characters, and a number where an answer that begins like it is noted already."""
    labels = (f"{answer[:200]} ({n})" if n > 1 else answer[:200] for n in range(1, len(taken) + 2))
    return next(label for label in labels if label not in taken)


def share(flag: str, answers: Sequence[str | None]) -> float:
    """The share of the answers that are `flag`, or begin with it as a word."""
    agree = [answer for answer in answers if answer is not None and _first_word(answer, flag)]
    return len(agree) / len(answers) if answers else 0.0


def _first_word(answer: str, flag: str) -> bool:
    said, wanted = (" ".join(each.casefold().split()).strip(" .") for each in (answer, flag))
    return normal_form(answer) == normal_form(flag) or (
        said.startswith(wanted) and not _GOES_ON.match(said, len(wanted))
    )
