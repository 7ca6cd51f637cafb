"""Sets of real numbers that intervals, unions, inequalities and finite sets describe, in one form, so that they compare."""

from __future__ import annotations

from typing import Any, NamedTuple

from firsthand.scorers.mathematics.high_precision import Numbers, has, variables
from firsthand.scorers.mathematics.latex_tokens import Tree

MAX_PARTS = 40
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_TRIED = (-2.5, 5.25, 1000.75, -1000.25)
"""Points at which a side must lie on the line through its values at 0 and 1: of either sign, since |x| is not x."""


class RealSpan(NamedTuple):
    """An interval, and whether its ends belong to it."""

    low: Any
    low_in: bool
    high: Any
    high_in: bool


class RealSet(NamedTuple):
    """Disjoint spans in order; `name` is the variable of an inequality."""

    spans: tuple[RealSpan, ...]
    name: str | None = None


def same_real_set(left: Tree, right: Tree) -> bool:
    """Return whether both trees describe the same set of real numbers; False if one describes none."""
    numbers = Numbers()
    try:
        ours, theirs = _read(left, numbers), _read(right, numbers)
    except (ArithmeticError, ValueError, TypeError, KeyError):
        return False
    if ours is None or theirs is None or len(ours.spans) != len(theirs.spans):
        return False
    if ours.name and theirs.name and ours.name != theirs.name:
        return False
    pairs = zip(ours.spans, theirs.spans, strict=True)
    return all(
        (a.low_in, a.high_in) == (b.low_in, b.high_in)
        and _equal(a.low, b.low, numbers)
        and _equal(a.high, b.high, numbers)
        for a, b in pairs
    )


def _equal(a: Any, b: Any, numbers: Numbers) -> bool:
    return a == b if not (numbers.finite(a) and numbers.finite(b)) else numbers.equal(a, b)


def _read(tree: Tree, numbers: Numbers) -> RealSet | None:
    kind = tree[0]
    infinite = numbers.mp.inf
    if kind == "reals":
        return RealSet((RealSpan(-infinite, False, infinite, False),))
    if kind == "interval" or (kind == "tuple" and len(tree) == 3):
        ends, low, high = tree[1:] if kind == "interval" else ("()", *tree[1:])
        span = RealSpan(_end(low, numbers), ends[0] == "[", _end(high, numbers), ends[1] == "]")
        return RealSet((span,)) if span.low < span.high or (span.low == span.high and ends == "[]") else None
    if kind == "set":
        return RealSet(
            _merged([RealSpan(value, True, value, True) for value in (_end(each, numbers) for each in tree[1:])])
        )
    if kind == "relation":
        return _inequality(tree, numbers)
    if kind in ("union", "or") and len(tree) <= MAX_PARTS:
        found = [_read(each, numbers) for each in tree[1:]]
        names = {each.name for each in found if each is not None}
        if None in found or len(names) != 1:
            return None
        return RealSet(_merged([span for each in found if each for span in each.spans]), names.pop())
    if kind == "and" and len(tree) <= MAX_PARTS:
        return _intersection([_read(each, numbers) for each in tree[1:]])
    if kind == "without":
        whole, out = _read(tree[1], numbers), _read(tree[2], numbers)
        if whole is None or out is None or any(span.low != span.high for span in out.spans):
            return None
        spans = list(whole.spans)
        for point in out.spans:
            spans = [part for span in spans for part in _without(span, point.low)]
        return RealSet(tuple(spans))
    return None


def _end(tree: Tree, numbers: Numbers) -> Any:
    """Return the value of an end, maybe infinite."""
    if has(tree, "oo"):
        if tree == ["const", "oo"]:
            return numbers.mp.inf
        if tree == ["*", ["num", "-1"], ["const", "oo"]]:
            return -numbers.mp.inf
        raise ValueError("not an end")
    value = numbers.value(tree, {})
    if numbers.mp.im(value) != 0:
        raise ValueError("not real")
    return numbers.mp.re(value)


def _merged(spans: list[RealSpan]) -> tuple[RealSpan, ...]:
    found: list[RealSpan] = []
    for span in sorted(spans, key=lambda each: (each.low, not each.low_in)):
        last = found[-1] if found else None
        if last is not None and (span.low < last.high or (span.low == last.high and (span.low_in or last.high_in))):
            high, high_in = max((last.high, last.high_in), (span.high, span.high_in))
            found[-1] = RealSpan(last.low, last.low_in, high, high_in)
        else:
            found.append(span)
    return tuple(found)


def _intersection(sets: list[RealSet | None]) -> RealSet | None:
    """Return what inequalities of one variable have in common, maybe nothing."""
    first, *others = sets
    for each in others:
        if first is None or each is None or first.name != each.name:
            return None
        pairs = [(a, b) for a in first.spans for b in each.spans][: MAX_PARTS**2]
        first = RealSet(tuple(span for a, b in pairs if (span := _common(a, b)) is not None), first.name)
    return first


def _common(a: RealSpan, b: RealSpan) -> RealSpan | None:
    low, low_out = max((a.low, not a.low_in), (b.low, not b.low_in))
    high, high_in = min((a.high, a.high_in), (b.high, b.high_in))
    if low < high or (low == high and high_in and not low_out):
        return RealSpan(low, not low_out, high, high_in)
    return None


def _without(span: RealSpan, point: Any) -> list[RealSpan]:
    if not span.low <= point <= span.high:
        return [span]
    parts = [RealSpan(span.low, span.low_in, point, False), RealSpan(point, False, span.high, span.high_in)]
    return [part for part in parts if part.low < part.high]


def _inequality(tree: Tree, numbers: Numbers) -> RealSet | None:
    """Return the solutions of a chain such as `1 <= 2x + 1 < 5`, linear in one variable."""
    signs, parts = tree[1], tree[2:]
    if len(parts) == 2 and parts[0][0] == "abs" and signs[0] in ("<", "<="):
        signs, parts = signs * 2, [["*", ["num", "-1"], parts[1]], parts[0][1], parts[1]]  # |x| < 3 is -3 < x < 3
    if len(parts) == 2 and parts[0][0] == "abs" and signs[0] in (">", ">="):  # |x| > 3 is x < -3 or x > 3
        below = ["relation", [_FLIPPED[signs[0]]], parts[0][1], ["*", ["num", "-1"], parts[1]]]
        return _read(["or", below, ["relation", signs, parts[0][1], parts[1]]], numbers)
    names = variables(["all", *parts])
    if len(names) != 1 or any(sign not in _FLIPPED for sign in signs) or (("!=" in signs) and len(signs) > 1):
        return None
    (name,) = names
    infinite = numbers.mp.inf
    low, high = (-infinite, False), (infinite, False)
    for sign, left, right in zip(signs, parts[:-1], parts[1:], strict=True):
        line = [numbers.value(["-", left, right], {name: numbers.mp.mpf(x)}) for x in (0, 1, *_TRIED)]
        slope = line[1] - line[0]
        if slope == 0 or not all(numbers.equal(line[0] + x * slope, y) for x, y in zip(_TRIED, line[2:], strict=True)):
            return None
        at, sign = -line[0] / slope, sign if slope > 0 else _FLIPPED[sign]
        if sign == "!=":
            return RealSet((RealSpan(-infinite, False, at, False), RealSpan(at, False, infinite, False)), name)
        if sign in ("<", "<="):
            high = min(high, (at, sign == "<="), key=lambda end: (end[0], end[1]))
        else:
            low = max(low, (at, sign == ">="), key=lambda end: (end[0], not end[1]))
    return RealSet((RealSpan(low[0], low[1], high[0], high[1]),), name) if low[0] < high[0] else None
