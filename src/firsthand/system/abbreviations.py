"""True or false: a point ends a sentence, or is one of an abbreviation, an initial or a German ordinal.

For text in Latin letters, of English, German and the commonest of French and Spanish. A point between abbreviation and
sentence (`Acme Inc.`, `9 p.m.`) ends one if a word follows that seldom stands behind the abbreviation, such as `The`.
"""

from __future__ import annotations

import re

_ALWAYS = re.compile(
    r"(?:(?:^|[^\w.])(?:Mr|Mrs|Ms|Dr|Drs|Prof|Sra|Srta|Mme|approx|ca|vs|cf|viz|bzw|evtl|inkl|Nos)|e\.g|i\.e|z\.B|d\.h|p\.ex)\.$"
)
_OFTEN = re.compile(
    r"(?:(?:^|[^\w.])(?:St|Jr|Sr|Fig|Figs|Eq|Eqs|Sec|al|Inc|Ltd|Co|Corp|Gen|Col|Capt|Lt|Sgt|Gov|Sen|Rep|Rev|Mt|Ft|Ave|Blvd"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Mio|Mrd|Ph\.D|(?:[^\W\d_]\.){1,4}[^\W\d_]))\.$"
)
_BEFORE_NUMBERS = re.compile(r"(?:^|[^\w.])(?:No|Nr|[bcdprs]|pp|[Vv]ol|[Cc]h|[Cc]hap|[Aa]rt|Abs|Kap)\.$")
_INITIAL = re.compile(r"(?:^|[^\w.])[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]\.$")
_LETTERED = re.compile(
    r"(?:(?:^|[^\w.])(?:(?i:options?|types?|vitamins?|plans?|groups?|class|grades?|sections?|parts?|appendix|annex|exhibit|category"
    r"|hepatitis|levels?|phase|stage|variant|scenario|column|war|act|chapter|volume|book|title|zone|typ|klasse|gruppe|teil|anhang"
    r"|weltkrieg)\s[A-Z]|(?i:answer|choice|option|antwort)(?:\s(?:is|ist)|:)\s[A-E]))\.$"
)
"""A letter or Roman number that is no initial: `vitamin C`, `World War I`, `the answer is B`."""
_NEXT_INITIAL = re.compile(r"[A-Z]\.")
_ORDINAL = re.compile(r"(?:^|[^\w.,])\d{1,2}\.$")
_OF_ORDINALS = re.compile(
    r"(?:Januar|Februar|März|Mai|Juni|Juli|Oktober|Dezember|Jahrhunderts?)\b|(?:April|August|September|November) \d{4}"
)
_BEGINS = re.compile(
    r"[\"“„‘(]?(?:The|It|They|This|These|There|In|We|He|She|You|I|That|Those|A|An|On|At|As|But|And|If|When|While|After|Before|For"
    r"|From|With|By|Its|His|Her|Their|Our|However|Then|Also|Now|No|Both|Some|Most|Many|Each|What|Who|Why|How|Is|Are|Was|Were"
    r"|Die|Der|Das|Es|Sie|Er|Wir|Il|Elle)\b(?!\.)"
)
_BEGINS_BEHIND_INITIAL = re.compile(r"[\"“„‘(]?(?:The|It|They|This|These|There|In|We)\b(?!\.)")
"""Fewer words: `He` and `An` are surnames."""
_BLANK_LINE = re.compile(r"\n[^\S\n]*+\n")
_WINDOW = 20


def ends_sentence(text: str, begun: int, point: int, after: int, *, is_cased: bool = True) -> bool:
    """True if the `.` at the place `point` ends a sentence that began at `begun`, where the next text begins at `after`.

    None ends before a small letter, unless a blank line is between or the text has no others (`is_cased` is False), and none
    behind an abbreviation.
    """
    following = text[after : after + 1]
    if not following or _BLANK_LINE.search(text, point, after):
        return True
    before = text[max(begun, point - _WINDOW) : point + 1]
    if (is_cased and following.islower()) or _ALWAYS.search(before):
        return False
    if _BEFORE_NUMBERS.search(before):
        return not following.isdigit()
    if _ORDINAL.search(before):
        return _OF_ORDINALS.match(text, after) is None
    if _LETTERED.search(before) and _NEXT_INITIAL.match(text, after) is None:
        return True
    if _INITIAL.search(before):
        return _BEGINS_BEHIND_INITIAL.match(text, after) is not None
    return _OFTEN.search(before) is None or _BEGINS.match(text, after) is not None
