"""Listen to sessions one after another, then answer a question about them: measures what a memory keeps.

A task brings its sessions as `metadata["sessions"]`: objects with a time and a list of messages (role, content).
"""

from __future__ import annotations

from typing import Literal

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.memory import hook
from firsthand.message import Json, assistant, user
from firsthand.patterns.heartbeats import turns
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.task import Task

How = Literal["auto", "hear", "say", "turns", "none"]
MAX_STEPS = 12


def _check(*, window: int, **_: object) -> None:
    at_least(0, window=window)


@checked(_check, follows_protocol=True)
async def attend(task: Task, ctx: Context, *, how: How = "auto", window: int = 0) -> str:
    """The answer after all sessions.

    `hear` gives each message to the agent's memory and says none of it; `say` has every session in the conversation, which
    a memory may shorten, or the last ones that take at most `window` tokens; `turns` has the model act by tools after each
    session, as MemGPT does; `none` skips them. `auto` is what the memory is made for: facts are heard, `memgpt` acts in
    turns.
    """
    sessions = task.metadata.get("sessions")
    if not isinstance(sessions, list | tuple):
        raise ConfigError(
            f"the task {task.id} brings no sessions: attend is for benchmarks such as sessions and longmemeval"
        )
    if how == "auto":
        memory = ctx.attempt.agent.memory
        how = "hear" if hook(memory, "hear") else "turns" if getattr(memory, "acts", False) else "say"
    said = ctx
    for session in sessions if how != "none" else ():
        said = await _attended(said, session, how)
    if how == "say" and window:
        said = await _last(ctx, said, window)
    if how == "hear":
        said = await said.briefed(task)
    form = answer_form(task, "in few words")
    asked = said.say(f"{task.question}\n\nAnswer with {form} only.")
    if how == "turns":
        return answer_or_text((await turns(asked, MAX_STEPS))[1], task)
    return answer_or_text((await asked.generate(**task.sampling)).text, task)


async def _attended(ctx: Context, session: Json, how: How) -> Context:
    """The Context after a session."""
    time = str(session["time"])
    if how == "hear":
        for message in session["messages"]:
            ids = {"session": session.get("id"), "turn": message.get("id")}
            named = {key: str(id) for key, id in ids.items() if id is not None}
            await ctx.hear(str(message["content"]), role=str(message["role"]), time=time, origin=[], **named)
        return ctx
    lines = [f"{message['role']}: {message['content']}" for message in session["messages"]]
    ctx = ctx.say(user("\n".join([f"[{time}]", *lines])))
    if how == "turns":
        return (await turns(ctx, MAX_STEPS))[0]
    return await ctx.say(assistant("Noted.")).within_window(ctx.tools)


async def _last(empty: Context, said: Context, window: int) -> Context:
    """The conversation's last messages that take at most `window` tokens, after what came before the sessions."""
    opening, messages = empty.messages, list(said.messages[len(empty.messages) :])
    while messages and await empty.tokens(messages=[*opening, *messages]) > window:
        messages = messages[2:]
    return empty.restarted([*opening, *messages])
