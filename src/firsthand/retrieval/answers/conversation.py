"""Questions within a conversation: a follow-up is rewritten so that it can be searched for, and then answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.retrieval.retrievers.rewriting import lines_of
from firsthand.retrieval.writer import ContextWriter, Writer
from firsthand.task import Task

Turn = tuple[str, str]
"""A question and its answer."""
MAX_TURNS = 4
"""The last turns that a follow-up is rewritten from."""
MAX_CHARS = 600
"""Characters of each question and answer that are shown for it."""
_REWRITE = (
    "Conversation so far:\n\n{turns}\n\nThe user now asks: {question}\n\nRewrite this as one question that can be "
    "understood without the conversation: put names in place of words such as it, they, that. Write the question only."
)


async def standalone(question: str, history: Sequence[Turn], writer: Writer) -> str:
    """The question as it is understood without the conversation; without a conversation, itself, and no model is asked."""
    if not history:
        return question
    turns = "\n".join(
        f"User: {asked[:MAX_CHARS]}\nAssistant: {told[:MAX_CHARS]}" for asked, told in history[-MAX_TURNS:]
    )
    (said,) = await writer.write(_REWRITE.format(turns=turns, question=question), temperature=0.0, max_tokens=96)
    return next(iter(lines_of(said, numbered=False)), question)


async def in_conversation(task: Task, ctx: Context, *, pattern: Pattern, history: Sequence[Turn] = ()) -> str:
    """The answer of a variant to the task's question, rewritten with what was said before it."""
    question = await standalone(task.prompt, history, ContextWriter(ctx))
    if question != task.prompt:
        ctx.note("rewritten", question=question)
    return await pattern(replace(task, prompt=question), ctx)
