"""Tool calls inside a text, as Toolformer writes them: `... left [calculator(57 + 23) -> 80] 80` (Schick et al., 2023).

The paper's tokens <API>, </API> and the arrow are ` [`, `]` and `->` (its footnote 1): a vocabulary needs no new ones.
"""

from __future__ import annotations

import re
from typing import NamedTuple

START, ARROW, END = " [", " ->", "]"

_CALL = re.compile(r"\s*([A-Za-z_]\w{0,63})\((.*)\)\s*", re.DOTALL)
_WRITTEN = re.compile(r" ?\[[A-Za-z_]\w{0,63}\([^\[\]]*\)(?: ->[^\[\]]*)?\]")


class InlineCall(NamedTuple):
    """A call of a tool by its name."""

    name: str
    input: str
    """The text between the parentheses, spaces included."""

    def written(self, result: str | None = None) -> str:
        """The call as text, with its result if there is one: e(c, r), or e(c) of the paper's section 2."""
        shown = "" if result is None else f"{ARROW} {result}"
        return f"{START}{self.name}({self.input}){shown}{END}"


def parse_inline_call(text: str) -> InlineCall | None:
    """The call that stands between `[` and the arrow or `]`; None if it is none."""
    found = _CALL.fullmatch(text)
    return None if found is None else InlineCall(found[1], found[2])


def without_inline_calls(text: str) -> str:
    """The text as it reads without its calls."""
    return _WRITTEN.sub("", text)
