"""Reads an attempt's answer for the scorers: the whole of it or nothing, never a part as if it were all.

What stands beyond a cut (a second answer, a comma, a wrong value) would not be seen, and filler is cheap: a token may be a
hundred blanks.
"""

from __future__ import annotations

from firsthand.trace import Trace

MAX_CHARS = 1_000_000
"""An answer with more characters is right for no scorer."""


def whole_answer(trace: Trace, most: int = MAX_CHARS) -> str:
    """Return the attempt's answer, or "" if it has more than `most` characters: not for scores where silence is best."""
    answer = trace.answer or ""
    return answer if len(answer) <= most else ""
