"""Compares expressions of matrices and of cross products, in which the order of factors counts.

Capital letters are drawn as matrices of rational numbers and lower-case ones as numbers. For cross products every letter
is a vector, drawn as an element of the Lie algebra of 2 x 2 matrices, whose commutator is a cross product.
"""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

from firsthand.scorers.mathematics.high_precision import agree, exact, variables
from firsthand.scorers.mathematics.latex_tokens import Tree

MAX_POWER = 20
_MATRICES = re.compile(r"\b(?:matrix|matrices|linear (?:map|operator|transformation)s?|transposes?)\b", re.IGNORECASE)
_VECTORS = re.compile(r"\b(?:cross|vector) products?\b|\bvectors?\b", re.IGNORECASE)
_NAMED = re.compile(r"\\[A-Za-z]{1,30}|×")
_SIDE_BY_SIDE = re.compile(r"[A-Za-z]\s{0,9}[A-Za-z(]")
_CROSS = re.compile(r"[A-Za-z}]\s{0,9}(?:\\times|×)\s{0,9}[\\\dA-Za-z]")

_Matrix = tuple[Fraction, Fraction, Fraction, Fraction]
_Value = Fraction | _Matrix


def is_cross_product(reference: str, question: str | None) -> bool:
    """Return whether `\\times` between letters of the reference is the cross product of vectors that the question names.

    It is not where letters stand side by side: in `qv \\times B`, q may be a number.
    """
    if "\\cdot" in reference or _SIDE_BY_SIDE.search(_NAMED.sub("-", reference)):
        return False
    return bool(_CROSS.search(reference)) and bool(_VECTORS.search(question or ""))


def has_matrices(tree: Tree, question: str | None) -> bool:
    """Return whether two capitals or more of the tree are matrices, of which the question speaks."""
    return (
        bool(_MATRICES.search(question or ""))
        and len([each for each in variables(tree) - {"T"} if each[0].isupper()]) > 1
    )


def same_products(left: Tree, right: Tree, *, cross: bool = False) -> bool:
    """Return whether two expressions are equal for all matrices, or vectors; False where the answer cannot be evaluated.

    Where the reference cannot (`A / (B + C)`, `|A|`), its letters are numbers.
    """
    draw, names = Random(1), sorted(variables(left) | variables(right))
    for _ in range(3):
        point: dict[str, _Value] = {}
        for name in names:
            a, b, c, d = (Fraction(draw.randint(2, 99)) for _ in range(4))
            point[name] = (a, b, c, -a if cross else d) if cross or name[0].isupper() else Fraction(draw.randint(2, 9))
        if not cross:
            point["I"] = (Fraction(1), Fraction(0), Fraction(0), Fraction(1))
        try:
            expected = _value(right, point, cross)
        except (ValueError, ArithmeticError, KeyError):
            return agree(left, right)
        try:
            if _value(left, point, cross) != expected:
                return False
        except (ValueError, ArithmeticError, KeyError):
            return False
    return True


def _value(tree: Tree, point: dict[str, _Value], cross: bool) -> _Value:
    number = exact(tree)
    if number is not None:
        return number
    if tree[0] == "var":
        return point[tree[1]]
    if tree[0] == "^":
        return _power(_value(tree[1], point, cross), tree[2], point)
    if tree[0] not in ("+", "-", "*", "/"):
        raise ValueError(tree[0])
    left, right = (_value(each, point, cross) for each in tree[1:])
    if tree[0] == "*":
        product = _product(left, right)
        if not cross or isinstance(left, Fraction) or isinstance(right, Fraction):
            return product
        return _sum(product, _product(Fraction(-1), _product(right, left)))
    if tree[0] == "/":
        if not isinstance(right, Fraction):
            raise ValueError("division by a matrix")
        return _product(left, 1 / right)
    return _sum(left, right if tree[0] == "+" else _product(Fraction(-1), right))


def _power(base: _Value, exponent: Tree, point: dict[str, _Value]) -> _Value:
    if exponent == ["var", "T"] and not isinstance(base, Fraction):
        return base[0], base[2], base[1], base[3]
    power = _value(exponent, point, cross=False)
    if not isinstance(power, Fraction) or power.denominator != 1 or abs(power) > MAX_POWER:
        raise ValueError("a power")
    if isinstance(base, Fraction):
        return Fraction(base ** int(power))
    if power < 0:
        a, b, c, d = base
        base = _product(1 / (a * d - b * c), (d, -b, -c, a))
    found: _Value = (Fraction(1), Fraction(0), Fraction(0), Fraction(1))
    for _ in range(abs(int(power))):
        found = _product(found, base)
    return found


def _sum(left: _Value, right: _Value) -> _Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    if isinstance(left, Fraction):
        return _sum(right, left)
    if isinstance(right, Fraction):  # a number is that multiple of the identity
        right = (right, Fraction(0), Fraction(0), right)
    return left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3]


def _product(left: _Value, right: _Value) -> _Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    if isinstance(left, Fraction):
        return tuple(left * each for each in right)  # type: ignore[union-attr, return-value]
    if isinstance(right, Fraction):
        return _product(right, left)
    (a, b, c, d), (e, f, g, h) = left, right
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
