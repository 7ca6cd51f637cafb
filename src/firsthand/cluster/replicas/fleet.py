"""The near side: a number of replicas, each kept alive, and jobs that survive the loss of the one that carries them out.

A replica that is lost, or says nothing for too long, is started again, sooner after the first loss than after the fifth. Its
jobs begin again on another one. A job whose replica was lost three times ends with an error: it may be what ends them.
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
from firsthand.cluster.replicas.replica_slots import GAUGES, Carrier, Job, Slot, Starter, State, Status, together
from firsthand.cluster.replicas.router import Router
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError, FirsthandError, ModelError, TransientError
from firsthand.message import Json

MAX_LOSSES = 3
"""A job whose replica was lost so many times is given up."""
SILENT_S = 60.0
"""A replica that gives no sign of life for so long is ended and started again."""
RETRY_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""How long to wait before a replica is started again, by how often it was lost in a row."""
STEADY_S = 60.0
"""A replica that lived so long was not lost in a row."""
MAX_FALSE_STARTS = 3
"""A replica that was lost so many times before it was ready counts as failed; it is still tried again."""
COUNTERS_S = 2.0
"""How long a replica may take to tell its counters."""
TOGETHER_S = 30.0
"""When the first replica is ready, the others have so long until requests are taken without them."""


class Fleet:
    """So many replicas. For one event loop, in which `ready` is awaited first."""

    def __init__(self, starter: Starter, count: int, *, silent_s: float = SILENT_S):
        self.starter, self.silent_s = starter, silent_s
        self.slots = [Slot(number) for number in range(count)]
        self.router = Router()
        self.told: Json | None = None
        """What the first replica that was ready said of itself; the others must say the same."""
        self.tell: Callable[..., None] = lambda event, **fields: None
        """Is told of replicas that come and go."""
        self.prepare: Callable[[Slot], Awaitable[None]] | None = None
        """Gives a replica what the others have, before it takes requests."""
        self.changing = asyncio.Lock()
        """Held while what all replicas have is changed, and while one is prepared."""
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """Whether a request that came now would be answered without waiting for a replica."""
        return any(slot.state == "ready" for slot in self.slots)

    @property
    def problem(self) -> str:
        """Why no replica is ready."""
        return next((slot.problem for slot in self.slots if slot.problem), "its replicas are being started")

    async def ready(self) -> Json:
        """Wait for the replicas, the slowest ones not for ever; what they are. ModelError if none can work."""
        if not self._tasks:
            self._loop = asyncio.get_running_loop()
            self._tasks = [asyncio.create_task(self._keep(slot)) for slot in self.slots]
        until: float | None = None
        while any(slot.state == "starting" for slot in self.slots):
            if self.is_alive and until is None:
                until = time.monotonic() + TOGETHER_S
            try:
                await self._change(None if until is None else until - time.monotonic())
            except TimeoutError:
                break
        if self.told is None:
            raise ModelError(self.problem)
        return self.told

    async def carry(self, body: Json, wanted: Sequence[int] = (), *, weight: int = 1) -> AsyncGenerator[Json, None]:
        """What is said of a job until it ends; before that `placed` with its replica, and `again` when that was lost.

        Closing the iterator ends the job. Raises what the job raises; TransientError when replicas are lost again and
        again under it.
        """
        for losses in itertools.count(1):
            slot = await self._place(wanted)
            job = Job(next(self._numbers), weight)
            yield {"kind": "placed", "replica": slot.number}
            try:
                async with aclosing(self._on(slot, job, body)) as said:
                    async for message in said:
                        yield message
                return
            except Lost as lost:
                self.tell("job_moved", replica=slot.number, reason=str(lost), losses=losses)
                if losses == MAX_LOSSES:
                    raise TransientError(
                        f"its replica was lost {losses} times ({lost}), so that it is not tried again by itself"
                    ) from None
            yield {"kind": "again"}

    async def ask(self, body: Json, wanted: Sequence[int] = (), *, slot: Slot | None = None) -> Any:
        """What a method gives, from any replica or this one. Lost if this one is."""
        found = self.carry(body, wanted) if slot is None else self._on(slot, Job(next(self._numbers), 0), body)
        async with aclosing(found) as said:
            async for message in said:
                if message["kind"] == "end":
                    return message["value"]
        raise AssertionError("a job ended without an end")

    async def counters(self) -> dict[str, float]:
        """The numbers of all engines together: what only grows is kept when a replica is started again."""
        ready = [slot for slot in self.slots if slot.state == "ready"]
        asked = {"method": "counters"}
        found = await asyncio.gather(
            *(asyncio.wait_for(self.ask(asked, slot=slot), COUNTERS_S) for slot in ready), return_exceptions=True
        )
        for slot, counted in zip(ready, found, strict=True):
            if isinstance(counted, dict):
                slot.counters = counted
        return together(self.slots)

    def statuses(self) -> list[Status]:
        """Each replica, as it is now; `counters` asks them for their numbers."""
        return [slot.status for slot in self.slots]

    def close(self) -> None:
        """End every replica."""
        for slot in self.slots:
            if slot.carrier is not None:
                slot.carrier.close()
        self.starter.close()

    async def _place(self, wanted: Sequence[int]) -> Slot:
        """The replica for a job, as soon as one is ready."""
        while not self.is_alive:
            if all(slot.state == "failed" for slot in self.slots):
                raise ModelError(f"no replica can work: {self.problem}")
            await self._change(None)
        number = self.router.choose(wanted, {s.number: s.load for s in self.slots if s.state == "ready"})
        self.router.note(number, wanted)
        return self.slots[number]

    async def _on(self, slot: Slot, job: Job, body: Json) -> AsyncGenerator[Json, None]:
        """What is said of a job on this replica until it ends. Raises what the job raises, and Lost."""
        assert self._loop is asyncio.get_running_loop(), (
            "a fleet serves the event loop in which `ready` was awaited first"
        )
        if not slot.is_linked:
            raise Lost("it was lost before it was asked")
        slot.jobs[job.id] = job
        slot.load += job.weight
        carrier, ended = slot.carrier, False
        self._post(slot, {"kind": "do", "job": job.id, **body})
        try:
            while not ended:
                message = await job.news.get()
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
            if not ended and slot.carrier is carrier:
                self._post(slot, {"kind": "abort", "job": job.id})

    def _post(self, slot: Slot, message: Json) -> None:
        slot.outbox.append(message)
        slot.to_send.set()

    async def _keep(self, slot: Slot) -> None:
        """Start a replica, serve its jobs until it is lost, and again."""
        while True:
            carrier = self._begin(slot)
            try:
                await self._serve(slot, carrier, await carrier.begin())
            except Lost as lost:
                is_false = slot.ready_s is None and slot.in_a_row + 1 >= MAX_FALSE_STARTS
                self._lose(slot, lost, "failed" if is_false else "starting")
            except FirsthandError as error:
                self._lose(slot, Lost(str(error)), "failed")
            except Exception as error:  # a bug over there, or on the way: its traceback goes to the log
                told = "".join(traceback.format_exception(error))[-8000:]
                self.tell("replica_bug", replica=slot.number, traceback=told)
                why = f"the replica on {carrier.name} met a bug of its own: {type(error).__name__}"
                self._lose(slot, Lost(why), "failed" if slot.ready_s is None else "starting")
            finally:
                carrier.close()
            is_steady = slot.ready_s is not None and time.monotonic() - slot.ready_s > STEADY_S
            slot.in_a_row = 1 if is_steady else slot.in_a_row + 1
            await asyncio.sleep(RETRY_S[min(slot.in_a_row, len(RETRY_S)) - 1])
            slot.restarts += 1

    def _begin(self, slot: Slot) -> Carrier:
        """A new process for a place."""
        slot.ready_s, slot.carrier = None, self.starter.start(slot.number)
        return slot.carrier

    async def _admit(self, slot: Slot, carrier: Carrier, told: Json) -> None:
        """Take a replica in. ConfigError if it is not like the others, or cannot have what they have."""
        async with self.changing:
            for what, expected in (self.told or told)["same"].items():
                if (found := told["same"].get(what)) != expected:
                    raise ConfigError(
                        f"the replica on {carrier.name} has the {what} {found!r}, and the others {expected!r}: one request "
                        "would have two answers, so give every machine the same files and the same kind of CPU or GPU"
                    )
            if self.prepare is not None:
                await self.prepare(slot)
            self.told = self.told or told
            slot.counters = told.get("counters", {})
            self.router.open(slot.number, int(slot.counters.get("num_blocks", 1)))
            slot.state, slot.problem, slot.ready_s = "ready", "", time.monotonic()
        self.tell("replica_ready", replica=slot.number, where=carrier.name)
        self._note_change()

    async def _serve(self, slot: Slot, carrier: Carrier, told: Json) -> None:
        """Carry messages both ways until the replica is lost, and take it in meanwhile."""
        slot.is_linked = True
        work = (self._send(slot, carrier), self._receive(slot, carrier), self._admit(slot, carrier, told))
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

    async def _receive(self, slot: Slot, carrier: Carrier) -> None:
        """Give each job what is said of it. Lost with the replica, or when it is silent for too long."""
        while True:
            try:
                async with asyncio.timeout(self.silent_s):
                    messages = await carrier.receive()
            except TimeoutError:
                raise Lost(f"the replica on {carrier.name} gave no sign of life for {self.silent_s:g} s") from None
            for message in messages:
                if (job := slot.jobs.get(message["job"])) is not None:
                    job.news.put_nowait(message)

    async def _send(self, slot: Slot, carrier: Carrier) -> None:
        """Hand over what is to be sent, in order; what comes up meanwhile goes together."""
        while True:
            await slot.to_send.wait()
            slot.to_send.clear()
            messages = list(slot.outbox)
            slot.outbox.clear()
            if messages:
                await carrier.send(messages)

    def _lose(self, slot: Slot, lost: Lost, state: State) -> None:
        """Tell whoever waits for a replica that it is gone."""
        slot.state, slot.problem, slot.is_linked = state, str(lost), False
        self.router.close(slot.number)
        slot.outbox.clear()
        for name, value in slot.counters.items():
            if name not in GAUGES:
                slot.ended[name] = slot.ended.get(name, 0) + value
        slot.counters = {}
        self.tell("replica_lost", replica=slot.number, reason=str(lost), jobs=len(slot.jobs))
        for job in list(slot.jobs.values()):
            job.news.put_nowait(Lost(str(lost)))
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, timeout_s: float | None) -> None:
        """Wait until a replica has come or gone."""
        async with asyncio.timeout(timeout_s):
            await self._changed.wait()
