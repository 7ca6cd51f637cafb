"""A call that an attempt is making: its id and place, what it reserves, the time it has, and its record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from firsthand.errors import LimitExceeded
from firsthand.guard import watches
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget
from firsthand.loop.listener import Began
from firsthand.loop.prompt_size import prompt_size, size_key
from firsthand.message import Json
from firsthand.model import Prompt, ToolSpec, Usage
from firsthand.trace import CallKind


@dataclass(frozen=True)
class OpenCall:
    """A call from the time it is asked for until it is recorded."""

    attempt: Attempt
    budget: Budget
    node: int | None
    """The position that it is made at."""
    deadline_s: float
    """The end of its time, in seconds since the attempt began."""
    effect: str
    """Its id: the place in the tree of branches."""
    depth: int
    """The depth of its branch, which a budget may limit."""
    started_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "started_s", self.attempt.elapsed_s())

    def borders(self, as_of: str = "") -> Borders:
        """The agent's guards at this call."""
        return self.borders_at(self.node, as_of)

    def borders_at(self, node: int | None, as_of: str = "") -> Borders:
        """The agent's guards at this call, which also takes the prompt of another position."""
        return Borders(self.attempt, self.effect, node, self.budget, self.depth, as_of)

    def find(self, request: str) -> Json | None:
        """The recorded reply to a request of this call; None if it has to be made."""
        return self.attempt.journal.find(self.effect, request)

    def reserve(self, tokens: int = 1, *, least: int = 1) -> int:
        """Reserve the call in the budget; see `Budget.reserve`."""
        return self.budget.reserve(tokens, self.depth, least=least)

    def pay(self, granted: int | None, usage: Usage) -> None:
        """Charge the budget; a replayed call, for which nothing was granted, as it was charged when it was made."""
        self.budget.pay(granted, usage)

    def begin(self, kind: CallKind, detail: Json | None = None) -> None:
        """Tell the attempt's listener that the call begins."""
        self.attempt.has_begun = True
        self.attempt.tell(Began(self.effect, kind, self.node, detail or {}))

    def begin_tool(self, name: str, arguments: Json, *, is_known: bool = True) -> None:
        """Tell it that a tool call begins; where a guard watches calls it hears of the arguments when they have passed.

        The name of a tool that there is not is a text of the model: it is held back from clients like a draft.
        """
        guards = self.attempt.agent.guards
        held_back = watches(guards, "call") or (not is_known and watches(guards, "answer"))
        self.begin("tool", {"name": name} if held_back else {"name": name, "arguments": arguments})

    def record(self, kind: CallKind, request: str, **rest: Any) -> None:
        """Record the call in the trace, now that it has ended."""
        self.attempt.record(kind, self.effect, self.node, self.started_s, request, **rest)

    async def size(self, prompt: Prompt, specs: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()) -> int:
        """Tokens of a prompt, and of what is scored after it, where a budget counts tokens; else 0."""
        if not self.budget.counts_tokens:
            return 0
        model, journal = self.attempt.agent.model, self.attempt.journal
        key = size_key(model.fingerprint, prompt, specs, continuations)
        if (known := journal.find(self.effect, key)) is not None:
            return int(known["size"])
        size = await prompt_size(model, prompt, specs, continuations)
        journal.record(self.effect, key, {"size": size})
        return size

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Branches reserve tokens in the order in which they came, however long it takes to count each prompt."""
        if not self.budget.counts_tokens:
            yield
            return
        async with self.attempt.turn():
            yield

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Raises LimitExceeded if the block is not done by the deadline."""
        left_s = self.deadline_s - self.attempt.elapsed_s()
        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s) as timer:
                yield
        except TimeoutError:
            if timer.expired():
                raise LimitExceeded("seconds", "the time for this part of the attempt is up") from None
            raise
