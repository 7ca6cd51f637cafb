"""Evaluator and optimiser: an answer is judged, and revised with the judge's feedback (Madaan et al., 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.label_choice import chance_correct
from firsthand.patterns.parts.sub_patterns import follow
from firsthand.task import Task


def _check(*, rounds: int, **_: Any) -> None:
    if rounds < 0:
        raise ConfigError(f"rounds is {rounds}: give the number of revisions, 0 or more")


@checked(_check)
async def evaluator_optimizer(task: Task, ctx: Context, *, pattern: Pattern = direct, rounds: int = 2) -> str:
    """The first answer of `pattern` that the judge accepts, or the last one after `rounds` revisions.

    The judge is the same model in a conversation of its own: it writes feedback, and then its verdict is read off the
    likelihoods of two words, so it always has one. `pattern` then revises the answer, shown the question, the answer and
    the feedback. The judge has no way to know the truth: Reflexion is for tasks that can be checked.
    """
    answer = await follow("answer", pattern, task, ctx)
    for number in range(1, rounds + 1):
        judge = await ctx.say(
            f"{task.question}\n\nProposed answer: {answer}\n\nCheck this answer. Say in a few sentences what is wrong with "
            "it, or that nothing is."
        ).generate()
        chance = round(await chance_correct(judge), 4)
        accepted = chance > 0.5
        judge.branch(f"judge {number}", "kept" if accepted else "pruned", score=chance, text=judge.said)
        if accepted:
            break
        answer = await follow(f"revision {number}", pattern, _revision(task, answer, judge.said), ctx)
    return answer


def _revision(task: Task, answer: str, feedback: str) -> Task:
    """The task again, with the answer that was rejected and why. It is answered in words, not by likelihood."""
    shown = f"{task.prompt}\n\nA rejected answer: {answer}\nFeedback: {feedback}\n\nGive a better answer."
    return replace(task, id=f"{task.id}/revision", prompt=shown, context=None)
