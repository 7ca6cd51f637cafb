"""Tells whether a stated answer stands: whether the words before it assert it, and nothing behind it takes it back.

Looks at the words that open a sentence or lead up to a statement, not at the sense of a text. Linear in the text.
"""

from __future__ import annotations

import re

BEFORE_CHARS = 200
"""The words before a statement are looked at so far back."""
_SENTENCE = re.compile(r"[^.!?;…\n]+")
_HESITATION = (
    r"(?:(?:h+m+|uh+|um+|oh|ah+|argh|but|and|so|well|ok|okay|now|then|yet"
    r"|though|however|on[ \t]+balance)\b[\W_]*+){0,4}"
)
_OPENING = re.compile(
    rf"[\W_]*+{_HESITATION}(?:"
    # A pause that is made to change something.
    r"(?:wait|hold[ \t]+on|hang[ \t]+on|oops|whoops|sorry|apologies|never[ \t]*mind|rather|or[ \t]+rather)\b"
    r"|(?:scratch|strike|forget)[ \t]+(?:that|this|it)\b"
    r"|no\b(?=[ \t]*(?:[^\w\s(]|$)|[ \t]+(?:wait|actually|it|that|this|sorry)\b)|actually\b(?=\W*\w)"
    # A mark of a change.
    r"|(?:correction|corrected|edit|edited|update|updated|revision|revised|erratum)\b(?=[^\n]{0,40}?[:,—–-]|[ \t]+to\b)"
    # A thought that is had again.
    r"|(?:on|upon)[ \t]+(?:second[ \t]+thoughts?|(?:further[ \t]+|closer[ \t]+)?(?:reflection|inspection|review))\b"
    r"|(?:thinking[ \t]+(?:again|about[ \t]+it)|re-?considering|re-?thinking)\b"
    r"|let(?:[ \t]+me|['’]s|[ \t]+us)[ \t]+(?:re-?(?:consider|compute|calculate|do|think|count|work|vise|try)|correct|fix)\b"
    # A fault that is named.
    r"|I[ \t]+(?:(?:have[ \t]+)?made[ \t]+(?:an?[ \t]+)?(?:\w+[ \t]+)?(?:mistake|error|slip)"
    r"|(?:was|am)[ \t]+(?:wrong|mistaken)"
    r"|take[ \t]+(?:that|this|it)[ \t]+back|mis(?:read|counted|calculated|took|spoke)|meant|mean|forgot"
    r"|(?:change|changed)[ \t]+my)\b"
    r"|my[ \t]+(?:mistake|error|bad)\b|a[ \t]+mistake\b"
    r"|(?:that|this|it|which)(?:['’]s|[ \t]+(?:is|was|would[ \t]+be|looks|seems))[ \t]+(?:clearly[ \t]+|probably[ \t]+)?"
    r"(?:wrong|incorrect|false|untrue|mistaken|(?:a|my)[ \t]+(?:mistake|error)|not[ \t]+(?:it|right|correct|true))\b"
    r"|(?:that|this|it)[ \t]+(?:isn['’]t|wasn['’]t|can(?:no|['’])t[ \t]+be|cannot[ \t]+be)[ \t]+(?:it|right|correct|true)\b"
    r"|(?:wrong|incorrect|false|rejected|withdrawn|retracted)[\W_]*+(?=\n|$|[.!?;…])"
    r"|(?:that|this|it)[ \t]+should[ \t]+(?:have[ \t]+been|(?:instead[ \t]+|really[ \t]+|actually[ \t]+)be)\b)",
    re.IGNORECASE,
)
_HMM = re.compile(r"[\W_]*+(?:(?:oh|ah|but|well)\b[\W_]*+)?(?:h+m+|argh)\b", re.IGNORECASE)
_BUT_FOR_TRUE = re.compile(
    r"\b(?:but|however|yet),?[ \t]+(?:actually|in[ \t]+(?:fact|truth|reality)|really"
    r"|(?:the|its|their)[ \t]+(?:true|correct|right|actual|real|exact)\b)"
    r"|(?:^|[.!?;…\n])[ \t]*(?:in[ \t]+(?:truth|reality)|(?:but|so|the)[ \t]+(?:the[ \t]+)?"
    r"(?:true|correct|right|actual|real)"
    r"[ \t]+(?:(?:answer|value|result|number|choice|option|one)[ \t]+)?is\b)",
    re.IGNORECASE,
)
_SAID_BY_OTHERS = re.compile(
    r"[^.!?;…\n]*?\b(?:(?:would|might|may|could)[ \t]+(?:say|think|answer|guess|write|claim)"
    r"|is[ \t]+(?:a[ \t]+)?(?:common|tempting"
    r"|naive|popular)\b|is[ \t]+what[ \t]+(?:a|an|some|most|many)[ \t])",
    re.IGNORECASE,
)
# The clause up to a statement begins behind these.
_CLAUSE = re.compile(r"[,;:.!?…\n]|\b(?:so|thus|therefore|hence|then|because|since)\b", re.IGNORECASE)
_UNSURE = re.compile(
    r"n['’]t\b|\b(?:not|never|no|nor|doubt\w*|whether|wrong|incorrect|false|mistaken|erroneous|na[iï]ve|hasty|why|how"
    r"|when|might|may|could|seems?|seemed|looks|appears?|some|many|others?|someone|anyone|nobody|people|students?|beginners?"
    r"|they|you|he|she|your|unlikely|hardly|tempting|runner-?up|first|second|initial|earlier|previous|old"
    r"|rejected|common|alternative|question)\b[^,;:.!?\n]*$|^[ \t]*(?:is|was|isn['’]t)\b",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:if|unless|suppose|supposing|imagine|had|were)\b[^.!?\n]*\b(?:were|weren['’]t|had|hadn['’]t|did|didn['’]t|would)\b"
    r"|\b(?:if|unless|suppose|supposing|assume)\b[^,;:.!?\n]*$",
    re.IGNORECASE,
)
_COMMON = re.compile(
    r"\b(?:common|frequent|typical|usual|tempting|classic|possible|naive)[ \t]+(?:wrong|mistaken?|errors?|trap|slip|guess)"
    r"|\bmistake[ \t]*:[ \t]*$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…](?=\s|$)|\n")


def taken_back(after: str) -> int | None:
    """Return where the text behind a statement begins to take it back, or None if it does not.

    `Wait, ...`, `Hmm, ...`, `Correction: ...`, `No, ...`, `I made a mistake` and the like count where they open a sentence;
    `..., but the true value is`, and `is what a beginner would say` in the sentence of the statement.
    """
    if (said := _SAID_BY_OTHERS.match(after)) is not None:
        return said.end()
    places = [found.start() for found in (_BUT_FOR_TRUE.search(after),) if found is not None]
    for sentence in _SENTENCE.finditer(after):
        at = sentence.start()
        if places and at > places[0]:
            break
        if at > 0 and _HMM.match(after, at):
            return at
        if _OPENING.match(after, at):
            return at
    return places[0] if places else None


def asserts(before: str) -> bool:
    """Return whether the words before a statement (before `the answer is`) assert it, and do not deny or only suppose it.

    `I doubt that`, `a common wrong`, `some say`, `my first`, and `if the sky were green,` do not.
    """
    sentence = _sentence(before)
    denied = _COMMON.search(sentence) or _UNSURE.search(_CLAUSE.split(sentence)[-1])
    return denied is None and not supposes(before)


def supposes(before: str) -> bool:
    """Return whether the words before a statement make it conditional: `if the sky were green,`."""
    return _SUPPOSED.search(_sentence(before)) is not None


def _sentence(before: str) -> str:
    return _SENTENCE_END.split(before[-BEFORE_CHARS:])[-1]
