"""Adds text to the system message of a conversation that has not gone further, since chat templates show only one."""

from __future__ import annotations

from dataclasses import replace

from firsthand.context import Context
from firsthand.message import Message, Text


def with_system(ctx: Context, text: str) -> Context:
    """Return the Context with `text` as its system message, after the text of the one it has.

    A conversation that has gone further is begun anew with the same messages behind it.
    """
    messages = list(ctx.messages)
    if messages and messages[0].role == "system":
        text = f"{messages[0].text}\n\n{text}"
        messages = messages[1:]
    if not ctx.messages:
        return ctx.say(text, "system")
    return ctx.restarted([Message("system", (Text(text),)), *(replace(each, sampled=None) for each in messages)])
