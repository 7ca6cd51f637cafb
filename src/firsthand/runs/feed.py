"""The live feed of a run: the steps of attempts under way, kept in the run's file so that other processes can follow.

    started   an attempt begins            ended     its trace is stored; its steps are dropped then
    added     a message was added          began     a call begins
    call      a call ended                 event     a retry, a limit, a note
    piece     streamed text, only where `pieces` asks for it

Steps are collected in memory and written in groups, at most every FLUSH_S seconds, so an attempt that is over at once costs
one row. A step is told after the journal has committed its effect, so the feed never shows what a crash has undone.
The feed is not the record: what cannot be written to it is dropped, and the run goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import StoreError
from firsthand.loop.listener import Added, Began, Listener, Piece, Step
from firsthand.message import Json, Message
from firsthand.model import Usage
from firsthand.rollout import Place
from firsthand.runs.database import Database, plain
from firsthand.runs.run_names import DATABASE, LOCK
from firsthand.system.lock import is_held
from firsthand.trace import Call, Event, Node, Trace

FLUSH_S = 0.25
"""Steps are written at most this often."""
POLL_S = 0.2
"""Seconds between two polls of `follow`."""
START_S = 2.0
"""Seconds that `follow` waits for a run to be started."""
PAGE = 1000
_LARGE_DETAIL = ("top_logprobs", "tools", "schemas", "prompt")
"""Parts of a call's detail that only the trace keeps."""


@dataclass(frozen=True)
class Started:
    """An attempt has begun, or begins again after an interruption."""

    benchmark: str
    task_id: str
    agent: str
    epoch: int


@dataclass(frozen=True)
class Ended:
    """The trace of an attempt is stored; `Run.trace(id)` reads it."""

    id: str
    benchmark: str
    task_id: str
    agent: str
    epoch: int
    score: float | None
    """The value of the first score."""
    stop_reason: str
    error: str | None


@dataclass(frozen=True)
class FeedStep:
    """One step of one attempt. Sequence numbers grow and are never used twice, with gaps where steps were dropped."""

    sequence: int
    place: str
    """`Trace.place` of the attempt."""
    at: float
    """Seconds since 1970."""
    step: Started | Step | Ended
    """Messages come without their token ids."""


_Pending = tuple[int, float, Started | Step]
"""Number, time and step."""


class Feed:
    """Writes and reads the feed of one run. Any thread may use it."""

    def __init__(self, database: Database):
        self.database = database
        self._pending: dict[str, list[_Pending]] = {}
        """Steps that are not written yet, by place. Lists are appended to by any thread and emptied inside a transaction."""
        self._numbers = itertools.count(1)
        self._flush_by = 0.0
        """Until then a timer is expected to flush; later it has died with its event loop."""
        self._stored: set[str] | None = None
        """The places that have steps in the file."""

    # -- writing --

    def listener(self, place: Place, *, pieces: bool = False) -> _FeedListener:
        """A listener that writes the steps of that attempt, `pieces` of streamed text too; the attempt begins now."""
        self.started(place)
        return _FeedListener(self._pending.setdefault(place.id, []), self._numbers, pieces)

    def started(self, place: Place) -> None:
        """Write that an attempt begins; steps of an interrupted try of it are dropped."""
        self.add(place.id, Started(place.benchmark.name, place.task.id, place.agent.name, place.epoch))

    def add(self, place_id: str, step: Started | Step) -> None:
        """Write a step of an attempt."""
        at = time.time()
        self._pending.setdefault(place_id, []).append((next(self._numbers), at, step))
        if at >= self._flush_by:
            self._flush_later(at)

    def add_json(self, place_id: str, kind: str, body: Json) -> None:
        """Write a step that `step_to_json` made, in another process maybe; StoreError if it is none."""
        step = _from_json(kind, body)
        if isinstance(step, Ended):
            raise StoreError("an attempt ends when its trace is stored, not by a step")
        self.add(place_id, step)

    def end(self, connection: sqlite3.Connection, trace: Trace) -> None:
        """In the transaction that stores a trace, put one row in place of the steps of its attempt."""
        place = plain(trace.place)
        self._pending.pop(trace.place, None)
        values = (place, time.time(), plain(trace.id))
        cursor = connection.execute("INSERT INTO steps (attempt, kind, at, body) VALUES (?, 'ended', ?, ?)", values)
        self._drop(connection, place, cursor.lastrowid)

    def flush(self, older_than: float = math.inf) -> None:
        """Write what waits: all, or that of attempts whose oldest step is from before then. What cannot be is dropped."""
        if not any(steps and steps[0][1] <= older_than for steps in list(self._pending.values())):
            return
        with suppress(StoreError), self.database.write() as connection:
            stored = self._stored_places(connection)
            rows = []
            for place, steps in list(self._pending.items()):
                if steps and steps[0][1] <= older_than:
                    taken = steps[:]
                    del steps[: len(taken)]
                    rows += [(row, plain(place)) for row in _rows(taken)]
            for (_, at, kind, body), place in sorted(rows):
                values = (place, kind, at, body)
                cursor = connection.execute("INSERT INTO steps (attempt, kind, at, body) VALUES (?, ?, ?, ?)", values)
                if kind == "started":
                    self._drop(connection, place, cursor.lastrowid)
                stored.add(place)

    def close(self) -> None:
        """Write what waits; no attempt is under way any more."""
        self.flush()
        self._pending.clear()

    def _flush_later(self, now: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.flush()
        self._flush_by = now + FLUSH_S + 1.0
        loop.call_later(FLUSH_S, self._on_timer)

    def _on_timer(self) -> None:
        """Write the steps of attempts that are not over at once, and look again while any are under way."""
        self._flush_by = 0.0
        now = time.time()
        self.flush(older_than=now - FLUSH_S / 2)
        if self._pending:
            self._flush_later(now)

    def _stored_places(self, connection: sqlite3.Connection) -> set[str]:
        if self._stored is None:  # those that an earlier process left
            found = connection.execute("SELECT DISTINCT attempt FROM steps WHERE kind <> 'ended'")
            self._stored = {str(place) for (place,) in found}
        return self._stored

    def _drop(self, connection: sqlite3.Connection, place: str, before: int | None) -> None:
        """Drop earlier steps of an attempt. The newest row stays, so that its number is not given to another."""
        stored = self._stored_places(connection)
        if place in stored:
            sql = "DELETE FROM steps WHERE attempt = ? AND kind <> 'ended' AND seq < ?"
            connection.execute(sql, (place, before))
            stored.discard(place)

    # -- reading --

    def after(self, sequence: int = 0, limit: int = PAGE) -> list[FeedStep]:
        """The steps with a higher sequence number in order, at most `limit`; StoreError if one was damaged."""
        rows = self.database.read(
            "SELECT steps.seq, steps.attempt, steps.kind, at, steps.body, id, benchmark, task, agent, epoch, score,"
            " stop_reason, error FROM steps LEFT JOIN traces ON steps.kind = 'ended' AND traces.id = steps.body"
            " AND NOT EXISTS (SELECT 1 FROM traces later WHERE later.id = traces.id AND later.try > traces.try)"
            " WHERE steps.seq > ? ORDER BY steps.seq LIMIT ?",
            (sequence, limit),
        )
        return [self._step(*row) for row in rows]

    def under_way(self, limit: int = 20 * PAGE) -> list[FeedStep]:
        """The steps of attempts that have not ended, in order; the last `limit` of them."""
        rows = self.database.read(
            "SELECT seq, attempt, kind, at, body FROM steps WHERE kind <> 'ended' ORDER BY seq DESC LIMIT ?", (limit,)
        )
        return [self._step(*row) for row in reversed(rows)]

    def last(self) -> int:
        """The highest sequence number so far, 0 before the first step."""
        return int(self.database.read("SELECT coalesce(max(seq), 0) FROM steps")[0][0])

    def _step(self, sequence: int, place: str, kind: str, at: float, body: str, *ended: Any) -> FeedStep:
        try:
            step = (
                Ended(*ended)
                if kind == "ended" and ended and ended[0] is not None
                else _from_json(kind, json.loads(body))
            )
            return FeedStep(int(sequence), str(place), float(at), step)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, StoreError) as error:
            raise self.database.damaged(f"a step of its feed is not what was expected: {error!r:.200}") from None


class _FeedListener:
    """A Listener that writes to a feed."""

    def __init__(self, steps: list[_Pending], numbers: Iterator[int], pieces: bool):
        self.steps, self.numbers, self.streams = steps, numbers, pieces

    def __call__(self, step: Step) -> None:
        if self.streams or not isinstance(step, Piece):
            self.steps.append((next(self.numbers), time.time(), step))


class Both:
    """A Listener that tells two, and streams only for those that want it."""

    def __init__(self, first: Listener, second: Listener):
        self.listeners = (first, second)
        self.streams = any(getattr(each, "streams", True) for each in self.listeners)

    def __call__(self, step: Step) -> None:
        for each in self.listeners:
            if not isinstance(step, Piece) or getattr(each, "streams", True):
                each(step)


async def follow(
    path: Path, after: int = 0, *, poll_s: float = POLL_S, start_s: float = START_S
) -> AsyncIterator[FeedStep]:
    """The steps of the run in this folder after a sequence number, as they happen, until no process works on the run.

    A look that finds nothing new costs a pragma. A run that nobody has begun to work on is waited for `start_s` seconds.
    """
    database = Database(path / DATABASE)
    try:
        feed, seen, until = Feed(database), None, time.monotonic() + start_s
        while True:
            working = is_held(path / LOCK)  # asked first: what was written before the end is read below
            until = 0.0 if working else until
            version = database.read("PRAGMA data_version")[0][0]
            if version != seen:
                seen = version
                while steps := feed.after(after):
                    for step in steps:
                        yield step
                    after = steps[-1].sequence
            if not working and time.monotonic() >= until:
                return
            await asyncio.sleep(poll_s)
    finally:
        database.close()


def step_to_json(step: Started | Step) -> tuple[str, Json]:
    """The kind and the body of a step, as the file keeps them and as a worker sends them."""
    match step:
        case Added(index, node):
            return "added", {"index": index, "parent": node.parent, "message": _message(node.message)}
        case Call():
            return "call", _call(step)
        case Started():
            return "started", dict(vars(step))
        case Began():
            return "began", dict(vars(step))
        case Piece():
            return "piece", dict(vars(step))
        case Event():
            return "event", dict(vars(step))


def _message(message: Message) -> Json:
    return {key: value for key, value in message.to_json().items() if key != "sampled"}


def _call(call: Call) -> Json:
    body = {name: getattr(call, name) for name in _CALL_FIELDS}
    detail = {key: value for key, value in call.detail.items() if key not in _LARGE_DETAIL}
    return body | {"usage": call.usage.to_json(), "nodes": list(call.nodes), "detail": detail}


_CALL_FIELDS = ("id", "kind", "at", "started_s", "duration_s", "request", "replayed", "error")


def _rows(steps: list[_Pending]) -> list[tuple[int, float, str, str]]:
    """Number, time, kind and body of the steps, pieces of one call that follow each other as one."""
    made: list[tuple[int, float, str, Json]] = []
    for number, at, step in steps:
        kind, body = step_to_json(step)
        if kind == "piece" and made and made[-1][2] == "piece" and made[-1][3]["id"] == body["id"]:
            made[-1][3]["text"] += body["text"]
        else:
            made.append((number, at, kind, body))
    return [(number, at, kind, json.dumps(body, separators=(",", ":"), default=str)) for number, at, kind, body in made]


def _from_json(kind: str, body: Any) -> Started | Step | Ended:
    make = _KINDS.get(kind)
    if make is None or not isinstance(body, Mapping):
        raise StoreError(f"a step is of the kind {kind!r}: {', '.join(_KINDS)} were expected")
    return make(body)


_KINDS: dict[str, Callable[[Mapping[str, Any]], Started | Step | Ended]] = {
    "started": lambda body: Started(**body),
    "added": lambda body: Added(body["index"], Node(body["parent"], Message.from_json(body["message"]))),
    "began": lambda body: Began(**body),
    "piece": lambda body: Piece(**body),
    "call": lambda body: Call(**{**body, "usage": Usage(**body["usage"]), "nodes": tuple(body["nodes"])}),
    "event": lambda body: Event(**body),
}
