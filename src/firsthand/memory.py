"""A memory keeps what an agent writes down, for one attempt, one run, or as long as the agent lives.

`ctx.remember` and `ctx.recall` are effects of an attempt like any other: journalled, charged and recorded. What an attempt
sees must not depend on timing, so it works on a snapshot and its own writes, which others see, in a fixed order:

    attempt   never
    run       when its round (one benchmark, one epoch) is over, until the run ends
    agent     when its round is over, and for as long as the memory lasts

`loop/attempt_memory.py` does this; a Memory only stores and searches. A memory may also have methods of `MemoryHooks`, by
which it takes part in an attempt: it opens the conversation, holds it to a window, offers tools, learns from the trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from firsthand.errors import ConfigError
from firsthand.message import Json, canonical
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Trace

Lifetime = Literal["attempt", "run", "agent"]


@dataclass(frozen=True)
class MemoryItem:
    """One thing remembered."""

    id: str
    """16 hex digits of a hash of text and provenance."""
    text: str
    provenance: Json = field(default_factory=dict)
    """Provenance: benchmark, task, epoch and effect of the attempt that wrote it, and any keys that the pattern adds."""

    @staticmethod
    def of(text: str, provenance: Json) -> MemoryItem:
        """The item of a text, with its id."""
        body = canonical([text, provenance]).encode("utf-8", "surrogatepass")
        return MemoryItem(hashlib.sha256(body).hexdigest()[:16], text, provenance)

    def told_again(self, number: int) -> MemoryItem:
        """The item as it is told for the `number`th time, after others had replaced it: each has an id of its own."""
        return self if number == 1 else MemoryItem.of(self.text, {**self.provenance, "telling": number})

    def to_json(self) -> Json:
        """The item as a JSON object."""
        return asdict(self)


class Memory(Protocol):
    """Stores and searches items. Its methods may be called by several attempts at a time.

    An optional attribute `max_wait_s` bounds the seconds that each change of a finished attempt, and `learn`, may take: an
    hour without it, None for no bound.
    """

    @property
    def lifetime(self) -> Lifetime:
        """Scope of an attempt's writes: the attempt, the run, or all runs of the agent."""

    async def write(self, item: MemoryItem) -> str:
        """Keep an item; returns its id. One of the same id is the same item, and is kept once."""

    async def search(self, query: str, k: int) -> Sequence[MemoryItem]:
        """At most `k` items, best first. The same items give the same result, whatever order they were written in.

        One that takes further keywords is given those of `ctx.recall`, such as `at` for an answer as of a time.
        """

    async def forget(self, id: str) -> None:
        """Drop an item; an id that is not there is no error."""

    async def list(self) -> Sequence[MemoryItem]:
        """All items, by id."""

    def snapshot(self) -> Memory:
        """An independent memory with the same items: changes to one are not seen in the other."""


class MemoryHooks(Protocol):
    """Methods that a memory may have besides, each by itself. `ctx` is the attempt's Context, and a Context comes back."""

    def tools(self, ctx: Any) -> Sequence[Tool]:
        """Tools by which the model itself reads and writes; their effect is `write`, so that a resumed attempt repeats
        them."""

    async def brief(self, ctx: Any, task: Task) -> Any:
        """The Context in which the attempt begins: after what the memory has to say about the task."""

    async def fit(self, ctx: Any, tools: Sequence[Tool]) -> Any:
        """The Context from which the model answers: the same, or one whose conversation is shorter."""

    async def hear(self, ctx: Any, text: str, provenance: Json) -> None:
        """Take in something that was said: as it is, or as the facts in it."""

    async def once(self, change: MemoryItem | str, name: str) -> None:
        """Write an item, or forget an id, unless a change of that name was made before; attempts are committed by it."""

    def tellings(self, item: MemoryItem) -> int:
        """The number of times an item was told: the highest number for which `item.told_again(number)` is stored, else 0."""

    def is_replaced(self, id: str) -> bool:
        """True if an item of that id is there and holds no more: `ctx.remember` then stores its text as a new item."""

    def learn(self, trace: Trace) -> Iterable[MemoryItem]:
        """Items that a finished attempt leaves: the same for the same trace."""


def hook(memory: object, name: str) -> Any:
    """The method of MemoryHooks of that name, or None."""
    found = getattr(memory, name, None)
    return found if callable(found) else None


def memory_name(memory: Memory) -> str:
    """The memory's name, with its lifetime unless that is the attempt: `notes:lifetime=run`."""
    name = str(getattr(memory, "name", type(memory).__name__))
    return name if memory.lifetime == "attempt" else f"{name}:lifetime={memory.lifetime}"


def check_memory(memory: Any) -> None:
    """ConfigError if the object is no Memory."""
    lacks = [
        each for each in ("write", "search", "forget", "list", "snapshot") if not callable(getattr(memory, each, None))
    ]
    if lacks or isinstance(memory, type):
        raise ConfigError(f"{memory!r:.80} is no memory: it needs the methods write, search, forget, list and snapshot")
    if getattr(memory, "lifetime", None) not in ("attempt", "run", "agent"):
        raise ConfigError(f"the memory {type(memory).__name__} needs a lifetime: attempt, run or agent")
