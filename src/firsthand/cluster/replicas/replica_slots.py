"""The slots of a fleet: for each replica its process, its jobs and its status."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from firsthand.cluster.spread.run_worker import Lost
from firsthand.message import Json

ReplicaState = Literal["starting", "ready", "failed"]
GAUGES = {
    "running", "waiting", "oldest_wait_s", "num_blocks", "used_blocks", "pinned_blocks", "cached_blocks", "pinned_prefixes",
    "adapters", "adapter_bytes",
}  # fmt: skip
"""The engine's numbers that go up and down; the others are counters."""


class ReplicaProcess(Protocol):
    """The server's side of a replica's process. Its coroutines raise Lost when the process is gone."""

    name: str

    async def begin(self) -> Json:
        """Wait until it can answer; its description. ConfigError if it cannot work."""

    async def send(self, messages: Sequence[Json]) -> None:
        """Send it messages."""

    async def receive(self) -> list[Json]:
        """Its next messages; none now and then, as a sign of life."""

    def close(self) -> None:
        """End it at once."""


class ReplicaStarter(Protocol):
    """Starts the processes of replicas."""

    def start(self, number: int) -> ReplicaProcess:
        """A new process for the replica of this number; it need not be running yet."""

    def close(self) -> None:
        """End all processes."""


@dataclass(eq=False)
class ReplicaJob:
    """A job that one replica does."""

    id: int
    weight: int
    """The number of its answers."""
    messages: asyncio.Queue[Json | Lost] = field(default_factory=asyncio.Queue)


@dataclass(eq=False)
class Slot:
    """The slot of one replica, which outlives its processes."""

    number: int
    state: ReplicaState = "starting"
    problem: str = ""
    """Why it is not ready."""
    process: ReplicaProcess | None = None
    is_connected: bool = False
    """True while messages are exchanged, which starts before it is ready: it is given the adapters of the others first."""
    ready_s: float | None = None
    """When it became ready, by `time.monotonic`; None if its process never was."""
    jobs: dict[int, ReplicaJob] = field(default_factory=dict)
    outbox: deque[Json] = field(default_factory=deque)
    has_outgoing: asyncio.Event = field(default_factory=asyncio.Event)
    load: int = 0
    """Answers under way."""
    restarts: int = 0
    losses_in_a_row: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    """As last received."""
    ended: dict[str, float] = field(default_factory=dict)
    """The counters of its earlier processes together."""

    @property
    def status(self) -> ReplicaStatus:
        """Its status now."""
        return ReplicaStatus(self.number, self.state, self.restarts, self.load, dict(self.counters))


class ReplicaStatus(NamedTuple):
    """The status of a replica, for /health and /metrics."""

    number: int
    state: ReplicaState
    restarts: int
    answers: int
    """Under way."""
    counters: Mapping[str, float]
    """Of its engine, as last received."""


def total_counters(slots: Sequence[Slot]) -> dict[str, float]:
    """The numbers of all engines together."""
    parts = [part for slot in slots for part in (slot.counters, slot.ended)]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _of_all(name, [part[name] for part in parts if name in part]) for name in names}


def _of_all(name: str, values: Sequence[float]) -> float:
    return max(values) if name == "oldest_wait_s" else sum(values)
