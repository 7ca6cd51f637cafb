"""Equal budgets: turns each pattern's knob until an attempt with it costs as many tokens as with the others.

A knob is an option by which a pattern spends more; it is known by its name (`KNOBS`). The cost of an attempt at a value is
measured on a few tasks, not assumed: a line through the nearest measurements proposes the next value, a few rounds settle
it, and only a measured value is chosen. A pattern without a knob, or whose knob was set by hand, stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from firsthand import catalog
from firsthand.agent import Pattern

KNOBS = ("breadth", "trials", "samples", "workers", "rounds", "n", "max_steps")
"""Integer options by which patterns spend more. The first of these that a pattern takes is its knob."""
ROUNDS = 4
"""Measurements after the first two, at most."""
MOST = 512
"""The largest value that a knob is turned to."""
SLACK = 0.05
"""Share of the budget by which a value may exceed it."""

Measure = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]
"""Patterns with their options -> the mean tokens of an attempt with each."""


@dataclass(frozen=True)
class Fitted:
    """A pattern at the value that comes closest to the budget."""

    pattern: str
    """With its options, as it is to be run."""
    knob: str | None
    """The option that was turned; None if there is none, or it was set by hand."""
    value: int | None
    tokens: float | None
    """Mean tokens of an attempt in the measurement; None if it was not measured."""


@dataclass(frozen=True)
class Knob:
    """A pattern's knob, and what it costs at the values that were tried."""

    text: str
    name: str
    default: int

    def at(self, value: int) -> str:
        """The pattern with its knob at a value."""
        return f"{self.text}:{self.name}={value}"


def knob_of(pattern: Pattern) -> tuple[str, int] | None:
    """The name of a pattern's knob and its default; None if it has none."""
    taken = inspect.signature(pattern).parameters
    defaults = {name: taken[name].default for name in KNOBS if name in taken}
    return next(((name, value) for name, value in defaults.items() if type(value) is int), None)


def free_knob(text: str) -> Knob | None:
    """The knob of a pattern with its options, if it has one that they leave open."""
    pattern, options = catalog.pattern(text)
    found = knob_of(pattern)
    return None if found is None or found[0] in options else Knob(text, *found)


async def equalise(patterns: Sequence[str], budget: float | None, measure: Measure) -> tuple[float, list[Fitted]]:
    """The budget in tokens, and each pattern as it is to be run.

    Without a budget it is the cost of the most expensive pattern as it is.
    """
    knobs = {text: free_knob(text) for text in patterns}
    as_they_are = [text for text in patterns if budget is None or knobs[text]]
    measured = dict(await measure(as_they_are)) if as_they_are else {}
    budget = max(measured.values()) if budget is None else budget
    tried = {text: {knob.default: measured[text]} for text, knob in knobs.items() if knob}
    for _ in range(ROUNDS + 1):
        values = {text: next_value(points, budget) for text, points in tried.items()}
        variants = {text: knob.at(value) for text, value in values.items() if value and (knob := knobs[text])}
        if not variants:
            break
        costs = await measure(list(variants.values()))
        for text, variant in variants.items():
            tried[text][values[text] or 0] = costs[variant]
    fitted = []
    for text, knob in knobs.items():
        if knob is None:
            fitted.append(Fitted(text, None, None, measured.get(text)))
        else:
            value = best_value(tried[text], budget)
            fitted.append(Fitted(knob.at(value), knob.name, value, tried[text][value]))
    return budget, fitted


def next_value(points: Mapping[int, float], budget: float) -> int | None:
    """The value to measure next, or None if those measured are good enough or the cost no longer grows."""
    values = sorted(points)
    if len(values) == 1:
        only = values[0]
        if (1 - SLACK) * budget <= points[only] <= (1 + SLACK) * budget:
            return None
        return max(1, only // 2) if points[only] > budget and only > 1 else 2 * only if points[only] < budget else None
    below = [value for value in values if points[value] <= (1 + SLACK) * budget]
    above = [value for value in values if points[value] > (1 + SLACK) * budget]
    if below and points[below[-1]] >= (1 - SLACK) * budget:
        return None
    if not below and values[0] == 1:
        return None
    low, high = (
        (below[-1], above[0]) if below and above else (values[0], values[1]) if above else (values[-2], values[-1])
    )
    slope = (points[high] - points[low]) / (high - low)
    if slope <= 0.002 * points[high] / high:  # it does not spend more, however far it is turned
        return None
    value = int(low + (budget - points[low]) / slope + 1e-9)
    floor, ceiling = (low + 1 if below else 1), (high - 1 if above else min(8 * values[-1], MOST))
    value = min(max(value, floor), ceiling)
    return None if value in points or value > ceiling or value < floor else value


def best_value(points: Mapping[int, float], budget: float) -> int:
    """The measured value that spends most within the budget; of equally expensive ones the smallest."""
    within = {value: tokens for value, tokens in points.items() if tokens <= (1 + SLACK) * budget}
    if not within:
        return min(points, key=lambda value: (points[value], value))
    most = max(within.values())
    return min(value for value, tokens in within.items() if tokens >= 0.99 * most)
