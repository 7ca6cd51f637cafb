"""Shortens what stands between words and says nothing, so that a bound in characters counts what is said.

A number is read by the words and signs near it, some hundred characters to each side. Blanks, unseen characters and rows of
signs would fill that, and `minus`, a thousand blanks and `5` would be 5.
"""

from __future__ import annotations

import re
import unicodedata

from firsthand.system.unseen_letters import without_unseen

MOST_SIGNS = 40
"""Signs in a row on one line; a longer row keeps the first and the last half of so many."""
# No white space to Python: the fillers of Hangul and the empty pattern of Braille.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
_ODD_BLANK = re.compile(r"[\r\v\f\x1c-\x1f\x85\u2028\u2029]|&(?:nb|en|em|thin)sp;")
_BLANKS = re.compile(r"\s{3,}")
_LATEX_BLANKS = re.compile(r"(?:\s|\\[,;:! ]|\\q?quad(?![A-Za-z])){3,}")
# A row begins behind what is no sign; private characters are none, since readers mark places with them.
_NO_SIGN = r"[^\W_]|[\n\ue000-\uf8ff]"
_SIGNS = re.compile(rf"(?<!(?!{_NO_SIGN})[\s\S])(?:(?!{_NO_SIGN})[\s\S]){{{MOST_SIGNS + 1},}}")


def without_filler(text: str) -> str:
    """Return the text with one or two blanks for a longer run, a line end or an empty line for one with line ends.

    Two blanks stay two, which keep columns apart where one would group digits (`12 345`). Characters that are not seen are
    left out, and rows of signs are cut in their middle. Linear in the text.
    """
    if not text.isascii():
        text = text.translate({ord(each): _seen(each) for each in set(text)})
    text = _BLANKS.sub(_shortened, _ODD_BLANK.sub(" ", text.replace("\r\n", "\n")))
    return _SIGNS.sub(_both_ends, _LATEX_BLANKS.sub(_shortened, text) if "\\" in text else text)


def _seen(character: str) -> str:
    if character in _BLANK:
        return " "
    return "" if unicodedata.category(character) == "Cf" else without_unseen(character)


def _shortened(run: re.Match[str]) -> str:
    if ends := run[0].count("\n"):
        return "\n" * min(ends, 2)
    return run[0][:2] if run[0][:2].isspace() else "  "


def _both_ends(run: re.Match[str]) -> str:
    return run[0][: MOST_SIGNS // 2] + run[0][-MOST_SIGNS // 2 :]
