"""The worker of a distributed run: attempts arrive as JSON, and their records are sent back at once.

    to a worker      attempt   id, agent, benchmark, task, epoch, seed, entries: the attempt's journal so far
                     kept      upto: the records up to this number survive a crash now
    from a worker    record    number, id, effect, request, reply
                     trace     id, trace
                     failed    id, error, message: what ends the whole run, as it would have on one machine

Agents and benchmarks are named, and built from the run's settings; a worker has no store. A record is sent as soon as it is
made, and the attempt waits until it is stored (`Journal.settled`), so a lost worker has done nothing that its run does not
know of. `distribute.py` is the other side, and `ray_workers.py` carries the messages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from firsthand import __version__
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cluster.outbox import PATIENCE_S, Outbox
from firsthand.errors import FirsthandError
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json
from firsthand.rollout import Place, rollout
from firsthand.task import Task


class Lost(Exception):
    """A worker or replica is lost, with the work it was doing. The message says how."""


class Worker:
    """Runs attempts of these agents at tasks of these benchmarks, as many at a time as arrive."""

    def __init__(self, agents: Sequence[Agent], benchmarks: Sequence[Benchmark]):
        self.agents = {agent.name: agent for agent in agents}
        self.benchmarks = {benchmark.name: benchmark for benchmark in benchmarks}
        self.kept = 0
        self._recorded = 0
        self._outbox = Outbox()
        self._news = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def about(self) -> Json:
        """Everything that must be equal on all machines of a run."""
        return about(self.agents, self.benchmarks)

    async def exchange(self, messages: Sequence[Json], patience_s: float = PATIENCE_S) -> list[Json]:
        """Handle messages, and return those since the last call, after a short wait for the first of them."""
        for message in messages:
            if message["kind"] == "attempt":
                attempt = asyncio.create_task(self._attempt(message))
                self._running.add(attempt)
                attempt.add_done_callback(self._running.discard)
            else:
                self.kept = max(self.kept, message["upto"])
                self._news.set()
                self._news = asyncio.Event()
        return await self._outbox.take(patience_s)

    async def close(self) -> None:
        """Cancel the attempts under way."""
        running = list(self._running)
        for attempt in running:
            attempt.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def record(self, id: str, effect: str, request: str, reply: Json) -> int:
        """Send a new record; its number."""
        self._recorded += 1
        body = {"number": self._recorded, "id": id, "effect": effect, "request": request, "reply": reply}
        self._outbox.put(body | {"kind": "record"})
        return self._recorded

    async def until_kept(self, number: int) -> None:
        """Wait until the record of this number is stored."""
        while self.kept < number:
            await self._news.wait()

    async def _attempt(self, message: Json) -> None:
        id = message["id"]
        try:
            trace = await rollout(
                self.agents[message["agent"]],
                Task.from_json(message["task"]),
                benchmark=self.benchmarks[message["benchmark"]],
                epoch=message["epoch"],
                seed=message["seed"],
                journal=RelayedJournal(self, id, message["entries"]),
            )
            self._outbox.put({"kind": "trace", "id": id, "trace": trace.to_json()})
        except Exception as error:
            self._outbox.put({"kind": "failed", "id": id, "error": type(error).__name__, "message": str(error)})


class RelayedJournal(MemoryJournal):
    """The journal of an attempt on a worker: earlier records come with the attempt, new ones are sent to the run."""

    def __init__(self, worker: Worker, id: str, entries: Sequence[tuple[str, str, Json]]):
        super().__init__()
        self.entries = {(effect, request): reply for effect, request, reply in entries}
        self.worker = worker
        self.id = id
        self.last = 0

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Keep the reply here and send it."""
        super().record(effect, request, reply)
        self.last = self.worker.record(self.id, effect, request, reply)

    async def settled(self) -> None:
        """Wait until the run has stored the records."""
        await self.worker.until_kept(self.last)


def attempt_message(place: Place, seed: int, entries: Sequence[tuple[str, str, Json]]) -> Json:
    """The message that starts an attempt on a worker."""
    return {
        "kind": "attempt",
        "id": place.id,
        "agent": place.agent.name,
        "benchmark": place.benchmark.name,
        "task": place.task.to_json(),
        "epoch": place.epoch,
        "seed": seed,
        "entries": list(entries),
    }


def about(agents: Mapping[str, Agent], benchmarks: Mapping[str, Benchmark]) -> Json:
    """Versions, agents and protocols, as far as they affect an attempt."""
    return {
        "firsthand": __version__,
        "agents": {name: agent.to_json() for name, agent in agents.items()},
        "benchmarks": {name: {"protocol": benchmark.protocol} for name, benchmark in benchmarks.items()},
    }


def difference(here: Json, there: Json) -> str | None:
    """The first difference between a worker and this machine, in words; None if there is none."""
    there = unpack(pack(there))
    for key, value in unpack(pack(here)).items():
        if not isinstance(value, dict):
            if there.get(key) != value:
                return f"it has {key} {there.get(key)}, and here it is {value}"
            continue
        for name, described in value.items():
            found = there.get(key, {}).get(name)
            if found is None:
                return f"it has no {key[:-1]} {name!r}"
            for field, mine in described.items():
                if found.get(field) != mine:
                    whose = f"its {key[:-1]} {name!r} has the {field}"
                    return f"{whose} {found.get(field)!r:.80}, and here it is {mine!r:.80}"
    return None


def pack(body: object) -> bytes:
    """A message, or a list of them, as bytes. Values that are not JSON, such as a note of a pattern, become text."""
    return json.dumps(body, separators=(",", ":"), default=str).encode()


def unpack(data: bytes) -> Any:
    """The messages that `pack` wrote."""
    return json.loads(data)


class InProcess:
    """A worker in this process, for tests and trials. Messages become bytes, as they would over a network."""

    def __init__(self, worker: Worker, name: str = "in process"):
        self.worker = worker
        self.name = name
        self.dead = False

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """The worker's replies to the messages; Lost once it was killed."""
        if self.dead:
            raise Lost(f"{self.name} was killed")
        replies: list[Json] = unpack(pack(await self.worker.exchange(unpack(pack(list(messages))))))
        if self.dead:  # its replies are lost with it
            raise Lost(f"{self.name} was killed")
        return replies

    async def kill(self) -> None:
        """End it at once: nothing that it does afterwards is received."""
        self.dead = True
        await self.worker.close()

    async def close(self) -> None:
        """Cancel the attempts under way."""
        await self.worker.close()


def error_of(name: str, message: str) -> Exception:
    """The error that ended a worker's attempt, as it would have been raised here."""
    from firsthand import errors

    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, FirsthandError):
        error = FirsthandError.__new__(kind)
        error.args = (message,)
        return error
    return RuntimeError(f"{name}: {message}")
