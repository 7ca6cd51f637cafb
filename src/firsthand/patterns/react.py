"""ReAct: thoughts, actions and observations in turn, until the model finishes with an answer (Yao et al., 2022)."""

from __future__ import annotations

import json
import re

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.message import Json, Role, ToolCall
from firsthand.patterns.answers import answer_or_text, extract_answer
from firsthand.task import Task
from firsthand.tokens.toolgrammar import action_grammar
from firsthand.tool import Tool

_ACTION = re.compile(r"^[ \t*]*Action(?:[ \t]+\d+)?[ \t*]*:[ \t*]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
_FINAL = re.compile(r"^[ \t*]*Final Answer[ \t*]*:[ \t*]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
_NAMED = re.compile(r"[`\"']?([A-Za-z0-9_-]{1,64})[`\"']?[ \t]*(.*)", re.DOTALL)

_EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("user", "Question: A shop sells 12 boxes of 30 pens. How many pens is that?"),
    ("assistant", "Thought: I need to calculate 12 * 30.\nAction: calculator[12 * 30]"),
    ("user", "Observation: 360"),
    ("assistant", "Thought: The result is 360.\nFinal Answer: 360"),
    ("user", "Question: What is 75 - 18?"),
    ("assistant", "Thought: I need to calculate 75 - 18.\nAction: calculator[75 - 18]"),
    ("user", "Observation: 57"),
    ("assistant", "Thought: The result is 57.\nFinal Answer: 57"),
)
"""Worked turns: a small model follows what it sees before what it is told. The wording was measured (LOG.md)."""
_BARE_EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("user", "Question: What is the capital of France?"),
    ("assistant", "Thought: The capital of France is Paris.\nFinal Answer: Paris"),
)


async def react(
    task: Task, ctx: Context, *, max_steps: int = 6, native: bool = False, constrained: bool = False
) -> str:
    """The answer that the model finishes with, after at most `max_steps` thoughts and actions.

    Actions are lines of text, `Action: tool[input]`, closed by `Final Answer: ...` or the paper's `Finish[...]`; with
    `native` they are the model's own tool calls instead. A mistaken action is answered by an observation that says what is
    wrong. When the steps run out, one last generation is asked for the answer. With `constrained` each step of text is held
    to `action_grammar`: a thought, then an action of a known tool with its arguments in form, or the final answer.
    """
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}: give 1 or more")
    if native and constrained:
        raise ConfigError(
            "constrained is for actions in text: a local model holds native calls to their schemas anyway"
        )
    return await (_native(task, ctx, max_steps) if native else _written(task, ctx, max_steps, constrained))


async def _written(task: Task, ctx: Context, max_steps: int, constrained: bool) -> str:
    ctx = _opening(task, ctx)
    stop = (*ctx.sampling.stop, "\nObservation")[-64:]
    grammar = action_grammar([tool.spec for tool in ctx.tools]) if constrained else ctx.sampling.grammar
    for step in range(max_steps):
        ctx = await ctx.generate(stop=stop, grammar=grammar)
        name, given = parse_action(ctx.text)
        if name.lower() in ("finish", "final answer"):
            return extract_answer(given, task) or given
        ctx = ctx.say(f"Observation: {await _observe(ctx, name, given, step)}")
    ctx = await ctx.say(f"No steps are left. Write Final Answer: and {_wanted(task)}.").generate()
    name, given = parse_action(ctx.text)
    return answer_or_text(given if name.lower() in ("finish", "final answer") else ctx.text, task)


async def _native(task: Task, ctx: Context, max_steps: int) -> str:
    ctx = ctx.say(f'{task.question}\n\nUse the tools where they help. End with "The answer is" and {_wanted(task)}.')
    for _ in range(max_steps):
        ctx = await ctx.generate(tools=ctx.tools)
        calls = ctx.last.tool_calls
        if not calls:
            return answer_or_text(ctx.text, task)
        for call in calls:
            ctx = ctx.say(await ctx.call(call))
    ctx = await ctx.say("No steps are left. Give the answer now.").generate()
    return answer_or_text(ctx.text, task)


def parse_action(text: str) -> tuple[str, str]:
    """The first action in the text as (name, input), both empty if there is none.

    `calculator[3*4]`, `calculator(3*4)`, `calculator: 3*4` and `calculator 3*4` are all understood. `Final Answer: x` is the
    action `final answer` if no other comes before it.
    """
    action, final = _ACTION.search(text), _FINAL.search(text)
    if final and (action is None or final.start() < action.start()):
        return "final answer", final.group(1).strip()
    if action is None:
        return "", ""
    named = _NAMED.match(action.group(1).strip().strip("*`"))
    return (named.group(1), _unwrapped(named.group(2).strip())) if named else ("", "")


def _unwrapped(given: str) -> str:
    """The input inside its brackets, or after its colon."""
    pairs = {"[": "]", "(": ")"}
    if not given or given[0] not in pairs:
        return given.removeprefix(":").strip()
    end = given.rfind(pairs[given[0]])
    return given[1 : end if end > 0 else None].strip()


async def _observe(ctx: Context, name: str, given: str, step: int) -> str:
    """What came of an action, errors included: the model reads it and can correct itself."""
    tools = {tool.name: tool for tool in ctx.tools}
    known = ", ".join(f"{each}[input]" for each in tools) or "none, for there are no tools"
    known += "; or Final Answer: and the answer"
    if not name:
        return f"There was no action. Write one line: Action: and one of {known}"
    tool = next((tool for each, tool in tools.items() if each.lower() == name.lower()), None)
    if tool is None:
        return f"There is no tool {name!r}. Write one line: Action: and one of {known}"
    arguments = _arguments(tool, given)
    if isinstance(arguments, str):
        return arguments
    return (await ctx.call(ToolCall(f"step-{step}", tool.name, arguments))).content


def _arguments(tool: Tool, given: str) -> Json | str:
    """The tool's arguments: a JSON object as it is, other text as the one that the tool needs; or what is wrong."""
    properties = tool.spec.parameters.get("properties", {})
    if given.startswith("{"):
        try:
            body = json.loads(given)
        except (ValueError, RecursionError):
            return f"The input of {tool.name} is not valid JSON: write {_usage(tool)}"
        return body if isinstance(body, dict) else f"The input of {tool.name} is no JSON object: write {_usage(tool)}"
    if not properties:
        return {}
    needed = tool.spec.parameters.get("required", []) or list(properties)[:1]
    if len(needed) != 1:
        return f"{tool.name} takes {len(needed)} arguments: write {_usage(tool)}"
    keyed = re.match(rf"{re.escape(needed[0])}[ \t]*=[ \t]*(.*)", given, re.DOTALL)
    value = (keyed.group(1) if keyed else given).strip().strip("\"'`")
    return {needed[0]: value}


def _usage(tool: Tool) -> str:
    """How a call of the tool is written."""
    properties = list(tool.spec.parameters.get("properties", {}))
    if len(tool.spec.parameters.get("required", [])) <= 1 and len(properties) <= 1:
        return f"{tool.name}[{properties[0] if properties else ''}]"
    return f"{tool.name}[{json.dumps(dict.fromkeys(properties, '...'))}]"


def _opening(task: Task, ctx: Context) -> Context:
    """The Context after the instructions, a worked example, and the question."""
    actions = "\n".join(f"- {_usage(tool)}: {tool.spec.description}" for tool in ctx.tools)
    example = _EXAMPLE if "calculator" in {tool.name for tool in ctx.tools} else _BARE_EXAMPLE
    instructions = (
        "Answer the question. Write a Thought line, then one Action line. After each Action you are given an Observation. "
        f"When you know the answer write Final Answer: and {_wanted(task)}.\nActions:\n{actions}\n\n"
    )
    for role, text in example:
        ctx = ctx.say(instructions + text, role)
        instructions = ""
    return ctx.say(f"Question: {task.question}")


def _wanted(task: Task) -> str:
    return "the letter of the right choice" if task.choices else task.hint or "in few words"
