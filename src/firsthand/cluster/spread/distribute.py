"""Distributes a run over workers: `execute` with the attempts elsewhere. This process stays the only writer of the store.

Each worker runs at most `concurrency` attempts, and gets a new one for each that it finishes. When a worker is lost, another
one resumes its attempts from the run's journal. An attempt that was on two lost workers is next tried alone on a worker, and
given up, as an error of its own, after two more losses.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from firsthand.cluster.spread.run_worker import Lost, attempt_message, error_of
from firsthand.loop.concurrency import first_error
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.runs.execute import begin
from firsthand.runs.store import Run
from firsthand.trace import Failure, Trace

SUSPECT = 2
"""An attempt is tried alone after it was on this many lost workers."""
GIVEN_UP = 4
"""And is given up after this many."""


class Remote(Protocol):
    """The run's side of a worker."""

    name: str

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """Send it messages, and receive those that it has, as `Worker.exchange`; Lost if it is gone."""

    async def close(self) -> None:
        """End it; it may be gone already."""


class WorkerPool(Protocol):
    """Provides workers."""

    def workers(self) -> AsyncGenerator[Remote, None]:
        """Workers as they become ready, and replacements of lost ones, without an end.

        A FirsthandError if there can be none.
        """


async def distribute(
    run: Run,
    places: Sequence[Place],
    pool: WorkerPool,
    *,
    seed: int = 0,
    concurrency: int = 16,
    on_trace: Callable[[Trace], None] = lambda trace: None,
    on_lost: Callable[[str], None] = lambda text: None,
    redo_errors: bool = False,
) -> None:
    """Run the attempts that the run has no trace of on the pool's workers, `concurrency` at a time on each.

    As in `execute`, each trace is stored before `on_trace` gets it, and traces equal those of `execute` but for times.
    `on_lost` gets a sentence for each lost worker.
    """
    missing = begin(run, places, redo_errors)
    with run.working():
        if missing:
            await _Distribution(run, missing, seed, concurrency, on_trace, on_lost).work(pool)


class _Distribution:
    """The attempts that are left, and the workers that run them."""

    def __init__(
        self,
        run: Run,
        missing: dict[str, Place],
        seed: int,
        concurrency: int,
        on_trace: Callable[[Trace], None],
        on_lost: Callable[[str], None],
    ):
        self.run = run
        self.missing = missing
        self.seed = seed
        self.concurrency = concurrency
        self.on_trace = on_trace
        self.on_lost = on_lost
        self.waiting = deque(missing.values())
        self.losses: Counter[str] = Counter()
        self.serving: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()

    async def work(self, pool: WorkerPool) -> None:
        """Return when nothing is missing."""
        try:
            async with asyncio.TaskGroup() as tasks:
                recruiting = tasks.create_task(self._recruit(pool, tasks))
                while self.missing:
                    await self._wait_for_change()
                for task in (recruiting, *self.serving):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _recruit(self, pool: WorkerPool, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(pool.workers()) as workers:
            async for remote in workers:
                self.serving.add(serving := tasks.create_task(self._serve(remote)))
                serving.add_done_callback(self.serving.discard)

    async def _serve(self, remote: Remote) -> None:
        """Keep one worker busy until all is done or it is lost."""
        held: dict[str, Place] = {}
        messages: list[Json] = []
        try:
            while self.missing:
                messages += self._deal(held)
                if not held:
                    await self._wait_for_change()
                    continue
                replies = await remote.exchange(messages)
                messages = [answer for message in replies if (answer := self._take(message, held))]
        except Lost as lost:
            self._put_back(remote, held, str(lost))
        finally:
            await remote.close()

    def _deal(self, held: dict[str, Place]) -> list[Json]:
        """Messages that give a worker new attempts, which are then in `held`."""
        dealt = []
        while self.waiting and len(held) < self.concurrency:
            place = self.waiting[0]
            if held and any(self.losses[id] >= SUSPECT for id in (place.id, *held)):
                break
            self.waiting.popleft()
            held[place.id] = place
            dealt.append(attempt_message(place, self.seed, self.run.journal(place.id).entries()))
        return dealt

    def _take(self, message: Json, held: dict[str, Place]) -> Json | None:
        """Handle a worker's message; the reply, if there is one."""
        id = message["id"]
        match message["kind"]:
            case "record":
                self.run.journal(id).record(message["effect"], message["request"], message["reply"])
                return {"kind": "kept", "upto": message["number"]}
            case "trace":
                self._finish(Trace.from_json(message["trace"]))
                del held[id]
            case _:
                raise error_of(message["error"], message["message"])
        return None

    def _finish(self, trace: Trace) -> None:
        self.run.append(trace)
        del self.missing[trace.id]
        self._notify()
        self.on_trace(trace)

    def _put_back(self, remote: Remote, held: dict[str, Place], how: str) -> None:
        """Give the attempts of a lost worker to others."""
        again = f": its {len(held)} attempts are given to others" if held and self.missing else ""
        self.on_lost(f"{how}{again}")
        for place in reversed(held.values()):
            self.losses[place.id] += 1
            if self.losses[place.id] >= GIVEN_UP:
                self._finish(self._given_up(place))
            elif self.losses[place.id] >= SUSPECT:
                self.waiting.append(place)
            else:
                self.waiting.appendleft(place)
        self._notify()

    def _given_up(self, place: Place) -> Trace:
        number = self.losses[place.id]
        return Trace(
            id=place.id,
            benchmark=place.benchmark.name,
            task_id=place.task.id,
            agent=place.agent.to_json(),
            epoch=place.epoch,
            seed=self.seed,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            duration_s=0.0,
            stop_reason="error",
            error=Failure("WorkerLost", f"{number} workers were lost while this attempt was under way, two of them with "
                          "nothing beside it: see whether it runs out of memory or ends its process"),
        )  # fmt: skip

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _wait_for_change(self) -> None:
        await self.changed.wait()
