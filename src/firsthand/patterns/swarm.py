"""Swarm: specialists work on one conversation in turn; each answers, or hands over to another (OpenAI's Swarm, 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.patterns.parts.hand_overs import hand_over
from firsthand.task import Task

SPECIALISTS = {
    "planner": "You say what has to be found out, step by step, and solve nothing.",
    "solver": "You carry out the steps and find the answer.",
    "checker": "You look for a mistake in the work so far. If there is one, hand over to the solver and say where.",
}
"""The names and instructions of the specialists that stand in where none are given."""
_TURN = (
    "You are the {name}. {instructions} The others are: {others}. Do your part. Then write, on a line of its own, "
    '"Hand over to" and one of their names, or, if the answer is found, "The answer is" and {form}.'
)

_NAMES_NONE = "There is no agent {said!r}."
_NO_NAME = 'No name stands behind "Hand over to".'


def _check(*, agents: Mapping[str, str], max_steps: int, **_: Any) -> None:
    if len(agents) < 2 or max_steps < 1:
        raise ConfigError(
            f"there are {len(agents)} agents and max_steps is {max_steps}: give 2 agents or more, and 1 turn or more"
        )
    read = {" ".join(name.split()): name for name in agents}
    if "" in read or len(read) < len(agents):
        raise ConfigError(f"the agents are named {list(agents)}: give each a name of its own, which is not blank")


@checked(_check)
async def swarm(task: Task, ctx: Context, *, agents: Mapping[str, str] = SPECIALISTS, max_steps: int = 6) -> str:
    """The answer of the specialist that hands over to nobody; that of the last one after `max_steps` turns.

    `agents` are names and instructions; the first one begins. All see the whole conversation. A name that is none of theirs
    is told to the one who wrote it, and takes a turn.
    """
    active, told, text = next(iter(agents)), "", ""
    for number in range(1, max_steps + 1):
        others = ", ".join(name for name in agents if name != active)
        turn = _TURN.format(name=active, instructions=agents[active], others=others, form=answer_form(task))
        ctx = await ctx.say(f"{task.question if number == 1 else told}\n\n{turn}".strip()).generate()
        found = hand_over(ctx.said, agents)
        if found is None:
            return answer_or_text(ctx.text, task)
        told = "" if found.agent else _NAMES_NONE.format(said=found.said) if found.said else _NO_NAME
        ctx.note("hand_over", source=active, target=found.said, known=found.agent is not None)
        active, text = found.agent or active, found.rest
    return answer_or_text(text, task)
