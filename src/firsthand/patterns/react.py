"""ReAct: thoughts, actions and observations in turn, until the model finishes with an answer (Yao et al., 2022)."""

from __future__ import annotations

import json
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Json, Role, ToolCall
from firsthand.patterns.parts.actions import FINISH, Action, arguments_of, read_action, settled_answer, usage
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.task import Task
from firsthand.tokens.calls.call_grammar import action_grammar
from firsthand.tool import Tool

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
"""Worked turns: a small model follows examples rather than instructions. The wording was measured (LOG.md)."""
_SEARCH_EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("user", "Question: Which company does Ana Karel work for?"),
    ("assistant", "Thought: I need to look up Ana Karel.\nAction: search[Ana Karel]"),
    ("user", "Observation: Ana Karel is a tailor who was born in Tesk and works for Holm Works."),
    ("assistant", "Thought: Ana Karel works for Holm Works.\nFinal Answer: Holm Works"),
    ("user", "Question: In which country is the town where Boris Lund was born?"),
    ("assistant", "Thought: I need to look up Boris Lund.\nAction: search[Boris Lund]"),
    ("user", "Observation: Boris Lund is a smith who was born in Orsova and works for Tern Works."),
    ("assistant", "Thought: Boris Lund was born in Orsova. I need to look up Orsova.\nAction: search[Orsova]"),
    ("user", "Observation: Orsova is a town in Velandia. The river Sill flows through Orsova."),
    ("assistant", "Thought: The country of Orsova is Velandia.\nFinal Answer: Velandia"),
)
_BARE_EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("user", "Question: What is the capital of France?"),
    ("assistant", "Thought: The capital of France is Paris.\nFinal Answer: Paris"),
)

_HAPPENS = "Observation: (what happens then)"


def _check(*, max_steps: int, native: bool = False, constrained: bool = False, **_: Any) -> None:
    at_least(1, max_steps=max_steps)
    if native and constrained:
        raise ConfigError(
            "constrained is for actions in text: a local model holds native calls to their schemas anyway"
        )


@checked(_check)
async def react(
    task: Task, ctx: Context, *, max_steps: int = 6, native: bool = False, constrained: bool = False
) -> str:
    """The answer that the model finishes with, after at most `max_steps` thoughts and actions.

    Actions are lines of text, `Action: tool[input]`, closed by `Final Answer: ...` or the paper's `Finish[...]`; with
    `native` they are the model's own tool calls instead. A mistaken action is answered by an observation that says what is
    wrong. When the steps run out, the trace has an event `max_steps`, and one last generation is asked for the answer. With
    `constrained` each step of text is held to `action_grammar`: a thought, then an action of a known tool with its arguments
    in form, or the final answer.
    """
    ctx, answer = await act(task, ctx, max_steps, native, constrained)
    if answer is not None:
        return answer
    ending = "Give the answer now." if native else f"Write Final Answer: and {answer_form(task, 'in few words')}."
    ctx = await ctx.say(f"No steps are left. {ending}").generate()
    action = read_action(ctx.said)
    return settled_answer(action.input, task) if action.name.lower() in FINISH else answer_or_text(ctx.text, task)


async def act(
    task: Task, ctx: Context, max_steps: int, native: bool = False, constrained: bool = False
) -> tuple[Context, str | None]:
    """The Context after at most `max_steps` steps, and the final answer, None if there is none, which an event notes."""
    ctx, answer = await (_native(task, ctx, max_steps) if native else _written(task, ctx, max_steps, constrained))
    if answer is None:
        ctx.note("max_steps", steps=max_steps)
    return ctx, answer


async def _written(task: Task, ctx: Context, max_steps: int, constrained: bool) -> tuple[Context, str | None]:
    ctx = _opening(task, ctx)
    stop = (*ctx.sampling.stop, "\nObservation")[-64:]
    for step in range(max_steps):
        # a world's admissible actions, which are in the schema of its tool, change with each step
        grammar = action_grammar([tool.spec for tool in ctx.tools]) if constrained else ctx.sampling.grammar
        ctx = await ctx.generate(stop=stop, grammar=grammar)
        action = read_action(ctx.said)
        if action.name.lower() in FINISH and action.input:
            return ctx, settled_answer(action.input, task)
        ctx = ctx.say(f"Observation: {await _observe(ctx, action, step)}")
    return ctx, None


async def _native(task: Task, ctx: Context, max_steps: int) -> tuple[Context, str | None]:
    ending = f'End with "The answer is" and {answer_form(task, "in few words")}.'
    ctx = ctx.say(f"{task.question}\n\nUse the tools where they help. {ending}")
    for _ in range(max_steps):
        ctx = await ctx.generate(tools=ctx.tools)
        if not ctx.last.tool_calls:
            return ctx, answer_or_text(ctx.text, task)
        for result in await ctx.call_all(ctx.last.tool_calls):
            ctx = ctx.say(result)
    return ctx, None


async def _observe(ctx: Context, action: Action, step: int) -> str:
    """The observation of an action, errors included, so that the model can correct itself."""
    name = action.name
    tools = {tool.name: tool for tool in ctx.tools}
    known = ", ".join(f"{each}[input]" for each in tools) or "none, for there are no tools"
    known += "; or Final Answer: and the answer"
    if not name:
        return f"There was no action. Write one line: Action: and one of {known}"
    tool = next((tool for each, tool in tools.items() if each.lower() == name.lower()), None)
    if tool is None and name.lower() in FINISH:
        return "The final answer was empty. Write Final Answer: and the answer after it."
    if tool is None:
        return f"There is no tool {name!r}. Write one line: Action: and one of {known}"
    if action.fault and tool.spec.parameters.get("properties"):
        return f"Nothing was done. The input of {tool.name} {action.fault}, as in {usage(tool)}"
    arguments = arguments_of(tool, action.input)
    if isinstance(arguments, str):
        return arguments
    return (await ctx.call(ToolCall(f"step-{step}", tool.name, arguments))).content


def _worked(tool: Tool) -> tuple[tuple[Role, str], ...]:
    """Worked turns of the examples in a tool's schema, such as those of a world's `act`; none if it has none."""
    properties = tool.spec.parameters.get("properties", {})
    only: Json = next(iter(properties.values())) if len(properties) == 1 else {}
    turns: list[tuple[Role, str]] = []
    for example in only.get("examples", ()):
        given = json.dumps({next(iter(properties)): example}) if "\n" in example else example  # an action is one line
        turns += [("assistant", f"Thought: I need {tool.name}.\nAction: {tool.name}[{given}]"), ("user", _HAPPENS)]
    ending: tuple[tuple[Role, str], ...] = (("assistant", "Thought: The task is done.\nFinal Answer: done"),)
    return (("user", "Question: Another task of this kind."), *turns, *ending) if turns else ()


def _opening(task: Task, ctx: Context) -> Context:
    """The Context after the instructions, a worked example, and the question."""
    actions = "\n".join(f"- {usage(tool)}: {tool.spec.description}" for tool in ctx.tools)
    names = {tool.name for tool in ctx.tools}
    shown = [_EXAMPLE] * ("calculator" in names) + [_SEARCH_EXAMPLE] * ("search" in names)
    shown = [turns for tool in ctx.tools if (turns := _worked(tool))] or shown or [_BARE_EXAMPLE]
    example = [turn for each in shown for turn in each]
    instructions = (
        "Answer the question. Write a Thought line, then one Action line. After each Action you are given an Observation. "
        f"When you know the answer write Final Answer: and {answer_form(task, 'in few words')}.\nActions:\n{actions}\n\n"
    )
    for role, text in example:
        ctx = ctx.say(instructions + text, role)
        instructions = ""
    return ctx.say(f"Question: {task.question}")
