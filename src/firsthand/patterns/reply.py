"""Answer a conversation as it stands: continues a fork that added a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Message
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.task import Task


def _check(*, max_steps: int) -> None:
    at_least(1, max_steps=max_steps)


@checked(_check)
async def reply(task: Task, ctx: Context, *, max_steps: int = 6) -> str:
    """The answer in the model's next message; where no more was said than the task's conversation, its question comes first.

    In a conversation with tool calls the model may make up to `max_steps` more of them before it answers.
    """
    settings: Mapping[str, Any] = {}
    if _turns(ctx.messages) == _turns(task.conversation):
        ctx, settings = ctx.say(task.question), task.sampling
    tools = ctx.tools if any(message.tool_calls for message in ctx.messages) else ()
    for _ in range(max_steps):
        ctx = await ctx.generate(tools=tools, **settings)
        if not ctx.last.tool_calls:
            return answer_or_text(ctx.text, task)
        for call in ctx.last.tool_calls:
            ctx = ctx.say(await ctx.call(call))
    ctx = await ctx.say("No steps are left. Give the answer now.").generate(**settings)
    return answer_or_text(ctx.text, task)


def _turns(messages: Iterable[Message]) -> list[Message]:
    """The messages without system messages: an agent's own stands in place of the task's."""
    return [message for message in messages if message.role != "system"]
