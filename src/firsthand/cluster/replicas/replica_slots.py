"""The place of each replica: what carries its messages, what it has to do, and what is known of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from firsthand.cluster.spread.run_worker import Lost
from firsthand.message import Json

State = Literal["starting", "ready", "failed"]
GAUGES = {
    "running", "waiting", "oldest_wait_s", "num_blocks", "used_blocks", "pinned_blocks", "cached_blocks", "pinned_prefixes",
    "adapters", "adapter_bytes",
}  # fmt: skip
"""The engine's numbers that tell of now; the others only grow."""


class Carrier(Protocol):
    """A replica's process, as this side sees it. Whatever is awaited raises Lost when the process is gone."""

    name: str

    async def begin(self) -> Json:
        """Wait until it is there and can answer; what it is. ConfigError if it cannot work."""

    async def send(self, messages: Sequence[Json]) -> None:
        """Hand over messages."""

    async def receive(self) -> list[Json]:
        """What it says next; nothing now and then, as a sign of life."""

    def close(self) -> None:
        """End it at once."""


class Starter(Protocol):
    """What starts replicas."""

    def start(self, number: int) -> Carrier:
        """A new process for the replica of this number; it may not be there yet."""

    def close(self) -> None:
        """End all that was started."""


@dataclass(eq=False)
class Job:
    """Something that one replica does."""

    id: int
    weight: int
    """How many answers it is."""
    news: asyncio.Queue[Json | Lost] = field(default_factory=asyncio.Queue)


@dataclass(eq=False)
class Slot:
    """The place of one replica, and what is known of it."""

    number: int
    state: State = "starting"
    problem: str = ""
    """Why it is not ready."""
    carrier: Carrier | None = None
    is_linked: bool = False
    """Whether messages go to and fro: before it is ready it is given what the others have."""
    ready_s: float | None = None
    """When it was ready, on the clock of `time.monotonic`; None if its process never was."""
    jobs: dict[int, Job] = field(default_factory=dict)
    outbox: deque[Json] = field(default_factory=deque)
    to_send: asyncio.Event = field(default_factory=asyncio.Event)
    load: int = 0
    """Answers under way."""
    restarts: int = 0
    in_a_row: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    """As they were heard last."""
    ended: dict[str, float] = field(default_factory=dict)
    """What its processes before this one had counted."""

    @property
    def status(self) -> Status:
        """What a server tells of it."""
        return Status(self.number, self.state, self.restarts, self.load, dict(self.counters))


class Status(NamedTuple):
    """What a server tells of a replica."""

    number: int
    state: State
    restarts: int
    answers: int
    """Under way."""
    counters: Mapping[str, float]
    """Of its engine, as they were heard last."""


def together(slots: Sequence[Slot]) -> dict[str, float]:
    """The numbers of all engines together."""
    parts = [part for slot in slots for part in (slot.counters, slot.ended)]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _of_all(name, [part[name] for part in parts if name in part]) for name in names}


def _of_all(name: str, values: Sequence[float]) -> float:
    return max(values) if name == "oldest_wait_s" else sum(values)
