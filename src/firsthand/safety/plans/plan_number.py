"""Reads a number that a text states in one way only: `12,50` is none, for it may be twelve and a half or 1250."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

_PLAIN = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+\.[0-9]+|(?:,[0-9]{3}){2,})")
"""Commas between thousands are told by a point behind them, or by a second one."""


def as_number(value: Any) -> float:
    """The number that a text states in digits, with a point before decimals; any other number as it is.

    ValueError for a comma that may stand before decimals (`12,50`, `1,000`) and what is not finite; TypeError for a list.
    """
    if isinstance(value, str):
        text = value.strip()
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        elif not _PLAIN.fullmatch(text):
            raise ValueError("no number in digits")
        value = text
    found = float(value)
    if not isfinite(found):
        raise ValueError("no finite number")
    return found
