"""The far side of a run that is spread over machines: attempts come in as plain data, and what they do goes back at once.

    to a worker      attempt   id, agent, benchmark, task, epoch, seed, entries: the attempt's journal so far
                     kept      upto: the records up to this number survive a crash now
    from a worker    record    number, id, effect, request, reply
                     trace     id, trace
                     failed    id, error, message: what ends the whole run, as it would have on one machine

Agents and benchmarks go by name and are built from the run's settings; a worker holds no store. A record is on its way as
soon as it is made, and the attempt goes on when it is kept (`Journal.settled`), so a lost worker has done nothing outside
that its run does not know of. The near side is `distribute.py`; what carries the messages is for others, see `on_ray.py`.
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
    """A worker is gone, and what it was doing with it. The message says how."""


class Worker:
    """Carries out attempts of these agents at tasks of these benchmarks, as many at a time as it is given."""

    def __init__(self, agents: Sequence[Agent], benchmarks: Sequence[Benchmark]):
        self.agents = {agent.name: agent for agent in agents}
        self.benchmarks = {benchmark.name: benchmark for benchmark in benchmarks}
        self.kept = 0
        self._recorded = 0
        self._outbox = Outbox()
        self._news = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def about(self) -> Json:
        """What must be the same on every side for their attempts to be those of one run."""
        return about(self.agents, self.benchmarks)

    async def exchange(self, messages: Sequence[Json], patience_s: float = PATIENCE_S) -> list[Json]:
        """Take messages in, and give those that have come up meanwhile, waiting a little for the first of them."""
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
        """Cancel what runs."""
        running = list(self._running)
        for attempt in running:
            attempt.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def record(self, id: str, effect: str, request: str, reply: Json) -> int:
        """The number of a new record, which is on its way."""
        self._recorded += 1
        body = {"number": self._recorded, "id": id, "effect": effect, "request": request, "reply": reply}
        self._outbox.put(body | {"kind": "record"})
        return self._recorded

    async def until_kept(self, number: int) -> None:
        """Wait until the record of this number survives a crash."""
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
    """The journal of an attempt whose run is elsewhere: what was recorded before came with it, what is new is sent."""

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
        """Wait until the run has kept what was sent."""
        await self.worker.until_kept(self.last)


def attempt_message(place: Place, seed: int, entries: Sequence[tuple[str, str, Json]]) -> Json:
    """What a worker is told of an attempt."""
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
    """Versions, agents and protocols, as far as they decide what an attempt does."""
    return {
        "firsthand": __version__,
        "agents": {name: agent.to_json() for name, agent in agents.items()},
        "benchmarks": {name: {"protocol": benchmark.protocol} for name, benchmark in benchmarks.items()},
    }


def difference(here: Json, there: Json) -> str | None:
    """In what a worker is not as this side expects it to be, in words; None if it is."""
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
    """A message, or a list of them, for the wire: what is not JSON, such as a note of a pattern, becomes text."""
    return json.dumps(body, separators=(",", ":"), default=str).encode()


def unpack(data: bytes) -> Any:
    """What `pack` wrote."""
    return json.loads(data)


class InProcess:
    """A worker in this very process, for tests and to try things out: messages go through bytes as over a wire."""

    def __init__(self, worker: Worker, name: str = "beside"):
        self.worker = worker
        self.name = name
        self.dead = False

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """What the worker says to the messages; Lost once it was killed."""
        if self.dead:
            raise Lost(f"{self.name} was killed")
        said: list[Json] = unpack(pack(await self.worker.exchange(unpack(pack(list(messages))))))
        if self.dead:  # what it was about to say is lost with it
            raise Lost(f"{self.name} was killed")
        return said

    async def kill(self) -> None:
        """End it at once: nothing that it does afterwards reaches the run."""
        self.dead = True
        await self.worker.close()

    async def close(self) -> None:
        """Cancel what still runs."""
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
