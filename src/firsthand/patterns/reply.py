"""Answer a conversation as it stands: continues a fork that added a message."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.task import Task


async def reply(task: Task, ctx: Context, *, max_steps: int = 6) -> str:
    """The answer in the model's next message; where nothing has been said yet, the task's question is asked first.

    In a conversation with tool calls the model may make up to `max_steps` more of them before it answers.
    """
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}: give 1 or more")
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
