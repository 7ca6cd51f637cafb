"""Who attempts a task: an Agent names a combination of model, pattern, tools and guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from firsthand.budget import Limits
from firsthand.concurrency import Retry
from firsthand.message import Json, Message, ToolResult
from firsthand.model import Model, Sampling
from firsthand.tool import Tool

Pattern = Callable[..., Awaitable[str]]
"""`async def pattern(task, ctx, *, option=default) -> str`: the strategy; what it returns is the attempt's answer."""


class Guard(Protocol):
    """What stands at the three borders of an attempt. A hook returns what may pass, changed or not, or raises ToolError."""

    async def prompt(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages a model may be shown."""

    async def call(self, tool: Tool, arguments: Json) -> Json:
        """The arguments a tool may be called with."""

    async def result(self, tool: Tool, result: ToolResult) -> ToolResult:
        """The result that may come back from a tool."""


@dataclass(frozen=True)
class Agent:
    """A named combination: what a leaderboard ranks, the arena pits, a server serves, and training improves."""

    name: str
    model: Model
    pattern: Pattern
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the pattern."""
    tools: tuple[Tool, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    """A system message that opens every conversation."""
    guard: Guard | None = None
    limits: Limits = field(default_factory=Limits)
    """For one attempt."""
    retry: Retry = field(default_factory=Retry)

    def to_json(self) -> Json:
        """The agent as data, for its traces."""
        return {
            "name": self.name,
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "pattern": getattr(self.pattern, "__name__", "pattern"),
            "options": dict(self.options),
            "tools": sorted(tool.name for tool in self.tools),
            "sampling": self.sampling.to_json(),
            "system": self.system,
            "guard": type(self.guard).__name__ if self.guard else None,
            "limits": self.limits.to_json(),
        }
