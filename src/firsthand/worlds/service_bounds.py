"""Bounds what a call of a simulated service may take: places that are computed, numbers in texts, the state that it leaves.

The simulators compute and copy whatever they are told. Left out: a limit on time, since each call is short within these.
"""

from __future__ import annotations

import decimal
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

MAX_PLACES = 1_000
"""Decimal places of a logarithm or a root; 100,000 take seconds."""
MAX_STATE_CHARS = 2_000_000
"""Characters of all names and texts in the services, each name with those of the folders around it, as `find` lists them.
The leaderboard's tasks begin with fewer than 40,000."""
_PLAIN = re.compile(r"[-+]?\d{0,40}\.?\d{0,40}(?:[eE][-+]?\d{1,2})?", re.ASCII)


class BeyondBounds(Exception):
    """A call wants more than is computed; the text says what to do."""


def check_numbers(given: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """BeyondBounds for more places than MAX_PLACES, and for a text in the place of a number that is long or huge."""
    for key, value in given.items():
        if hints.get(key) not in (int, float):
            continue
        if isinstance(value, str) and any(map(str.isdigit, value)) and not _PLAIN.fullmatch(value.strip()):
            raise BeyondBounds(f"{key} is the text {value[:40]!r}, and a number was expected: give it without quotes")
        if key == "precision" and _beyond(value):
            raise BeyondBounds(
                f"{key} is {str(value)[:20]}, and at most {MAX_PLACES:,} places are computed: give fewer"
            )


def _beyond(value: Any) -> bool:
    try:
        return not -MAX_PLACES <= float(value) <= MAX_PLACES
    except (TypeError, ValueError):  # the service says so
        return False
    except OverflowError:
        return True


@contextmanager
def own_precision() -> Iterator[None]:
    """Within it the precision of decimal and mpmath is the default; it is as before afterwards, whatever a call sets."""
    mpmath = sys.modules.get("mpmath")
    before = mpmath.mp.prec if mpmath else 0
    try:
        with decimal.localcontext(decimal.Context()):
            if mpmath:
                mpmath.mp.dps = 15
            yield
    finally:
        if mpmath:
            mpmath.mp.prec = before


def is_too_large(services: Iterable[Any]) -> bool:
    """True if the names and texts of the services have more than MAX_STATE_CHARS characters, or hold themselves.

    What two folders share counts in each of them, since a search walks through both.
    """
    chars = 0
    left = [(vars(each), 0) for each in services]
    while left:
        value, around = left.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                path = around + len(str(key)) + 1
                chars += path
                left.append((inner, path))
        elif isinstance(value, list | tuple | set):
            chars += len(value)
            left += ((each, around) for each in value)
        elif isinstance(value, str):
            chars += len(value)
        elif hasattr(value, "contents"):
            left.append((value.contents, around))
        elif hasattr(value, "content"):
            chars += len(str(value.content))
        if chars > MAX_STATE_CHARS:
            return True
    return False
