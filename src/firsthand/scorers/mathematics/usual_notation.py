"""Rewrites rarer notations as the usual one: units as a fraction, degrees of temperature, `2 to 3`, and `3 (mod 7)`."""

from __future__ import annotations

import re

from firsthand.scorers.mathematics.answer_text import MAX_CHARS, plain

MAX_QUESTION = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_NUMBER = r"-?(?:\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})"
_UNITS = re.compile(
    r"(?<=[\d})]) ?\\frac ?\{ ?\\text\{([A-Za-z]{1,20})\} ?\} ?"
    r"\{ ?(?:\\text\{([A-Za-z]{1,20})\}|([A-Za-z])) ?(\^ ?(?:[23]|\{ ?[23] ?\}))? ?\}"
)
_DEGREES = re.compile(rf"({_NUMBER}) ?\\degree ?(?:\\text\{{ ?([CF]) ?\}}|([CF]))")
_SCALES = {"C": ("celsius", r"celsius|centigrade|(?:°|\\circ) ?\}?\s?(?:\\text\{|\\mathrm\{)?\s?c\b")}
_SCALES["F"] = ("fahrenheit", _SCALES["C"][1].replace("celsius|centigrade", "fahrenheit").replace(r"c\b", r"f\b"))
_INTO = r"\b(?:in|into|to) (?:degrees )?\W{0,3}"
_TO = re.compile(r"\d{1,9}(?: ?(?:to|\\text\{ ?to ?\}) ?\d{1,9}){1,9}")
_RATIO_ASKED = re.compile(r"\b(?:ratios?|proportions?)\b", re.IGNORECASE)
_ODDS_ASKED = re.compile(r"\bodds\b", re.IGNORECASE)
_MODULO = re.compile(r"(-?\d{1,9}) ?(?:\\pmod|\\bmod|\\mod|\(mod|\(\\text\{mod ?\}|mod) ?\{? ?(\d{1,9}) ?\}?\)?")
_IN_WORDS = re.compile(r"celsius|fahrenheit", re.IGNORECASE)
_REMAINDER_ASKED = re.compile(r"\b(?:remainders?|residues?|modulo|congruent)\b|\\[pb]?mod\b|\bmod\b", re.IGNORECASE)


def in_usual_notation(text: str, other: str, question: str | None) -> str:
    """Return one side of a comparison in the notation that the other, or the question, makes the usual one.

    `20^\\circ\\text{C}` states the scale that a question names, if it names one alone. `2 to 3` is a ratio where one is
    asked for and the other side may be one. `3 (mod 7)` is 3 where a remainder by 7 is asked for and the other side
    names no other modulus.
    """
    if len(text) > MAX_CHARS or len(other) > MAX_CHARS:
        return text
    said, others, asked = plain(text), plain(other), (question or "")[-MAX_QUESTION:]
    if found := _DEGREES.fullmatch(said):
        scale = found[2] or found[3]
        named = [each for each, (_, words) in _SCALES.items() if re.search(words, asked, re.IGNORECASE)]
        if len(named) > 1:  # "Convert 68 degrees Fahrenheit to Celsius."
            named = [each for each in named if re.search(_INTO + f"(?:{_SCALES[each][1]})", asked, re.IGNORECASE)]
        if named != [scale]:
            return text
        return found[1] + (rf"\text{{ degrees {_SCALES[scale][0]}}}" if _IN_WORDS.search(others) else "")
    if _TO.fullmatch(said):
        may_be_ratio = (_RATIO_ASKED.search(asked) and re.search(r":|/|\\frac", others)) or (
            _ODDS_ASKED.search(asked) and ":" in others  # a fraction may be a probability
        )
        return ":".join(re.findall(r"\d+", said)) if may_be_ratio else text
    if found := _MODULO.fullmatch(said):
        whole = re.sub(r"(?<=\d)(?:,|\{,\}|\\,|\\!)+(?=\d{3})", "", asked)
        by = r"(?:\bby|mod|\bmodulo)\b[^\w.]{0,4}(?:the (?:prime|number|integer) [^\w.]{0,2})?"
        is_asked = _REMAINDER_ASKED.search(asked) and re.search(rf"{by}{found[2]}(?![\d^]|\.\d)", whole, re.IGNORECASE)
        theirs = _MODULO.fullmatch(others)
        return found[1] if is_asked and (theirs is None or theirs[2] == found[2]) else text
    with_units = _UNITS.sub(lambda found: rf"\text{{{found[1]}/{found[2] or found[3]}}}{found[4] or ''}", said)
    return text if with_units == said else with_units
