"""Ask and take the answer, without reasoning: the baseline of every comparison."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.patterns.answers import answer_or_text, wanted
from firsthand.task import Task


async def direct(task: Task, ctx: Context) -> str:
    """The model's answer to the bare question.

    A multiple-choice task with a context is answered by log-prob instead: the letter of the choice that is most probable
    after the context (Brown et al., 2020). The likelihoods are in the trace, for scorers that normalise by length.
    """
    if task.choices and task.context is not None:
        likelihoods = await ctx.score(task.choices, prompt=task.context)
        best = max(range(len(likelihoods)), key=lambda i: likelihoods[i].logprob)
        return task.letters[best]
    ctx = await ctx.say(question(task)).generate()
    return answer_or_text(ctx.text, task)


def question(task: Task) -> str:
    """The question, its choices, and how to answer."""
    form = wanted(task, "")
    return f"{task.question}\n\nAnswer with {form} only." if form else task.question
