"""Carries out a run on many workers, as `execute` does in one process; this process stays the store's only writer.

Every worker runs at most `concurrency` attempts and gets a new one for each that it finishes. The effects of a lost worker's
attempts are in the run's journal, and another worker continues from there. An attempt that two lost workers were running is
next run alone on a worker, and becomes an error when that loses two more.

A worker's machine may be another's: its messages count only for the attempts that it was given and has not ended, and one
that breaks this is lost. An error that ends the run does so once a second worker reports it, on another machine if there is
one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from firsthand.cluster.spread.run_worker import Lost, attempt_message, error_of
from firsthand.errors import BodyTooLarge, ConfigError, StoreError
from firsthand.loop.concurrency import first_error
from firsthand.message import Json
from firsthand.model import OrderedReplies
from firsthand.rollout import Place, judge_model
from firsthand.runs.execute import begin, keep
from firsthand.runs.run_folder import Run
from firsthand.system.plurals import count_of
from firsthand.system.stored_json import is_deep
from firsthand.system.terminal import one_line
from firsthand.trace import Failure, Trace, new_trace_id

SUSPECT = 2
"""Lost workers after which an attempt runs alone on a worker."""
GIVEN_UP = 4
"""Lost workers after which an attempt is an error."""

MAX_DEPTH = 500
"""Lists and objects within each other in a message; what is deeper can be read, and not always be stored."""

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "record": {"id": str, "number": int, "effect": str, "request": str, "reply": dict},
    "step": {"id": str, "step": list},
    "trace": {"id": str, "trace": dict},
    "failed": {"id": str, "error": str, "message": str},
}
"""The fields of each kind of message that a worker sends."""
_UNREADABLE = (StoreError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""The errors of a body that is not what its kind of message holds."""


class RemoteWorker(Protocol):
    """A worker, as the driver sees it."""

    name: str

    async def exchange(self, messages: Sequence[Json]) -> list[Json]:
        """Send messages and return the worker's own, as `Worker.exchange`; Lost if it is gone."""

    async def close(self) -> None:
        """Stop the worker, which may be gone already."""


class WorkerProvider(Protocol):
    """Provides workers."""

    def workers(self) -> AsyncGenerator[RemoteWorker, None]:
        """Yield workers as they get ready, and replacements for lost ones, without end; FirsthandError if none can start."""


async def distribute(
    run: Run,
    places: Sequence[Place],
    fleet: WorkerProvider,
    *,
    seed: int = 0,
    concurrency: int = 16,
    on_trace: Callable[[Trace], None] = lambda trace: None,
    on_lost: Callable[[str], None] = lambda text: None,
    redo_errors: bool = False,
) -> None:
    """Attempt all places that the run has no trace of on the fleet's workers, `concurrency` at a time on each.

    As `execute`: each trace is kept before `on_trace` is given it, and the traces are those that `execute` would have made,
    but for times. `on_lost` is given a sentence for each lost worker, and each attempt that one could not go on with.
    """
    check_places(places)
    with run.claimed():  # before looking what is missing, which another process might be making
        missing = begin(run, places, redo_errors)
        with run.working():
            if missing:
                await _Distribution(run, missing, seed, concurrency, on_trace, on_lost).work(fleet)


def check_places(places: Sequence[Place]) -> None:
    """ConfigError for places whose attempts would differ on workers: shared memories, and replies in order."""
    for agent in {id(place.agent): place.agent for place in places}.values():
        if agent.memory is not None and agent.memory.lifetime != "attempt":
            raise ConfigError(
                f"the memory of {agent.name} is shared between attempts, and workers share none: run it in one process, or "
                "give it the lifetime attempt"
            )
        _expect_unordered(agent.model, agent.name)
    for benchmark in {id(place.benchmark): place.benchmark for place in places}.values():
        for scorer in benchmark.scorers:
            _expect_unordered(judge_model(scorer), f"a judge of {benchmark.name}")


def _expect_unordered(model: object, whose: str) -> None:
    if isinstance(model, OrderedReplies) and model.is_ordered:
        name = getattr(model, "name", "its model")
        raise ConfigError(
            f"{name} gives each of its replies once, in order, and each worker would begin with the first for {whose}: run "
            "it in one process, without --on"
        )


class _Distribution:
    """The state of one distributed run: attempts that wait, workers, and losses."""

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
        self.machines: Counter[str] = Counter()
        """The workers there are, by name; those of one machine have one name."""
        self.failed: dict[str, str] = {}
        """Attempts of which a worker said that they end the run, and its name."""
        self.serving: set[asyncio.Task[None]] = set()
        self.news = asyncio.Event()

    async def work(self, fleet: WorkerProvider) -> None:
        """Return when nothing is missing."""
        try:
            async with asyncio.TaskGroup() as tasks:
                hiring = tasks.create_task(self._hire(fleet, tasks))
                while self.missing:
                    await self._news()
                for task in (hiring, *self.serving):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _hire(self, fleet: WorkerProvider, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(fleet.workers()) as workers:
            async for remote in workers:
                self.serving.add(serving := tasks.create_task(self._serve(remote)))
                serving.add_done_callback(self.serving.discard)

    async def _serve(self, remote: RemoteWorker) -> None:
        """Keep one worker busy until all is done or it is lost."""
        held: dict[str, Place] = {}
        messages: list[Json] = []
        self.machines[remote.name] += 1
        try:
            while self.missing:
                messages += self._deal(held, remote.name)
                if not held:
                    await self._news()
                    continue
                received = await remote.exchange(messages)
                if not isinstance(received, list):
                    raise Lost(f"{remote.name} sent what is no list of messages")
                messages = [answer for message in received if (answer := self._take(remote.name, message, held))]
        except Lost as lost:
            self.machines -= Counter([remote.name])
            self._put_back(remote, held, str(lost))
        finally:
            await remote.close()

    def _deal(self, held: dict[str, Place], name: str = "") -> list[Json]:
        """Messages with new attempts for a worker; they are added to `held`."""
        dealt = []
        is_alone = not self.machines.keys() - {name}
        allowed = (place for place in self.waiting if is_alone or self.failed.get(place.id) != name)
        for place in list(islice(allowed, max(0, self.concurrency - len(held)))):
            if held and any(self.losses[id] >= SUSPECT for id in (place.id, *held)):
                break
            self.waiting.remove(place)
            held[place.id] = place
            self.run.feed.started(place)
            dealt.append(attempt_message(place, self.seed, self.run.journal(place.id).entries()))
        return dealt

    def _take(self, name: str, message: Json, held: dict[str, Place]) -> Json | None:
        """Handle a worker's message; returns the reply, if there is one. Lost if the worker may not send it."""
        if not _is_message(message):
            raise Lost(f"{name} sent what is no message of a worker")
        if is_deep(message, MAX_DEPTH):
            raise Lost(f"{name} sent a message that is nested deeper than {MAX_DEPTH}")
        kind, place = message["kind"], held.get(message["id"])
        if place is None:
            if kind in (
                "record",
                "step",
            ):  # of something that outlived its attempt, and does not wait for an answer in vain
                return {"kind": "kept", "upto": message["number"]} if kind == "record" else None
            raise Lost(f"{name} ended an attempt that it does not have")
        match kind:
            case "record":
                with suppress(BodyTooLarge):  # its trace will be too large as well, and say so
                    self.run.journal(place.id).record(message["effect"], message["request"], message["reply"])
                return {"kind": "kept", "upto": message["number"]}
            case "step":
                try:
                    self.run.feed.add_json(place.id, *message["step"])
                except _UNREADABLE as error:
                    raise Lost(f"{name} sent a step that cannot be read ({type(error).__name__})") from None
            case "trace":
                trace = _trace_of(name, message["trace"], place)
                del held[place.id]
                self._finish(trace)
            case _:
                if place.id in self.failed:
                    raise error_of(message["error"], message["message"])
                self.failed[place.id] = name
                self.waiting.appendleft(held.pop(place.id))
                why = one_line(f"{message['error']}: {message['message']}")[:500]
                self.on_lost(f"{name} could not go on with an attempt, which is tried once more ({why})")
                self._tell()
        return None

    def _finish(self, trace: Trace) -> None:
        trace = keep(self.run, trace)
        del self.missing[trace.place]
        self._tell()
        self.on_trace(trace)

    def _put_back(self, remote: RemoteWorker, held: dict[str, Place], how: str) -> None:
        """Return a lost worker's attempts to the queue, or make them errors."""
        go = "goes" if len(held) == 1 else "go"
        again = f": its {count_of(len(held), 'attempt')} {go} to others" if held and self.missing else ""
        self.on_lost(f"{how}{again}")
        for place in reversed(held.values()):
            self.losses[place.id] += 1
            if self.losses[place.id] >= GIVEN_UP:
                self._finish(self._given_up(place))
            elif self.losses[place.id] >= SUSPECT:
                self.waiting.append(place)
            else:
                self.waiting.appendleft(place)
        self._tell()

    def _given_up(self, place: Place) -> Trace:
        number = self.losses[place.id]
        return Trace(
            id=new_trace_id(),
            place=place.id,
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

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def _news(self) -> None:
        await self.news.wait()


def _is_message(message: object) -> bool:
    """True for a message of a kind that workers send, with all its fields. Their values are not looked at."""
    if not isinstance(message, dict) or not isinstance(kind := message.get("kind"), str) or kind not in _FIELDS:
        return False
    return all(name in message and isinstance(message[name], type) for name, type in _FIELDS[kind].items())


def _trace_of(name: str, body: Json, place: Place) -> Trace:
    """The trace of an attempt at the place; Lost if it is none."""
    try:
        trace = Trace.from_json(body)
        of = (trace.place, trace.benchmark, trace.task_id, trace.agent["name"], trace.epoch)
    except _UNREADABLE as error:
        raise Lost(f"{name} sent a trace that cannot be read ({type(error).__name__})") from None
    if of != (place.id, place.benchmark.name, place.task.id, place.agent.name, place.epoch):
        raise Lost(f"{name} sent the trace of another attempt than the one that it ended")
    return trace
