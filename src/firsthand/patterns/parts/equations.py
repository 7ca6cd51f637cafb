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
_CHECK = r"(?:(?:double-?)?check(?:ed|ing)?|verif\w+|proof)"
_REASON = (
    r"because|since|(?<=[,(–—-][ \t])as|namely|indeed|to[ \t]+verify|i\.e\."
    r"|(?:where|when)(?=[ \t]+[$\\(]{0,3}(?:\d|[^\W\d_]\d?(?![^\W_])))"
    r"|porque|pues|ya[ \t]+que|weil|denn|car(?=[ \t]+[$\\(]{0,3}\d)|puisque|parce[ \t]+que|perché|потому"
)
# A sentence's end, a colon, a bracket with an equation, a check or a reason. `5 ft. 6 in.`, `2 (3 + 1)` and `5:30` go on.
_REMARK = re.compile(
    r"(?P<end>(?:(?<=[\d%)\]}])|(?<=[^\W\d_]{4})|(?<=\b[ckm]m)|(?<=\bkg))"
    r"[.!?…](?=[)*_\"'”’]{0,3}\s)(?!\s{1,3}[=+*/×÷·^-]\s)"
    r"|[.!?…;](?=[)*_\"'”’]{0,3}\s\s?[^\w\s]{0,3}[^\W\d_]))|(?P<colon>:)(?=\s)"
    r"|(?P<bracket>[(\[])(?=[^()\[\]]{0,200}=)(?![^()\[\]]{0,200}[)\]][ \t]*[-+*/×÷·=])"
    rf"|(?P<check>(?<![^\W_]){_CHECK}(?=[ \t]*:)|(?<=[,(–—-][ \t]){_CHECK}\b)"
    rf"|(?P<reason>(?<![^\s(])(?:{_REASON})(?![^\W_])|因为|因為)",
    re.IGNORECASE,
)
_CHECKS = re.compile(
    rf"[\W_]*+(?:(?:let(?:['’]s|[ \t]+us|[ \t]+me)|to|but|however|yet|now|i|we|you)\b[\W_]*+){{0,3}}(?:{_CHECK}|indeed)\b",
    re.IGNORECASE,
)
_SAID_AT_ONCE = re.compile(
    r"[\W_]*+(?:(?:about|approx(?:imately|\.)?|roughly|around|exactly|only|just|simply|therefore|thus|hence)\b[\W_]*+)?"
    r"(?:[^\W\d_][ \t$]*=[\W_]*+)?\d[^=]*$",
    re.IGNORECASE,
)
_ABBREVIATED = re.compile(r"[^=]*[.!]\s{0,3}=")
_SENTENCE_END = re.compile(r"[.!?;]\s")
_VALUE = re.compile(r"\d[\d,]*(?:\.\d+)?")
_ARITHMETIC = re.compile(r"(?=[^*×÷·+x-]*\d[\s)]{0,3}[*×÷·+x-])[\s\d.,$()*/×÷·^+x-]+")


def remarks(text: str) -> Iterator[int]:
    """Yield where what `text` states may end, before a check, a reason, a next sentence or a bracket with an equation.

    The sides of an equation that is one number and then only arithmetic (`12 = 3 * 4`) are parted too.
    """
    begun = text[:MAX_LEFT_CHARS]
    for found in _REMARK.finditer(begun):
        head = begun[: found.start()].rstrip(" \t,:–—-")
        if _ends(found.lastgroup, head, begun[found.start() :]):
            yield len(head)
    left, equals, right = begun.partition("=")
    if equals and _ARITHMETIC.fullmatch(right):
        yield len(left)


def is_check(remark: str) -> bool:
    """Return whether a remark begins with a check: `. Check: 63 + 29 = 92`, `. But let us verify this`."""
    return _CHECKS.match(remark) is not None


def _ends(kind: str | None, head: str, rest: str) -> bool:
    """True if a statement ends where `rest` begins; a sum that goes on (`She had 5. She got 2: 5 + 2 = 7`) does not."""
    if kind == "check" or is_check(rest):
        return True
    if kind == "end" and _ABBREVIATED.match(rest):  # 5 mins. 20 secs. = 320 secs., and 5! = 120
        return False
    if _SAID_AT_ONCE.match(head):
        is_item = kind == "end" and head.strip(" *") == "1" and re.search(r"\b2[.)]\s", rest) is not None
        return not is_item and (kind != "colon" or not head[-1:].isalpha())
    if kind == "bracket":
        return "=" not in re.split(r"[)\]]", rest, maxsplit=1)[-1]
    if kind == "reason":
        return "=" not in "".join(_SENTENCE_END.split(rest, maxsplit=1)[1:])
    values = _VALUE.findall(rest)  # 84 - 21 = 63. Then 63 + 21 = 84 leads back
    return bool(values) and "=" in head and values[-1] in _VALUE.findall(head.rpartition("=")[0])


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
