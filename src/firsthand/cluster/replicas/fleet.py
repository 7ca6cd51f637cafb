"""The server's side of its replicas: keeps each of them running, and moves jobs from a lost replica to another one.

A replica that is lost, or silent for too long, is replaced, sooner after the first loss than after the fifth. Its jobs start
again on another replica. A job that loses its replica three times ends with an error: it may be what kills them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from firsthand.cluster.replicas.replica_messages import error_of
from firsthand.cluster.replicas.replica_slots import (
    GAUGES,
    ReplicaJob,
    ReplicaProcess,
    ReplicaStarter,
    ReplicaState,
    ReplicaStatus,
    Slot,
    total_counters,
)
from firsthand.cluster.replicas.router import Router
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, FirsthandError, ModelError, TransientError
from firsthand.message import Json

MAX_LOSSES = 3
"""A job is given up after it has lost this many replicas."""
SILENT_S = 60.0
"""A replica that gives no sign of life for this long is replaced."""
RETRY_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The wait before a replica is replaced, by its losses in a row."""
STEADY_S = 60.0
"""A replica that was ready for longer than this starts a new row of losses."""
MAX_FALSE_STARTS = 3
"""A replica that was lost this many times before it was ready counts as failed; it is still tried again."""
COUNTERS_S = 2.0
"""Timeout of a replica's counters."""
OTHERS_S = 30.0
"""Time that the other replicas have to become ready after the first one."""


class Fleet:
    """The replicas of a server. For one event loop, in which `ready` is awaited first."""

    def __init__(self, starter: ReplicaStarter, count: int, *, silent_s: float = SILENT_S):
        self.starter, self.silent_s = starter, silent_s
        self.slots = [Slot(number) for number in range(count)]
        self.router = Router()
        self.description: Json | None = None
        """The description of the first replica that was ready; `same` in it must be the same in all."""
        self.on_event: Callable[..., None] = lambda event, **fields: None
        """Called when replicas come and go, as `RequestLog.write`."""
        self.prepare: Callable[[Slot], Awaitable[None]] | None = None
        """Gives a replica the adapters of the others, before it takes requests."""
        self.change_lock = asyncio.Lock()
        """Held while the adapters of all replicas change, and while one replica is prepared."""
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """True if a replica is ready."""
        return any(slot.state == "ready" for slot in self.slots)

    @property
    def problem(self) -> str:
        """Why no replica is ready."""
        return next((slot.problem for slot in self.slots if slot.problem), "its replicas are being started")

    async def ready(self) -> Json:
        """Start the replicas and wait for them, not for ever; their description. ModelError if none can work."""
        if not self._tasks:
            self._loop = asyncio.get_running_loop()
            self._tasks = [asyncio.create_task(self._supervise(slot)) for slot in self.slots]
        until: float | None = None
        while any(slot.state == "starting" for slot in self.slots):
            if self.is_alive and until is None:
                until = time.monotonic() + OTHERS_S
            try:
                await self._change(None if until is None else until - time.monotonic())
            except TimeoutError:
                break
        if self.description is None:
            raise ModelError(self.problem)
        return self.description

    async def stream(self, body: Json, prefix: Sequence[int] = (), *, weight: int = 1) -> AsyncGenerator[Json, None]:
        """The messages of a job until it ends, after `placed` with its replica; `restarted` if that replica was lost.

        Closing the iterator aborts the job. Raises the job's own errors, and TransientError if it loses too many replicas.
        """
        for losses in itertools.count(1):
            slot = await self._choose(prefix)
            job = ReplicaJob(next(self._numbers), weight)
            yield {"kind": "placed", "replica": slot.number}
            try:
                async with aclosing(self._run(slot, job, body)) as messages:
                    async for message in messages:
                        yield message
                return
            except Lost as lost:
                self.on_event("job_moved", replica=slot.number, reason=str(lost), losses=losses)
                if losses == MAX_LOSSES:
                    raise TransientError(
                        f"its replica was lost {losses} times ({lost}), so that it is not tried again by itself"
                    ) from None
            yield {"kind": "restarted"}

    async def call(self, body: Json, prefix: Sequence[int] = (), *, slot: Slot | None = None) -> Any:
        """The result of a method, from the best replica or from the given one. Lost if the given one is."""
        job = None if slot is None else self._run(slot, ReplicaJob(next(self._numbers), 0), body)
        async with aclosing(job or self.stream(body, prefix)) as messages:
            async for message in messages:
                if message["kind"] == "end":
                    return message["value"]
        raise AssertionError("a job ended without an end")

    async def counters(self) -> dict[str, float]:
        """The counters of all engines together; those of lost processes are kept."""
        ready = [slot for slot in self.slots if slot.state == "ready"]
        calls = (asyncio.wait_for(self.call({"method": "counters"}, slot=slot), COUNTERS_S) for slot in ready)
        for slot, counters in zip(ready, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(counters, dict):
                slot.counters = counters
        return total_counters(self.slots)

    def statuses(self) -> list[ReplicaStatus]:
        """The status of each replica; `counters` updates their numbers."""
        return [slot.status for slot in self.slots]

    def close(self) -> None:
        """End every replica."""
        for slot in self.slots:
            if slot.process is not None:
                slot.process.close()
        self.starter.close()

    async def _choose(self, prefix: Sequence[int]) -> Slot:
        """The slot for a job, as soon as a replica is ready."""
        while not self.is_alive:
            if all(slot.state == "failed" for slot in self.slots):
                raise ModelError(f"no replica can work: {self.problem}")
            await self._change(None)
        number = self.router.choose(prefix, {s.number: s.load for s in self.slots if s.state == "ready"})
        self.router.note(number, prefix)
        return self.slots[number]

    async def _run(self, slot: Slot, job: ReplicaJob, body: Json) -> AsyncGenerator[Json, None]:
        """The messages of a job on this replica until it ends. Raises the job's own errors, and Lost."""
        assert self._loop is asyncio.get_running_loop(), (
            "a fleet serves the event loop in which `ready` was awaited first"
        )
        if not slot.is_connected:
            raise Lost("it was lost before the job was sent")
        slot.jobs[job.id] = job
        slot.load += job.weight
        process, ended = slot.process, False
        self._post(slot, {"kind": "do", "job": job.id, **body})
        try:
            while not ended:
                message = await job.messages.get()
                if isinstance(message, Lost):
                    ended = True
                    raise message
                ended = message["kind"] != "delta"
                if message["kind"] == "failed":
                    raise error_of(message)
                yield message
        finally:
            slot.jobs.pop(job.id, None)
            slot.load -= job.weight
            if not ended and slot.process is process:
                self._post(slot, {"kind": "abort", "job": job.id})

    def _post(self, slot: Slot, message: Json) -> None:
        slot.outbox.append(message)
        slot.has_outgoing.set()

    async def _supervise(self, slot: Slot) -> None:
        """Start a process, connect to it until it is lost, and again."""
        while True:
            process = self._start_process(slot)
            try:
                await self._connect(slot, process, await process.begin())
            except Lost as lost:
                is_false = slot.ready_s is None and slot.losses_in_a_row + 1 >= MAX_FALSE_STARTS
                self._lose(slot, lost, "failed" if is_false else "starting")
            except FirsthandError as error:
                self._lose(slot, Lost(str(error)), "failed")
            except Exception as error:  # a bug in the replica or on the way: its traceback goes to the log
                text = "".join(traceback.format_exception(error))[-8000:]
                self.on_event("replica_bug", replica=slot.number, traceback=text)
                why = f"the replica on {process.name} met a bug of its own: {type(error).__name__}"
                self._lose(slot, Lost(why), "failed" if slot.ready_s is None else "starting")
            finally:
                process.close()
            is_steady = slot.ready_s is not None and time.monotonic() - slot.ready_s > STEADY_S
            slot.losses_in_a_row = 1 if is_steady else slot.losses_in_a_row + 1
            await asyncio.sleep(RETRY_S[min(slot.losses_in_a_row, len(RETRY_S)) - 1])
            slot.restarts += 1

    def _start_process(self, slot: Slot) -> ReplicaProcess:
        """A new process for a slot."""
        slot.ready_s, slot.process = None, self.starter.start(slot.number)
        return slot.process

    async def _admit(self, slot: Slot, process: ReplicaProcess, description: Json) -> None:
        """Admit a replica to requests. ConfigError if it is not like the others, or cannot load their adapters."""
        async with self.change_lock:
            for what, expected in (self.description or description)["same"].items():
                if (found := description["same"].get(what)) != expected:
                    raise ConfigError(
                        f"the replica on {process.name} has the {what} {found!r}, and the others {expected!r}: one request "
                        "would have two answers, so give every machine the same files and the same kind of CPU or GPU"
                    )
            if self.prepare is not None:
                await self.prepare(slot)
            self.description = self.description or description
            slot.counters = description.get("counters", {})
            self.router.open(slot.number, int(slot.counters.get("num_blocks", 1)))
            slot.state, slot.problem, slot.ready_s = "ready", "", time.monotonic()
        self.on_event("replica_ready", replica=slot.number, where=process.name)
        self._note_change()

    async def _connect(self, slot: Slot, process: ReplicaProcess, description: Json) -> None:
        """Exchange messages until the replica is lost, and admit it meanwhile."""
        slot.is_connected = True
        work = (self._send(slot, process), self._receive(slot, process), self._admit(slot, process, description))
        tasks = left = {asyncio.create_task(each) for each in work}
        try:
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, slot: Slot, process: ReplicaProcess) -> None:
        """Pass each message to its job. Lost with the replica, or when it is silent for too long."""
        while True:
            try:
                async with asyncio.timeout(self.silent_s):
                    messages = await process.receive()
            except TimeoutError:
                raise Lost(f"the replica on {process.name} gave no sign of life for {self.silent_s:g} s") from None
            for message in messages:
                if (job := slot.jobs.get(message["job"])) is not None:
                    job.messages.put_nowait(message)

    async def _send(self, slot: Slot, process: ReplicaProcess) -> None:
        """Send the outgoing messages in order, those that came up meanwhile together."""
        while True:
            await slot.has_outgoing.wait()
            slot.has_outgoing.clear()
            messages = list(slot.outbox)
            slot.outbox.clear()
            if messages:
                await process.send(messages)

    def _lose(self, slot: Slot, lost: Lost, state: ReplicaState) -> None:
        """Note that a replica is gone, and fail its jobs with Lost."""
        slot.state, slot.problem, slot.is_connected = state, str(lost), False
        self.router.close(slot.number)
        slot.outbox.clear()
        for name, value in slot.counters.items():
            if name not in GAUGES:
                slot.ended[name] = slot.ended.get(name, 0) + value
        slot.counters = {}
        self.on_event("replica_lost", replica=slot.number, reason=str(lost), jobs=len(slot.jobs))
        for job in list(slot.jobs.values()):
            job.messages.put_nowait(Lost(str(lost)))
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, timeout_s: float | None) -> None:
        """Wait until a replica becomes ready or is lost."""
        async with asyncio.timeout(timeout_s):
            await self._changed.wait()
