"""Plan and execute: a plan first, then a step at a time, and a new plan where a step fails (Wang et al., 2023)."""

from __future__ import annotations

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


def _check(*, max_steps: int, replans: int, **_: Any) -> None:
    if max_steps < 1 or replans < 0:
        raise ConfigError(f"max_steps is {max_steps} and replans {replans}: give 1 step or more, and 0 replans or more")


@checked(_check)
async def plan_execute(
    task: Task, ctx: Context, *, pattern: Pattern = direct, max_steps: int = 6, replans: int = 1
) -> str:
    """The answer, after at most `max_steps` steps that `pattern` carried out one after the other.

    Each step sees the question, the results so far and its own line of the plan. When one fails (an error, or no words at
    all), the planner is told and writes the steps that remain anew, at most `replans` times; after that the plan goes on.
    A plan without a list has no steps, and the trace an event `no_plan`.
    """
    planner = await ctx.say(
        f"{task.question}\n\nDo not answer yet. Write a plan: a numbered list of at most {max_steps} short steps."
    ).generate()
    plan = _plan(planner, max_steps)
    done: list[tuple[str, BranchOutcome]] = []
    told = 0
    while plan and len(done) < max_steps:
        step = plan.pop(0)
        name = f"step {len(done) + 1}"
        prompt = f"{task.question}\n\n{_results(done)}Now do this step only, and write its result: {step}"
        outcome = await attempt(name, pattern, part_of(task, name.replace(" ", "-"), prompt), ctx)
        done.append((step, outcome))
        left = max_steps - len(done)
        if outcome.failed and replans > 0 and left > 0:
            replans -= 1
            asked = f"That step failed. Write a new plan for what remains: a numbered list of at most {left} steps."
            planner = await planner.say(f"{_results(done[told:])}{asked}").generate()
            plan, told = _plan(planner, left), len(done)
    ending = f'Now answer the question. End with "The answer is" and {answer_form(task)}.'
    planner = await planner.say(f"{_results(done[told:])}{task.question}\n\n{ending}").generate()
    return answer_or_text(planner.text, task)


def _plan(planner: Context, most: int) -> list[str]:
    """The steps that the planner wrote; without any an event notes that there is no plan."""
    plan = listed(planner.said, most)
    if not plan:
        planner.note("no_plan", text=planner.said[:200])
    return plan


def _results(done: list[tuple[str, BranchOutcome]]) -> str:
    """The steps done so far as text, followed by an empty line."""
    return "".join(f"{outcome.name}: {step}\nResult: {outcome.report}\n\n" for step, outcome in done)
