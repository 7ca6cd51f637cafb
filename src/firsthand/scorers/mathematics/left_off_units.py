"""Reads an answer and its reference without the unit of one of them, and the angles of functions in degrees.

A single value with its unit is compared in `equality.py`; here a unit stands on parts of sums, signs, equations and
inequalities: `90^\\circ - x` is 90 - x in degrees, `\\pm 5\\%` is plus or minus 5.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator

from firsthand.scorers.mathematics.high_precision import exact, has, variables
from firsthand.scorers.mathematics.latex_tokens import FUNCTIONS, TRIGONOMETRY, Tree
from firsthand.scorers.mathematics.quantities import asks_for, asks_for_percent, may_be_added, read_unit

MAX_CHARS = 8_000
"""Characters at the end of a question that are looked at: it asks there."""
SIGNS = ("quantity", "percent", "deg")
"""Kinds of trees of a value with a unit."""
_HOLDERS = frozenset({
    "tuple", "list", "or", "and", "set", "interval", "union", "without", "both", "matrix", "det", "row", "relation",
})  # fmt: skip
_ANGLES = FUNCTIONS - {"sqrt", "abs"} | {f"arc{each}" for each in TRIGONOMETRY}
"""Functions whose value is no number of degrees, the inverse ones among them."""
_IN_DEGREES = re.compile(r"\bin degrees\b|\bdegree (?:mode|measures?)\b", re.IGNORECASE)


def other_readings(answer: Tree, reference: Tree, question: str | None) -> Iterator[tuple[Tree, Tree]]:
    """Yield pairs of trees that are equal if the answer is right: without their unit, and with angles in degrees.

    The unit is left off where only one is stated, by the reference or as `may_add` allows. Angles of sine and the like are
    read in degrees where the question says that they are.
    """
    if _may_be_left_off(answer, reference, question):
        yield without_units(answer), without_units(reference)
    if question is not None and _says_degrees(question[-MAX_CHARS:]):
        read = _angles_in_degrees(answer), _angles_in_degrees(reference)
        if read != (answer, reference):
            yield read


def may_add(tree: Tree, question: str | None) -> bool:
    """Return whether an answer may state the unit of this value where its reference states none."""
    return may_be_added(tree[2], question) if tree[0] == "quantity" else asks_for(tree[0], question)


def may_be_bare(tree: Tree, question: str | None) -> bool:
    """Return whether a percentage may be written without its sign.

    50 % is 50 in the usual writing of answers, but 0.5 % is 0.5 only where the question asks for a percentage.
    """
    value = exact(tree[1])
    return value is None or value >= 1 or value <= 0 or asks_for_percent(question)


def without_units(tree: Tree, kinds: tuple[str, ...] = SIGNS) -> Tree:
    """Return the tree with its values alone, without units of these kinds; the angle of a function keeps its degrees."""
    if tree[0] in kinds:
        return without_units(tree[1], kinds)
    if tree[0] in TRIGONOMETRY:
        return tree
    return [without_units(each, kinds) if isinstance(each, list) and each else each for each in tree]


def units_of(tree: Tree) -> list[str]:
    """Return the units of measurement and of what is counted, as they are written in a tree."""
    return [each[2] for each in _stated(tree) if each[0] == "quantity"]


def _stated(tree: Tree) -> Iterator[Tree]:
    """Yield the values with a unit in a tree, save the angles of functions."""
    if tree[0] in SIGNS:
        yield tree
    if tree[0] not in TRIGONOMETRY:
        for each in tree[1:]:
            if isinstance(each, list) and each:
                yield from _stated(each)


def _may_be_left_off(answer: Tree, reference: Tree, question: str | None) -> bool:
    """Return whether one unit is stated, which the reference has, or which an answer may add."""
    ours, theirs = (list(_stated(each)) for each in (answer, reference))
    units = {_unit(each) for each in (*ours, *theirs)}
    if len(units) != 1 or not (theirs or all(_is_added(each, question) for each in ours)):
        return False
    return "percent" not in units or _are_percentages((answer, reference), question)


def _is_added(tree: Tree, question: str | None) -> bool:
    """Return whether a unit may be added to this value: `4\\pi + 8\\text{ m}` has one, and `(1, 3)\\text{ m}` none."""
    return not has(tree[1], *_HOLDERS) and may_add(tree, question)


def _unit(tree: Tree) -> Hashable:
    return read_unit(tree[2]) if tree[0] == "quantity" else tree[0]


def _are_percentages(trees: tuple[Tree, Tree], question: str | None) -> bool:
    """Return whether all values with a percent sign are percentages as a whole: `5\\%` and `-5\\%`, but not `x + 5\\%`."""
    values = [value for tree in trees for value in _values(tree) if has(value, "percent")]
    signs = (sign for tree in trees for sign in _stated(tree))
    return all(map(_is_percentage, values)) and all(may_be_bare(sign, question) for sign in signs)


def _values(tree: Tree) -> Iterator[Tree]:
    """Yield the elements of collections, and the sides of relations."""
    if tree[0] not in _HOLDERS:
        yield tree
        return
    for each in tree[1:]:
        if isinstance(each, list) and each:
            yield from _values(each)


def _is_percentage(tree: Tree) -> bool:
    if tree[0] in ("+", "-", "pm", "mp"):
        return all(each == ["num", "0"] or _is_percentage(each) for each in tree[1:])
    if tree[0] == "/":
        return _is_percentage(tree[1]) and not variables(tree[2])
    return bool(tree[0] == "percent")


def _says_degrees(question: str) -> bool:
    return _IN_DEGREES.search(question) is not None and "radian" not in question.casefold()


def _angles_in_degrees(tree: Tree) -> Tree:
    """Return the tree with the angle of each sine and the like in degrees, save one with pi or of another function."""
    if tree[0] in TRIGONOMETRY and len(tree) == 2:
        return tree if has(tree[1], "pi", *_ANGLES) else [tree[0], ["deg", without_units(tree[1], ("deg",))]]
    return [_angles_in_degrees(each) if isinstance(each, list) and each else each for each in tree]
