"""Debate: several agents answer, read each other's answers and answer again; then they vote (Du et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import check_temperature, checked
from firsthand.patterns.cot import opening
from firsthand.patterns.parts.answers import answer_form, answer_or_text, given_answer
from firsthand.patterns.parts.voting import count
from firsthand.task import Task

_OTHERS = (
    "{others}\n\nThese are the solutions of other agents. Use them as advice, which may be wrong, and give your own answer "
    'again. End with "The answer is" and {form}.'
)


def _check(*, agents: int, rounds: int, temperature: float, **_: Any) -> None:
    if agents < 2 or rounds < 1:
        raise ConfigError(f"agents is {agents} and rounds {rounds}: give 2 or more agents, and 1 round or more")
    check_temperature(temperature)


@checked(_check)
async def debate(task: Task, ctx: Context, *, agents: int = 3, rounds: int = 2, temperature: float = 0.7) -> str:
    """The most common answer of `agents` that have read each other's in `rounds` rounds, the first one alone.

    Each keeps a conversation of its own, to which a round adds the latest solutions of the others. The paper uses 3 agents
    and 2 rounds.
    """
    debaters = await opening(task, ctx, 0).sample(agents, temperature=temperature)
    for number in range(2, rounds + 1):
        said = [each.said for each in debaters]
        debaters = await ctx.group(
            each.say(_OTHERS.format(others=_told(said, index), form=answer_form(task))).generate(
                temperature=temperature
            )
            for index, each in enumerate(debaters)
        )
        changed = sum(
            given_answer(before, task) != given_answer(now.text, task)
            for before, now in zip(said, debaters, strict=True)
        )
        ctx.note("debate", round=number, changed=changed)
    tally = count([given_answer(each.text, task) for each in debaters], ctx)
    return answer_or_text(debaters[0].text, task) if tally.winner is None else tally.winner


def _told(said: Sequence[str], listener: int) -> str:
    """The solutions of all but one."""
    others = [text for index, text in enumerate(said) if index != listener]
    return "\n\n".join(f"Solution of agent {number}:\n{text}" for number, text in enumerate(others, 1))
