"""Reads the quantities of a text, numbers with their words of size and their units, and finds them in another text.

`5 million dollars`, `$5m`, `USD 5,000,000` and `5-million-dollar` are one quantity, as are `70 kg`, `70kg` and `70,000 g`.
A sign that may be several (`5 m`, `20 K`) is each of them. A number takes the unit of the one that it is joined to, as in
`5 to 7 million`. Left out: numbers written as words, what a rate is divided by, and units that have no name here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple

from firsthand.retrieval.answers.passage_words import PlacedWords, whole_words
from firsthand.retrieval.answers.units_of_measure import (
    CLOCK,
    CURRENCIES,
    Unit,
    size_named,
    size_of_letter,
    units_named,
)

_NUMBER = re.compile(
    r"(?P<sign>-?)(?:(?P<whole>\d{1,30}) )?(?P<number>\d{1,30}(?:\.\d{1,30})?)(?:/(?P<under>\d{1,30}))?"
    r"(?:(?P<power>×10\^-?\d{1,2})|e(?P<exponent>[+-]?\d{1,2}))?(?P<behind>[^\W\d_]{0,12}[23²³]?)"
)
_ROUND = re.compile(r"(?P<whole>-?\d++)\.00?")
_EARLY = re.compile(r"0\d:\d\d")
_SIGNS = "$£€¥₹₩₽₺₪฿₿¢"
_CODE = r"(?:USD|EUR|GBP|JPY|CHF|CNY|RMB|INR|Rs\.?|AUD|CAD|NZD|HKD|SGD|BRL|KRW|RUB|PLN|SEK|NOK|DKK|MXN|ZAR|THB|BTC)"
_BEFORE = re.compile(rf"(?:(?P<sign>(?<![A-Za-z])[A-Z]{{0,2}}[{_SIGNS}])|\b(?P<code>{_CODE}))\s?[-\u2212]?$")
_JOINT = re.compile(
    rf"\s?(?:,? ?(?:to|and|or|by|through|bis|und|oder|et|ou|x)\b|[-\u2010-\u2015~,/×&])\s?(?:[A-Z]{{0,2}}[{_SIGNS}])?\s?"
)
_TIGHT = re.compile(rf"[-\u2010-\u2015](?:[A-Z]{{0,2}}[{_SIGNS}])?")
_SHORT = frozenset({"mio", "mrd", "tsd"})
"""Words of size that end with a point."""
_GAP = r"(?:\s{1,2}|-|\u2011)?"
_NEXT = re.compile(
    rf"{_GAP}(?:(?:of|de)\s|d['’])?(?P<name>[%‰₠-⃏$£¥¢]|°\s?[CFcf]\b|[°℃℉]|[^\W\d_]{{1,16}}(?:[23²³](?!\w)|\$)?)(?P<rest>.{{0,40}})",
    re.DOTALL,
)
_SECOND = re.compile(r"(?:\s{1,2}|-)(?P<name>[^\W\d_]{1,12})(?P<rest>.{0,40})", re.DOTALL)
_HEADED = re.compile(
    rf"(?:[{_SIGNS}]|\b{_CODE})\s?(?P<letter>mn|[kmbt])\b|\b(?P<first>mn|[kmbt])\s?(?:[{_SIGNS}]|{_CODE}\b)",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(rf"['’{_SIGNS}]000\b|\b000s\b")
_OF_OTHER_LETTERS = re.compile(r"\s?(?![A-Za-z])[^\W\d_]")
_BEHIND = 48
_FOLLOWING = re.compile(
    r"\s(?!(?:and|are|but|for|from|has|have|if|in|is|of|on|or|than|that|the|was|were|when|which|while|with)\b)[^\W\d_]{2}",
    re.IGNORECASE,
)

Held = Literal["equal", "number", "not"]


class Reading(NamedTuple):
    """One sense of a quantity: its size, such as a million, and its unit; None for a number without one."""

    size: int
    unit: Unit | None


@dataclass(frozen=True)
class Quantity:
    """A number as a text has it."""

    word: str
    """The word of `whole_words` that it is or begins: `70kg`."""
    number: str
    """Its digits in the form of `of_value`."""
    value: Fraction
    readings: frozenset[Reading]
    joined: str = ""
    """The letters that are written behind it without a blank."""
    tail: tuple[str, ...] = ()
    """The words of its size and unit behind it."""
    counts: bool = False
    """True if a word stands next behind it that may be what it counts."""
    is_of_other_letters: bool = False
    """True if that word is not of Latin letters without marks, so that it may be a word of size."""

    @property
    def may_be_bare(self) -> bool:
        """True for a number without size and unit in one of its senses."""
        return BARE in self.readings


BARE = Reading(1, None)


def of_value(word: str) -> str:
    """`10.0` and `1.00` as `10` and `1`, `07:30` as `7:30`; `3.10` stays, for it may be a version."""
    if (found := _ROUND.fullmatch(word)) is not None:
        return found["whole"]
    return word[1:] if _EARLY.fullmatch(word) else word


class Quantities:
    """The quantities of a text in order, which may hold another's."""

    def __init__(self, placed: PlacedWords) -> None:
        self._placed = placed

    @cached_property
    def all(self) -> tuple[Quantity, ...]:
        return tuple(_quantities(self._placed))

    def held(self, other: Quantity) -> Held:
        """Tells how a quantity of another text is held: an equal one, the same number where a side has no unit, or not."""
        found: Held = "not"
        for reading in other.readings:
            for one, theirs in self._candidates(other, reading):
                how = self._alike(other, reading, one, theirs)
                if how == "equal":
                    return how
                found = how if how == "number" else found
        return found

    def has_other_size(self, number: str) -> bool:
        """True if a number stands here with words of size alone, as the 5 of `5 million`."""
        sizes = [theirs.size for _, theirs in self._index.get(number, ())]
        return bool(sizes) and 1 not in sizes

    @cached_property
    def loose_sizes(self) -> frozenset[int]:
        """The sizes that the text names behind no number, as the head of a column does: `Revenue (EUR million)`."""
        words = Counter(self._placed.words)
        words.subtract(word for one in self.all for word in one.tail)
        sizes = [size for word, count in words.items() if count > 0 and (size := size_named(word))]
        letters = [
            size
            for found in _HEADED.finditer(self._placed.text)
            if (size := size_of_letter((found["letter"] or found["first"]).casefold()))
        ]
        return frozenset([*sizes, *letters, *([1000] if _THOUSANDS.search(self._placed.text) else [])])

    @cached_property
    def _index(self) -> dict[object, dict[tuple[Quantity, Reading], None]]:
        """The quantities by their number as it is written, by their value, and by their value in base units."""
        found: dict[object, dict[tuple[Quantity, Reading], None]] = {}
        for one in dict.fromkeys(self.all):
            for reading in one.readings:
                for key in _keys(one, reading):
                    found.setdefault(key, {})[one, reading] = None
        return found

    def _candidates(self, other: Quantity, reading: Reading) -> Iterator[tuple[Quantity, Reading]]:
        for key in _keys(other, reading):
            yield from self._index.get(key, ())

    def _alike(self, other: Quantity, reading: Reading, one: Quantity, theirs: Reading) -> Held:
        if reading.unit is not None and theirs.unit is not None:
            return "equal" if _in_base(other, reading) == _in_base(one, theirs) else "not"
        if reading.size != theirs.size and other.value * reading.size == one.value * theirs.size:
            return "equal"
        if other.number != one.number:
            return "not"
        if reading.size != theirs.size:
            is_open = reading.size in self.loose_sizes or one.is_of_other_letters
            return "number" if theirs == BARE and is_open else "not"
        if (reading == BARE) is not (theirs == BARE):
            joined, bare = (one, other) if reading == BARE else (other, one)
            if joined.joined and (len(joined.joined) == 1 or bare.counts):
                return "not"
        return "number" if reading.size == 1 else "equal"


def _keys(quantity: Quantity, reading: Reading) -> set[object]:
    keys: set[object] = {quantity.number, quantity.value * reading.size}
    return keys | {_in_base(quantity, reading)} if reading.unit is not None else keys


def _in_base(quantity: Quantity, reading: Reading) -> tuple[str, Fraction] | None:
    unit = reading.unit
    return None if unit is None else (unit.measure, quantity.value * reading.size * unit.factor)


class _Placed(NamedTuple):
    """A quantity with the span of its number in the text."""

    quantity: Quantity
    start: int
    end: int


def _quantities(words: PlacedWords) -> Iterator[Quantity]:
    """The quantities of a text; a number that is joined to the next one also has its unit, or that alone in `5-7 kg`."""
    text = words.text
    placed = [each for start, end, parts in words.spans for each in _placed(text, start, end, parts)]
    found: list[Quantity] = []
    for place in reversed(range(len(placed))):
        one, _, end = placed[place]
        if found and _JOINT.fullmatch(between := text[end : placed[place + 1].start][:20]):
            one = _joined_to(one, found[-1], is_tight=bool(_TIGHT.fullmatch(between)))
        found.append(one)
    yield from reversed(found)


def _joined_to(one: Quantity, after: Quantity, *, is_tight: bool) -> Quantity:
    """A number with the size and unit of the next one; one with a currency takes the size alone, as in `$5-10 million`."""
    taken: frozenset[Reading] = frozenset()
    if one.may_be_bare and not any(unit and unit.measure in CLOCK for _, unit in after.readings):
        taken = after.readings - one.readings and after.readings
    elif all(reading.size == 1 and reading.unit and reading.unit.measure in CURRENCIES for reading in one.readings):
        sizes = {reading.size for reading in after.readings} - {1}
        taken = frozenset(Reading(size, unit) for _, unit in one.readings for size in sizes)
    if not taken:
        return one
    return replace(one, readings=taken if is_tight else one.readings | taken)


def _placed(text: str, start: int, end: int, parts: list[str]) -> Iterator[_Placed]:
    """The numbers of a word; the last one of a list without blanks has the unit."""
    for part in parts:
        if (found := _NUMBER.fullmatch(part)) is None:
            continue
        value = _value(found)
        if value is None:
            continue
        joined = text[end - len(found["behind"]) : end] if found["behind"] else ""
        before = text[max(0, start - 8) : start] + text[start:end][: _lead(text[start:end])]
        behind = joined + text[end : end + _BEHIND] if part is parts[-1] else ""
        currency = _currency(before) if part is parts[0] else ()
        readings, rest = _behind(behind, currency, is_joined=bool(joined))
        if joined and readings == {BARE}:
            continue  # a name such as `4x`
        number = of_value(part[: len(part) - len(found["behind"])])
        tail = tuple(whole_words(behind[len(joined) : len(behind) - len(rest)]))
        quantity = Quantity(
            part,
            number,
            value,
            readings,
            joined,
            tail,
            bool(_FOLLOWING.match(rest)),
            bool(_OF_OTHER_LETTERS.match(rest)),
        )
        yield _Placed(quantity, start, end)


def _lead(word: str) -> int:
    """The length of the minus and currency that a word begins with."""
    return next((place for place, letter in enumerate(word) if letter.isdigit()), 0)


def _value(found: re.Match[str]) -> Fraction | None:
    value = Fraction(found["number"])
    if found["under"]:
        if not int(found["under"]):
            return None
        value /= int(found["under"])
    if found["whole"]:
        value += int(found["whole"])
    if found["power"]:
        value *= Fraction(10) ** int(found["power"][4:])
    if found["exponent"]:
        value *= Fraction(10) ** int(found["exponent"])
    return -value if found["sign"] else value


def _currency(before: str) -> tuple[Unit, ...]:
    """The currencies that a sign or code before a number may be."""
    if (found := _BEFORE.search(before)) is None:
        return ()
    name = found["sign"] or found["code"].rstrip(".")
    return units_named(name) or units_named(name[-1])


def _behind(text: str, currency: tuple[Unit, ...], *, is_joined: bool) -> tuple[frozenset[Reading], str]:
    """The senses of what stands behind a number, and the text behind that."""
    size, rest = 1, text
    while (found := _NEXT.match(rest)) is not None and (factor := size_named(found["name"])):
        size, rest, is_joined = size * factor, found["rest"], False
        rest = rest[1:] if found["name"].casefold() in _SHORT and rest.startswith(".") else rest
    letter = size_of_letter(found["name"]) if found is not None and size == 1 else None
    units, behind = _unit(rest)
    if is_joined and found is not None and found["name"] == "in":
        units, behind = units_named("inch"), found["rest"]
    readings: set[Reading] = set()
    if letter is not None and found is not None:
        more, last = _unit(found["rest"])
        of = currency or tuple(unit for unit in more if unit.measure in CURRENCIES)
        readings = {Reading(letter, unit) for unit in of or (None,)}
        if of:
            return frozenset(readings), last if more else found["rest"]
    if currency:
        named = [unit for unit in units if unit.measure in CURRENCIES]
        both = [unit for unit in currency if unit in named]
        return frozenset(Reading(size, unit) for unit in both or currency), behind if named else rest
    readings |= {Reading(size, unit) for unit in units}
    if is_joined and found is not None and found["name"] == "s":
        readings.add(BARE)  # a plural: `the 1990s`
    return frozenset(readings) or frozenset({Reading(size, None)}), behind if readings else rest


def _unit(text: str) -> tuple[tuple[Unit, ...], str]:
    """The units that a text begins with, of two words or one, and the text behind."""
    if (found := _NEXT.match(text)) is None:
        return (), text
    name, rest = found["name"], found["rest"]
    if (second := _SECOND.match(rest)) is not None and (units := units_named(f"{name} {second['name']}")):
        return units, second["rest"]
    units = units_named(name.replace(" ", ""))
    return (units, rest) if units else ((), text)
