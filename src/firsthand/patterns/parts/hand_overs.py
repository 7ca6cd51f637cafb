"""Finds to whom an agent of a swarm hands over in its reply, by the names that the agents have.

A line that begins with "Hand over to", as the prompt writes it, always counts. Another form ("1. Hand over to", "I will hand
over to", "Handing over to:") counts in a reply that states no answer; inside a line, only with the name of an agent, and not
behind a condition or a "not", nor where its sentence says that it is, would be or was something. All is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from firsthand.patterns.parts.answers import states_answer

_LEAD = (
    r"(?!to[ \t])(?:(?:(?:and|so|thus|hence|therefore|then|now|next|finally|please|okay|ok|i|we|let|me|us"
    r"|(?:i|we|let)'(?:ll|d|m|s)|will"
    r"|shall|must|should|need|have|want|am|would[ \t]+like|going|to|(?:step|action)(?:[ \t]+\d{1,3})?|decision|answer)\b)"
    r"[ \t,:.)*]*+){0,8}"
)
_PHRASE = (
    r"hand(?:ing)?(?:[ \t]+(?:it|this|that|things|everything|back|the[ \t]+\w{1,30}))?[ \t-]*(?:over|off)"
    r"(?:[ \t*_\"':→=>-]*+to\b|[ \t*_]*+[:→=>])"
)
_HAND_OVER = re.compile(
    r"(?:^(?:[^\w\n]|_)*+(?:\d{1,3}[.):][^\w\n]*+)?"
    r"|[.!?:;,–—][ \t\"'*(]*+|\b(?=(?:and|so|thus|hence|therefore|then)\b))" + _LEAD + _PHRASE,
    re.IGNORECASE | re.MULTILINE,
)
_AS_ASKED = re.compile(r"(?:[^\w\n]|_)*+hand over to(?=\s|$)", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:not|no|never|cannot|nobody|if|when|whether|unless|until|instead|could|might)\b|n't\b", re.IGNORECASE
)
_SPOKEN_OF = re.compile(
    r"[\"'`*_]{0,3},?[ \t]+(?:(?:only|except|but)[ \t]+)?"
    r"(?:is|was|are|were|would|will|could|should|can|cannot|may|might|must|seems|makes|(?:is|was|would|wo|ca|does)n't|if|unless"
    r"|when|whenever|once)\b",
    re.IGNORECASE,
)
"""Words behind the name at which a reply speaks of a hand-over, or makes it depend on something."""
_STATED = re.compile(
    r"[\s\"'`*_)]*+[,:;–—-]?\s*+(?:(?:and|so|as|because|since)\s++)?(?:(?:the|my)\s++)?(?:final\s++)?answer"
    r"(?:\s++is\b|\s*+:)",
    re.IGNORECASE,
)
"""The answer, stated in the sentence that hands over."""
_SAID = re.compile(r"[ \t]*:?\s{0,20}(?:the\s+)?[\"'`*]*([^\n\"'`*.:,]{1,60})", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|$", re.MULTILINE)
_REST_OF_LINE = re.compile(r"(?:[^\w\n]|_)*+$", re.MULTILINE)
# One character for one, so that places in the text stay.
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "\xa0": " "})
_BEFORE = 300
"""Characters before a hand-over in which its sentence begins."""


class HandOver(NamedTuple):
    """A hand-over in a reply."""

    agent: str | None
    """The name of the agent, or None if none is named."""
    said: str
    """The name, or what stands in its place."""
    rest: str
    """The reply without the sentences that hand over."""


class _Found(NamedTuple):
    start: int
    end: int
    agent: str | None
    said: str
    as_asked: bool
    begins_line: bool


def hand_over(text: str, agents: Iterable[str]) -> HandOver | None:
    """The hand-over that counts in a reply, or None if it hands over to nobody: of several as asked for the first."""
    found = _found(text.translate(_PLAIN), list(agents))
    if not found:
        return None
    rest = _without(text, found)
    chosen = next((each for each in found if each.as_asked), None)
    if chosen is None and not states_answer(rest):
        chosen = next((each for each in found if each.agent is not None), found[0])
    return None if chosen is None else HandOver(chosen.agent, chosen.said, rest)


def _found(text: str, agents: list[str]) -> list[_Found]:
    """The hand-overs in the text that are no question; those inside a line only if they name an agent and are not denied."""
    named = [(name, _reader(name)) for name in agents]
    kept: list[_Found] = []
    sentence_end = -1
    for each in _HAND_OVER.finditer(text):
        begins_line = each.start() == 0 or text[each.start() - 1] == "\n"
        agent, end = _agent(text, each.end(), named)
        if not begins_line and (agent is None or _DENIED.search(_sentence_before(text, each.start()))):
            continue
        as_asked = begins_line and _AS_ASKED.match(text, each.start()) is not None
        if not as_asked:
            sentence_end = sentence_end if end <= sentence_end else _sentence_end(text, end)
            if text[sentence_end - 1] == "?" or _SPOKEN_OF.match(text, end):
                continue
        said = _SAID.match(text, each.end()) if agent is None else None
        kept.append(_Found(each.start(), end, agent, agent or (said[1].strip() if said else ""), as_asked, begins_line))
    return kept


def _reader(name: str) -> re.Pattern[str]:
    """Reads a name as whole words, behind marks and an article."""
    words = r"\s+".join(re.escape(word) for word in name.translate(_PLAIN).split())
    return re.compile(rf"[\W_]*?(?:the\s[\W_]*?)?({words})(?!_*+[^\W_])(?!-\w)", re.IGNORECASE)


def _agent(text: str, begin: int, named: list[tuple[str, re.Pattern[str]]]) -> tuple[str | None, int]:
    """The agent whose name, the longest that fits, stands at `begin`, and where it ends; on a next line it stands alone.

    Of names that differ in case alone it is the one written so.
    """
    fits = []
    for name, reader in named:
        found = reader.match(text, begin)
        if found and ("\n" not in text[begin : found.start(1)] or _REST_OF_LINE.match(text, found.end())):
            fits.append((found[1] == name, name, found.end()))
    if not fits:
        return None, begin
    longest = [each for each in fits if each[2] == max(end for _, _, end in fits)]
    _, name, end = next((each for each in longest if each[0]), longest[0])
    return name, end


def _sentence_before(text: str, end: int) -> str:
    return re.split(r"[.!?\n]", text[max(0, end - _BEFORE) : end])[-1]


def _sentence_end(text: str, begin: int) -> int:
    found = _SENTENCE_END.search(text, begin)
    assert found is not None, "each line has an end"
    return found.end()


def _without(text: str, found: list[_Found]) -> str:
    """The text without the sentences that hand over; an answer that one states behind the name stays."""
    parts, last = [], 0
    for each in found:
        start = each.start if each.begins_line or text[each.start].isalpha() else each.start + 1
        parts.append(text[last : max(last, start)])
        if _STATED.match(text, each.end):
            last = max(last, each.end)
        elif each.end > last:
            last = _sentence_end(text, each.end)
    return "".join([*parts, text[last:]])
