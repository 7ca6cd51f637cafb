"""Answer a conversation as it stands: continues a fork that added a message."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, checked
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.task import Task


def _check(*, max_steps: int) -> None:
    at_least(1, max_steps=max_steps)


@checked(_check)
async def reply(task: Task, ctx: Context, *, max_steps: int = 6) -> str:
    """The answer in the model's next message; where nothing has been said yet, the task's question is asked first.

    In a conversation with tool calls the model may make up to `max_steps` more of them before it answers.
    """
    if not any(message.role != "system" for message in ctx.messages):
        ctx = ctx.say(task.question)
    tools = ctx.tools if any(message.tool_calls for message in ctx.messages) else ()
    for _ in range(max_steps):
        ctx = await ctx.generate(tools=tools)
        if not ctx.last.tool_calls:
            return answer_or_text(ctx.text, task)
        for call in ctx.last.tool_calls:
            ctx = ctx.say(await ctx.call(call))
    ctx = await ctx.say("No steps are left. Give the answer now.").generate()
    return answer_or_text(ctx.text, task)
