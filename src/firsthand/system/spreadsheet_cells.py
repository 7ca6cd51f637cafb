"""Keeps names of others from being read as formulas by a spreadsheet that opens a CSV file of ours."""

from __future__ import annotations

from firsthand.system.normalised_text import normalised_text

_BEGINNINGS = ("=", "+", "-", "@")
_CONTROLS = ("\t", "\r")


def plain_cell(value: object) -> object:
    """The value; a text that a spreadsheet would read as a formula is written after an apostrophe.

    Blanks and unseen characters before it are passed over, and full-width signs count as what they stand for.
    """
    if not isinstance(value, str):
        return value
    first = next((char for char in value if char.isprintable() and not char.isspace()), "")
    is_formula = value.startswith(_CONTROLS) or normalised_text("NFKC", first).startswith(_BEGINNINGS)
    return f"'{value}" if is_formula else value


def text_of_cell(text: str) -> str:
    """The text that `plain_cell` wrote: without the apostrophe before what a spreadsheet would read as a formula."""
    return text[1:] if plain_cell(text[1:]) == text else text
