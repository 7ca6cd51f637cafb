"""Probes: short conversations of one task, after each of which the log-probs of a few continuations are compared.

A benchmark whose metric compares the same question under several conditions (asked plainly, after the user's opinion, after
push-back) puts one probe for each condition into `metadata["probes"]`. One attempt then holds them all, so the metric of a
task is a difference within the task, and nothing is parsed from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

from firsthand.context import Context
from firsthand.errors import DataError
from firsthand.message import Json, Role
from firsthand.patterns.parts.system_text import with_system
from firsthand.task import Task

PROBES = "probes"
"""The key of a task's probes in its metadata. Each result is an event `probe`."""


def probe(name: str, turns: Sequence[tuple[Role, str]], continuations: Sequence[str]) -> Json:
    """A probe as data: the turns of a conversation, and the texts that may follow it."""
    return {"name": name, "turns": [list(turn) for turn in turns], "continuations": list(continuations)}


async def answer_probes(task: Task, ctx: Context) -> str:
    """Score every probe of a task, each in a conversation that begins at `ctx`; return the first probe's likeliest text.

    The log-probs are recorded in the trace as events `probe`, with the probe's name, in the order of its continuations.
    DataError for a probe that is not of that form.
    """
    first = ""
    for given in task.metadata[PROBES]:
        name, turns, continuations = _checked(task, given)
        here = ctx
        for role, text in turns:
            here = with_system(here, text) if role == "system" and ctx.messages else here.say(text, role)
        logprobs = [likelihood.logprob for likelihood in await here.score(continuations)]
        ctx.note("probe", name=name, logprobs=logprobs)
        first = first or continuations[max(range(len(logprobs)), key=logprobs.__getitem__)]
    return first.strip()


def _checked(task: Task, given: object) -> tuple[str, list[tuple[Role, str]], list[str]]:
    match given:
        case {"name": str(name), "turns": [*turns], "continuations": [_, *_] as continuations} if all(
            isinstance(turn, list | tuple) and len(turn) == 2 and turn[0] in get_args(Role) for turn in turns
        ):
            return name, [(cast(Role, str(role)), str(text)) for role, text in turns], [str(c) for c in continuations]
    raise DataError(
        f"task {task.id} has a probe {str(given)[:80]!r}: an object with a name, turns (pairs of role and text) and "
        "continuations (one text or more) was expected"
    )
