"""Chain of thought: the model reasons step by step before it answers (Wei et al., 2022; Kojima et al., 2022)."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.patterns.answers import answer_or_text
from firsthand.task import Task


async def cot(task: Task, ctx: Context, *, shots: int = 0) -> str:
    """The answer at the end of one chain of thought.

    With `shots` 0 the model is told to think step by step (Kojima et al., 2022, in one call); with more, that many worked
    examples of the task come before the question as earlier turns (Wei et al., 2022). ConfigError if there are not so many.
    """
    ctx = await opening(task, ctx, shots).generate()
    return answer_or_text(ctx.text, task)


def opening(task: Task, ctx: Context, shots: int = 0) -> Context:
    """The Context in which the model is to think: examples, if wanted, and the question."""
    if not shots:
        wanted = "the letter of the right choice" if task.choices else task.hint or "the answer"
        # Kojima's words come last: a small model told last how to end writes its answer at once (LOG.md).
        return ctx.say(f'{task.question}\n\nEnd with "The answer is" and {wanted}.\n\nLet\'s think step by step.')
    examples = task.metadata.get("examples", ())
    if not 0 <= shots <= len(examples):
        raise ConfigError(
            f"shots is {shots}, and task {task.id!r} carries {len(examples)} examples: give 0 to that many"
        )
    for example in examples[:shots]:
        ctx = ctx.say(f"Question: {example['question']}").say(str(example["answer"]), "assistant")
    return ctx.say(f"Question: {task.question}")
