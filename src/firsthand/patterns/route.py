"""Routing: the question is classified first, and then answered in the way that fits its kind."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial

from firsthand.agent import Pattern, pattern_name
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.label_choice import choose
from firsthand.patterns.parts.sub_patterns import follow
from firsthand.task import Task


def _check(*, patterns: Mapping[str, Pattern] | Sequence[Pattern]) -> None:
    if not patterns:
        raise ConfigError("patterns is empty: name the routes, as in route(direct,react)")


@checked(_check)
async def route(
    task: Task, ctx: Context, *, patterns: Mapping[str, Pattern] | Sequence[Pattern] = (direct, cot)
) -> str:
    """The answer of the one pattern that the model finds most fitting.

    The choice is the label with the highest likelihood, so it is always one of them. Labels are the patterns' names, told
    with the first line of their docstrings; give a mapping to name them yourself: `{"refund": ..., "complaint": ...}`.
    """
    routes = dict(patterns) if isinstance(patterns, Mapping) else {pattern_name(each): each for each in patterns}
    kinds = "\n".join(f"- {label}{_about(each)}" for label, each in routes.items())
    asked = ctx.say(
        f"{task.question}\n\nDo not answer yet. Which of these fits this best?\n{kinds}\n\nWrite its name only."
    )
    choice = await choose(asked, tuple(routes))
    for label, chance in choice.probabilities.items():
        asked.branch(label, "kept" if label == choice.label else "pruned", score=round(chance, 4))
    return await follow(choice.label, routes[choice.label], task, ctx)


def _about(pattern: Pattern) -> str:
    """The description of a pattern, from its docstring."""
    function = pattern.func if isinstance(pattern, partial) else pattern
    lines = (inspect.getdoc(function) or "").splitlines()
    return f": {lines[0]}" if lines else ""
