"""Takes wrappers off a text's pieces, so that what changes a piece stands against it: `-**5**` and `-(5)` become `-5`.

Wrappers are Markdown's emphasis and code, quotes, LaTeX's delimiters, and brackets around one piece beside a sign or around
a sign. Brackets around an expression stay, and bars stay but for those around a number without a sign.
"""

from __future__ import annotations

import re

_STRUCK = re.compile(r"~~[^~\n]{1,300}~~|<(del|s|strike)>[^<\n]{1,300}</\1>", re.IGNORECASE)
_EMPHASIS = (
    re.compile(r"(?<![\w)*])(?P<mark>\*{2,3})(?=[^\s*])(?P<inner>[^*\n]{1,300}?)(?<=\S)(?P=mark)(?!\*)"),
    re.compile(r"(?<![\w)*])(?P<mark>\*)(?=[^\s*])(?P<inner>[^*\n]{1,300}?)(?<=\S)\*(?![\w*])"),
    re.compile(r"(?<!\w)(?P<mark>_{1,2})(?=[^\s_])(?P<inner>[^_\n]{1,300}?)(?<=\S)(?P=mark)(?!\w)"),
)
_QUOTED = (
    re.compile(r"(?<!\w)(?P<mark>`{1,3})(?=[^\s`])(?P<inner>[^`\n]{1,300}?)(?<=\S)(?P=mark)(?!\w)"),
    re.compile(r"(?<!\w)[\"“«](?=[^\s\"])(?P<inner>[^\"“”«»\n]{1,100}?)(?<=\S)[\"”»](?!\w)"),
    re.compile(r"(?<!\w)['‘](?=[^\s'])(?P<inner>[^\n]{1,100}?)(?<=\S)['’](?!\w)"),
)
_DELIMITER = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])|\\[()\[\]]")
_SIGNS = r"[-+−–!¬]"
_AFTER_SIGN = re.compile(rf"(?<={_SIGNS})(?:\\[,;:! ]|\{{\}})+")
_SIGN_ALONE = re.compile(
    rf"[(\[{{]\s*(?P<sign>{_SIGNS})\s*[)\]}}](?:[ \t]+(?=[$.\d]))?"
    rf"|(?<!\w)(?P<mark>[\"'`_*]{{1,3}})(?P<marked>{_SIGNS})(?P=mark)(?=\S)"
)
_PIECE = r"\s*(?P<inner>\$?[^\W_][\w.,/]*)\s*"
_BESIDE_SIGN = tuple(
    re.compile(
        rf"(?<={_SIGNS}){opened}{_PIECE}{closed}(?![\w(\[{{^])|{opened}(?P<first>[^\W_]+){closed}(?=[-+#*]+(?![\w(]))"
    )
    for opened, closed in ((r"(?<!\w)\(", r"\)"), (r"(?<!\w)\[", r"\]"), (r"(?<![\w}])\{", r"\}"))
)
_BARS = re.compile(r"(?<![\w|])\|\s*(?P<inner>\d[\d.,]*)\s*\|(?![\w|])")
_NESTED = 3


def without_struck(text: str) -> str:
    """Return the text without words that Markdown or HTML strikes out."""
    return _STRUCK.sub("", text)


def without_emphasis(text: str) -> str:
    """Return the text without the stars and underscores of Markdown's emphasis."""
    for emphasis in _EMPHASIS:
        text = emphasis.sub(r"\g<inner>", text)
    return text


def without_brackets_of_signs(text: str) -> str:
    """Return the text with a sign that stands alone in brackets or marks without them: `(-)5` is `-5`."""
    return _SIGN_ALONE.sub(lambda found: found["sign"] or found["marked"], text)


def unwrapped(text: str) -> str:
    """Return the text without struck words, and without wrappers between its pieces and the signs beside them."""
    text = _DELIMITER.sub("", without_struck(text))
    for _ in range(_NESTED):
        before, text = text, without_emphasis(text)
        for pattern in _QUOTED:
            text = pattern.sub(r"\g<inner>", text)
        text = _BARS.sub(r"\g<inner>", _AFTER_SIGN.sub("", without_brackets_of_signs(text)))
        for pattern in _BESIDE_SIGN:
            text = pattern.sub(lambda found: found["inner"] or found["first"], text)
        if text == before:
            break
    return text
