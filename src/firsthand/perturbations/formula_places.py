"""Places of a text that are formulas, or symbols whose every letter counts: TeX, variables, units, acronyms."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\\\|\\(?:begin|end)\{\w{1,30}\*?\}|\\[A-Za-z]+|\\.|\$\$?|\[/?asy\]")
_CLOSED_BY = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]", "[asy]": "[/asy]"}
_WORD = re.compile(r"[^\W_]+")
_UNIT = 3
"""Letters of a word after a number that may be a unit."""


def formula_places(text: str) -> list[tuple[int, int]]:
    """Places of TeX: formulas with their marks, environments, and commands outside of them; amounts in dollars are none."""
    places = []
    start, closing = 0, ""
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == closing and (token != "$" or _is_end(text, found.start())):
            places.append((start, found.end()))
            closing = ""
        elif not closing or token == closing == "$":
            closing = "" if token == "$" and text[found.end() : found.end() + 1].isspace() else _closing(token)
            start = found.start()
        if token[0] == "\\" and token[1:].isalpha():
            places.append(found.span())
    return places


def symbol_places(text: str) -> list[tuple[int, int]]:
    """Places of single letters, of up to three letters after a number, and of words with a capital after their first letter.

    None of the last kind in a text that is all capitals.
    """
    shouts = text.isupper()
    return [each.span() for each in _WORD.finditer(text) if _is_symbol(text, each.start(), each[0], shouts)]


def paired_letters(text: str) -> list[tuple[int, int]]:
    """Places of the symbols that stand in a text beside another spelling of theirs: X beside x, AB beside ab, MW beside mW.

    A word with no capital but its first is a symbol only if it is that letter alone.
    """
    found = list(_WORD.finditer(text))
    spellings: dict[str, set[str]] = {}
    for each in found:
        spellings.setdefault(each[0].lower(), set()).add(each[0])
    symbols = [each for each in found if each[0].isupper() or each[0][1:] != each[0][1:].lower()]
    return [each.span() for each in symbols if len(spellings[each[0].lower()]) > 1]


def _is_symbol(text: str, at: int, word: str, shouts: bool) -> bool:
    if not shouts and word[1:] != word[1:].lower():
        return True  # NaCl, pH, RNA
    before = text[max(0, at - 2) : at]
    is_after_number = before[-1:] in (" ", "\u00a0") and before[:1].isdigit()
    return word.isalpha() and (len(word) == 1 or (len(word) <= _UNIT and is_after_number))


def _closing(token: str) -> str:
    return token.replace("\\begin", "\\end") if token.startswith("\\begin") else _CLOSED_BY.get(token, "")


def _is_end(text: str, at: int) -> bool:
    """True if a dollar sign can end a formula: no blank stands before it, and no digit after it."""
    return not text[at - 1].isspace() and not text[at + 1 : at + 2].isdigit()
