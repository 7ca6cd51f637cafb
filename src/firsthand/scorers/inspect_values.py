"""Reads the value of an Inspect score as a number, by Inspect's own table (`value_to_float`)."""

from __future__ import annotations

import math
from typing import Any

from firsthand.message import Json
from firsthand.stats.metric_names import is_lower_better

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's grades: correct, incorrect, partial, no answer."""
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""In capitals or not."""
MAX_SIZE = 1e300
MAX_CHARS = 400
"""Of a number as text."""


def inspect_value(value: Any) -> float | None:
    """The number of a score's value: a number or truth value, a grade, yes or no, or a number as text.

    None for anything else, and for numbers that are not finite or of MAX_SIZE and more. Inspect counts other texts as 0.
    """
    if isinstance(value, str):
        known = LETTERS.get(value, WORDS.get(value.lower()))
        if known is not None or len(value) > MAX_CHARS:
            return known
        try:
            number = float(value)
        except ValueError:
            return None
    elif isinstance(value, int | float) and abs(value) < MAX_SIZE:
        number = float(value)
    else:
        return None
    return number if math.isfinite(number) and abs(number) < MAX_SIZE else None


def direction_of(name: str, value: Any) -> Json:
    """The detail `is_harm` of a score whose name says that lower is better; empty for others.

    Inspect states no direction. A grade or a truth value says that the answer is right, whatever the scorer's name.
    """
    is_verdict = isinstance(value, bool) or (isinstance(value, str) and (value in LETTERS or value.lower() in WORDS))
    return {"is_harm": True} if not is_verdict and is_lower_better(name) else {}
