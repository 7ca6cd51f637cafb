"""Streams of events that one account of the Studio may have open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request

from firsthand.studio.access import Access
from firsthand.studio.live_events import MOST_STREAMS, OpenStreams
from firsthand.studio.studio_app import create_app


def test_an_account_has_so_many_streams_open_and_no_other_account_is_counted_with_it() -> None:
    streams = OpenStreams()
    open = [streams.taken("ann") for _ in range(MOST_STREAMS)]
    assert all(each.__enter__() for each in open)
    for _ in range(2):
        with streams.taken("ann") as has_room, streams.taken("bob") as has_room_of_bob:
            assert not has_room and has_room_of_bob
    open[0].__exit__(None, None, None)
    with streams.taken("ann") as has_room:
        assert has_room
    for each in open[1:]:
        each.__exit__(None, None, None)
    assert not streams._open


def test_the_route_of_events_refuses_a_stream_beyond_them_to_that_account_alone(tmp_path: Path) -> None:
    (route,) = [each for each in create_app(tmp_path, Access()).routes if getattr(each, "path", "") == "/events"]
    said: list[tuple[str, int]] = []
    leave = asyncio.Event()

    async def ask(name: str, role: str = "viewer") -> None:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/events", "headers": [], "query_string": b""}
        asked = True

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                asked = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(0)  # as a server does for its client: others come in the meantime
                said.append((name, message["status"]))

        user = SimpleNamespace(name=name, role=role)
        scope["firsthand.user"] = user
        answer = await route.endpoint(Request(scope, receive))  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await answer(scope, receive, send)

    async def many(*names: str) -> list[asyncio.Task[None]]:
        said.clear()
        tasks = [asyncio.create_task(ask(name)) for name in names]
        while len(said) < len(names):
            await asyncio.sleep(0.001)
        return tasks

    async def main() -> None:
        open = await many(*["ann"] * (MOST_STREAMS + 3), "bob")
        assert sorted(said) == [("ann", 200)] * MOST_STREAMS + [("ann", 429)] * 3 + [("bob", 200)], "all at once too"
        leave.set()
        await asyncio.gather(*open)
        leave.clear()
        open = await many(*["ann"] * MOST_STREAMS)
        assert {status for _, status in said} == {200}, "the readers before them have left"
        leave.set()
        await asyncio.gather(*open)

    asyncio.run(main())
