"""Marks that keep raised and lowered digits apart from those beside them: 10 and a raised 6 are `10^6`, and not 106."""

from __future__ import annotations

from typing import Literal

Level = Literal["^", "_", ""]
"""Raised, lowered, or on the line."""


def mark_between(before: str, after: str, level: Level) -> str:
    """The mark between two characters where the level changes to that of the second: `^`, `_`, a space, or nothing.

    Only what could be read as another number or word is marked: H2O and 1st stay as they are.
    """
    if level == "^":
        return "^" if (before.isalnum() or before == ")") and (after.isdigit() or after in tuple("+-\u2212")) else ""
    return (level or " ") if before.isdigit() and after.isdigit() else ""
