"""Runs attempts on another machine: they arrive as plain data, and every effect is sent back at once.

    to a worker      attempt   id, agent, benchmark, task, epoch, seed, entries: the attempt's journal so far
                     kept      upto: the records up to this number survive a crash
    from a worker    record    number, id, effect, request, reply
                     step      id, step: kind and body, for the run's live feed
                     trace     id, trace
                     failed    id, error, message: an error that ends the whole run if a second worker says the same

Agents and benchmarks are named, and built from the run's settings; a worker has no store. A record is sent as soon as it is
made, and the attempt waits until it is kept (`Journal.settled`), so a lost worker has done nothing outside that its run does
not know of. The driver is `distribute.py`; `ray_workers.py` carries the messages.
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
from firsthand.loop.listener import Step
from firsthand.loop.open_sources import SourceKeeper
from firsthand.message import Json
from firsthand.rollout import Place, rollout
from firsthand.runs.feed import step_to_json
from firsthand.system import conversation_owner
from firsthand.task import Task
from firsthand.tool_source import is_shared

_TUPLE = "\0tuple"
"""The key of an object that stands for a tuple, which JSON has none of."""


class Lost(Exception):
    """A worker is gone, with the attempts it was running. The message says how."""


class Worker:
    """Runs attempts of these agents at tasks of these benchmarks, all that it is given concurrently."""

    def __init__(self, agents: Sequence[Agent], benchmarks: Sequence[Benchmark]):
        self.agents = {agent.name: agent for agent in agents}
        self.benchmarks = {benchmark.name: benchmark for benchmark in benchmarks}
        self.kept = 0
        self._recorded = 0
        self._outbox = Outbox()
        self._steps: list[Json] = []
        self._news = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._keeper = SourceKeeper(
            list({id(each): each for agent in agents for each in agent.sources if is_shared(each)}.values())
        )

    def about(self) -> Json:
        """The description that must be equal on driver and workers, for their attempts to belong to one run."""
        return about(self.agents, self.benchmarks)

    async def exchange(self, messages: Sequence[Json], patience_s: float = PATIENCE_S) -> list[Json]:
        """Handle messages, and return those of this side, waiting up to `patience_s` seconds for the first."""
        for message in messages:
            if message["kind"] == "attempt":
                attempt = asyncio.create_task(self._attempt(message))
                self._running.add(attempt)
                attempt.add_done_callback(self._running.discard)
            else:
                self.kept = max(self.kept, message["upto"])
                self._news.set()
                self._news = asyncio.Event()
        said = await self._outbox.take(patience_s)
        steps, self._steps = self._steps, []
        return [*steps, *said]

    def tell(self, id: str, step: Step) -> None:
        """Send a step of an attempt with whatever is sent next."""
        self._steps.append({"kind": "step", "id": id, "step": step_to_json(step)})

    async def close(self) -> None:
        """Cancel the running attempts."""
        running = list(self._running)
        for attempt in running:
            attempt.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._keeper.close()

    def record(self, id: str, effect: str, request: str, reply: Json) -> int:
        """Send a record; returns its number."""
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
        conversation_owner.enter(f"place/{id}")
        try:
            await self._keeper.open()
            trace = await rollout(
                self.agents[message["agent"]],
                Task.from_json(_with_tuples(message["task"])),
                benchmark=self.benchmarks[message["benchmark"]],
                epoch=message["epoch"],
                seed=message["seed"],
                journal=RelayedJournal(self, id, message["entries"]),
                opened_sources=self._keeper.sources,
                listener=_Teller(self, id),
            )
            self._outbox.put({"kind": "trace", "id": id, "trace": trace.to_json()})
        except Exception as error:
            self._outbox.put({"kind": "failed", "id": id, "error": type(error).__name__, "message": str(error)})


class _Teller:
    """A listener that sends the steps of an attempt, without streaming for it."""

    streams = False

    def __init__(self, worker: Worker, id: str):
        self.worker, self.id = worker, id

    def __call__(self, step: Step) -> None:
        self.worker.tell(self.id, step)


class RelayedJournal(MemoryJournal):
    """The journal of an attempt on a worker: earlier entries came with the attempt, new ones are sent to the run."""

    def __init__(self, worker: Worker, id: str, entries: Sequence[tuple[str, str, Json]]):
        super().__init__()
        self.entries = {(effect, request): reply for effect, request, reply in entries}
        self.worker = worker
        self.id = id
        self.last = 0

    def record(self, effect: str, request: str, reply: Json) -> None:
        """Store the reply here and send it."""
        super().record(effect, request, reply)
        self.last = self.worker.record(self.id, effect, request, reply)

    async def settled(self) -> None:
        """Wait until the run has stored what was sent."""
        await self.worker.until_kept(self.last)


def attempt_message(place: Place, seed: int, entries: Sequence[tuple[str, str, Json]]) -> Json:
    """The message that gives an attempt to a worker."""
    return {
        "kind": "attempt",
        "id": place.id,
        "agent": place.agent.name,
        "benchmark": place.benchmark.name,
        "task": _marked_tuples(place.task.to_json()),
        "epoch": place.epoch,
        "seed": seed,
        "entries": list(entries),
    }


def _marked_tuples(value: Any) -> Any:
    """JSON data in which tuples are objects of one key, so that a worker's scorers see what they see in one process."""
    if isinstance(value, Mapping):
        return {key: _marked_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inside = [_marked_tuples(inner) for inner in value]
        return {_TUPLE: inside} if isinstance(value, tuple) else inside
    return value


def _with_tuples(value: Any) -> Any:
    """The data that `_marked_tuples` was given."""
    if isinstance(value, dict):
        inside = {key: _with_tuples(inner) for key, inner in value.items()}
        return tuple(inside[_TUPLE]) if inside.keys() == {_TUPLE} else inside
    return [_with_tuples(inner) for inner in value] if isinstance(value, list) else value


def about(agents: Mapping[str, Agent], benchmarks: Mapping[str, Benchmark]) -> Json:
    """Version, agents and protocols: all that decides what an attempt does, as JSON."""
    return {
        "firsthand": __version__,
        "agents": {name: agent.to_json() for name, agent in agents.items()},
        "benchmarks": {name: {"protocol": benchmark.protocol} for name, benchmark in benchmarks.items()},
    }


def difference(here: Json, there: Json) -> str | None:
    """The first difference between a worker's description and the expected one, in words; None if there is none."""
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
    """A message, or a list of them, as bytes; values that are not JSON, such as a pattern's notes, become text."""
    return json.dumps(body, separators=(",", ":"), default=str).encode()


def unpack(data: bytes) -> Any:
    """The message that `pack` wrote."""
    return json.loads(data)


class InProcess:
    """A worker in this process, for tests; messages are packed to bytes and unpacked, as over a wire."""

    def __init__(self, worker: Worker, name: str = "in-process"):
        self.worker = worker
        self.name = name
        self.dead = False

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """As `Worker.exchange`; Lost once it was killed."""
        if self.dead:
            raise Lost(f"{self.name} was killed")
        replies: list[Json] = unpack(pack(await self.worker.exchange(unpack(pack(list(messages))))))
        if self.dead:  # its replies are lost with it
            raise Lost(f"{self.name} was killed")
        return replies

    async def kill(self) -> None:
        """Kill the worker: nothing that it does afterwards reaches the run."""
        self.dead = True
        await self.worker.close()

    async def close(self) -> None:
        """Cancel the running attempts."""
        await self.worker.close()


def error_of(name: str, message: str) -> Exception:
    """The exception for an error that was reported by a worker."""
    from firsthand import errors

    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, FirsthandError):
        error = FirsthandError.__new__(kind)
        error.args = (message,)
        return error
    return RuntimeError(f"{name}: {message}")
