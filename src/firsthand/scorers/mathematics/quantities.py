"""Reads units of measurement, so that 100 cm is 1 m, 12 cm is not 12 cm², and what is counted may be left out."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_FACTORS: dict[str, tuple[str, str]] = {
    "mm": ("m", "1/1000"), "cm": ("m", "1/100"), "m": ("m", "1"), "km": ("m", "1000"), "inch": ("m", "254/10000"),
    "foot": ("m", "3048/10000"), "yard": ("m", "9144/10000"), "mile": ("m", "1609344/1000"), "second": ("s", "1"),
    "minute": ("s", "60"), "hour": ("s", "3600"), "day": ("s", "86400"), "week": ("s", "604800"), "mg": ("g", "1/1000"),
    "g": ("g", "1"), "kg": ("g", "1000"), "pound": ("g", "45359237/100000"), "dollar": ("$", "1"), "cent": ("$", "1/100"),
    "degree": ("degree", "1"), "radian": ("radian", "1"),
}  # fmt: skip
_BASES = frozenset(base for base, _ in _FACTORS.values()) - {"$", "degree", "radian"}
_NAMES = {
    "feet": "foot", "ft": "foot", "inches": "inch", "in": "inch", "yd": "yard", "mi": "mile", "s": "second", "sec": "second",
    "min": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "meter": "m", "metre": "m", "centimeter": "cm",
    "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "kilometer": "km", "kilometre": "km", "gram": "g",
    "kilogram": "kg", "milligram": "mg", "lb": "pound", "lbs": "pound", "usd": "dollar", "people": "person", "men": "man",
    "gm": "g", "gms": "g", "kgs": "kg", "cms": "cm", "mms": "mm", "kms": "km", "yds": "yard", "oz": "ounce", "l": "liter",
    "litre": "liter", "milliliter": "ml", "millilitre": "ml", "women": "woman",
    "children": "child", "mice": "mouse", "euros": "euro",
}  # fmt: skip
_LETTERS = frozenset({"m", "g", "s", "h", "l", "in", "min", "gm", "gms"})
BARE = frozenset({*_FACTORS, *_NAMES, "mph", "ml"} - _LETTERS)
"""Names of units that are read as such after a number without `\\text`."""

_COUNTED = (
    "way unit time solution value integer number point year month root factor divisor term case outcome "
    "possibility arrangement combination permutation subset element edge side vertex face diagonal line triangle "
    "region intercept asymptote person item object total of the in a an"
)
_RATES = re.compile(
    r"\b(?:per|rates?|speeds?|fast|faster|average|mean|velocity|density|slope|mph|each|every|pace|acceleration|gradient|price)\b"
    r"|(?<=[a-z])\s*/\s*(?=[a-z])"
)
_SQUARES = re.compile(r"\b(?:areas?|squares?|squared|sq)\b|²|\^\{?2")
_CUBES = re.compile(r"\b(?:volumes?|cubic|cubed|cu|capacity)\b|³|\^\{?3")
_SHAPES = (
    (re.compile(r"\bper\b|/|\beach\b|\bevery\b"), _RATES),
    (re.compile(r"\b(?:square|squared|sq)\b(?! units?\b)|\^2"), _SQUARES),
    (re.compile(r"\b(?:cubic|cubed|cu)\b(?! units?\b)|\^3"), _CUBES),
)
"""Words that make a unit a rate, an area or a volume, and words of a question that ask for one."""
_MEASURE = r"[a-z]{1,20}(?: ?\^ ?[23])?(?: ?(?:/|\bper\b|\ban?\b) ?[a-z]{1,20})?"
_MEASURE_ASKED = re.compile(
    rf"\bhow many ((?:(?:square|sq\.?|cubic|cu\.?) )?{_MEASURE})"
    r"|\bin ((?:square|sq\.?|cubic|cu\.?) [a-z]{1,20}|[a-z]{1,3} ?\^ ?[23])"
)
_SIZE_ASKED = re.compile(
    r"\b(?:what is|what's|find|determine|compute|calculate) the "
    r"(?:(?:total|surface|lateral|exact|shaded) ){0,2}(area|volume)\b"
)
_PERCENT = r"(?:per ?cent(?:s|ages?)?\b|%)"
_FIGURE = (
    r"(?:the |an? |its |his |her |their )(?:(?:overall|total|net|average|annual|approximate|exact|actual|single|equivalent"
    r"|resulting|final|new|largest|smallest|greatest|least|maximum|minimum|possible|correct) ){0,2}"
)
_PERCENT_ASKED = re.compile(
    rf"\b(?:what|which|how many) {_PERCENT}"
    r"|\b(?:what (?:is|was|are|were|will be|would be)|find|determine|compute|calculate|estimate|give|state) "
    rf"{_FIGURE}{_PERCENT}"
    rf"|\b(?:as|to|into|in) (?:an? )?{_PERCENT}|\bnearest (?:(?:whole|integer|tenth|hundredth|one|of|an?) ){{0,4}}{_PERCENT}"
)
_AS_NUMBER = re.compile(
    r"\b(?:as|in) (?:an? )?(?:(?:common|simplified|reduced|proper|improper|mixed) ){0,2}(?:fraction|decimal|ratio)\b"
)
_LETTER = re.compile(r"(?<![^\W\d_])[mg](?![^\W\d_])")
_LETTER_AS_UNIT = re.compile(r"\d ?(?:\\(?:text|mathrm)\{ {0,3}[mg]\b|[mg]\b(?! ?[-+=*/^<>$\\]))")
"""Letters of a question that may be variables, and those that are units for sure: `5 m high`, but not `5 m + 1`."""


class Unit(NamedTuple):
    """A factor to base units and the powers of these; what is counted, such as teachers, is a base unit of its own."""

    factor: Fraction
    powers: tuple[tuple[str, int], ...]


def read_unit(text: str) -> Unit:
    """Return the unit that a text names: `cm`, `square feet`, `m/s`, `miles per hour`, `cm^2`, `teachers`."""
    text = re.sub(r"\bmph\b", "mile per hour", text.casefold().strip(" ."))
    factor, powers = Fraction(1), dict[str, int]()
    for place, part in enumerate(re.split(r"/|\bper\b|\ban?\b(?= hour| minute| second| day)", text)):
        for name, power in _factors(part.strip()):
            power = -power if place else power
            base, size = _FACTORS.get(name, (name, "1"))
            factor *= Fraction(size) ** power
            powers[base] = powers.get(base, 0) + power
    return Unit(factor, tuple(sorted((base, power) for base, power in powers.items() if power and base)))


def bare_letters(units: list[str]) -> frozenset[str]:
    """Return letters that are a unit after a number where the other side has these units, as `g` where it has grams."""
    bases = {name for unit in units for name, _ in read_unit(unit).powers}
    known = {each for each in _LETTERS if read_unit(each).powers[0][0] in bases}
    return frozenset(known.union(*(re.findall(r"[^\W\d_]{1,3}", unit) for unit in units)))


def may_be_added(unit: str, question: str | None) -> bool:
    """Return whether an answer may state this unit where its reference has none; not known of a question, any words may.

    The question names it, it counts what anything is counted in, or it is a unit of measurement of which the question
    names no other for the same measure. A rate, an area or a volume must be asked for, and where the question clearly
    asks for a measure (`how many hours`, `in square feet`, `find the area`), a unit of another one is wrong.
    """
    words = re.sub(r"\^[23]|\bmph\b", lambda found: " mile hour" if found[0] == "mph" else "", unit.casefold())
    if not re.fullmatch(r"[^\W\d_]+(?:[ ./'-]+[^\W\d_]+)*[ .]*", words.strip()):
        return False
    if question is None:
        return True
    if not _is_measured_rate(unit) and any(
        shape.search(unit.casefold()) and not asks.search(question.casefold()) for shape, asks in _SHAPES
    ):
        return False
    if not _is_of_asked_measure(unit, question):
        return False
    asked = _asked(question)
    measured = _measures(question)
    return all(
        each in asked.union(_COUNTED.split())
        or each in ("per", "square", "squared", "cubic", "cubed", "each")  # the question asks for such a shape
        or _FACTORS.get(each, ("", ""))[0] not in {*measured, "", "radian"}
        for each in map(_singular, re.findall(r"[^\W\d_]+", words))
    )


def _measures(question: str) -> set[str]:
    """Return the base units of the units of measurement that a question names; an `m` or `g` alone may be a variable."""
    text = question.casefold()
    found = _asked(_LETTER.sub(" ", text)) | {each[0].rstrip()[-1] for each in _LETTER_AS_UNIT.finditer(text)}
    return {_FACTORS[each][0] for each in found if each in _FACTORS}


def _is_of_asked_measure(unit: str, question: str) -> bool:
    """Return whether a unit of measurement is of a measure that is asked for; True where none is, or the unit is of none."""
    text = " ".join(re.sub(r"\\text|\\mathrm|[${}\\]", " ", question.casefold()).split())
    ours = read_unit(unit)
    names = {name for name, _ in ours.powers}
    if not names or not names <= _BASES or (any(power < 0 for _, power in ours.powers) and _RATES.search(text)):
        return True
    asked = [read_unit(each) for found in _MEASURE_ASKED.findall(text) for each in found if each]
    asked = [each for each in asked if {name for name, _ in each.powers} & _BASES]
    sizes = [(("m", 2 if found == "area" else 3),) for found in _SIZE_ASKED.findall(text)]
    return ours in asked or ours.powers in sizes or not (asked or sizes)


def _is_measured_rate(unit: str) -> bool:
    """True for miles per hour and m/s, but not for `per hour` or `dollars per item`."""
    parts = [_singular(each.strip(" .")) for each in re.split(r"/|\bper\b", unit.casefold())]
    return len(parts) == 2 and all(each in _FACTORS for each in parts)


def asks_for(sign: str, question: str | None) -> bool:
    """Return whether a question speaks of `percent` or of `degrees`, so that an answer may state the sign."""
    signs = {"percent": r"%|percent|per cent", "deg": r"degree|°|\\circ|\A(?!.*radian).*angle"}
    return question is None or re.search(signs[sign], question, re.IGNORECASE | re.DOTALL) is not None


def asks_for_percent(question: str | None) -> bool:
    """Return whether a question clearly asks for a percentage (`by what percent`, `as a percent`): a bare 2 is 2 % then."""
    text = " ".join(re.sub(r"[$\\{}]", "", question or "").casefold().split())
    return _PERCENT_ASKED.search(text) is not None and _AS_NUMBER.search(text) is None


def _asked(question: str) -> set[str]:
    """Return the words of a question in the singular, with the units that its signs name."""
    words: set[str] = set(re.findall(r"[^\W\d_]+", question.casefold()))
    if not re.search(r"\d\s*(?:\\text\{\s*)?in\b|\{\s*in\.?\s*\}|\bin\.\s", question):
        words.discard("in")
    words |= {
        name for sign, name in (("$", "dollar"), ("€", "euro"), ("£", "sterling"), ("¢", "cent")) if sign in question
    }
    return {_singular(each) for each in words} | (words - set(_NAMES))


def _factors(text: str) -> list[tuple[str, int]]:
    power = 1
    for pattern, found in ((r"^(?:square|sq\.?)\b|\bsquared$|\^2$", 2), (r"^(?:cubic|cu\.?)\b|\bcubed$|\^3$", 3)):
        if re.search(pattern, text):
            text, power = re.sub(pattern, "", text).strip(), found
    name = _singular(text.strip(" ."))
    return [] if name in ("", "unit") else [(name, power)]


def _singular(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    one = name.removesuffix("s") if len(name) > 3 and not name.endswith("ss") else name
    return _NAMES.get(one, one)
