"""An exact solver for the game of 24: moves from a set of numbers, whether they can reach 24, and a solution.

A position is a sorted tuple of Fractions. A move replaces two of its numbers by their sum, difference, product or
quotient.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

Numbers = tuple[Fraction, ...]
GOAL = Fraction(24)
MAX_NUMBERS = 6
_TEXT_CHARS = 200


class Move(NamedTuple):
    """One step: its text, such as `4 + 8 = 12 (left: 4 6 12)`, and the remaining numbers."""

    text: str
    left: Numbers


def position(text: str) -> Numbers:
    """Returns the numbers in a text, such as `4 5 6 10` or `1.5 2/3`; other words are skipped."""
    return tuple(sorted(number for word in text[:_TEXT_CHARS].split() if (number := _number(word)) is not None))


def written(numbers: Numbers) -> str:
    """Returns the numbers as text that `position` reads."""
    return " ".join(map(str, numbers))


@lru_cache(maxsize=200_000)
def moves(numbers: Numbers) -> tuple[Move, ...]:
    """Returns every distinct move, in a fixed order."""
    found: dict[str, Move] = {}
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = tuple(number for k, number in enumerate(numbers) if k not in (i, j))
            for sign, value in _values(a, b, both_orders=i < j):
                left = tuple(sorted((*rest, value)))
                text = f"{a} {sign} {b} = {value} (left: {written(left)})"
                found.setdefault(text, Move(text, left))
    return tuple(found.values())


@lru_cache(maxsize=200_000)
def reachable(numbers: Numbers) -> bool:
    """True if all the numbers together can make 24."""
    if len(numbers) > MAX_NUMBERS:
        return False
    return numbers == (GOAL,) if len(numbers) <= 1 else any(reachable(move.left) for move in moves(numbers))


def solution(numbers: Numbers) -> str | None:
    """Returns an expression of all the numbers that equals 24, or None."""
    return _solve(tuple((number, str(number)) for number in numbers)) if reachable(numbers) else None


def _solve(terms: tuple[tuple[Fraction, str], ...]) -> str | None:
    if len(terms) == 1:
        return terms[0][1] if terms[0][0] == GOAL else None
    for i, (a, left) in enumerate(terms):
        for j, (b, right) in enumerate(terms):
            if i == j:
                continue
            rest = tuple(term for k, term in enumerate(terms) if k not in (i, j))
            for sign, value in _values(a, b, both_orders=i < j):
                if reachable(tuple(sorted([*(number for number, _ in rest), value]))):
                    return _solve((*rest, (value, f"({left} {sign} {right})")))
    return None


def _values(a: Fraction, b: Fraction, *, both_orders: bool) -> Iterator[tuple[str, Fraction]]:
    """Yields the results of a and b; those that do not depend on the order only if `both_orders`."""
    if both_orders:
        yield "+", a + b
        yield "*", a * b
    yield "-", a - b
    if b:
        yield "/", a / b


def _number(word: str) -> Fraction | None:
    try:
        return Fraction(word) if len(word) <= 40 and "e" not in word.lower() else None
    except (ValueError, ZeroDivisionError):
        return None


def makes_24(expression: str, numbers: Numbers) -> bool:
    """True if an expression of + - * / and parentheses uses exactly these numbers, each once, and equals 24.

    The sign of a product may be left out before a parenthesis, unless its value then depends on the reading: `8 / 2(3 + 1)`.
    """
    plain = expression.translate(_SPELLINGS).strip()
    if not _EXPRESSION.fullmatch(plain):
        return False
    return all(_makes_24(reading, numbers) for reading in (plain, _UNSIGNED_PRODUCT.sub("*(", plain)))


def _makes_24(expression: str, numbers: Numbers) -> bool:
    try:
        used: list[Fraction] = []
        value = _value(ast.parse(expression, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == GOAL and sorted(used) == list(numbers)


def _value(node: ast.expr, used: list[Fraction]) -> Fraction:
    """Returns the exact value of an expression's tree; its numbers are appended to `used`."""
    match node:
        case ast.Constant(value=int() as number):
            used.append(Fraction(number))
            return used[-1]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, used)
        case ast.Call(func=left, args=[right]):  # 4(1 + 2 + 3), which binds closer than other products
            return _value(left, used) * _value(right, used)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right):
            return _OPERATORS[type(op)](_value(left, used), _value(right, used))
    raise ValueError("an expression of + - * / was expected")


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})
_EXPRESSION = re.compile(r"[\d +*/()-]{1,200}")
_UNSIGNED_PRODUCT = re.compile(r"(?<=[\d)]) *\(")
