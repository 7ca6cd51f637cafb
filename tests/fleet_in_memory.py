"""A fleet over processes in memory: each begins as it is told, and answers what it was sent by a function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.spread.run_worker import Lost
from firsthand.message import Json

SAME: Json = {"same": {"model": "m"}, "counters": {"num_blocks": 7.0, "prompt_tokens": 3.0}}


class Process:
    """A replica's process: `begin` gives or raises what it is told; `answer` makes replies to what it was sent."""

    def __init__(self, number: int, begins: Any, answer: Callable[[Process, Json], None]):
        self.name, self.begins, self.answer = f"place {number}", begins, answer
        self.sent: list[Json] = []
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.is_closed = False

    async def begin(self) -> Json:
        if self.begins is None:
            await asyncio.Event().wait()
        if isinstance(self.begins, Exception):
            raise self.begins
        return dict(self.begins)

    async def send(self, messages: Sequence[Json]) -> None:
        for message in messages:
            self.sent.append(message)
            self.answer(self, message)

    async def receive(self) -> list[Json]:
        found = await self.queue.get()
        if isinstance(found, Exception):
            raise found
        return [found]

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.queue.put_nowait(Lost(f"the replica on {self.name} was lost: closed"))


def says(process: Process, asked: Json, kind: str, **more: Any) -> None:
    process.queue.put_nowait({"kind": kind, "job": asked["job"], **more})


def echo(process: Process, message: Json) -> None:
    if message["kind"] == "do":
        says(process, message, "end", value=message.get("method"))


class Starter:
    """Starts processes that begin as listed, by slot; the last one again and again."""

    def __init__(self, begins: Sequence[Sequence[Any]], answer: Callable[[Process, Json], None] = echo):
        self.begins, self.answer = [list(each) for each in begins], answer
        self.started: list[Process] = []
        self.is_closed = False

    def start(self, number: int) -> Process:
        left = self.begins[number]
        self.started.append(Process(number, left.pop(0) if len(left) > 1 else left[0], self.answer))
        return self.started[-1]

    def close(self) -> None:
        self.is_closed = True


def with_fleet(
    work: Callable[[Fleet, Starter, list[Any]], Awaitable[None]],
    begins: Sequence[Sequence[Any]],
    answer: Any = echo,
    **options: Any,
) -> None:
    async def all_of_it() -> None:
        starter, events = Starter(begins, answer), list[Any]()
        fleet = Fleet(starter, len(begins), **options)
        fleet.on_event = lambda event, **fields: events.append({"event": event, **fields})
        try:
            await work(fleet, starter, events)
        finally:
            for task in fleet._tasks:
                task.cancel()
            await asyncio.gather(*fleet._tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(all_of_it(), 30))


async def until(fact: Callable[[], Any]) -> None:
    while not fact():
        await asyncio.sleep(0.001)
