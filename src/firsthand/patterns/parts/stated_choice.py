"""Reads the letter of a choice from a stated answer or from prose.

A letter or a quoted choice that is denied (`not A`, `A is wrong`) or joined to another one (`A or B`) is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from firsthand.task import Task

_LETTER = re.compile(r"(?<![A-Za-z0-9'’])\(?([A-Z])\)?(?![A-Za-z0-9'’])")
_LEADING = re.compile(
    r"(?:the[ \t]+)?(?:(?:correct|right|best|final)[ \t]+)?(?:(?:option|choice|letter|answer|alternative)[ \t:*]+)?"
    r"(?P<open>[(\[*]*)(?P<letter>[A-Za-z])(?![A-Za-z0-9'’])",
    re.IGNORECASE,
)
# "A" and "I" are words as well: they are letters before the end, a mark, or the beginning of a reason.
_NO_WORD = re.compile(
    r"[ \t]*(?:$|[^\w\s'’])|[ \t]+(?:because|since|as|is|was|for|due|given|or|and|by|rather|not|but)\b", re.I
)
_PROSE_END = re.compile(r"[ \t]*(?:$|[.,:;)\n*])")
_EDGE = r"0-9A-Za-z\u00c0-\u052f"
_OPEN = r"[ \t(*\[\"'“‘`]{0,9}"
_NAMED = rf"{_OPEN}(?:(?:option|choice|letter|answer)[ \t]{{1,9}})?{_OPEN}"
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|without|except|rather[ \t]{1,9}than|instead[ \t]{1,9}of"
    r"|other[ \t]{1,9}than)|n['’]t)"
    rf"(?:[ \t]{{1,9}}(?:be|the|either|simply|just)){{0,3}}{_NAMED}$",
    re.IGNORECASE,
)
_CLOSE = r"[ \t.)*\]\"'”’`]{0,9}"
_DENIED_AFTER = re.compile(
    rf"{_CLOSE}\b(?:is|are|was|would[ \t]{{1,9}}be|seems?|can)[ \t]{{0,9}}(?:(?:clearly|also|definitely)[ \t]{{1,9}})?"
    r"(?:not\b|n['’]t|wrong\b|incorrect\b|false\b|untrue\b|ruled[ \t]{1,9}out\b)|[ \t]{0,9}(?:isn|can)['’]t\b",
    re.IGNORECASE,
)
_JOINT = r"(?:[,/&+]|\bor\b|\band\b){1,4}(?:[ \t]{0,9}(?:or|and|maybe|perhaps|possibly|also|even)\b){0,3}"
_SAYS = r"[ \t]{1,9}(?:is|was|has|would|seems|does|can)\b"
_VERB = re.compile(_SAYS)
_JOINED_AFTER = re.compile(
    rf"{_CLOSE}{_JOINT}{_NAMED}(?:[B-HJ-Z]\b(?!['’]|{_SAYS})|[AI]\b(?![ \t]{{0,9}}[\w'’]))", re.IGNORECASE
)  # fmt: skip
_JOINED_BEFORE = re.compile(
    rf"(?<![A-Za-z0-9'’])(?-i:[A-Z]){_CLOSE}{_JOINT}{_NAMED}$", re.IGNORECASE
)  # fmt: skip
_BESIDE = 60


def stated_choice(stated: str, task: Task) -> str | None:
    """The letter that a stated answer gives: the one it begins with, the one choice it quotes, or its only letter."""
    lead = _LEADING.match(stated)
    if lead is not None and (letter := lead["letter"].upper()) in task.letters:
        after = stated[lead.end() :]
        word = lead["letter"] in "aAiI" and not lead["open"]
        if not word or (_NO_WORD if lead["letter"].isupper() else _PROSE_END).match(after[:_BESIDE]):
            return None if _refused(stated, lead.start("letter"), lead.end()) else letter
    if (quoted := _quoted(stated, task)) is not None:
        return quoted
    letters = set(_standing(stated, task))
    return letters.pop() if len(letters) == 1 else None


def last_choice(text: str, task: Task) -> str | None:
    """The last letter of a choice that stands alone in the text, or else the letter of the one choice that is quoted."""
    letters = list(_standing(text, task))
    return letters[-1] if letters else _quoted(text, task)


def names_a_choice(stated: str, task: Task) -> bool:
    """Return whether a stated answer speaks of a choice, if only to deny it."""
    return any(found[1] in task.letters for found in _letters(stated)) or any(
        any(_quotes(stated, choice)) for choice in task.choices
    )


def _letters(text: str) -> Iterator[re.Match[str]]:
    # A lone "A" in prose is an article more often than an answer, so it counts only at a line's end or before . ) : ,
    for found in _LETTER.finditer(text):
        if found[1] not in "AI" or _PROSE_END.match(text[found.end() : found.end() + _BESIDE]):
            yield found


def _standing(text: str, task: Task) -> Iterator[str]:
    for found in _letters(text):
        if found[1] in task.letters and not _refused(text, found.start(1), found.end(1)):
            yield found[1]


def _refused(text: str, start: int, end: int) -> bool:
    """True if the choice that is named there is denied or joined to another."""
    before, after = text[max(0, start - _BESIDE) : start], text[end : end + _BESIDE]
    if _DENIED_BEFORE.search(before) or _DENIED_AFTER.match(after) or _JOINED_AFTER.match(after):
        return True
    new_clause = before.rstrip().endswith(",") and _VERB.match(after)  # Between A and B, B is better
    return not new_clause and _JOINED_BEFORE.search(before) is not None


def _quoted(text: str, task: Task) -> str | None:
    """The letter of the one choice that is quoted in the text and not denied there."""
    words = " ".join(text.split())
    quoted = [
        letter
        for letter, choice in zip(task.letters, task.choices, strict=True)
        if any(not _denied(words, found) for found in _quotes(words, choice))
    ]
    return quoted[0] if len(quoted) == 1 else None


def _denied(words: str, found: re.Match[str]) -> bool:
    before, after = words[max(0, found.start() - _BESIDE) : found.start()], words[found.end() : found.end() + _BESIDE]
    return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(after))


def _quotes(text: str, choice: str) -> Iterator[re.Match[str]]:
    """Yield matches of the choice as whole words and numbers: `4` is not in `14` or `4.5`, `red` not in `hundred`."""
    quote = " ".join(choice.split()).strip(" .")
    if not quote:
        return iter(())
    first = rf"(?<![{_EDGE}])(?<!\d[.,])(?<![-−]\b)" if re.match(rf"[{_EDGE}]", quote) else ""
    last = rf"(?:e?s)?(?![{_EDGE}])(?![.,/]\d)" if re.search(rf"[{_EDGE}]$", quote) else ""
    if quote in "AaIi":
        last = _PROSE_END.pattern.join(("(?=", ")"))
    return re.finditer(first + r"\s+".join(map(re.escape, quote.split(" "))) + last, text, re.IGNORECASE)
