"""Reads the items of a list that a model wrote as its plan, each with the lines that go on below it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from firsthand.patterns.parts.answers import TAIL_CHARS
from firsthand.patterns.parts.fenced_code import fence_ends
from firsthand.patterns.parts.item_marks import SEQUENCES, USUAL, Forms, Mark, mark_of_line

_NAMES = r"(?:plan|steps|(?:sub[-_]?)?tasks)"
_JSON = re.compile(rf"^[ \t]*+(?:\**{_NAMES}\**[ \t]*+[:=]\**[ \t]*+)?(?=[\[{{])", re.MULTILINE | re.IGNORECASE)
_MAX_JSON = 8
"""The most beginnings of JSON that are tried."""
_PLAN_KEY = re.compile(_NAMES, re.IGNORECASE)
_OF_PLAN = re.compile(rf"\b{_NAMES}\b", re.IGNORECASE)
_BREAK = re.compile(r"[ \t]*+(?:#{1,6}[ \t]|```|~~~|(?:-{3,}|\*{3,}|_{3,})[ \t]*$)")


@dataclass
class _Item:
    """An item and the lines below it that are no items."""

    mark: Mark
    indent: int
    lines: list[str]
    is_apart: bool = False
    """True if a line that is no part of the item before stands between the two."""
    above: str = ""
    """The line above the first item, and that which stands between two items."""
    loose: list[int] = field(default_factory=list)
    """The indices of the lines that no indent, code or colon binds to it."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def listed(text: str, most: int) -> list[str]:
    """The items of the list in `text`, at most `most`.

    An item begins with a bullet, a number (`1.`, `(1)`, `### 1.`, `Step 2:`, `Sub-task two:`), a heading or line that is
    `Step 1` alone, or, where there are none of them, with the letters from `a.` on, `I.`, `[1]` or `1 -`; else the strings
    of a JSON list are the items. An item has the lines below it, its code whole, up to the next one; the last item has text
    that no indent binds to it only if it ends with a colon, or those before it have such text. Items that are indented
    further, by two characters or more, belong to the one before them, on lines of their own, unless their number is its
    next. So do items below numbered headings, and bullets between items whose numbers go on without them: 1, bullet, 2.
    Bullets are no part of a list with the numbers from 1 on where a line such as `Plan:` stands between the two, unless the
    line before the bullets names steps, tasks or a plan, and the one between does not.
    """
    text = text[:TAIL_CHARS]
    found = _items(text, USUAL) or next(filter(None, (_sequence(text, forms) for forms in SEQUENCES)), [])
    if not found:
        return _json_items(text)[:most]
    _release(found)
    least = min(item.indent for item in found)
    outer = [item.mark.number for item in found if item.mark.number and item.indent < least + 2]
    numbered = len(outer) > 1 and outer == list(range(outer[0], outer[0] + len(outer)))
    if numbered and outer[0] == 1:
        found = _without_bullets_before(found, least)
    items: list[list[str]] = []
    number = inner = 0
    for item in found:
        given = item.mark.number
        goes_on = given == number + 1 and given != inner + 1
        if items and not goes_on and (item.indent >= least + 2 or (numbered and number and not given)):
            items[-1].append(item.text)
            inner = given or inner
        else:
            items.append([item.text])
            number, inner = given, 0
    return [_joined(own, below) for own, *below in items][:most]


def _joined(own: str, below: list[str]) -> str:
    """An item's text and those of the items that belong to it."""
    return below[0] if not own and len(below) == 1 else "\n".join([*([own] if own else []), *(f"- {x}" for x in below)])


def _without_bullets_before(found: list[_Item], least: int) -> list[_Item]:
    """The items from the first that has a number and is not indented, if a line parts it from the bullets; else all."""
    first = next(at for at, item in enumerate(found) if not item.mark.is_bullet and item.indent < least + 2)
    is_plan = _OF_PLAN.search(found[0].above) and not _OF_PLAN.search(found[first].above)
    return found[first:] if found[first].is_apart and not is_plan else found


def _sequence(text: str, forms: Forms) -> list[_Item]:
    """The items of marks that go on without a gap from the first one; none if others are among them, or one stands alone."""
    found = _items(text, forms)
    numbers = [item.mark.number for item in found]
    return found if len(found) > 1 and numbers in ([*range(1, len(found) + 1)], [0] * len(found)) else []


def _json_items(text: str) -> list[str]:
    """The strings of the first JSON list in a text that has some; an object's are one item.

    Of a JSON object it is the list with a name such as `steps`, or the only one.
    """
    decoder = json.JSONDecoder()
    for begun in islice(_JSON.finditer(text), _MAX_JSON):
        try:
            body = decoder.raw_decode(text, begun.end())[0]
        except (ValueError, RecursionError):
            continue
        if found := [said for each in _plan_in(body) if (said := _strings(each))]:
            return found
    return []


def _plan_in(body: Any) -> list[Any]:
    """The list that a JSON value is or names as its plan, or its only list; else none."""
    while isinstance(body, dict):
        named = [each for key, each in body.items() if _PLAN_KEY.fullmatch(key) and isinstance(each, list | dict)]
        lists = [each for each in body.values() if isinstance(each, list)]
        body = named[0] if named else lists[0] if len(lists) == 1 else None
    return body if isinstance(body, list) else []


def _strings(value: Any) -> str:
    """A string, or those of an object's values, one on a line; empty for anything else."""
    parts = value.values() if isinstance(value, dict) else [value]
    return "\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _items(text: str, forms: Forms) -> list[_Item]:
    """The items in order. Code that begins below an item is a part of it; items are read in other code."""
    found: list[_Item] = []
    ends, code_end, at = fence_ends(text), 0, 0
    after_blank, is_open, is_apart, above = False, False, False, ""
    for line in text.split("\n"):
        if found and at in ends:
            code_end, is_open = ends[at], True
        in_code, at = at < code_end, at + len(line) + 1
        if not in_code and (mark := mark_of_line(line, forms)) is not None:
            found.append(_Item(mark, mark.indent, [mark.rest], is_apart, above))
            is_open, is_apart, above = True, False, ""
        elif in_code or (is_open and line.strip()):
            is_open = _goes_on(found[-1], line, in_code, after_blank)
            is_apart = is_apart or not is_open or len(found[-1].lines) - 1 in found[-1].loose
        above = line if line.strip() and not in_code and mark is None else above
        after_blank = not line.strip()
    titles = sum(item.mark.is_title for item in found)
    if titles == 1 < len(found):  # the title of the list
        found = [item for item in found if not item.mark.is_title]
    elif titles:
        for item in found:
            item.indent += 0 if item.mark.is_title else 4
    below = [*(not item.mark.is_title for item in found[1:]), False]
    return [
        item for item, has_items in zip(found, below, strict=False) if item.text or (item.mark.is_title and has_items)
    ]


def _goes_on(item: _Item, line: str, in_code: bool, after_blank: bool) -> bool:
    """True if a line is a part of the item, to which it is added."""
    if in_code:
        item.lines.append(line.rstrip())
        return True
    if _BREAK.match(line):
        return False
    indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
    is_bound = item.mark.is_heading or not item.text or indent >= item.indent + 2 or item.text.endswith(":")
    if not is_bound and after_blank:
        return False
    if not is_bound:
        item.loose.append(len(item.lines))
    item.lines.append(line.strip())
    return True


def _release(found: list[_Item]) -> None:
    """Leave out the loose lines of the last item, unless those before it have some: they may follow the list."""
    if found and not any(item.loose for item in found[:-1]):
        last = found[-1]
        last.lines = [line for at, line in enumerate(last.lines) if at not in last.loose]
