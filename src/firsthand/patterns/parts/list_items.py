"""Reads the items of a list that a model wrote as its plan, each with the lines that go on below it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from firsthand.patterns.parts.answers import TAIL_CHARS
from firsthand.patterns.parts.fenced_code import fence_ends

_TITLE = r"(?:part|(?:sub-?)?task)[ \t]+"
_ITEM = re.compile(
    rf"([ \t]*+)(?:[-*•][ \t]|(#{{1,6}}[ \t]+)?\**"
    rf"(?:step[ \t]+|({_TITLE})|\()?(\d{{1,3}})(?:\**[.):](?!\d)|\ufe0f?\u20e3))(.*)",
    re.IGNORECASE,
)
_LETTERED = re.compile(r"([ \t]*+)(#{1,6}[ \t]+)?\**()\(?([A-Za-z])[.)]\**(?=[ \t])(.*)")
_BREAK = re.compile(r"[ \t]*+(?:#{1,6}[ \t]|```|~~~|(?:-{3,}|\*{3,}|_{3,})[ \t]*$)")


@dataclass
class _Item:
    """An item and the lines below it that are no items."""

    indent: int
    number: int
    """0 for a bullet."""
    is_heading: bool
    is_title: bool
    """True of a heading, and of `Task 1:`: the items below it are a part of it, if there is another one."""
    lines: list[str]
    loose: list[int] = field(default_factory=list)
    """The indices of the lines that no indent, code or colon binds to it."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def listed(text: str, most: int) -> list[str]:
    """The items of the list in `text`, at most `most`.

    An item begins with a bullet, a number (`1.`, `(1)`, `### 1.`, `Step 2:`, `Sub-task 2:`) or, where there are neither,
    with the letters from `a.` on. It has the lines below it, its code whole, up to the next one; the last item has text that
    no indent binds to it only if it ends with a colon, or those before it have such text. Items that are indented further,
    by two characters or more, belong to the one before them, on lines of their own, unless their number is its next. So do
    items below numbered headings, and bullets between items whose numbers go on without them: 1, bullet, 2.
    """
    text = text[:TAIL_CHARS]
    found = [item for item in _items(text, _ITEM) or _lettered(text) if item.text]
    _release(found)
    least = min((item.indent for item in found), default=0)
    outer = [item.number for item in found if item.number and item.indent < least + 2]
    numbered = len(outer) > 1 and outer == list(range(outer[0], outer[0] + len(outer)))
    items: list[str] = []
    number = inner = 0
    for item in found:
        given = item.number
        goes_on = given == number + 1 and given != inner + 1
        if items and not goes_on and (item.indent >= least + 2 or (numbered and number and not given)):
            items[-1] += f"\n- {item.text}"
            inner = given or inner
        else:
            items.append(item.text)
            number, inner = given, 0
    return items[:most]


def _lettered(text: str) -> list[_Item]:
    """The items that begin with a, b and so on; none if other letters are among them, or `a` stands alone."""
    found = _items(text, _LETTERED)
    return found if len(found) > 1 and [item.number for item in found] == [*range(1, len(found) + 1)] else []


def _items(text: str, begins: re.Pattern[str]) -> list[_Item]:
    """The items in order. Code that begins below an item is a part of it; items are read in other code."""
    found: list[_Item] = []
    ends, code_end, at = fence_ends(text), 0, 0
    after_blank, is_open = False, False
    for line in text.split("\n"):
        if found and at in ends:
            code_end, is_open = ends[at], True
        in_code, at = at < code_end, at + len(line) + 1
        if not in_code and (begun := begins.match(line)) is not None:
            found.append(_item(begun))
            is_open = True
        elif in_code or (is_open and line.strip()):
            is_open = _goes_on(found[-1], line, in_code, after_blank)
        after_blank = not line.strip()
    titles = [item for item in found if item.is_title]
    if len(titles) == 1 < len(found):  # the title of the list
        return [item for item in found if not item.is_title]
    for item in found if titles else ():
        item.indent += 0 if item.is_title else 4
    return found


def _item(begun: re.Match[str]) -> _Item:
    given = begun[4] or "0"
    number = int(given) if given.isdecimal() else ord(given.lower()) - ord("a") + 1
    lines = [begun[5].strip().strip("*").strip()]
    return _Item(len(begun[1].expandtabs(4)), number, bool(begun[2]), bool(begun[2] or begun[3]), lines)


def _goes_on(item: _Item, line: str, in_code: bool, after_blank: bool) -> bool:
    """True if a line is a part of the item, to which it is added."""
    if in_code:
        item.lines.append(line.rstrip())
        return True
    if _BREAK.match(line):
        return False
    indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
    is_bound = item.is_heading or indent >= item.indent + 2 or item.text.endswith(":")
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
