"""Tells whether a question asks for the elements of its answer in an order, so that 3, 2, 1 is not 1, 2, 3.

Only where it asks for that clearly: `List them in increasing order`, `from least to greatest`, `Arrange the numbers`, `the
next three terms`. An order of what is given (`If a, b and c are in increasing order, find ...`) is none of the answer.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_NO_ORDER = re.compile(
    r"\b(?:any|either|no(?: particular| specific| special)?|whatever|whichever) order\b"
    r"|\border\b[^.?!]{0,60}(?:(?:\bnot|n['’]t) (?:matter|important)|\bno difference|\birrelevant|\bunimportant)\b"
    r"|\bregard(?:less)? (?:to|of)(?: the)? order\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.?!;])\s+|(?<=[.?!]\))\s+|\n[ \t]*\n")
_SORTED = (
    r"(?:strictly |reverse )?(?:increasing|decreasing|ascending|descending|non-?decreasing|non-?increasing"
    r"|numeric(?:al)?|alphabetic(?:al)?|lexicographic(?:al)?|chronological) order"
)
_MOST = r"(?:the )?(?:[a-z]{2,20}est|most|least)"
_END = r"(?:the )?(?:first|last|top|bottom|left|right|front|back|best|worst|high|low)"
_VALUES = rf"(?:\bin {_SORTED}\b|\b{_MOST}\b[^.?!,;]{{0,30}} to {_MOST}\b)"
_WRITES = re.compile(
    r"(?:^|[,:(] ?|\b(?:and|then|please|now|also) )"
    r"(?:list|write|give|state|name|enter|express|report|put|place|show|print|type|tell|provide|arrange|rank|sort|order)\b"
    r"|(?:^|\byour )answers?\b"
    r"|\b(?:should|must) be (?:listed|written|given|stated|entered|arranged|ranked|sorted|ordered)\b",
    re.IGNORECASE,
)
_NOT_OF_A_PAIR = r"(?! ?\(?(?:\$|\\\(|[a-z]\b))"  # `in the order (x, y)` is that of coordinates
_WRITTEN = re.compile(
    rf"{_VALUES}|\bfrom {_END} to {_END}\b|\bin order\b(?! (?:to|that|for)\b){_NOT_OF_A_PAIR}|\bthe order in which\b"
    r"|\bin (?:which|what) order\b"
    rf"|\bin (?:the|this|that|their)(?: (?:same|given|following|correct|right|proper|original))? order\b{_NOT_OF_A_PAIR}",
    re.IGNORECASE,
)
_FINDS = re.compile(r"\b(?:what are|find|determine|compute|solve)\b", re.IGNORECASE)
_FOUND = re.compile(rf"{_VALUES}(?= ?(?:[.?!,;()]|$))", re.IGNORECASE)
_CLAUSE = re.compile(
    r"\b(?:if|when|where|such|whose|suppose|assume|let|that|which|with|having|so|are|is)\b", re.IGNORECASE
)
_ALONE = re.compile(
    rf"(?:^|\b(?:and|then|please) |[,:] )(?:arrange|rank|sort|order) (?:the|these|those|them|all|each)\b"
    rf"|^(?:(?:(?:from )?{_VALUES}|from {_END} to {_END}),? (?:list|write|give|state|name|enter|find|what are)\b)"
    r"|^in (?:which|what) order\b"
    r"|\b(?:what are|find|give|list|write|state|determine|compute|name|enter)(?: down| out)? (?:the|its|their) "
    r"(?:first|next) (?:[\w-]{1,20} )?(?:terms|numbers in|elements of)\b",
    re.IGNORECASE,
)


def asks_for_order(question: str | None) -> bool:
    """Return whether the order of the answer's elements is part of what the question clearly asks for."""
    text = (question or "")[-MAX_CHARS:]
    return not _NO_ORDER.search(text) and any(map(_asks, _SENTENCE.split(text)))


def _asks(sentence: str) -> bool:
    """True if a sentence sorts, or names an order behind the verb that asks, in one clause."""
    text = " ".join(sentence.split())
    return bool(_ALONE.search(text)) or _follows(text, _WRITES, _WRITTEN) or _follows(text, _FINDS, _FOUND)


def _follows(text: str, verbs: re.Pattern[str], orders: re.Pattern[str]) -> bool:
    """True if an order follows the last verb before it with no other clause between."""
    ends = [found.end() for found in verbs.finditer(text)]
    clauses = [found.start() for found in _CLAUSE.finditer(text)]
    for order in orders.finditer(text):
        before = bisect_right(ends, order.start())
        if before and bisect_left(clauses, ends[before - 1]) == bisect_left(clauses, order.start()):
            return True
    return False
