"""Compares times, dates, scores and spans as written: `2:00`, `5/1/2020` and `3-2` are not calculated.

The reference decides, for a span such as `3-2` alone: an answer may leave a difference as it stands.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from firsthand.scorers.mathematics.answer_text import plain
from firsthand.scorers.mathematics.quantities import may_be_added

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_RATIO_ASKED = re.compile(
    r"\b(?:ratios?|odds|scale|proportions?|fraction|quotient)\b|\$[^$\d]{0,200}[a-z]\s{0,9}:\s{0,9}[a-z]|[a-z]:(?!mm|ss)\d{0,9}[a-z]",
    re.IGNORECASE,
)
_TIME_ASKED = re.compile(
    r"\b(?:what|which|next|first|last|exact|arrival|departure) time\b(?!s)|\bo['’]clock\b|\bclock (?:show|read)s?\b"
    r"|\bwhen (?:do|does|did|will|is|was|are|were|should|can)\b",
    re.IGNORECASE,
)
_SCORE_ASKED = re.compile(
    r"\b(?:scores?|results?) (?:of|in|at|after|was|is)\b|\b(?:final|half-?time) score\b", re.IGNORECASE
)
_GAME_ASKED = re.compile(r"\b(?:scores?|matches|match|games?|tennis|football|soccer|hockey)\b", re.IGNORECASE)
_SAID = (("a", re.compile(r"\ba\. ?m\b|(?<=\d)am\b|(?<=\d )am\b")), ("p", re.compile(r"\bp\. ?m\b|(?<![a-z])pm\b")))
_NAME = r"(?:[^=:]{1,40}= ?)?"
_HALF = r"(?P<half>a\.? ?m\b\.?|p\.? ?m\b\.?|noon|midnight|o['’]clock)?"
_CLOCK = re.compile(rf"{_NAME}(?P<hour>\d{{1,2}}) ?: ?(?P<minute>\d\d)(?: ?: ?(?P<second>\d\d))? ?(?:12 )?{_HALF}")
_HOUR = re.compile(rf"{_NAME}(?P<hour>\d{{1,2}}) ?{_HALF.removesuffix('?')}")
_DATE = re.compile(
    r"(?P<first>\d{4})(?P<sign>[-/.])\d{1,2}(?P=sign)\d{1,2}|\d{1,2}(?P<mark>[-/.])\d{1,2}(?P=mark)\d{4}"
)
_RATIO = re.compile(r"\d{1,9}(?: ?: ?\d{1,9}){1,9}")
_SPAN = re.compile(r"\d{1,9}(?: ?- ?\d{1,9}){1,9}")
_UNIT = re.compile(r"(?P<span>[\d -]+\d)(?P<unit>(?: [a-z]{1,20}){1,3})")


def same_as_written(answer: str, reference: str, question: str | None) -> bool | None:
    """Return whether two times, dates, scores or spans are the same; None if the reference is none of these.

    A question that speaks of a ratio, and asks for neither a time nor a score, makes `10:30` a ratio; `1:2` is one unless
    the question is of a game. An answer that is a time or a date is equal to nothing else.
    """
    question = question if question is None else question[-MAX_CHARS:]
    ours, theirs = _words(answer), _words(reference)
    asks_time, asks_score = (bool(each.search(question or "")) for each in (_TIME_ASKED, _SCORE_ASKED))
    asks_ratio = bool(_RATIO_ASKED.search(question or "")) and not asks_time and not asks_score
    if not asks_ratio:
        left, right = (_clock(each) for each in (ours, theirs))
        right = right or _hour(theirs, asked=asks_time or "\\text" in reference)
        left = left or (_hour(ours, asked=True) if right else None)
        if right or (left and not _RATIO.fullmatch(theirs)):
            return left is not None and right is not None and _same_time(left, right, question or "")
        if _GAME_ASKED.search(question or "") and _RATIO.fullmatch(ours) and _RATIO.fullmatch(theirs):
            return _parts(ours) == _parts(theirs)
    if _DATE.fullmatch(ours) or _DATE.fullmatch(theirs):
        return bool(_DATE.fullmatch(ours) and _DATE.fullmatch(theirs)) and _parts(ours) == _parts(theirs)
    return _same_span(re.sub(" to | ?-- ?", "-", ours), re.sub(" ?-- ?", "-", theirs), question)


class _Time(NamedTuple):
    """A time of day as written; `half` is `a`, `p` or nothing."""

    hour: int
    minute: int
    second: int
    half: str


def _words(text: str) -> str:
    """Return an answer without wrappers, in lower case."""
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", plain(text)).replace("{:}", ":")
    return " ".join(text.casefold().split())


def _parts(text: str) -> list[str]:
    """Return the signs and the numbers of a text; 05 is 5 in a date, and 0134 is not 134 in a row of other length."""
    date = _DATE.fullmatch(text)
    return [each.lstrip("0") or "0" if date else each for each in re.findall(r"\d+|[^\d\s]+", text)]


def _clock(text: str) -> _Time | None:
    found = _CLOCK.fullmatch(text)
    if found is None or int(found["hour"]) > 24 or int(found["minute"]) > 59:
        return None
    return _Time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0), _half(found["half"]))


def _hour(text: str, *, asked: bool) -> _Time | None:
    """Return `4 p.m.` as a time; `4 pm` may be a product where no time is asked for."""
    found = _HOUR.fullmatch(text)
    return _Time(int(found["hour"]), 0, 0, _half(found["half"])) if found and (asked or "." in found["half"]) else None


def _half(text: str | None) -> str:
    return {"n": "p", "m": "a", "o": ""}.get(text[0], text[0]) if text else ""


def _same_time(left: _Time, right: _Time, question: str) -> bool:
    """Return whether a time is the reference; one of 24 hours (`16:30`, `0:15`) is its time with `p.m.` or `a.m.`

    An answer may add the half of the day to a reference without one, and leave it out where the question speaks of no other.
    """
    if left.half == right.half:
        return left == right
    if left.half and right.half:
        return False
    with_half, other = (left, right) if left.half else (right, left)
    if other.hour > 12 or other.hour == 0:
        hour = with_half.hour % 12 + (12 if with_half.half == "p" else 0)
        return other[:3] == (hour, *with_half[1:3])
    said = [half for half, each in _SAID if each.search(question.casefold())]
    return left[:3] == right[:3] and (bool(left.half) or said == [right.half])


def _same_span(answer: str, reference: str, question: str | None) -> bool | None:
    """Return whether a span is the reference's, alone or with a unit that may be added; None if the reference is no span."""
    if not _SPAN.fullmatch(reference):
        return None
    if (found := _UNIT.fullmatch(answer)) and may_be_added(found["unit"].strip(), question):
        answer = found["span"]
    return _parts(answer) == _parts(reference)
