"""Tells whether an equation states its right side: `x = 5` and `3 + 2 = 5` do, `2x = 5` and `x - 3 = 5` do not.

Looks at the text of a left side; `scorers/mathematics/left_sides.py` looks at its tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_LEFT_CHARS = 200
"""A longer left side is not looked for in the question, and a remark not further behind."""
_SPACES = re.compile(r"\s+|\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\\[,;:! ]")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![!<>/])=")
_CALL = re.compile(r"(?<![^\W\d_])([^\W\d_])[ \t]*\([^()\n]{0,60}\)")
_CLAUSE = re.compile(
    r"[,;:\n→⇒⟹]|\.[ \t]|\\(?:implies|Rightarrow|to|therefore)(?![A-Za-z])"
    r"|\b(?:so|thus|then|hence|therefore|and|means|gives|get|have|is|that|find|where|with)\b",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"(?<![^\W\d_\\])[^\W\d_](?![^\W\d_])|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega)(?![A-Za-z])"
)
_NAMED_PART = re.compile(
    r"(?<![^\W\d_])(?!(?:sin|cos|tan|log|ln|sqrt|root|twice|of|times|minus|plus)\b)[^\W\d_]{2,}[ \t]+$", re.I
)
_ARTICLE = re.compile(r"[aAI][ \t]+[^\W\d_]{2}")
_NAME = re.compile(r"[^\W\d_](?:_?\{?\w{1,20}\}?|['′₀-₉]{1,3})?|\\[A-Za-z]+")
_OPERATOR = re.compile(
    r"[-+*/^×÷·√²³!|\\]|(?<=\d)[ \t]*[^\W\d_]|\b(?:sin|cos|tan|log|ln|sqrt|root|times|minus|plus)\b", re.I
)
_RELATION = re.compile(
    r"\b(?:twice|half|double|thrice|triple|quadruple|negative|square|squared|cube|cubed|root|reciprocal|opposite|inverse|not"
    r"|third|quarter|minus|plus|times)\b",
    re.IGNORECASE,
)
_REASON = (
    r"because|since|as|where|when|namely|indeed|to[ \t]+verify|(?:double-?)?check\w*|verif\w+|proof|i\.e\."
    r"|porque|pues|ya[ \t]+que|weil|denn|car|puisque|parce[ \t]+que|perché|потому"
)
# Where a sentence ends, a bracket with an equation opens, or a reason begins. `5 ft. 6 in.`, `2 (3 + 1)` and `5:30` go on.
_REMARK = re.compile(
    r"(?:(?<=[\d%)\]}])|(?<=[^\W\d_]{4})|(?<=\b[ckm]m)|(?<=\bkg))[.!?…](?=[)*_\"'”’]{0,3}\s)"
    r"|[.!?…;](?=[)*_\"'”’]{0,3}\s\s?[^\w\s]{0,3}[^\W\d_])"
    rf"|:(?=\s)|[(\[](?=[^()\[\]]{{0,200}}=)|(?<![^\s(])(?:{_REASON})(?![^\W_])|因为|因為",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(r"(?=[^*×÷·+x-]*\d[\s)]{0,3}[*×÷·+x-])[\s\d.,$()*/×÷·^+x-]+")


def remarks(text: str) -> Iterator[int]:
    """Yield where what `text` states may end, before a check, a reason, a next sentence or a bracket with an equation.

    The sides of an equation that is one number and then only arithmetic (`12 = 3 * 4`) are parted too.
    """
    begun = text[:MAX_LEFT_CHARS]
    yield from (len(begun[: found.start()].rstrip(" \t,:–—-")) for found in _REMARK.finditer(begun))
    left, equals, right = begun.partition("=")
    if equals and _ARITHMETIC.fullmatch(right):
        yield len(left)


def right_side(text: str, question: str = "") -> str | None:
    """Return what follows the last `=`, the whole text without one, and None if its equation states no answer."""
    *left, right = _EQUALS.split(text)
    if not left or _states(_CLAUSE.split(_CALL.sub(r"\1", "=".join(left)))[-1], right, question):
        return right
    return None


def asks_for_left_side(answer: str, question: str | None) -> bool:
    """Return whether a question asks for the left side of an equation: for a + b where the answer is `a + b = 5`.

    A left side that the question states to be something, or that is a part of a larger expression there, is not asked for.
    """
    left = _spaceless(answer.rpartition("boxed{")[2].partition("=")[0].replace("$", ""))
    if question is None or not left or len(left) > MAX_LEFT_CHARS:
        return False
    wanted = r"\s*".join(map(re.escape, left))
    found = rf"(?<![\w+\-*/^=_{{(\\.]){wanted}(?!\s*[-=+*/^_<>(!]|\w|\s*\\(?:cdot|times|div|l?e[q]?|g[et]|neq?|equiv))"
    return re.search(found, _SPACES.sub(" ", _FRACTION.sub(r"\\frac", question))) is not None


def _states(clause: str, right: str, question: str) -> bool:
    left = clause.split("=")[0].strip(" \t$*_`\"'{[")
    unknown = [
        found
        for found in _UNKNOWN.finditer(left)
        if not _ARTICLE.match(left, found.start()) and not _NAMED_PART.search(left[: found.start()][-40:])
    ]
    if not unknown:
        related = _RELATION.search(left) and not re.search(r"\d", left)
        return not related or asks_for_left_side(left, question)
    if _NAME.fullmatch(left) or not _OPERATOR.search(left):
        return True
    measured = re.search(r"\d[ \t]*[^\W\d_]", right)  # 5 m + 3 m = 8 m
    if measured and all(re.search(r"\d[ \t]*$", left[: found.start()]) for found in unknown):
        return True
    return asks_for_left_side(left, question)


def _spaceless(text: str) -> str:
    return _SPACES.sub("", _FRACTION.sub(r"\\frac", text)).removeprefix("\\(").removeprefix("\\[")
