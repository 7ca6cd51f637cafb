"""Finds amounts that are asked about, called uncertain or called past instead of stated, by the words beside them."""

from __future__ import annotations

import re

BEFORE_CHARS = 200
"""The words before an amount are looked at so far back."""
_LINKS = (
    r"(?:[^\w.!?;:\n]+(?:about|around|roughly|near|close|to|as|much|at|the|an?|total|sum|amount|of|eur|usd)\b){0,5}"
)
_UNCERTAIN = re.compile(
    r"\b(?:(?:(?:might|may|could)(?:[ \t]+(?:well|also|even|just|possibly))?"
    r"[ \t]+(?:be|have[ \t]+been|equal|come|amount|total)"
    rf"|(?:is|are|be|was|were|equals?)[ \t]+no[ \t]+(?:longer|more)|used[ \t]+to[ \t]+be)\b{_LINKS}"
    r"|(?:(?:maybe|perhaps|possibly|probably|presumably)|I[ \t]+(?:guess|assume|suppose|suspect))\b"
    r"(?:(?!\b(?:and|but|so|that|which|know|knew|want|wanted|need|needed)\b)[^,;:.!?)\]\n])*)[^\w,;:.!?)\]\n]*$",
    re.IGNORECASE,
)
"""Words before an amount that do not assert it."""
_ASKS = re.compile(
    r"(?:^|[,.!?;:\n])(?:[^\w,.!?;:\n]|_)*+(?:(?:so|and|but)[ \t]+)?"
    r"(?:is|are|was|were|isn['’]t|does|do|did|can|could|would|should|has|have|what|which|why|how)\b[^,.!?;:\n]*$",
    re.IGNORECASE,
)
"""The beginning of a question."""
_REQUESTS = re.compile(
    r"(?:^|[,.!?;:\n])[^\w,.!?;:\n]*+(?:(?:so|and|but)[ \t]+)?(?:can|could|will|would)[ \t]+you[ \t]+"
    r"(?:(?:please|kindly)[ \t]+)?"
    r"(?:pay|transfer|wire|remit|send|charge|book|record|note|enter|file|approve)\b[^,.!?;:\n]*$",
    re.IGNORECASE,
)
"""The beginning of a request to do something with the amount, which is asked politely."""
_ASKED = re.compile(r"[^,.!?;:\n]*\?")
_UNIT = r"[^\w.!?\n]*(?:(?:euros?|eur|dollars?|usd|pounds?)\b[^\w.!?\n]*)?"
_DOUBTED = re.compile(
    rf"{_UNIT}(?:(?:(?:right|correct|true|is(?:n['’]t)?[ \t]+it|or[ \t]+not)\b[^\w.!?\n]*)?\?"
    r"|(?:maybe|perhaps|probably|possibly|I[ \t]+(?:guess|assume|suppose))\b"
    r"|(?:is|are|was)[ \t]+no[ \t]+longer\b)",
    re.IGNORECASE,
)
"""Words right after an amount that cast doubt on it."""


def is_hedged(before: str, after: str) -> bool:
    """Return True if the words before or after an amount make it a question, a guess, or a thing of the past.

    `Is it 5?`, `It is 5, right?`, `It might be 5`, `5, I guess` and `It is no longer 5`. `About 5` states it, and so does
    `Could you pay 5?`.
    """
    before = before[-BEFORE_CHARS:]
    is_asked = _ASKED.match(after) is not None and _ASKS.search(before) is not None
    if is_asked and _REQUESTS.search(before) is not None:
        return _UNCERTAIN.search(before) is not None
    return is_asked or _UNCERTAIN.search(before) is not None or _DOUBTED.match(after) is not None
