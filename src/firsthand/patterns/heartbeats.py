"""MemGPT's control flow: the model acts by calls alone, and is called again at once if a call asks for a heartbeat.

After Packer et al. (2023): a call that fails, or whose `request_heartbeat` is true, is followed by the next turn; any other
call yields. Text without a call, and a call of `send_message`, is the answer, and the other calls of its message are made.
The memory `memgpt` brings the tools.
"""

from __future__ import annotations

from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import ToolCall, user
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.task import Task
from firsthand.tool import Tool, tool

INSTRUCTIONS = (
    "Your memory is limited: what leaves the conversation is found again with your tools only. Save "
    "what matters, search what "
    "you no longer see, and answer with send_message."
)
YIELDED = "System: heartbeat. Go on, or answer with send_message."


def _check(*, max_steps: int, **_: object) -> None:
    at_least(1, max_steps=max_steps)


@checked(_check)
async def heartbeats(task: Task, ctx: Context, *, max_steps: int = 20) -> str:
    """The message that the model sends within `max_steps` turns; its last text if it sends none."""
    ending = answer_form(task, "in few words")
    _, said = await turns(ctx.say(f"{INSTRUCTIONS}\n\n{task.question}\nAnswer with {ending}."), max_steps)
    return answer_or_text(said, task)


async def turns(ctx: Context, max_steps: int) -> tuple[Context, str]:
    """The Context after at most `max_steps` turns of calls, and what the model sends to the user."""
    offered: tuple[Tool, ...] = (*ctx.tools, send_message)
    said = ""
    for _ in range(max_steps):
        ctx = await ctx.generate(tools=offered)
        said = ctx.said.strip() or said
        calls = ctx.last.tool_calls
        if not calls:
            return ctx, said
        sent = [call for call in calls if _is_sent(call)]
        results = await ctx.call_all([call for call in calls if not _is_sent(call)])
        for result in results:
            ctx = ctx.say(result)
        if sent:
            return ctx, str(sent[0].arguments["message"])
        beats = any(call.arguments.get("request_heartbeat", True) is not False for call in calls)
        if not beats and not any(result.is_error for result in results):
            ctx = ctx.say(user(YIELDED))
    return ctx, said


def _is_sent(call: ToolCall) -> bool:
    return call.name == send_message.name and isinstance(call.arguments.get("message"), str)


@tool(effect="write", declares=Declaration(clean=True))
def send_message(message: str) -> str:
    """Answer the user.

    Args:
        message: The text.
    """
    return message
