"""Runs a function within an attempt that has a memory, and reads from its trace what was remembered."""

import asyncio

from firsthand import Agent, Task
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import tool

TOOL_TOKENS = 7


class Weighed(Scripted):
    """A scripted model to which every tool's schema is seven tokens."""

    async def count_tokens(self, prompt, tools=(), continuations=()):
        return TOOL_TOKENS * len(tools) + await super().count_tokens(prompt, tools, continuations)


@tool(effect="read")
def look(text: str) -> str:
    """Look.

    Args:
        text: The text.
    """
    return text


def held(memory, use, *, says="short", options=None, prompt="go", conversation=(), kind=Scripted):
    """What `use(ctx)` gives within an attempt, and the trace."""
    kept = []

    async def pattern(task, ctx):
        kept.append(await use(ctx))
        return "done"

    model = kind(says if callable(says) else (lambda messages, sampling, index: says))
    trace = asyncio.run(
        rollout(Agent("a", model, pattern, memory=memory), Task("t", prompt, conversation=conversation))
    )
    assert trace.error is None, trace.error
    return kept[0], trace, model


def items_of(trace):
    """Every item that was remembered, by id, without the attempt's own provenance."""
    found = {}
    for call in trace.calls:
        for each in (*call.detail.get("items", ()), *([call.detail["item"]] if call.detail.get("item") else ())):
            own = {
                k: v
                for k, v in each["provenance"].items()
                if k not in ("benchmark", "task", "epoch", "effect", "agent")
            }
            found[each["id"]] = (each["text"], own)
    return found


def words(count, name="w"):
    return " ".join(f"{name}{n}" for n in range(count))


def texts(ctx):
    return [message.text for message in ctx.messages]


def noted(trace, kind):
    return [event.data for event in trace.events if event.kind == kind]
