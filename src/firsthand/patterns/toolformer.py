"""Toolformer: the model writes a call into its text, the tool runs, and the text goes on (Schick et al., 2023)."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, checked
from firsthand.message import ToolCall
from firsthand.patterns.parts.actions import arguments_of
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.task import Task
from firsthand.tokens.calls.inline_call import ARROW, END, START, InlineCall, parse_inline_call, without_inline_calls


def _check(*, max_calls: int, top_k: int) -> None:
    at_least(0, max_calls=max_calls)
    if not 1 <= top_k <= 100:
        raise ConfigError(f"top_k is {top_k}: give a number from 1 to 100")


@checked(_check)
async def toolformer(task: Task, ctx: Context, *, max_calls: int = 1, top_k: int = 1) -> str:
    """The answer that a model of `firsthand train toolformer` writes, with at most `max_calls` calls in its text.

    The text goes to the model as it is, without a chat template. It stops at the arrow of a call, ` [tool(input) ->`; the
    tool runs, and the model continues after the result. An arrow without a call ends the text. A call that fails stands
    without a result. With `top_k` above 1 a call begins at the first token where ` [` is among the `top_k` most probable
    (the paper's 10), for greedy sampling.
    """
    if top_k > 1 and ctx.sampling.temperature > 0:
        raise ConfigError(
            f"top_k is {top_k} and temperature {ctx.sampling.temperature:g}: calls by rank need temperature 0"
        )
    opening = task.question if task.context is None else task.context
    written = ""
    for number in range(max_calls):
        text, has_call = await _until_call(ctx, opening + written, top_k, task)
        if not has_call:
            return _answer(written + text, task)
        before, _, inside = text.rpartition(START)
        written += before + await _with_result(ctx, inside, number)
    ctx = await ctx.generate(prompt=opening + written, **task.sampling)
    return _answer(written + ctx.text, task)


async def _until_call(ctx: Context, prompt: str, top_k: int, task: Task) -> tuple[str, bool]:
    """The text up to the arrow of a call, and True; or up to its end, and False."""
    stop = (*ctx.sampling.stop, ARROW)[-64:]
    settings = {**task.sampling, "stop": (*task.sampling.get("stop", ()), *stop)[-64:]}
    begun = ""
    if top_k > 1:
        first = await ctx.generate(prompt=prompt, **{**settings, "top_logprobs": top_k})
        greedy = [alternatives[0][0] for alternatives in first.alternatives if alternatives]
        at = next((at for at, found in enumerate(first.alternatives) if START in {text for text, _ in found}), None)
        if at is None:
            return first.text, False
        begun = "".join(greedy[:at]) + START
    text = begun + (await ctx.generate(prompt=prompt + begun, **settings)).text
    inside = text.rpartition(START)[2]
    return text, START in text and END not in inside and parse_inline_call(inside) is not None


async def _with_result(ctx: Context, inside: str, number: int) -> str:
    """The call as it is written with its result, or without one where it failed."""
    call = parse_inline_call(inside)
    assert call is not None
    tool = next((tool for tool in ctx.tools if tool.name == call.name), None)
    arguments = "no such tool" if tool is None else arguments_of(tool, call.input.strip())
    if isinstance(arguments, str):
        return InlineCall(*call).written()
    result = await ctx.call(ToolCall(f"call-{number}", call.name, arguments))
    return call.written(None if result.is_error else result.content.strip())


def _answer(text: str, task: Task) -> str:
    return answer_or_text(without_inline_calls(text), task)
