"""Keeps names of others from being read as formulas by a spreadsheet that opens a CSV file of ours."""

from __future__ import annotations

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")


def plain_cell(value: object) -> object:
    """The value; a text that a spreadsheet would read as a formula is written after an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINNINGS) else value
