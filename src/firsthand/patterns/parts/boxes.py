"""Reads the last `\\boxed{...}` of a text, with what stands directly against it: `-\\boxed{9}` is -9, `5\\boxed{3}` no 3.

Looks at the line of the box. A reason, a unit or a relation beside it changes nothing.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.filler import without_filler
from firsthand.patterns.parts.value_words import MULTIPLES

LINE_CHARS = 320
"""Characters on each side of a box, on its line, that are read."""
_START = "\\boxed{"
_BULLET = re.compile(r"^[ \t]*+[-*+•][ \t]++(?=[\s$*_(\\]*+$)")
_ANOTHER = re.compile(r"^[\s$*.,]*and\s[^\n\d]*?\d.*")
_MATHS_END = re.compile(r"\\(?:end|pmod|tag)(?![A-Za-z]).*|(?<=\.)(?:\\[\])]|\$\$).*")
_AT_MOST = re.compile(r"\bat[ \t]++(?:least|most)[ \t]*+\$*+[ \t]*+$", re.IGNORECASE)
_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox)"
_SPACE = r"(?:[\s$*{}~]|\\[,;:! ]|\\[()\[\]]|\\q?quad(?![A-Za-z]))"
# What is around a box and changes nothing: spaces, delimiters, styles, and `\text{...}` before it
_OPENING = re.compile(
    r"(?:[\s${(~&]|\*\*|\\[,;:! (\[]|\\(?:q?quad|left|displaystyle|bf|rm|large|Large|huge)"
    r"|\\(?:math(?:bf|rm|it|sf)|boldsymbol|bm|underline|textcolor\{[^{}]*\})"
    r"|\\(?:text\w*|mathrm|mbox|color|begin|end|tag|hspace)\*?\{[^{}]*\})$"
)
_MINUS = re.compile(rf"(?:[-−–]|{_TEXT}\{{\s*(?:minus|negative)\s*\}}|\b(?:minus|negative))$", re.IGNORECASE)
_OPERAND = re.compile(r"(?:[\d)}\]!]|(?<![A-Za-z])[A-Za-z]|\\(?:pi|theta))$")
_OPERATOR = re.compile(
    r"(?:[+*/^_√±×÷·]|\b(?:not|never|twice|thrice)|n['’]t"
    r"|\\(?:cdot|times|div|pm|mp|sqrt(?:\[[^\]]{0,40}\])?|[dtc]?frac|sin|cos|tan|log|ln|pi))$"
)
_FACTOR = re.compile(r"(?:\d|(?<!\\)\}|(?<![^\W\d_])(?<!\\)[A-Za-z])$")
_AGAINST = re.compile(r"(?:\{|\\[,;:! ]|(?:\\left)?\()*")
_BEHIND = re.compile(
    rf"{_SPACE}*(?:\^(?!\s*+\{{?\s*+(?:\\circ|°))|[²³/+×÷·√−]|-(?=\s*(?:\d|\\(?!text)))|\\(?:cdot|times|div|pm|mp|sqrt|pi)(?![A-Za-z])"
    r"|\\[dtc]?frac(?!\{\\text))|!\s*(?:\$|\\[)\]]|[-+*/=])|[}*$]*(?:(?:\{,\}|,\\!|[.,:])?\d|[kKMB](?![A-Za-z]))"
    r"|[abefijknoqrtuvwxyz](?![^\W_])|\([-\d]"
)
_SCALE = re.compile(rf"{_SPACE}*(?:{_TEXT}\{{)?{_SPACE}*({'|'.join(MULTIPLES)})\b", re.IGNORECASE)


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}`, inner braces included."""
    start = text.rfind(_START)
    if start < 0:
        return None
    depth, begin = 1, start + len(_START)
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    return None


def line_of_box(text: str, end: int, content: str) -> tuple[str, str]:
    """The text before and after the box whose content ends at `end`, on its line; empty if it is no box."""
    start = text.rfind(_START, 0, end)
    if start < 0 or text[start + len(_START) : end].strip() != content or not text.startswith("}", end):
        return "", ""
    before, after = text[:start].rpartition("\n")[2], text[end + 1 :].partition("\n")[0]
    after = _MATHS_END.sub("", _ANOTHER.sub("", after))  # the box ends there: \boxed{5} and 9
    before = _AT_MOST.sub("", _BULLET.sub("", before))
    return without_filler(before)[-LINE_CHARS:], without_filler(after)[:LINE_CHARS]


def boxed_answer(text: str, question: str = "") -> str | None:
    """The content of the last box with what stands directly against it: a sign, `million`, a factor; None without a box.

    Of a question that asks how many millions there are, `million` is a unit, and of one for a coefficient, x is none of it.
    """
    content = last_boxed(text)
    if content is None or not content.strip():
        return content
    before, after = line_of_box(text, text.rfind(_START) + len(_START) + len(content), content.strip())
    scale = _SCALE.match(after)
    if scale is not None and not re.search(rf"\b(?:how\s+many|in|of)\s+{scale[1]}s?\b", question, re.IGNORECASE):
        content = f"{content} {scale[1]}"
    bare, filled = _bare(before), re.match(r"[\s$]*=", after)  # x + [5] = 8
    if sign := _MINUS.search(bare):
        left = _bare(bare[: sign.start()])
        if _OPERAND.search(left):
            return f"{left}{sign[0]}{content}"
        dash = before[-1:].isspace() and left[-1:].isalpha()
        return content if dash else f"-({content})"
    if _BEHIND.match(after) and "coefficient" not in question.casefold():
        return f"{content}{after}"
    beside = before[len(bare) :]
    factor = re.search(r"[\d}]$", bare) if "(" in beside else _FACTOR.search(bare)  # f(5), but no 2(5)
    changed = not filled and (_OPERATOR.search(bare) or (factor and _AGAINST.fullmatch(beside)))
    return f"{bare} {content}" if changed else content


def _bare(before: str) -> str:
    """The text before a box, without trailing delimiters and styles that leave its value unchanged."""
    while found := _OPENING.search(before):
        if _MINUS.search(before):
            break
        before = before[: found.start()]
    return before
