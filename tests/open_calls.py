"""Calls of an attempt that are opened by hand: without a pattern, a Context or a rollout."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from firsthand.agent import Agent
from firsthand.loop.attempt import Attempt
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.open_call import OpenCall
from firsthand.message import assistant, user
from firsthand.model import Completion
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.trace import Call


class Worded(Scripted):
    """Reports for each answer a lease, the ids 1, 2, ... of the prompt's words, and alternatives if they are asked for."""

    async def complete(self, *args: Any, **options: Any) -> list[Completion]:
        prompt, sampling = args
        words = (prompt if isinstance(prompt, str) else " ".join(each.text for each in prompt)).split()
        return [
            replace(
                each,
                lease=f"lease {place}",
                prompt_ids=tuple(range(1, len(words) + 1)),
                top_logprobs=((("yes", -0.25 - place), ("no", -2.0)),) if sampling.top_logprobs else (),
            )
            for place, each in enumerate(await super().complete(*args, **options))
        ]


def attempt_of(model: Any, *, journal: MemoryJournal | None = None, **agent: Any) -> Attempt:
    """An attempt with the conversation `one two` (node 0), `three` (node 1)."""
    attempt = Attempt(Agent("a", model, direct, **agent), (), journal or MemoryJournal(), 7, task=Task("t", "?"))
    attempt.add_node(None, user("one two"))
    attempt.add_node(0, assistant("three"))
    return attempt


def open_call(
    attempt: Attempt, effect: str = ":4", node: int | None = 1, *, limits: Limits | None = None, **more: Any
) -> OpenCall:
    """A call of the attempt that is about to be made."""
    budget = more.pop("budget", None) or Budget(limits or Limits())
    return OpenCall(attempt, budget, node, more.pop("deadline_s", math.inf), effect, more.pop("depth", 0))


def within(effects: Callable[[], Awaitable[Any]]) -> Any:
    """What these effects give, in a root branch of their own."""

    async def main() -> Any:
        enter_branch(Branch())
        return await effects()

    return asyncio.run(main())


def untimed(calls: Sequence[Call]) -> list[Call]:
    """The calls without their times."""
    return [replace(call, started_s=0, duration_s=0) for call in calls]
