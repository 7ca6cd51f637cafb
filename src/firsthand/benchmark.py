"""Many Tasks, how each is scored, and the world it happens in, if it has one.

Scorers read only (task, trace), so a Run can be scored again from disk, by them or by others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from firsthand.message import Json
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Score, Trace

Scorer = Callable[[Task, Trace], Score | Awaitable[Score]]
"""A verdict on an attempt. It is pure, or awaits nothing but a judge model."""


class Environment(Protocol):
    """State and tools for one attempt at one task. It is opened before the pattern runs and closed after it."""

    @property
    def tools(self) -> Sequence[Tool]:
        """What the agent may do here."""

    async def open(self) -> None:
        """Make the world ready."""

    async def final_state(self) -> Json:
        """What the scorers need to know of the world at the end."""

    async def close(self) -> None:
        """Take the world down; called even when the attempt failed."""


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks under a named protocol. The first scorer gives the figure that leaderboards rank by."""

    name: str
    tasks: Callable[[int], Sequence[Task]]
    """Seed -> all tasks, in their order. A benchmark that is not generated ignores the seed."""
    scorers: tuple[Scorer, ...]
    description: str = ""
    protocol: str = ""
    """How it is prompted and scored, so that numbers can be compared: source, shots, extraction, metric."""
    licence: str = ""
    environment: Callable[[Task], Environment] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    """What it was made with, such as the levels of a generated benchmark."""
