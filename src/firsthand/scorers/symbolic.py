"""Compares mathematical answers: as text, as exact numbers, as collections, and as expressions.

An answer is parsed by our own grammar (`mathematics/latex.py`) into plain data, so no model output is ever run as code.
Two expressions are first compared at random points, in floating point, which separates nearly all different ones in
microseconds; those that agree are confirmed by sympy in its own process with limits on time and memory
(`mathematics/symbolic_worker.py`). If sympy does not finish, agreement at all points counts.
"""

from __future__ import annotations

import cmath
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from firsthand.patterns.parts.answers import last_boxed
from firsthand.scorers.mathematics.latex import Tree, parse, plain
from firsthand.task import Task
from firsthand.trace import Score, Trace

POINTS = 6
RELATIVE = 1e-9
WORKER_SECONDS = 8
MAX_POWER_BITS = 20_000
_COLLECTIONS = ("tuple", "set", "interval", "matrix", "union")
_MINERVA = "Final Answer: The final answer is"


def boxed(task: Task, trace: Trace) -> Score:
    """Score 1 if the content of the last `\\boxed{}`, or else a whole short answer, equals the reference mathematically."""
    text = (trace.answer or "")[-20_000:]
    found = last_boxed(text)
    return _score("boxed", found if found is not None else (text if len(text) <= 100 else None), task)


def minerva(task: Task, trace: Trace) -> Score:
    """Score 1 if the text after `Final Answer: The final answer is` equals the reference (Lewkowycz et al., 2022)."""
    _, found, rest = (trace.answer or "")[-20_000:].partition(_MINERVA)
    return _score("minerva", rest.partition(". I hope it is correct")[0].partition("\n")[0] if found else None, task)


def same_answer(answer: str, reference: str) -> bool:
    """Return whether two answers are equal mathematically: `\\frac{1}{2}` and 0.5, `(1, 2)` and `(1,2)`, `x+1` and `1+x`."""
    return comparison(answer, reference)[0]


def comparison(answer: str, reference: str) -> tuple[bool, str]:
    """Return whether they are equal, and the method: `text`, `tree`, `numbers`, `points`, `sympy` or `unread`."""
    left, right = plain(answer), plain(reference)
    if left.replace(" ", "") == right.replace(" ", ""):
        return bool(left), "text"
    trees = parse(answer), parse(reference)
    if trees[0] is None or trees[1] is None:
        return False, "unread"
    try:
        return _same(trees[0], trees[1])
    except RecursionError:  # hundreds of factors in a row
        return False, "unread"


def _score(name: str, found: str | None, task: Task) -> Score:
    if found is None:
        return Score(name, 0.0, {"found": None})
    same, by = comparison(found, str(task.secret["answer"]))
    return Score(name, float(same), {"found": found[:200], "by": by})


def _same(left: Tree, right: Tree) -> tuple[bool, str]:
    if left == right:
        return True, "tree"
    if left[0] in _COLLECTIONS or right[0] in _COLLECTIONS:
        return _same_collection(left, right), "tree"
    if _has_word(left) or _has_word(right):
        return False, "tree"
    exact = _exact(left), _exact(right)
    if exact[0] is not None and exact[1] is not None:
        # A rounded decimal does not equal the fraction, as in the published graders.
        return exact[0] == exact[1], "numbers"
    if not _agree_at_points(left, right):
        return False, "points"
    verdict = _confirmed(left, right)
    return (True, "points") if verdict is None else (verdict, "sympy")


def _same_collection(left: Tree, right: Tree) -> bool:
    if left[0] != right[0] or len(left) != len(right):
        return False
    ours, theirs = left[1:], right[1:]
    if left[0] == "interval":
        return ours[0] == theirs[0] and all(_same(a, b)[0] for a, b in zip(ours[1:], theirs[1:], strict=True))
    if left[0] in ("tuple", "matrix"):
        return all(_same(a, b)[0] for a, b in zip(ours, theirs, strict=True))
    left_over = list(theirs)
    for each in ours:
        match = next((other for other in left_over if _same(each, other)[0]), None)
        if match is None:
            return False
        left_over.remove(match)
    return True


def _has_word(tree: Sequence[Any]) -> bool:
    return tree[0] == "word" or any(isinstance(each, list) and _has_word(each) for each in tree[1:])


def _exact(tree: Tree) -> Fraction | None:
    """Return the tree's value as a rational number, or None if it is not one or would be too long."""
    kind = tree[0]
    if kind == "num":
        return Fraction(tree[1])
    if kind not in ("+", "-", "*", "/", "^"):
        return None
    left, right = _exact(tree[1]), _exact(tree[2])
    if left is None or right is None:
        return None
    if kind == "^":
        bits = max(left.numerator.bit_length(), left.denominator.bit_length())
        if right.denominator != 1 or abs(right) > MAX_POWER_BITS or bits * abs(right) > MAX_POWER_BITS:
            return None
        return None if left == 0 and right < 0 else Fraction(left ** int(right))
    if kind == "/":
        return None if right == 0 else left / right
    return {"+": left + right, "-": left - right, "*": left * right}[kind]


def _agree_at_points(left: Tree, right: Tree) -> bool:
    names = sorted(_variables(left) | _variables(right))
    draw, agreed = Random(1), 0
    for _ in range(POINTS):
        point = {name: complex(draw.uniform(0.3, 2.7), 0) for name in names}
        try:
            a, b = _value(left, point), _value(right, point)
        except (OverflowError, ZeroDivisionError, ValueError):
            continue
        if cmath.isnan(a) or cmath.isnan(b) or cmath.isinf(a) or cmath.isinf(b):
            if cmath.isinf(a) and a == b:
                agreed += 1
            continue
        if abs(a - b) > RELATIVE * max(1.0, abs(a), abs(b)):
            return False
        agreed += 1
    return agreed >= POINTS // 2


def _variables(tree: Sequence[Any]) -> set[str]:
    if tree[0] == "var":
        return {tree[1]}
    return set().union(*(_variables(each) for each in tree[1:] if isinstance(each, list)))


def _value(tree: Tree, point: dict[str, complex]) -> complex:
    kind = tree[0]
    if kind == "num":
        return complex(float(tree[1]))
    if kind == "var":
        return point[tree[1]]
    if kind == "const":
        return {"pi": complex(math.pi), "oo": complex(math.inf), "i": 1j, "e": complex(math.e)}[tree[1]]
    parts = [_value(each, point) for each in tree[1:]]
    if kind in _BINARY:
        return _BINARY[kind](*parts)
    return _UNARY[kind](parts[0])


def _factorial(value: complex) -> complex:
    if value.imag or value.real != int(value.real) or not 0 <= value.real <= 100:
        raise ValueError("not a small integer")
    return complex(math.factorial(int(value.real)))


_BINARY: dict[str, Callable[[complex, complex], complex]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a**b,
}
_UNARY: dict[str, Callable[[complex], complex]] = {
    "sqrt": cmath.sqrt, "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "ln": cmath.log, "exp": cmath.exp, "abs": lambda a: complex(abs(a)), "factorial": _factorial,
    "cot": lambda a: 1 / cmath.tan(a), "sec": lambda a: 1 / cmath.cos(a), "csc": lambda a: 1 / cmath.sin(a),
}  # fmt: skip


def _confirmed(left: Tree, right: Tree) -> bool | None:
    """Return whether sympy proves the difference to be zero; None if it does not finish within its limits."""
    worker = Path(__file__).parent / "mathematics" / "symbolic_worker.py"
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(worker)],
            input=json.dumps([left, right]),
            capture_output=True,
            text=True,
            timeout=WORKER_SECONDS,
            env={},
        )
    except subprocess.TimeoutExpired:
        return None
    return {"equal": True, "different": False}.get(done.stdout.strip())
