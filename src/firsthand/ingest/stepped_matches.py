"""Searches a long text in steps: one search of the interpreter lets no other thread run until it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

STEP = 256 << 10
REACH = 64 << 10
"""Characters from the begin of a match within which an expression decides, apart from repetitions that may end anywhere."""
_NEAR = 8 << 10
"""A match that looked at so much before the end of its step is sought again in the whole text."""


def stepped_matches(expression: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches of `finditer`. The expression matches no empty text and decides within REACH."""
    at = 0
    while len(text) - at > STEP + REACH:
        stop = at + STEP
        end = stop + REACH
        match = next(expression.finditer(text, at, end), None)
        if match is not None and match.start() < stop and max(after for _, after in match.regs) > end - _NEAR:
            match = expression.search(text, match.start())
            if match is None:
                return
        elif match is None or match.start() >= stop:
            at = stop
            continue
        yield match
        at = match.end()
    yield from expression.finditer(text, at)
