"""Values of trees: exact fractions where they are rational, else 60 digits by mpmath, at points drawn for the variables.

Every operation is bounded: a power, factorial or exponential that would be too large raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

from firsthand.scorers.mathematics.latex_tokens import Tree

DIGITS = 60
POINTS = 5
MAX_POWER_BITS = 20_000
MAX_FACTORIAL = 1_000
MAX_MAGNITUDE = 100_000
"""Largest logarithm of a value."""
_OUTSIDE = (ArithmeticError, ValueError, TypeError, KeyError)


def exact(tree: Tree) -> Fraction | None:
    """Return the tree's value as a rational number, or None if it is not one or would be too long."""
    kind = tree[0]
    if kind == "num":
        return Fraction(tree[1])
    if kind not in ("+", "-", "*", "/", "^", "binom", "factorial", "percent", "abs", "floor", "ceil"):
        return None
    parts = [exact(each) for each in tree[1:]]
    if any(part is None for part in parts):
        return None
    left, right = (*parts, Fraction(0))[:2]
    assert left is not None and right is not None
    if kind == "^":
        bits = max(left.numerator.bit_length(), left.denominator.bit_length())
        if right.denominator != 1 or abs(right) > MAX_POWER_BITS or bits * abs(right) > MAX_POWER_BITS:
            return None
        return None if left == 0 and right < 0 else Fraction(left ** int(right))
    if kind in ("factorial", "binom"):
        if (
            left.denominator != 1
            or right.denominator != 1
            or not 0 <= right <= MAX_FACTORIAL
            or not 0 <= left <= MAX_FACTORIAL
        ):
            return None
        return Fraction(math.factorial(int(left)) if kind == "factorial" else math.comb(int(left), int(right)))
    if kind in ("percent", "abs", "floor", "ceil"):
        return {"percent": left / 100, "abs": abs(left)}.get(kind) or Fraction(
            math.floor(left) if kind == "floor" else math.ceil(left) if kind == "ceil" else 0
        )
    if kind == "/":
        return None if right == 0 else left / right
    return {"+": left + right, "-": left - right, "*": left * right}[kind]


def variables(tree: Sequence[Any]) -> set[str]:
    """Return the names of the tree's variables."""
    if tree[0] == "var":
        return {tree[1]}
    return set().union(*(variables(each) for each in tree[1:] if isinstance(each, list)))


def has(tree: Sequence[Any], *kinds: str) -> bool:
    """Return whether a node of one of these kinds is in the tree, or a constant of that name."""
    if tree[0] in kinds or (tree[0] == "const" and tree[1] in kinds):
        return True
    return any(isinstance(each, list) and each and has(each, *kinds) for each in tree[1:])


def agree(left: Tree, right: Tree) -> bool:
    """Return whether two expressions have equal values to 40 digits, wherever both have one; infinity is no value.

    A bare `log` is read as natural or decimal, the same in both.
    """
    return any(_agree(left, right, base) for base in ((0, 10) if has(left, "log") or has(right, "log") else (0,)))


def near(left: Tree, right: Tree) -> bool:
    """Return whether two expressions have values that differ by a tenth at most, as one that is rounded does."""
    numbers = Numbers()
    try:
        a, b = (numbers.value(each[1] if each[0] == "quantity" else each, {}) for each in (left, right))
        return bool(abs(a - b) <= abs(a) / 10)
    except _OUTSIDE:
        return False


def constant_ratio(left: Tree, right: Tree, *, positive: bool = False) -> bool:
    """Return whether left is a constant multiple of right, not by zero; by a positive one where asked."""
    names, ratios = sorted(variables(left) | variables(right)), []
    math_, draw = Numbers(), Random(2)
    for place in range(3 * POINTS):
        math_.real_only = (
            place >= 2 * POINTS
        )  # then of either sign, and only where all is real: |x| is no multiple of x
        point = {name: math_.fraction(_drawn(draw, -2.7 if math_.real_only else 0.3, 2.7)) for name in names}
        try:
            a, b = math_.value(left, point), math_.value(right, point)
            if not math_.equal(a, 0) and not math_.equal(b, 0):
                ratios.append(a / b)
            elif math_.equal(a, 0) != math_.equal(b, 0):
                return False
        except _OUTSIDE:
            continue
    same = len(ratios) >= POINTS and all(math_.equal(each, ratios[0]) for each in ratios)
    return same and (not positive or (ratios[0].imag == 0 and ratios[0].real > 0))


def _agree(left: Tree, right: Tree, log_base: int) -> bool:
    names = sorted(variables(left) | variables(right))
    math_, draw, agreed = Numbers(log_base), Random(1), 0
    points = POINTS if names else 1
    for place in range(2 * points if names else 1):
        real = place >= points  # then of either sign, and only where all is real: |x| is not x
        point = {name: math_.fraction(_drawn(draw, -2.7 if real else 0.3, 2.7)) for name in names}
        math_.real_only = real
        try:
            a, b = math_.value(left, point), math_.value(right, point)
        except _OUTSIDE:
            continue
        if not (math_.finite(a) and math_.finite(b)):
            continue
        if not math_.equal(a, b):
            return False
        agreed += 1
    return agreed >= (POINTS // 2 if names else 1)


def _drawn(draw: Random, low: float, high: float) -> Fraction:
    return Fraction(round(draw.uniform(low, high) * 10**6), 10**6)


class Numbers:
    """Evaluates trees in a precision of its own."""

    def __init__(self, log_base: int = 0):
        import mpmath as library

        package: Any = library
        self.mp = package.MPContext()
        self.mp.dps = DIGITS
        self.log_base, self.real_only = log_base, False

    def fraction(self, value: Fraction) -> Any:
        """Return a fraction in this precision."""
        return self.mp.mpf(value.numerator) / self.mp.mpf(value.denominator)

    def equal(self, a: Any, b: Any) -> bool:
        """Return whether two values agree to 40 digits."""
        size = max(abs(a), abs(b))
        return bool(abs(a - b) <= size * self.mp.mpf(10) ** -40 + self.mp.mpf(10) ** -50)

    def finite(self, value: Any) -> bool:
        """Return whether a value is a number."""
        return bool(self.mp.isfinite(value))

    def value(self, tree: Tree, point: dict[str, Any]) -> Any:
        """Return the value at a point. Raises ValueError, ArithmeticError or KeyError where there is none."""
        kind = tree[0]
        if kind == "num":
            return self.fraction(Fraction(tree[1]))
        if kind == "var":
            return point[tree[1]]
        if kind == "const":
            return {"pi": self.mp.pi(), "i": self.mp.j, "e": self.mp.e()}[tree[1]]
        if kind == "det":
            raise ValueError("a determinant")
        parts = [self.value(each, point) for each in tree[1:]]
        found = self._binary(kind, *parts) if len(parts) == 2 else self._unary(kind, *parts)
        if self.real_only and abs(self.mp.im(found)) > 1e-40:
            raise ValueError("outside the real domain")
        return found

    def _binary(self, kind: str, a: Any, b: Any) -> Any:
        if kind == "+":
            return a + b
        if kind == "-":
            return a - b
        if kind == "*":
            return a * b
        if kind == "/":
            return a / b
        if kind == "^":
            return self._power(a, b)
        if kind == "root":
            odd = self.mp.isint(b) and int(abs(b)) % 2 == 1 and self.mp.im(a) == 0 and self.mp.re(a) < 0
            return -self._power(-a, 1 / b) if odd else self._power(a, 1 / b)
        if kind == "binom" and abs(a) <= MAX_FACTORIAL and abs(b) <= MAX_FACTORIAL:
            return self.mp.binomial(a, b)
        raise ValueError(kind)

    def _power(self, a: Any, b: Any) -> Any:
        if a != 0 and abs(b) * (abs(self.mp.log(abs(a))) + 4) > MAX_MAGNITUDE:
            raise ValueError("too large")
        return self.mp.power(a, b)

    def _unary(self, kind: str, a: Any) -> Any:
        mp = self.mp
        if kind in ("exp", "sinh", "cosh", "tanh") and abs(a) > MAX_MAGNITUDE:
            raise ValueError("too large")
        if kind == "factorial":
            if abs(a) > MAX_FACTORIAL:
                raise ValueError("too large")
            return mp.gamma(a + 1)
        if kind in ("deg", "percent"):
            return a * mp.pi / 180 if kind == "deg" else a / 100
        if kind in ("floor", "ceil") and mp.im(a) == 0:
            return mp.floor(mp.re(a)) if kind == "floor" else mp.ceil(mp.re(a))
        if kind in ("log", "lg"):
            return mp.log(a) / mp.log(10) if kind == "lg" or self.log_base else mp.log(a)
        known = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "fabs"}
        names = ("sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "exp", "sinh", "cosh", "tanh", *known)
        if kind not in names:
            raise ValueError(kind)
        return getattr(mp, known.get(kind, kind))(a)
