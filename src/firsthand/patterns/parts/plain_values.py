"""Takes LaTeX wrappers and Markdown off a text, so that a number stands beside what belongs to it.

`5{,}000`, `5\\text{ million}`, `**5** million` and `\\text{minus }5` become `5000`, `5 million` and `minus 5`. Signs and
commands that make another value stay.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.filler import without_filler
from firsthand.patterns.parts.value_words import folded

_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|emph|underline|boldsymbol|bm|fbox|boxed"
    r"|operatorname)\s*\{([^{}]*)\}"
)
_NESTED = 4
MARK = "\ue0ff"
"""Stands at both ends of a piece that is found again afterwards."""
_STRUCK = re.compile(r"~~[^~\n]{1,300}~~|<(del|s|strike)>[^<\n]{1,300}</\1>")
_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ]|~|,\\!|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\w.,'’/])(?<!\d )(\d{1,3})((?: \d{3})+|(?:['’]\d{3})+)(?![\w'’/-]|[.,]\d{3}| \d)")
_CHEERFUL = re.compile(r"(?<=\d[*_])!|(?<=\d[*_]{2})!")  # **5**! is no factorial
_BOLD_GROUP = re.compile(r"(?<=\d)\*\*(,\d{3}[\d,]{0,40})\*\*")
_BOLD = re.compile(r"(?<![\w)*])(\*{2,3})(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\1(?!\*)")
_ITALIC = re.compile(r"(?<![\w)*])(\*)(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\*(?![\w*])")
_UNDERSCORED = re.compile(r"(?<!\w)(_{1,2})(?=[^\s_])([^_\n]{1,300}?)(?<=\S)\1(?!\w)")
_SIGN_ALONE = re.compile(r"[(\[]\s{0,4}([-−–])\s{0,4}[)\]]\s{0,4}(?=\$?\.?\d)")  # (-)5
_REPLACED = (
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lrm]?)(?![A-Za-z])|\\[()\[\]]|`|\{\}"), ""),
    (re.compile(r"</?(?:b|i|em|strong|u|span|code|answer|mark)>", re.IGNORECASE), ""),
    (re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|(?<=[\w}])~(?!\d)"), " "),
    (re.compile(r"=/=|\\neq?(?![A-Za-z])"), "≠"),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r"(?<=[\w})\]%!.\ue0ff])\$+(?![\d.])"), ""),
    (re.compile(r"(?<![\w}^_\])])\{[ \t]*(-?\$?\d[\d,.]{0,40})[ \t]*\}"), r"\1"),
)


def joined_groups(text: str) -> str:
    """Return the text with digits that are grouped by blanks, apostrophes or LaTeX's spaces side by side: `12 345`."""
    return _SPACED.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), _GROUPS.sub("", text))


def plain_values(text: str) -> str:
    """Return the text without wrappers, emphasis, struck words and filler; see `folded` for its signs."""
    text = joined_groups(_STRUCK.sub("", text))
    for _ in range(_NESTED):
        if "\\" not in text or (bare := _WRAPPED.sub(r"\1", text)) == text:
            break
        text = bare
    text = _BOLD_GROUP.sub(r"\1", _CHEERFUL.sub(".", text))
    for emphasis in (_BOLD, _ITALIC, _UNDERSCORED):
        text = emphasis.sub(r"\2", text)
    for pattern, made in _REPLACED:
        text = pattern.sub(made, text)
    return folded(_SIGN_ALONE.sub(r"\1", without_filler(text)))
