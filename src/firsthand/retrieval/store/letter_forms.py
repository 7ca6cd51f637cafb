"""Forms of letters that make no other word: ligatures, wide and narrow letters, Arabic letters by their place, letters of
formulas, Korean syllables in parts, and Greek letters with their marks.

Signs that Unicode would write as letters, such as the trade mark sign, stay signs.
"""

from __future__ import annotations

import re
import unicodedata

from firsthand.system.normalised_text import normalised_text

_GREEK = "\u0370-\u03ff\u1f00-\u1fff"
_COMPATIBLE = (
    "\u1100-\u11ff\u3130-\u318f\ufb00-\ufb17\ufb1d-\ufdfb\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
    "\U0001d400-\U0001d7ff"
)
_RUN = re.compile(f"(?P<greek>[{_GREEK}]+)|[{_COMPATIBLE}]+")


def plain_letters(text: str) -> str:
    """The text with such letters in their plain form; without any it is the same text."""
    return text if text.isascii() else _RUN.sub(_plain_run, text)


def _plain_run(run: re.Match[str]) -> str:
    if run["greek"] is None:
        return normalised_text("NFKC", run[0])
    apart = normalised_text("NFD", run[0])
    return "".join(each for each in apart if not unicodedata.combining(each)).replace("ς", "σ")
