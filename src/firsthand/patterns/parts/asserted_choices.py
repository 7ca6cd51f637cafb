"""Reads which choices a prose asserts, from text whose choices are marked.

Only sentences that say of a choice that it is right, or chosen, assert it; a choice that is merely named, denied, asked
about or reported is not asserted. What is not known to assert asserts nothing.
"""

from __future__ import annotations

import re
from itertools import pairwise

from firsthand.patterns.parts.named_choices import CHOICE, TEXT, index

_GROUP = rf"(?P<group>{CHOICE}(?:[ \t]*(?:[,/&|+]|\b(?:or|and|nor|plus)\b){{1,2}}[ \t]*{CHOICE}){{0,12}})"
_ADVERBS = (
    r"(?:[ \t]+(?:clearly|definitely|certainly|indeed|obviously|therefore|thus|probably|likely"
    r"|most[ \t]+likely|still|really"
    r"|actually|simply|then|also|both|surely|undoubtedly|necessarily|now|just|exactly)){0,4}"
)
_BE = (
    r"(?:[ \t]+(?:is|are|was|were|looks|remains|seems|appears)|'s|'re|[ \t]+(?:must|should|would|will"
    r"|has[ \t]+to|have[ \t]+to"
    r"|seems[ \t]+to|appears[ \t]+to)[ \t]+be)"
)
_REASON = (
    r"(?:because|since|as|for|here|of|in|to|and|among|by|given|than|that|according|with|under|from|based|due|over)\b"
)
_RIGHT = (
    r"[ \t]+(?:the[ \t]+|my[ \t]+|our[ \t]+|a[ \t]+)?(?:only[ \t]+|most[ \t]+|very[ \t]+|single[ \t]+|one[ \t]+){0,3}"
    r"(?:correct|right|best|better|true|accurate|appropriate|answer|likely|valid|winner|closest|proper|it|one)"
    r"(?:[ \t]+(?:one|answer|option|choice|fit|match|description|explanation|statement|response|solution"
    r"|alternative|candidate)){0,2}"
    rf"(?=[ \t]*$|[ \t]+{_REASON}|[ \t]*[(])"
)
_FITS = (
    r"[ \t]+(?:(?:fits?|works?|wins|matches|holds|follows|applies)"
    r"(?=[ \t]*$|[ \t]+(?:best|well|better|perfectly|all|the|this|here|most|exactly|every|both|because|as"
    r"|since|too)\b)|it[ \t]+is[ \t]*$)"
)
_CHOSEN = (
    r"(?:choose|chose|chosen|pick|picked|select|selected|go[ \t]+with|going[ \t]+with|go[ \t]+for"
    r"|going[ \t]+for|opt[ \t]+for|vote[ \t]+for"
    r"|prefer|settle[ \t]+on|favou?r|(?:that|this|which)[ \t]+leaves|say|answer|confident[ \t]+in"
    r"|sure[ \t]+of|conclude)"
)
_I = (
    r"(?:^|\b(?:I|we|let's|let[ \t]+me|I'd|I'll|I'm|we'd|we'll|we're|I've))"
    r"(?:[ \t]+(?:would|will|am|are|have|can|should|must|have[ \t]+to|therefore|thus|finally|ultimately"
    r"|definitely|to)){0,4}[ \t]*"
)
_KIND = r"(?:the[ \t]+)?(?:(?:correct|right|best|final)[ \t]+)?(?:option|choice|letter|answer|alternative)?[ \t:]*"
_AFTER = rf"[ \t]*(?:$|(?={_REASON}|(?:and[ \t]+|but[ \t]+)?(?:not|rather|instead)\b|[(]))"
_SUBJECT = (
    r"(?:it|this|that|answer|best|correct|right|one|choice|option|which|choose|solution|match|fit|pick|statement|fits|works"
    r"|true)"
)
_ASSERTED = tuple(
    re.compile(each, re.IGNORECASE)
    for each in (
        rf"{_GROUP}(?:{_ADVERBS}{_BE}{_ADVERBS}{_RIGHT}|{_ADVERBS}{_FITS})",
        rf"{_I}{_CHOSEN}[ \t]+{_KIND}{_GROUP}{_AFTER}",
        rf"\b(?:{_SUBJECT}){_BE}{_ADVERBS}[ \t]+{_KIND}{_GROUP}{_AFTER}",
        rf"^(?:and[ \t]+)?(?:so|thus|therefore|hence)[ \t]*,?[ \t]*{_KIND}{_GROUP}{_AFTER}",
    )
)
_VALUED = re.compile(
    rf"(?:{_BE}|[ \t]*=|[ \t]+(?:equals?|has|have|gives?|makes?|gets?|finds?))[ \t]+"
    rf"(?:the[ \t]+|an?[ \t]+)?(?P<group>{TEXT})[ \t]*$",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    rf"[ \t]*(?:(?:no[,:]|so|thus|therefore|hence|finally|ultimately|overall|conclusion|and|both|either|yes|∴|=>|⇒|→)"
    rf"[ \t]*[,:-]?[ \t]+){{0,4}}{_KIND}(?:(?:it|they)[ \t]+(?={TEXT}))?{_GROUP}[ \t)]*(?:[:-][ \t]*)?({TEXT})?[ \t]*",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"n't\b|\b(?:not|never|neither|nor|no|none|cannot|without|except|excluding|besides|unless|if|whether"
    r"|doubt\w*|hardly|barely"
    r"|rul(?:e|ed|ing)|eliminat\w+|exclud\w+|reject\w*|discard\w*|wrong\w*|incorrect|false\w*|untrue|than"
    r"|instead|rather|other|apart"
    r"|anything|everything|might|may|could|some|many|students?|people|others?|someone|they|you|he|she"
    r"|assum\w+|suppos\w+|tempt\w+|trap"
    r"|distractor|worst|least|unlikely|unclear|first|initially|originally|half|partly|opposite|why|how|when)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?;\n]*(?:[.](?!\s|$)[^.!?;\n]*)*[.!?;\n]?")
_CLAUSE = re.compile(
    r"(?:,[ \t]*|:[ \t]+|[ \t]-+[ \t]|\b(?=(?:but|so|thus|therefore|hence|while|whereas|because|since|although|though|yet)"
    r"\b)|[()\uf000\uf001])+",
    re.IGNORECASE,
)
_JOINS = re.compile(r"^[ \t]*(?:and|but|yet|because|since|while|whereas|although|though|as)[ \t]+", re.IGNORECASE)
_BESIDE = 300
_TURNED = re.compile(
    r"[ \t]*(?:which|and[ \t]+(?:that|this|it))[ \t]+(?:is|was)(?:n't|[ \t]+(?:not|wrong|incorrect|false))", re.I
)
_DISCARDED = re.compile(
    r"\b(?:wrong|incorrect|false|eliminat\w+|discard|reject|exclude|trap|distractor|worst|last|out)\b", re.I
)
_TOO = re.compile(r"\b(?:too|also|as[ \t]+well|partly|equally)\b", re.IGNORECASE)


_SMALL_WORDS = frozenset(["is", "are", "was", "were", "the", "a", "an", "of"])
_ABOUT = re.compile(rf"(?:the[ \t]+|an?[ \t]+)?({TEXT})[ \t]+((?!and\b|or\b)\w[^?\n]*)[.!]?", re.IGNORECASE)


def spoken_of(text: str, prompt: str) -> set[int]:
    """Return the one choice whose text is the subject of a text of one sentence: `Wool is soft.`; else none.

    What is said of it must stand in the question: another predicate may deny it in any words.
    """
    found = _ABOUT.fullmatch(text.strip())
    if found is None or _NOT.search(text) or len(re.findall(CHOICE, text)) > 1 or len(text) > _BESIDE:
        return set()
    asked = set(re.findall(r"\w+", prompt.casefold()))
    if not {*re.findall(r"\w+", found[2].casefold())} - _SMALL_WORDS <= asked:
        return set()
    return {index(found[1])} if len(_SENTENCE.findall(text.strip())) <= 2 else set()


def asserted(text: str) -> set[int]:
    """Return the indices of the choices that marked text asserts; -1 among them where it says that there are more."""
    found: set[int] = set()
    for sentence in _SENTENCE.findall(text):
        if sentence.endswith("?") or not re.search(CHOICE, sentence):
            continue
        sentence = sentence.rstrip(".!;\n \t")
        if (whole := _WHOLE.fullmatch(sentence)) is not None:
            found |= _of(whole)
            continue
        clauses = [*_CLAUSE.split(sentence), ""]
        for clause, following in pairwise(clauses):
            if not _TURNED.match(following):
                found |= _of_clause(_JOINS.sub("", clause.strip()))
    return found


def _of_clause(clause: str) -> set[int]:
    found: set[int] = set()
    for pattern in (*_ASSERTED, _VALUED):
        for match in pattern.finditer(clause):
            before, after = (
                clause[max(0, match.start("group") - _BESIDE) : match.start("group")],
                clause[match.end("group") :],
            )
            if not _NOT.search(before) and not _DISCARDED.search(after[:_BESIDE]):
                found |= _of(match) | ({-1} if _TOO.search(clause[: match.end() + _BESIDE]) else set())
    return found


def _of(found: re.Match[str]) -> set[int]:
    return {index(mark) for mark in re.findall(CHOICE, found.group())}
