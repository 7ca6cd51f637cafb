"""Evaluators judge an answer within a pattern, before any scorer, and give a reason.

An evaluator never sees a task's secret. For code it runs tests that the model wrote itself; otherwise the model judges; and
a caller may give any function of its own, such as one that asks the environment.
"""

from __future__ import annotations

from typing import Literal

from firsthand.context import Context
from firsthand.patterns.parts.evaluation import Evaluator as Evaluator
from firsthand.patterns.parts.evaluation import Feedback as Feedback
from firsthand.patterns.parts.self_tests import SelfTests
from firsthand.patterns.parts.thoughts import last_word
from firsthand.task import Task

EvaluatorKind = Literal["auto", "tests", "judge"]


def evaluator_for(task: Task, kind: EvaluatorKind = "auto") -> Evaluator:
    """An evaluator for one attempt: the model's own tests where the task names an `entry_point`, else the model as judge."""
    if kind == "tests" or (kind == "auto" and "entry_point" in task.metadata):
        return SelfTests()
    return judge


async def judge(task: Task, ctx: Context, answer: str) -> Feedback:
    """The model's own judgement of an answer. One that is neither right nor wrong passes."""
    asked = (
        f"Problem:\n{task.question}\n\nProposed answer:\n{answer}\n\n"
        "Check the answer step by step. End with one word: right or wrong."
    )
    said = (await ctx.say(asked).generate()).said.strip()
    return Feedback(last_word(said) not in ("wrong", "incorrect"), said)
