"""Prompt chaining: fixed steps, each fed with what the step before it wrote, and a gate between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import Formatter
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.task import Task

Gate = Callable[[int, str], str | None]
"""A step's number (from 1) and its output -> the problem with it, or None."""

STEPS = (
    "{question}\n\nDo not answer yet. List the facts that are given, and what is asked.",
    "{question}\n\nFacts:\n{previous}\n\nWork out the answer from these facts.",
    '{question}\n\nSolution:\n{previous}\n\nEnd with "The answer is" and {wanted}.',
)
"""Read, solve, conclude: steps that fit any question."""


def _check(*, steps: Sequence[str], **_: Any) -> None:
    if not steps:
        raise ConfigError("steps is empty: give one template or more, such as '{question}'")
    for template in steps:
        _fill(template, Task("", ""), "")


@checked(_check)
async def chain(task: Task, ctx: Context, *, steps: Sequence[str] = STEPS, gate: Gate | None = None) -> str:
    """The answer in what the last step wrote.

    A step is a template with `{question}`, `{previous}` (what the step before wrote) and `{wanted}` (how the task wants its
    answer). Each is a call of its own, and sees nothing else. What the `gate` finds wrong is told to the step, which
    tries once more; if that does not pass either, the chain ends there.
    """
    previous = ""
    for number, template in enumerate(steps, 1):
        at = await ctx.say(_fill(template, task, previous)).generate()
        wrong = gate(number, at.said) if gate else None
        if wrong is not None:
            at.branch(f"step {number}", "pruned", text=wrong)
            at = await at.say(f"That cannot be used: {wrong}\nWrite it again.").generate()
            wrong = gate(number, at.said) if gate else None
        previous = at.said
        at.branch(f"step {number}", "done" if wrong is None else "failed", text=wrong or previous)
        if wrong is not None:
            break
    return answer_or_text(previous, task)


def _fill(template: str, task: Task, previous: str) -> str:
    values = {"question": task.question, "previous": previous, "wanted": answer_form(task)}
    try:
        parts = list(Formatter().parse(template))
        return "".join(text + ("" if name is None else values[name]) for text, name, _, _ in parts)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the step {template[:60]!r} cannot be filled in ({error}): it may hold {{question}}, {{previous}} and "
            "{wanted}, and other braces doubled"
        ) from None
