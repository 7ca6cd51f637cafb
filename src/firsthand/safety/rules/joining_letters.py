r"""Zero-width joiners and non-joiners that are seen: those that join a letter, or keep two apart which would join.

The rule for non-joiners is CONTEXTJ of IDNA (RFC 5892, appendix A.1): behind a virama, or between a letter that joins to
the left and one that joins to the right, as in Persian and Hindi. A joiner is seen beside a virama, as in Sinhala, and
between a letter that joins to it and one that does not, as in Persian abbreviations. Joining types are those of Unicode's
ArabicShaping.txt for the scripts from Arabic to Mandaic, Mongolian, Phags-pa, Hanifi Rohingya and Adlam.
"""

from __future__ import annotations

import re
import unicodedata

NON_JOINER, JOINER = "\u200c", "\u200d"
_VIRAMA = 9
"""The canonical combining class of viramas."""
_BOTH = (
    "\u0620\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u0649-\u064a\u066e-\u066f\u0678-\u0687\u069a-\u06bf"
    "\u06c1-\u06c2\u06cc\u06ce\u06d0-\u06d1\u06fa-\u06fc\u06ff\u0712-\u0714\u071a-\u071d\u071f-\u0727\u0729\u072b"
    "\u072d-\u072e\u074e-\u0758\u075c-\u076a\u076d-\u0770\u0772\u0775-\u0777\u077a-\u077f\u07ca-\u07ea\u0841-\u0845"
    "\u0848\u084a-\u0853\u0855\u0860\u0862-\u0865\u0868\u0886\u0889-\u088d\u088f\u08a0-\u08a9\u08af-\u08b0"
    "\u08b3-\u08b8\u08ba-\u08c8\u1807\u1820-\u1878\u1887-\u18a8\u18aa\ua840-\ua871"
    "\U00010d01-\U00010d21\U00010d23\U0001e900-\U0001e943"
)
"""Letters that join on both sides (D)."""
_RIGHT = (
    "\u0622-\u0625\u0627\u0629\u062f-\u0632\u0648\u0671-\u0673\u0675-\u0677\u0688-\u0699\u06c0\u06c3-\u06cb\u06cd"
    "\u06cf\u06d2-\u06d3\u06d5\u06ee-\u06ef\u0710\u0715-\u0719\u071e\u0728\u072a\u072c\u072f\u074d\u0759-\u075b"
    "\u076b-\u076c\u0771\u0773-\u0774\u0778-\u0779\u0840\u0846-\u0847\u0849\u0854\u0856-\u0858\u0867\u0869-\u086a"
    "\u0870-\u0882\u088e\u08aa-\u08ac\u08ae\u08b1-\u08b2\u08b9\U00010d22"
)
"""Letters that join to the one before them alone (R)."""
_JOINS_NEXT, _JOINS_LAST = re.compile(f"[{_BOTH}]"), re.compile(f"[{_BOTH}{_RIGHT}]")


def keeps_apart(text: str, at: int) -> bool:
    """True if the non-joiner at this place of the text keeps letters apart that would join without it."""
    if at and unicodedata.combining(text[at - 1]) == _VIRAMA:
        return True
    left, right = _joining(text, at)
    return left and right


def joins(text: str, at: int) -> bool:
    """True if the joiner at this place of the text changes the form of a letter, or of a conjunct."""
    if _VIRAMA in (unicodedata.combining(each) for each in text[max(0, at - 1) : at] + text[at + 1 : at + 2]):
        return True
    left, right = _joining(text, at)
    return left != right  # both join without it


def _joining(text: str, at: int) -> tuple[bool, bool]:
    """True for the letter before the place if it joins to the next, and for the one after it if it joins to the last."""
    before, after = at - 1, at + 1
    while before >= 0 and unicodedata.category(text[before]) in ("Mn", "Me"):
        before -= 1
    while after < len(text) and unicodedata.category(text[after]) in ("Mn", "Me"):
        after += 1
    left = before >= 0 and _JOINS_NEXT.match(text[before]) is not None
    return left, after < len(text) and _JOINS_LAST.match(text[after]) is not None
