"""ReAct and self-consistent chain of thought, each where the other has no answer (Yao et al., 2022, section 3.2)."""

from __future__ import annotations

from typing import Any, Literal

from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, checked
from firsthand.patterns.react import act, react
from firsthand.patterns.self_consistency import check_votes, vote
from firsthand.task import Task


def _check(*, max_steps: int, samples: int, temperature: float, **_: Any) -> None:
    at_least(1, max_steps=max_steps)
    check_votes(samples=samples, temperature=temperature)


@checked(_check)
async def react_cot(
    task: Task,
    ctx: Context,
    *,
    first: Literal["react", "cot"] = "react",
    max_steps: int = 7,
    samples: int = 21,
    temperature: float = 0.7,
    native: bool = False,
) -> str:
    """The answer of the method that goes `first`, or of the other one where that falls short.

    ReAct falls short when it has not finished within `max_steps`; self-consistency when its most common answer has fewer
    than half of the `samples` votes. The numbers are the paper's for HotpotQA (5 steps for FEVER).
    """
    if first == "react":
        acted, finished = await act(task, ctx, max_steps, native)
        if finished is not None:
            return finished
        acted.branch("react", "pruned", text=f"no answer within {max_steps} steps")
        tally, answers = await vote(task, ctx, samples, temperature)
        return answers[0] if tally.winner is None else tally.winner
    tally, _ = await vote(task, ctx, samples, temperature)
    if tally.winner is not None and tally.most >= samples / 2:
        return tally.winner
    ctx.branch("cot", "pruned", score=tally.most / samples, text=f"{tally.most} of {samples} votes agree")
    return await react(task, ctx, max_steps=max_steps, native=native)
