"""Tells a value that the user's words forbid ("never write to eve@evil.org") from one that they name.

Only what stands before the value in its own clause is read, in English. A clause that forbids by what comes after the value,
or in another language, is not seen.
"""

from __future__ import annotations

import re

_CLAUSE = re.compile(
    r"[!?;\n]|\.(?=\s)|\bbut\b|\binstead,|,\s+(?!(?:or|and|nor|to|at|in|not|even|ever|also|from|with)\b)(?=[A-Za-z]+\s)",
    re.IGNORECASE,
)
"""The ends of a clause; a comma between items of a list is none."""
_FORBIDS = re.compile(
    r"\bnever\b|\b(?:must|should|shall|may|can|need|are|is|do)(?:\s+not|n['’]?t)\b|\bcannot\b|\bnot\s+(?:to|for)\b"
    r"|(?:^|[,:(]|\band|\bplease)\s*not\b|\bavoid\b|\bexcept\b|\binstead of\b|\brather than\b|\bother than\b"
    r"|\bno\s+(?:mails?|messages?|payments?)\b",
    re.IGNORECASE,
)
_NOT_FORBIDS = re.compile(
    r"\b(?:I|we|they|he|she|it)\s+(?:do|can|am|is|are|may|should|must)(?:\s+not|n['’]?t)\b|\b(?:I|we)\s+cannot\b"
    r"|(?:\bnot|n['’]?t|\bnever)\s+(?:forget|fail|hesitate|omit|miss|only|just|wait)\b"
    r"|\bnot\s+for\s+long\b",
    re.IGNORECASE,
)
MAX_CLAUSE = 400
"""The most characters before a value that are read."""


def is_forbidden(text: str, start: int) -> bool:
    """True if the clause that leads to this place forbids what comes next."""
    clause = _CLAUSE.split(text[max(0, start - MAX_CLAUSE) : start])[-1]
    return _FORBIDS.search(_NOT_FORBIDS.sub(" ", clause)) is not None
