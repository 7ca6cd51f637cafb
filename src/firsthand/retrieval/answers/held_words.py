"""The content words and quantities of a claim, and which of them a passage or sentence holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from firsthand.retrieval.answers.passage_words import placed_words, whole_words
from firsthand.retrieval.answers.stated_quantities import Quantities, Quantity, of_value
from firsthand.retrieval.store.unspaced_words import has_unspaced

_WITH_UNIT = re.compile(
    r"(?P<number>-?\d++(?:\.\d++)?+)(?P<unit>[kcmμ]g|[kcmμn]?m[23²³]|[kcmμn]m|[mcd]l|mcg|km|mph|kph|[kmgt]i?b|[kmg]hz|hz|[kmg]w|kwh|mwh|mah|[km]v"
    r"|kcal|kj|ms|min|sec|hr|ft|lb|oz|px|dpi|fps|bps|[mg]bps|rpm|psi|[hmk]pa|db|eur|usd|gbp|chf|mio|mrd|[^\W\d_])"
)
_MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?|Sept?(?:ember|\.)?"
    r"|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_DAY = re.compile(
    rf"\b(?:(?P<first>\d{{1,2}})(?:st|nd|rd|th)(?= (?:of )?{_MONTH}(?!\w))"
    rf"|(?P<last>{_MONTH} (?:the )?\d{{1,2}})(?:st|nd|rd|th)\b)"
)
"""The day of a date as an ordinal number, before its month or behind it."""
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its may "
        "more not of on or our she should so such than that the their them then there these they this those to was we were "
        "what when where which who why will with would you your",
    )
)


def content_words(text: str) -> frozenset[str]:
    """The words of a text that carry its content, in lower case and without a plural's s; numbers are whole, and text of
    scripts without blanks is pairs of its letters."""
    return _content(map(of_value, whole_words(text)))


def _content(words: Iterable[str]) -> frozenset[str]:
    return frozenset(
        _singular(word)
        for word in words
        if word not in _STOP and (len(word) > 1 or word.isdigit() or has_unspaced(word))
    )


def _singular(word: str) -> str:
    """A word without its last `s`; the one of a unit stays, as in `5ms`."""
    found = _WITH_UNIT.fullmatch(word)
    return word if found is not None and found["unit"] != "s" else word.rstrip("s") or word


def _singular_unit(word: str) -> str:
    """`kg` of `kgs`; `ms` and `fps` stay."""
    found = _WITH_UNIT.fullmatch(f"0{word[:-1]}") if word.endswith("s") else None
    return word[:-1] if found is not None and len(found["unit"]) > 1 else word


def _with_unit(word: str) -> tuple[str, str] | None:
    """A number and its unit that are one word, as `70kg`."""
    found = _WITH_UNIT.fullmatch(word) or (_WITH_UNIT.fullmatch(word[:-1]) if word.endswith("s") else None)
    return None if found is None else (found["number"], found["unit"])


def _with_days(text: str) -> str:
    """The text with `May 5` for `May 5th`, and `5 of May` for `5th of May`."""
    return _DAY.sub(lambda found: found["first"] or found["last"], text)


@dataclass(frozen=True)
class HeldWords:
    """The content words of a passage or sentence."""

    words: frozenset[str]
    """A number and its unit together, as `70kg`, and the unit alone, however they are written."""
    units: Mapping[str, frozenset[str]]
    """The units that are written behind each number without a blank."""
    quantities: Quantities

    @classmethod
    def of(cls, text: str) -> HeldWords:
        placed = placed_words(_with_days(text))
        words = [*map(of_value, placed.words)]
        units: dict[str, frozenset[str]] = {}
        for number, unit in filter(None, map(_with_unit, words)):
            units[number] = units.get(number, frozenset()) | {unit}
        alone = {unit for each in units.values() for unit in each if len(unit) > 1}
        together = [f"{one}{other}" for one, other in pairwise(words) if _with_unit(f"{one}{other}")]
        return cls(_content([*words, *together]) | alone, units, Quantities(placed))

    def shared(self, claim: WantedWords) -> frozenset[str]:
        """The words of the claim that are held. Its number before `kg` is held by `70kg`, and one before `pounds` is not."""
        held = self.quantities_of(claim)
        kept = frozenset(map(_word_of, held))
        equal = (word for one in held if self.quantities.held(one) == "equal" for word in one.tail)
        unheld = frozenset(map(_word_of, claim.quantities.all)) - kept
        return self._words_of(claim) - unheld | claim.words & (kept | _content(equal))

    def quantities_of(self, claim: WantedWords) -> frozenset[Quantity]:
        """The quantities of the claim that are held: a number without unit by any, but for one with a word of size."""
        if not claim.quantities.all:
            return frozenset()
        words = self._words_of(claim)
        return frozenset(
            one
            for one in {*claim.quantities.all}
            if self.quantities.held(one) != "not"
            or (
                one.may_be_bare
                and _word_of(one) in words
                and (not self.quantities.has_other_size(one.number) or claim.may_be_headed or one.is_of_other_letters)
            )
        )

    def _words_of(self, claim: WantedWords) -> frozenset[str]:
        """The words of the claim that are held as they are written."""
        return claim.words & self.words | {
            number for number, unit in claim.measured if number in claim.words and unit in self.units.get(number, ())
        }


def _word_of(quantity: Quantity) -> str:
    return _singular(of_value(quantity.word))


@dataclass(frozen=True)
class WantedWords:
    """The content words of a claim."""

    words: frozenset[str]
    measured: frozenset[tuple[str, str]]
    """Its numbers with the word behind each."""
    quantities: Quantities
    is_row: bool

    @cached_property
    def may_be_headed(self) -> bool:
        """True if the head of its row, or words in it, may hold the size of its numbers, as `(in millions)`."""
        return self.is_row or bool(self.quantities.loose_sizes)

    @classmethod
    def of(cls, claim: str) -> WantedWords:
        placed = placed_words(_with_days(claim))
        words = [*map(of_value, placed.words)]
        pairs = ((one, _singular_unit(other)) for one, other in pairwise(words) if one[-1].isdigit())
        return cls(_content(words), frozenset(pairs), Quantities(placed), "|" in claim)
