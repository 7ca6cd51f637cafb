"""Code as action: the model writes Python and reads what it prints, until it knows the answer (Wang et al., 2024)."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import Role, ToolCall
from firsthand.patterns.parts.actions import final_answer, settled_answer
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.patterns.parts.fenced_code import first_action, later_actions
from firsthand.task import Task

_INSTRUCTIONS = (
    "Answer the question by writing Python. Write a Thought line, then one ```python block that prints what you need. You "
    "are then given an Observation: what it printed. When you know the answer write Final Answer: and {wanted}.\n\n"
)
_EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("user", "Question: A shop sells 12 boxes of 30 pens. How many pens is that?"),
    ("assistant", "Thought: I compute 12 * 30.\n```python\nprint(12 * 30)\n```"),
    ("user", "Observation: 360"),
    ("assistant", "Thought: The result is 360.\nFinal Answer: 360"),
    ("user", "Question: What is 75 - 18?"),
    ("assistant", "Thought: I compute 75 - 18.\n```python\nprint(75 - 18)\n```"),
    ("user", "Observation: 57"),
    ("assistant", "Thought: The result is 57.\nFinal Answer: 57"),
)
"""Real turns, the last of which repeats its observation: a small model copies form (LOG.md)."""


def _check(*, max_steps: int) -> None:
    at_least(1, max_steps=max_steps)


@checked(_check, tools=("python",))
async def code_act(task: Task, ctx: Context, *, max_steps: int = 6) -> str:
    """The answer that the model finishes with, after at most `max_steps` blocks of Python.

    Each turn's first block is run by the tool `python`, and what comes back, errors included, is the next observation, which
    says if there were more. A turn without code or a final answer is answered by how to go on. When the steps run out,
    one last generation is asked for the answer.
    """
    names = [tool.name for tool in ctx.tools]
    if "python" not in names:
        known = ", ".join(names) or "none"
        raise ConfigError(f"code_act needs the tool 'python', and the tools are {known}: give it, as in --tools python")
    ctx = _opening(task, ctx)
    stop = (*ctx.sampling.stop, "\nObservation")[-64:]
    for step in range(max_steps):
        ctx = await ctx.generate(stop=stop)
        code, final = parse_code(ctx.said)
        if final:
            return settled_answer(final, task)
        ctx = ctx.say(f"Observation: {await _observe(ctx, code, step)}{_unrun(ctx, code)}")
    ctx = await ctx.say(f"No steps are left. Write Final Answer: and {answer_form(task, 'in few words')}.").generate()
    _, final = parse_code(ctx.said)
    return answer_or_text(ctx.text, task) if final is None else settled_answer(final, task)


def parse_code(text: str) -> tuple[str | None, str | None]:
    """The first block of code in the text, and the final answer if no code comes before it; at most one is not None.

    A block that is not closed was cut off, and is no block: the code is the empty string.
    """
    block, final = first_action(text), final_answer(text)
    if final and (block is None or final.start < block.start):
        return None, final.text
    return None if block is None else block.code, None


async def _observe(ctx: Context, code: str | None, step: int) -> str:
    """The output of the code, or a request to write some."""
    if code is None:
        return "There was no code. Write one ```python block, or Final Answer: and the answer."
    if not code.strip():
        return "The code block was empty or not closed. Write a shorter one between ```python and ```."
    result = await ctx.call(ToolCall(f"step-{step}", "python", {"code": code}))
    return result.content or "(it printed nothing)"


def _unrun(ctx: Context, code: str | None) -> str:
    """A remark where more blocks than the one that was run were written, with what the tool says of itself."""
    first = first_action(ctx.said)
    if not (code and code.strip()) or first is None or not (count := later_actions(ctx.said, first)):
        return ""
    about = next(tool.spec.description for tool in ctx.tools if tool.name == "python")
    return f"\n(Of the {1 + count} blocks only the first was run: write what belongs together in one. python: {about})"


def _opening(task: Task, ctx: Context) -> Context:
    """The Context after the instructions, a worked example, and the question."""
    instructions = _INSTRUCTIONS.format(wanted=answer_form(task, "in few words"))
    for role, text in _EXAMPLE:
        ctx = ctx.say(instructions + text, role)
        instructions = ""
    return ctx.say(f"Question: {task.question}")
