"""Tells a value that the user's words name plainly from one that they may forbid ("never write to eve@evil.org").

Only a plain statement names a value: its sentence has no word of negation or exception before the value ("not", "nobody",
"without", "excluding", "everyone but"), unless that word is part of a phrase that forbids nothing ("do not forget", "if she
is not there, write to"). Items of a list stand under the sentence that leads to them. Words after the value count where
they directly say something of it ("eve@evil.org must not get it"). All this is in English; another language is not read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

_NOT = r"(?:\s+not|n['’]?t)\b"
_ACTS = (
    r"(?:(?:please|kindly|then|also|instead|only|just|rather|still|you|can|could|may|should|do|to)\s+){0,4}"
    r"(?:write|send|mail|e-?mail|message|forward|tell|ask|answer|reply|respond|contact|call|phone|notify|inform|invite|pay"
    r"|transfer|wire|share|copy|cc|give|book|reserve|order|buy|use|take|read|open|get|add|make|create|move|put|save|post"
    r"|find|look|search|go|try|check|show|delete|remove|cancel|update|change|set|let)\b"
)
_NEGATIVE = re.compile(
    r"(?<![\w@./+-])(?:not|never|no|nor|neither|nobody|noone|none|nothing|nowhere|cannot|without|unless|hardly"
    r"|\w{2,8}n['’]t|(?:do|does|did|ca|wo|sha|is|are|was|were|must|should|would|could|have|has|need)nt"
    r"|do-not-\w+|no-one|except\w*|exclud\w+|exclusion|avoid\w*|omit\w*|skip\w*|ignor\w+|refus\w+|refrain\w*|forbid\w*"
    r"|forbade|prohibit\w*|disallow\w*|ban|bann(?:ed|ing)|bar(?:red|ring)|block\w*|black-?list\w*|deny-?list\w*|denied"
    r"|untrusted|distrust\w*|mistrust\w*|beware|withhold\w*|withheld|spam\w*|phish\w*|scam\w*|fraud\w*|off[\s-]limits"
    r"|(?:apart|aside|hid(?:e|den)|secret)\s+from|(?:keep|stay|kept)\s+(?:\S+\s+){0,4}away\s+from|other\s+than|rather\s+than|instead\s+of|in\s+place\s+of"
    r"|(?:stop|cease|quit)\s+(?:\w+\s+){0,2}\w+ing|(?:leave|leaving|left|keep)\s+out|far\s+from|the\s+last\s+person"
    rf"|but(?!\s+(?:also|now|with|using|if|when|I|we|it|he|she|they|there|this)\b|\s+{_ACTS}))(?![\w@/+-]|\.\w)",
    re.IGNORECASE,
)
"""Words after which a value may be one that the user forbids, or one of whom the user says that nothing is to be done."""
_FORBIDS_NOTHING = re.compile(
    r"(?:\bnot|n['’]t|\bnever)\s+(?:forget|fail|hesitate|omit|miss|only|just|wait|worry)\b"
    r"|\bnot\s+(?:for\s+long|yet\s+paid|heard\s+(?:back\s+)?from)\b|n['’]t\s+heard\s+(?:back\s+)?from\b"
    r"|(?:\bnot|n['’]t)\s+(?:to\s+)?exceed\w*|\b(?:no|not)\s+(?:more|less|later|earlier|fewer|sooner)\s+than\b|\bno\.?\s*(?=\d)|\bwhether\s+or\s+not\b"
    r"|\bno\s+(?:problem|rush|hurry|worries|matter)\b"
    r"|\bwithout\s+(?:(?:any|further|more)\s+)?(?:delay|fail|hurry|changes?|comments?|attachments?|ado|hesitation)\b"
    r"|\b(?:I|we|you|he|she|it|they|there|this|that|who|which)"
    r"(?:['’](?:m|re|s|ll|ve|d)\s+not|\s+(?:am|is|are|was|were|do|does|did|can|could|will|have|has)"
    rf"{_NOT}|\s+cannot|\s+(?:can|won)['’]t)"
    r"\s+(?:yet\s+)?(?:know|find|found|remember|recall|understand|see|seen|come|coming|attend|make\s+it|reach|sure|certain"
    r"|urgent|in\s+a\s+hurry|feeling|well|here|there|available|online|be\s+(?:here|there|able\s+to\s+(?:come|attend|join))"
    r"|have\s+(?:the|any|much|his|her|their)\s+(?:time|address|number))\b"
    r"[^,;:.!?]{0,80}(?:[,;]|(?=[.!?])|\bbut\b(?=\s+(?:I|we|it)\b|\s+" + _ACTS + r")|\bso\b|\band\b)"
    r"|\b(?:if|when|in\s+case|because|since|as|although|though|while|instead\s+of|rather\s+than)\s(?:[^,;:.!?]|\.(?=\w)){0,160},"
    rf"(?=\s+{_ACTS})",
    re.IGNORECASE,
)
"""Phrases in which a word of negation says nothing of the values after the phrase."""
_AFTER = re.compile(
    r"[>\"'’)\]*_`]{0,3}(?:\s+(?:and|or)\s+\S{1,80})?[\s:(,–—-]{0,3}(?:(?:who|which|that|he|she|they|it)\s+)?"
    r"(?:(?:must|should|shall|may|can|could|would|will|is|are|was|has|have|does|do|did|gets?)"
    r"(?:\s+(?:not|never|nothing|no)\b|n['’]?t\b)|(?:can|won)['’]t\b|cannot\b|never\b|not\s+allowed"
    r"|(?:(?:is|are|was|were|has\s+been|have\s+been|to\s+be)\s+)?"
    r"(?:block|bann|exclud|except|forbid|prohibit|disallow|blacklist|off[\s-]limits|untrusted|left\s+out))",
    re.IGNORECASE,
)
"""Words directly after a value that forbid it, such as "must not get it"."""
_UNDER_CONDITION = re.compile(
    r"\b(?:if|when|in\s+case|because|since|as|unless|although|though|while)\s+[<\"'(*_`]?$", re.IGNORECASE
)

_MARK = r"(?:>[ \t]?)?(?:[-*+•–—]|\(?\d{1,3}[.)]|[A-Za-z][.)])[ \t]"
_BULLET = re.compile(rf"^([ \t]*){_MARK}", re.MULTILINE)
_BREAK = re.compile(rf"(?<![.!?])[.!?]++[\"'”’)\]]*+(?=\s)|(?<!:)\n[ \t\r]*\n|\n(?=[ \t]*{_MARK})")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|(?:[A-Za-z]\.){1,3}[A-Za-z]|mr|mrs|ms|dr|prof|st|nr|no|vs|esp|incl|excl|etc|cf|al|approx|dept)$",
    re.IGNORECASE,
)
_SEEN = re.compile(r"\S")
MAX_INDENT = 80
"""The most blanks before a bullet."""
_OWN_WORDS = re.compile(rf"(?<![\w@./+-])(?:(?!(?:and|or|nor)\b)[a-z]{{2,}}(?![\w@/+-]|\.\w)|(?i:{_ACTS}))")
"""A word in small letters that is no part of an address or a path, or a verb: a sentence without says nothing of its own."""


class _Sentence(NamedTuple):
    start: int
    end: int
    indent: int | None
    """The blanks before the bullet of an item of a list; None for other text."""


def is_forbidden(text: str, start: int, end: int) -> bool:
    """True if the words around text[start:end] may forbid it, so that they do not name it plainly."""
    starts, ends = _doubtful(text)
    place = bisect_right(starts, start) - 1
    if place >= 0 and start < ends[place]:
        return True
    is_said = _AFTER.match(text, end, min(len(text), end + 200)) is not None
    return is_said and not _UNDER_CONDITION.search(text[max(0, start - 40) : start])


@lru_cache(maxsize=64)
def _doubtful(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The starts, in order, of the parts in which a value may be forbidden; and for each the furthest end up to it."""
    found: list[tuple[int, int]] = []
    heads: list[
        tuple[int, bool]
    ] = []  # of the items that a deeper one may stand under: blanks before them, and if they forbid
    before = leads = False  # of the sentence before, and of the last one that is no item
    for start, end, indent in _sentences(text):
        parts = list(_parts(text, start, end))
        says_own = _OWN_WORDS.search(text, start, end) is not None
        if indent is None:
            inherits = before and not says_own
            heads.clear()
        else:
            while heads and heads[-1][0] >= indent:
                heads.pop()
            above = heads[-1][1] if heads else leads
            inherits = above or (before and not says_own)
        found += [(start, end)] if inherits else parts
        before = inherits or any(until == end for _, until in parts)
        if indent is None:
            leads = before and (not text[start:end].rstrip().endswith((".", "!", "?")))
        else:
            heads.append((indent, before))
    found.sort()
    return tuple(start for start, _ in found), tuple(accumulate((end for _, end in found), max))


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the text after each negation: to the end of its sentence or of a harmless phrase."""
    phrases = _FORBIDS_NOTHING.finditer(text, start, end)
    phrase = next(phrases, None)
    for word in _NEGATIVE.finditer(text, start, end):
        while phrase is not None and phrase.end() <= word.start():
            phrase = next(phrases, None)
        is_within = phrase is not None and phrase.start() < word.end()
        yield word.end(), phrase.end() if phrase is not None and is_within else end


def _sentences(text: str) -> Iterator[_Sentence]:
    """The sentences and the items of lists. A line end alone ends none, nor does the stop of an abbreviation or of `1.`."""
    bullets = {found.start(): found for found in _BULLET.finditer(text)}
    numbers = {found.end() for found in bullets.values()}
    start = 0
    ends = [
        found.end()
        for found in _BREAK.finditer(text)
        if text[found.start()] != "."
        or not (found.end() + 1 in numbers or _ABBREVIATION.search(text[max(0, found.start() - 12) : found.start()]))
    ]
    for end in (*ends, len(text)):
        if first := _SEEN.search(text, start, end):
            before = text.rfind("\n", max(0, first.start() - MAX_INDENT), first.start())
            bullet = bullets.get(before + 1) if before >= 0 or first.start() <= MAX_INDENT else None
            yield _Sentence(start, end, None if bullet is None else len(bullet[1]))
        start = end
