"""Evaluators judge an answer within a pattern, before any scorer, and give a reason.

An evaluator never sees a task's secret. For code it runs tests that the model wrote itself; otherwise the model judges; and
a caller may give any function of its own, such as one that asks the environment.
"""

from __future__ import annotations

import re
from typing import Literal

from firsthand.context import Context
from firsthand.patterns.parts.evaluation import Evaluator as Evaluator
from firsthand.patterns.parts.evaluation import Feedback as Feedback
from firsthand.patterns.parts.self_tests import SelfTests
from firsthand.patterns.parts.thoughts import last_word
from firsthand.task import Task

EvaluatorKind = Literal["auto", "tests", "judge"]
_VERDICTS = {"right": True, "correct": True, "wrong": False, "incorrect": False}
_TAIL_CHARS = 200
_DENIED = re.compile(
    r"\b(?:not|cannot|never|hardly|nothing|far from|\w+n't)"
    r"(?: (?:say|think|believe|see anything|find anything))?(?: (?:that|it|this|the answer))*"
    r"(?: (?:possibly|necessarily))?(?: (?:be|is|was|looks|quite|at all|entirely|fully|necessarily))?"
    r"[ *_`\"']+[a-z]+[^a-zA-Z]*$",
    re.IGNORECASE,
)
_OPENS_WRONG = re.compile(
    r"[\s*_`#\"'\[(]{0,20}(?:wrong|incorrect)\b"
    r"(?=[*_`\"'\])]{0,20}(?:[.,:;!)\]\n\u2013\u2014]|[ \t]*\Z|"
    r"[ \t]+(?:[-\u2013\u2014(]|(?:because|since|as|the|it|in|at)\b)))",
    re.IGNORECASE,
)


def evaluator_for(task: Task, kind: EvaluatorKind = "auto") -> Evaluator:
    """An evaluator for one attempt: the model's own tests where the task names an `entry_point`, else the model as judge."""
    if kind == "tests" or (kind == "auto" and "entry_point" in task.metadata):
        return SelfTests()
    return judge


async def judge(task: Task, ctx: Context, answer: str) -> Feedback:
    """Return the model's own verdict on an answer.

    A judgement without a verdict is followed by one more request for it. If that has none either, the answer passes, and the
    trace gets an event `unclear_verdict`.
    """
    asked = (
        f"Problem:\n{task.question}\n\nProposed answer:\n{answer}\n\n"
        "Check the answer step by step. End with one word: right or wrong."
    )
    judged = await ctx.say(asked).generate()
    said = judged.said.strip()
    passed = passes(said)
    if passed is None:
        last = await judged.say("Reply with one word, right or wrong, and nothing else.").generate()
        passed = passes(last.said)
    if passed is None:
        ctx.note("unclear_verdict", text=said[-_TAIL_CHARS:])
    return Feedback(passed is not False, said)


def passes(said: str) -> bool | None:
    """Return True if a judgement calls the answer right, False if it calls it wrong, and None without a verdict.

    The last word is the verdict, reversed by a "not" before it. A judgement that opens with "Wrong" is a verdict as well,
    but not one that opens with "Wrong answers". One that opens with "Right" is not, because explanations open with that
    word too.
    """
    last = last_word(said)
    if last in _VERDICTS:
        return _VERDICTS[last] != (_DENIED.search(said[-_TAIL_CHARS:].replace("\u2019", "'")) is not None)
    return False if _OPENS_WRONG.match(said) else None
