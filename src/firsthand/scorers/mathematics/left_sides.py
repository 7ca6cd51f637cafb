"""Tells which left sides of an equation let it state its right side: one name, or what the question asks for.

`x = 5`, `f(3) = 5` and `AB = 5` state 5. `2x = 5` and `x - 3 = 5` say something about 5,
unless the question asks for that.
"""

from __future__ import annotations

import re
from typing import Any

from firsthand.scorers.mathematics.latex_tokens import Tree

MAX_LEFT_CHARS = 200
"""A longer left side is not looked for in the question."""
_FUNCTIONS = frozenset("fghFGHPpqE")
_SPACES = re.compile(r"\s+|\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\\[,;:! ]")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")


def is_one_name(tree: Tree) -> bool:
    """Return whether a tree names one thing, or several in a tuple: x, AB, f(3), |AB|, dy/dx, but not 2x, xy or x - 3."""
    if tree[0] in ("var", "word", "const"):
        return True
    if tree[0] == "tuple":
        return all(map(is_one_name, tree[1:]))
    if tree[0] == "abs":
        return tree[1][0] == "*" and is_one_name(tree[1])
    if tree[0] == "/":  # dy/dx
        return all(side[0] == "*" and side[1] == ["var", "d"] and side[2][0] == "var" for side in tree[1:])
    if tree[0] != "*":
        return False
    first, *others = _factors(tree)
    if _is_function(first):
        return len(others) == 1 or all(map(_is_point, others))
    if first == ["var", "m"] and len(others) == 1:
        return str(others[0][1]).startswith("\\angle")
    return all(map(_is_point, (first, *others)))


def asks_for_left_side(answer: str, question: str | None) -> bool:
    """Return whether a question asks for the left side of an equation: for a + b where the answer is `a + b = 5`.

    A left side that the question states to be something, or that is a part of a larger expression there, is not asked for.
    """
    left = _spaceless(answer.rpartition("boxed{")[2].partition("=")[0].replace("$", ""))
    if question is None or not left or len(left) > MAX_LEFT_CHARS:
        return False
    wanted = r"\s*".join(map(re.escape, left))
    found = rf"(?<![\w+\-*/^=_{{(\\.]){wanted}(?!\s*[-=+*/^_<>(!]|\w|\s*\\(?:cdot|times|div|l?e[q]?|g[et]|neq?|equiv))"
    return re.search(found, _SPACES.sub(" ", _FRACTION.sub(r"\\frac", question))) is not None


def _spaceless(text: str) -> str:
    return _SPACES.sub("", _FRACTION.sub(r"\\frac", text)).removeprefix("\\(").removeprefix("\\[")


def _factors(tree: Tree) -> list[Tree]:
    return [*_factors(tree[1]), tree[2]] if tree[0] == "*" and len(tree) == 3 else [tree]


def _is_function(tree: Tree) -> bool:
    """True for f, P and the like, and the inverse of one."""
    named: Any = tree[1] if tree[0] == "^" and tree[2] == ["*", ["num", "-1"], ["num", "1"]] else tree
    return bool(named[0] == "var" and named[1] in _FUNCTIONS)


def _is_point(tree: Tree) -> bool:
    """True for A, x_1, \\angle ABC and words: factors that together are a name."""
    return tree[0] == "word" or (tree[0] == "var" and not (len(tree[1]) == 1 and tree[1].islower()))
