"""Reads the mark that begins an item of a written list: a bullet, a number, a heading, a step's name or a letter."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TITLE = r"(?:part|(?:sub-?)?task)[ \t]+"
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_NAMED = rf"(?:(?P<step>step[ \t]+)|(?P<title>{_TITLE}))"
_HEADING = r"(?P<indent>[ \t]*+)(?P<heading>#{1,6}[ \t]+)?(?P<open>\**)"
_DASH = r"[ \t]+[-\u2013\u2014](?=[ \t])(?![ \t]*+\d)"
"""A dash that is no minus and not that of `Step 1 - 3`."""
_ENDING = rf"(?P<close>\**)(?:[.):](?!\d)|{_DASH}|[ \t]*\Z)"
_NUMBERED = re.compile(
    rf"(?P<indent>[ \t]*+)(?:(?P<bullet>[-*•][ \t])|(?P<heading>#{{1,6}}[ \t]+)?(?P<open>\**)"
    rf"(?:{_NAMED}|\()?(?P<number>\d{{1,3}})(?:(?P<close>\**)[.):](?!\d)|\ufe0f?\u20e3))(?P<rest>.*)",
    re.IGNORECASE,
)
_STEP = re.compile(
    rf"{_HEADING}{_NAMED}(?:(?P<number>\d{{1,3}})|(?P<word>{'|'.join(_WORDS)})){_ENDING}(?P<rest>.*)", re.IGNORECASE
)
_HEADED = re.compile(
    rf"(?P<indent>[ \t]*+)(?P<heading>#{{1,6}}[ \t]+)(?P<open>\**)(?P<number>\d{{1,3}}){_ENDING}(?P<rest>.*)"
)
_PLAIN = r"(?P<indent>[ \t]*+)(?P<open>\**)"
_RARE = (
    rf"{_HEADING}\(?(?P<letter>[A-Za-z])[.)](?P<close>\**)(?=[ \t])(?P<rest>.*)",
    rf"{_HEADING}\(?(?P<roman>[IVXivx]{{1,4}})[.)](?P<close>\**)(?=[ \t])(?P<rest>.*)",
    rf"{_PLAIN}\[(?P<number>\d{{1,3}})\](?P<close>\**)[.):]?(?=[ \t])(?P<rest>.*)",
    rf"{_PLAIN}(?P<number>\d{{1,3}})(?P<close>\**){_DASH}(?P<rest>.*)",
    rf"{_PLAIN}(?P<number>\d{{1,3}})[\u3001\uff0e](?P<rest>.*)",
    r"(?P<indent>[ \t]*+)(?P<bullet>[\u2013\u2014\u2023\u25aa\u25cf\u25e6\u25b6\u25ba\u00b7][ \t])(?P<rest>.*)",
)
Forms = tuple[re.Pattern[str], ...]
"""Patterns of marks, of which the first that fits a line counts."""
USUAL: Forms = (_NUMBERED, _STEP, _HEADED)
SEQUENCES: tuple[Forms, ...] = tuple((re.compile(each),) for each in _RARE)
"""Marks that stand in other texts too: they make a list from the first on and without a gap, where no usual mark is."""


@dataclass(frozen=True)
class Mark:
    """The mark of a line."""

    indent: int
    number: int
    """0 for a bullet."""
    is_bullet: bool
    is_heading: bool
    is_title: bool
    """True of a heading, of `Task 1:`, and of `Step 1` alone on its line: the items below it are a part of it."""
    rest: str
    """The line after it."""


def mark_of_line(line: str, forms: Forms) -> Mark | None:
    """The mark that begins a line, or None."""
    begun = next((match for form in forms if (match := form.match(line)) is not None), None)
    if begun is None:
        return None
    found = begun.groupdict()
    rest = _unmarked(found["rest"], "" if found.get("close") else found.get("open") or "")
    is_alone = bool(found.get("step")) and not rest
    is_heading, is_bullet = bool(found.get("heading")), bool(found.get("bullet"))
    is_title = is_heading or bool(found.get("title")) or is_alone
    indent = len(found["indent"].expandtabs(4))
    return Mark(indent, _value(found), is_bullet, is_heading, is_title, rest)


def _value(found: dict[str, str | None]) -> int:
    """The number that a mark's digits, word, letter or Roman digits stand for; 0 without one."""
    if number := found.get("number"):
        return int(number)
    if letter := found.get("letter"):
        return ord(letter.lower()) - ord("a") + 1
    for names, said in ((_WORDS, found.get("word")), (_ROMAN, found.get("roman"))):
        if said and said.lower() in names:
            return names.index(said.lower()) + 1
    return 0


def _unmarked(rest: str, opened: str) -> str:
    """The rest of a line without stars that mark all of it, have no partner in it, or close those before the number."""
    text = rest.strip()
    if opened and opened in text:
        text = text.replace(opened, "", 1).strip()
    first = text[: len(text) - len(text.lstrip("*"))]
    end = text.find(first, len(first)) if first else -1
    if first and (end < 0 or text[end - 1].isspace()):
        text = text.lstrip("*").strip()
    elif first and end + len(first) == len(text):
        return text[len(first) : -len(first)].strip()
    last = text[len(text.rstrip("*")) :]
    start = text.rfind(last, 0, len(text) - len(last)) if last else -1
    if last and (start < 0 or text[start + len(last)].isspace()):
        text = text.rstrip("*").strip()
    return text
