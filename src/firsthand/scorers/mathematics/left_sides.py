"""Tells which left sides of an equation let it state its right side: those that are one name.

`x = 5`, `f(3) = 5` and `AB = 5` state 5. `2x = 5` and `x - 3 = 5` say something about 5
(`patterns/parts/equations.py` tells whether the question asks for that).
"""

from __future__ import annotations

from typing import Any

from firsthand.scorers.mathematics.latex_tokens import Tree

_FUNCTIONS = frozenset("fghFGHPpqE")


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


def _factors(tree: Tree) -> list[Tree]:
    return [*_factors(tree[1]), tree[2]] if tree[0] == "*" and len(tree) == 3 else [tree]


def _is_function(tree: Tree) -> bool:
    """True for f, P and the like, and the inverse of one."""
    named: Any = tree[1] if tree[0] == "^" and tree[2] == ["*", ["num", "-1"], ["num", "1"]] else tree
    return bool(named[0] == "var" and named[1] in _FUNCTIONS)


def _is_point(tree: Tree) -> bool:
    """True for A, x_1, \\angle ABC and words: factors that together are a name."""
    return tree[0] == "word" or (tree[0] == "var" and not (len(tree[1]) == 1 and tree[1].islower()))
