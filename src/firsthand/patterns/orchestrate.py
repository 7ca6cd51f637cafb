"""Orchestrator and workers: a planner delegates parts of the task, workers do them side by side, the planner concludes."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.patterns.parts.list_items import listed
from firsthand.patterns.parts.sub_patterns import BranchOutcome, attempt, part_of
from firsthand.task import Task

MAX_SUBAGENTS = 256
"""The most workers of one orchestrator, at all depths together."""

_SPLIT = (
    "Do not answer yet. Split this into at most {workers} sub-tasks that do not depend on each other. Each is done by a "
    "helper who sees only your line, so write in it all that is needed. Write a numbered list, a line each."
)
_DONE = re.compile(r"\W*DONE\b.*", re.IGNORECASE | re.DOTALL)
_MORE = "If more is needed, write up to {workers} further sub-tasks as a numbered list; if not, write DONE."


def _check(*, workers: int, rounds: int, depth: int, **_: Any) -> None:
    at_most = sum((workers * rounds) ** level for level in range(1, min(depth, MAX_SUBAGENTS + 1) + 1))
    if min(workers, rounds, depth) < 1 or at_most > MAX_SUBAGENTS:
        raise ConfigError(
            f"workers {workers}, rounds {rounds} and depth {depth} allow {at_most} sub-agents: give 1 or more of each, "
            f"and no more than {MAX_SUBAGENTS} sub-agents in all"
        )


@checked(_check)
async def orchestrate(
    task: Task, ctx: Context, *, pattern: Pattern = direct, workers: int = 4, rounds: int = 1, depth: int = 1
) -> str:
    """The planner's answer, after up to `rounds` rounds of up to `workers` sub-tasks.

    Workers run `pattern`, each in a fresh conversation and its own branch of the trace. One that fails becomes a report that
    the planner reads; the others go on. With `depth` above 1, a worker is an orchestrator too and may delegate again. How
    many workers all this can come to is bounded: ConfigError if it is more than 256. A plan without a list has no workers,
    and the trace an event `no_plan`, unless the planner writes that it is done.
    """
    worker = pattern
    if depth > 1:
        worker = partial(orchestrate, pattern=pattern, workers=workers, rounds=rounds, depth=depth - 1)
    planner, reported = ctx, ""
    for number in range(1, rounds + 1):
        asked = _SPLIT.format(workers=workers) if number == 1 else _MORE.format(workers=workers)
        planner = await planner.say((reported or f"{task.question}\n\n") + asked).generate()
        parts = listed(planner.said, workers)
        if not parts and _DONE.fullmatch(planner.said.strip()) is None:
            ctx.note("no_plan", round=number, text=planner.said[:200])
        outcomes = await ctx.group(_delegated(task, ctx, worker, number, i, part) for i, part in enumerate(parts, 1))
        reported = "".join(f"Result of {outcome.name}:\n{outcome.report}\n\n" for outcome in outcomes)
        if not parts:
            break
    ending = f'Now answer the question. End with "The answer is" and {answer_form(task)}.'
    planner = await planner.say(f"{reported}{task.question}\n\n{ending}").generate()
    return answer_or_text(planner.text, task)


async def _delegated(task: Task, ctx: Context, worker: Pattern, number: int, index: int, part: str) -> BranchOutcome:
    name = f"worker {index}" if number == 1 else f"worker {number}.{index}"
    return await attempt(name, worker, part_of(task, name.replace(" ", "-"), part), ctx)
