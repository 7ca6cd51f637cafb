"""Leaves the characters out of a text that nobody sees: they carry data past whoever reads it.

Those are control and format characters, private and default-ignorable ones (Unicode's DerivedCoreProperties.txt), and blanks
that count as letters or symbols. Joiners, selectors and the blank of Braille stay where they change what is seen, one at a
place. Spaces, and letters that look alike, are seen, and stay.
"""

from __future__ import annotations

import re
import unicodedata

from firsthand.safety.rules.joining_letters import JOINER, NON_JOINER, joins, keeps_apart
from firsthand.system.terminal import BLANK

_LAYOUT = "\t\n\v\f\r\x1c\x1d\x1e\x85"
"""Control characters that end lines or cells."""
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u24ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
_MONGOLIAN, _CELL = "\u1820-\u1878\u1880-\u18aa", "\u2801-\u28ff"
_IDLE = re.compile(
    f"(?<![{_EMOJI}])(?!(?<=[0-9#*])\ufe0f\u20e3)[\ufe0e\ufe0f]"
    f"|(?<![{_MONGOLIAN}])[\u180b-\u180d\u180f]"
    f"|(?<![{_CELL}])\u2800|\u2800(?![{_CELL}])"
)
"""Selectors behind what they do not change, and the blank of Braille that is not between two cells."""
_IN_PLACE = re.compile("[\ufe0e\ufe0f\u180b-\u180d\u180f\u2800\u200c\u200d]")
"""The characters that stay where they change what is seen."""
_IGNORABLE = re.compile("[\u2065\ufff0-\ufff8\ufffc\U000e0000-\U000e0fff]")
"""Unassigned ones that are drawn as nothing, and U+FFFC."""
_JOINERS = re.compile(f"([{NON_JOINER}{JOINER}])[{NON_JOINER}{JOINER}]+")
_IN_EMOJI = re.compile(f"[{_EMOJI}][\ufe0e\ufe0f]?{JOINER}(?=[{_EMOJI}])")


def visible(text: str) -> str:
    """The text without what nobody sees."""
    hidden = {ord(c) for c in set(text) if not _may_be_seen(c)}
    text = _JOINERS.sub(r"\1", _IDLE.sub("", text.translate(dict.fromkeys(hidden))))
    if NON_JOINER not in text and JOINER not in text:
        return text
    emoji = {found.end() - 1 for found in _IN_EMOJI.finditer(text)}
    return "".join(
        c
        for at, c in enumerate(text)
        if (c != NON_JOINER or keeps_apart(text, at)) and (c != JOINER or at in emoji or joins(text, at))
    )


def _may_be_seen(char: str) -> bool:
    if char in _LAYOUT or _IN_PLACE.match(char):
        return True
    return unicodedata.category(char) not in ("Cc", "Cf", "Co") and not BLANK.match(char) and not _IGNORABLE.match(char)
