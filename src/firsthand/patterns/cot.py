"""Chain of thought: the model reasons step by step before it answers (Wei et al., 2022; Kojima et al., 2022)."""

from __future__ import annotations

from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.patterns.parts.answers import answer_form, answer_or_text, extract_answer
from firsthand.task import Task


def _check(*, shots: int, extract: bool) -> None:
    at_least(0, shots=shots)
    if extract and shots:
        raise ConfigError(f"shots is {shots} and extract is on: examples show how to end, so leave one of the two out")


def check_shots(task: Task, shots: int, **_: Any) -> None:
    """ConfigError if a task carries fewer worked examples than `shots`."""
    examples = task.metadata.get("examples", ())
    if not 0 <= shots <= len(examples):
        raise ConfigError(
            f"shots is {shots}, and task {task.id!r} carries {len(examples)} examples: give 0 to that many"
        )


@checked(_check, task=check_shots)
async def cot(task: Task, ctx: Context, *, shots: int = 0, extract: bool = False) -> str:
    """The answer at the end of one chain of thought.

    With `shots`, that many worked examples of the task come before the question as earlier turns (Wei et al., 2022);
    ConfigError if the task carries fewer. Without, the model is told to think step by step (Kojima et al., 2022): in one
    call that says how to end, or with `extract` in the paper's two, the second of which asks for the answer alone.
    """
    if not extract:
        ctx = await opening(task, ctx, shots).generate()
        return answer_or_text(ctx.text, task)
    thought = await ctx.say(f"{task.question}\n\nLet's think step by step.").generate()
    concluded = await thought.say(f"Therefore, the answer ({answer_form(task)}) is").generate()
    return extract_answer(concluded.text, task) or answer_or_text(thought.text, task)


def opening(task: Task, ctx: Context, shots: int = 0) -> Context:
    """The Context before the reasoning: examples, if any, and the question."""
    if not shots:
        # Kojima's words come last: a small model told last how to end writes its answer at once (LOG.md).
        return ctx.say(
            f'{task.question}\n\nEnd with "The answer is" and {answer_form(task)}.\n\nLet\'s think step by step.'
        )
    check_shots(task, shots)
    examples = task.metadata.get("examples", ())
    for example in examples[:shots]:
        ctx = ctx.say(f"Question: {example['question']}").say(str(example["answer"]), "assistant")
    return ctx.say(f"Question: {task.question}")
