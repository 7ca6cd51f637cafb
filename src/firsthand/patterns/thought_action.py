"""A thought and a text action in turn, in a world that offers the tool `act` (the Thought/Action turns of AgentBench).

The model's text is read as `Thought: ...` and `Action: ...`; the action may have several lines. Where the tool's schema
lists the admissible actions, or has a pattern, a grammar holds the model to it. What is no action is passed on all the same:
the world says what it expects, and counts it as invalid.
"""

from __future__ import annotations

import re
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar, lark
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Json, ToolCall
from firsthand.system.said_text import said_text
from firsthand.task import Task
from firsthand.tokens.llguidance_grammar import lark_text

ACT = "act"
OVER = "The task is over: no further action is taken."
MAX_THOUGHT = 400
_ACTION = re.compile(r"^[ \t*]*(?:Action|Act)(?:[ \t]+\d+)?[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_THOUGHT = re.compile(r"\A[ \t*]*(?:Thought|Think)(?:[ \t]+\d+)?[ \t*]*:[^\n]*\n?", re.IGNORECASE)


def _check(*, max_steps: int, **_: Any) -> None:
    at_least(1, max_steps=max_steps)


@checked(_check)
async def thought_action(
    task: Task, ctx: Context, *, max_steps: int = 100, thought: bool = True, constrained: bool = True
) -> str:
    """The last text of the model, after it acted until the world was over or `max_steps` were made.

    Without `thought` the model writes the action alone. Without `constrained` it writes freely although the admissible
    actions are known. In a world that an earlier part of the attempt has ended, as a second trial of `reflexion` may find
    it, nothing is asked and the answer says so. ConfigError if there is no tool `act`.
    """
    if not any(tool.name == ACT for tool in ctx.tools):
        if any(call.kind == "tool" and call.detail.get("name") == ACT for call in ctx.attempt.calls):
            return OVER
        raise ConfigError(
            "thought_action acts by the tool `act`, and there is none: run it on a world, such as agentbench_db, with "
            "text actions"
        )
    ctx = ctx.say(task.question)
    stop = (*ctx.sampling.stop, "\nObservation")[-64:]
    for step in range(max_steps):
        act = next((tool for tool in ctx.tools if tool.name == ACT), None)
        if act is None:
            break
        schema = act.spec.parameters["properties"]["action"]
        grammar = step_grammar(schema, thought) if constrained else None
        ctx = await ctx.generate(stop=stop, grammar=grammar or ctx.sampling.grammar)
        said = ctx.text
        result = await ctx.call(ToolCall(f"step-{step}", ACT, {"action": text_action(said)}))
        ctx = ctx.say(f"Observation: {result.content}")
    else:
        ctx.note("max_steps", steps=max_steps)
    return next((message.text for message in reversed(ctx.messages) if message.role == "assistant"), "")


def text_action(text: str) -> str:
    """The action that the model says: what follows the first `Action:`, else the text without its thought.

    A thought between `<think>` and `</think>` that the text begins with is not read: one that is not closed leaves nothing.
    """
    text = said_text(text)
    found = _ACTION.search(text)
    return (text[found.end() :] if found else _THOUGHT.sub("", text, count=1)).strip()


def step_grammar(schema: Json, thought: bool = True) -> Grammar | None:
    """The grammar of one step, from the schema of the action: its `enum` or its `pattern`; None if it has neither."""
    if listed := schema.get("enum"):
        action = f"({' | '.join(lark_text(each) for each in listed)})"
        rule = ""
    elif form := schema.get("pattern"):
        action, rule = "ACTION", "\nACTION: /" + re.sub(r"(?<!\\)/", r"\\/", form) + "/"
    else:
        return None
    opening = 'thought "Action: " ' if thought else '"Action: " '
    line = f'\nthought: "Thought: " LINE "\\n"\nLINE: /[^\\n]{{1,{MAX_THOUGHT}}}/' if thought else ""
    return lark(f"start: {opening}{action}{line}{rule}")
