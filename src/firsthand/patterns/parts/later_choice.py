"""Reads which choice a text leaves in place of one that it stated, from marked text.

Behind a statement, a sentence that is little else than a choice (`So C.`, `Edit: C`, `On balance, though, C.`) or concludes
that one is right (`But C is correct.`) offers it, and the last offer counts. An explanation that names choices offers none.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.asserted_choices import asserted
from firsthand.patterns.parts.named_choices import CHOICE, TEXT, index
from firsthand.patterns.parts.taken_back import taken_back

_SIGNS = "[^\\w\ue000-\uf8ff]*+"
_OPENS = (
    r"(?:so|thus|therefore|hence|but|however|yet|though|still|and|or|oh|no|ah|hm+|well|ok|okay|wait|actually|rather"
    r"|instead|then"
    r"(?:[ \t]+again)?|otherwise|alternatively|in[ \t]+(?:fact|truth|the[ \t]+end)|on[ \t]+(?:balance"
    r"|(?:second[ \t]+)?(?:thoughts?|reflection))"
    r"|after[ \t]+all|at[ \t]+last|finally|ultimately|overall|sorry|oops|edit(?:ed)?|revised|revision|correct(?:ion"
    r"|ed)?|update[d]?"
    r"|final(?:[ \t]+version)?|now|better|make[ \t]+(?:it|that)|scratch[ \t]+that|I[ \t]+(?:mean|meant"
    r"|take[ \t]+(?:that|it)[ \t]+back)"
    r"|I[ \t]+changed[ \t]+my[ \t]+mind|my[ \t]+(?:bad|mistake)|or[ \t]+rather|yes|hence|it[ \t]+(?:is|must[ \t]+be)"
    r"|it's|that's"
    r"|that[ \t]+is|this[ \t]+(?:is|makes|leaves)|go[ \t]+with|I'd[ \t]+say)"
)
_OPENED = re.compile(rf"{_SIGNS}{_OPENS}\b", re.IGNORECASE)
_OFFER = re.compile(
    rf"{_SIGNS}(?:{_OPENS}\b{_SIGNS}){{1,6}}(?:(?:the|option|choice|letter|answer|alternative)\b{_SIGNS}){{0,3}}({CHOICE})"
    rf"{_SIGNS}(?:{TEXT}{_SIGNS})?(?:(?:then|instead|after[ \t]+all|finally|it[ \t]+is|though|rather|now)\b{_SIGNS})?",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(r"\b(?:if|unless|were|would[ \t]+have)\b", re.IGNORECASE)
_FAULT = re.compile(
    r"^\W*wait\b\W*[^\w\s]|\b(?:wrong|incorrect|false|untrue|mistaken?|errors?|slip|bad|not[ \t]+(?:right|correct"
    r"|true|it|sure)"
    r"|(?:isn|wasn|can)'t|cannot[ \t]+be|again|re-?(?:consider|think|check|comput|calculat|do|count|vis)\w*"
    r"|mis(?:read|took|spoke)"
    r"|back|mind|rejected|withdrawn|retracted|forgot|no|scratch|strike|forget)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]?")


def replaced(rest: str, mine: int) -> bool:
    """Return whether the text behind a stated choice puts another in its place, or takes it back and leaves none."""
    last: int | None = None
    for sentence in _SENTENCE.findall(rest):
        if not sentence.endswith("?") and re.search(CHOICE, sentence):
            last = next(iter(_offered(sentence, mine)), last)
    if last is not None:
        return last != mine
    at = taken_back("\n" + rest)
    if at is None:
        return False
    said = rest[max(0, at - 1) :]
    opening = said.lstrip().partition("\n")[0]
    return (
        _FAULT.search(opening) is not None
        or len(re.findall(r"\w+", opening)) < 3
        or any(index(mark) != mine for mark in re.findall(CHOICE, said))
    )


def _offered(sentence: str, mine: int) -> set[int]:
    """Return the choice that a sentence offers; one of others where it offers several."""
    if (found := _OFFER.fullmatch(sentence)) is not None:
        return {index(found[1])}
    several = asserted(sentence) if _OPENED.match(sentence) and not _SUPPOSED.search(sentence) else set()
    return (several - {mine}) or several
