"""Puts named parts in the order in which a question names them: `b = 1, m = 2` is (2, 1) where it asks for (m, b)."""

from __future__ import annotations

import re

from firsthand.scorers.mathematics.answer_text import plain
from firsthand.scorers.mathematics.latex import parse
from firsthand.scorers.mathematics.latex_tokens import Tree

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
_NAME = r"(?:\\text ?\{[^\W\d_]{1,30}\}|\\?[^\W\d_]{1,30})(?:_(?:\w|\{\w{1,9}\}))?"
_BETWEEN = r" ?(?:(?:,|;) ?(?:and )?| and )"
_LISTED = re.compile(rf"(?<![\w\\{{]){_NAME}(?:{_BETWEEN}{_NAME}){{1,20}}(?!\w)")
_IN_BRACKETS = re.compile(rf"(?<!\w)\( ?({_NAME}(?:{_BETWEEN}{_NAME}){{1,20}}) ?\)")
_SEPARATOR = re.compile(_BETWEEN)


def listed_names(question: str | None) -> list[list[Tree]]:
    """Return the lists of names in a question, the last first: those in brackets, `(m, b)`, before others, `m and b`."""
    text = plain(" ".join((question or "")[-MAX_CHARS:].split()))
    in_brackets = [found[1] for found in _IN_BRACKETS.finditer(text)]
    others = [found[0] for found in _LISTED.finditer(text)]
    lists = [*reversed(in_brackets), *reversed(others)]
    return [[parse(name) or [] for name in _SEPARATOR.split(each)] for each in lists]


def in_order(tree: Tree, names: list[Tree]) -> Tree:
    """Return `(x, y) = (1, 2)` with its names, and the values with them, in this order; unchanged if it has other names."""
    if not same_names(tree[1][1:], names):
        return tree
    return ["named", ["tuple", *names], _moved(tree[2], [tree[1].index(each) for each in names])]


def same_names(ours: list[Tree], theirs: list[Tree]) -> bool:
    """Return whether two lists are of the same names, in any order."""
    return sorted(map(str, ours)) == sorted(map(str, theirs))


def _moved(value: Tree, places: list[int]) -> Tree:
    """Return a tuple, or each tuple of a list, with its elements from these places."""
    if value[0] in ("list", "or", "set"):
        return [value[0], *(_moved(each, places) for each in value[1:])]
    return ["tuple", *(value[at] for at in places)] if value[0] == "tuple" and len(value) == len(places) + 1 else value
