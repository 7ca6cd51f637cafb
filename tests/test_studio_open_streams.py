"""Streams of events that one account of the Studio may have open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

from starlette.requests import Request

from firsthand.studio.access import Access
from firsthand.studio.live_events import MOST_STREAMS, OpenStreams
from firsthand.studio.studio_app import create_app


async def told() -> AsyncIterator[str]:
    yield "one"
    yield "two"


def test_an_account_has_so_many_streams_open_and_no_other_account_is_counted_with_it() -> None:
    async def main() -> None:
        streams = OpenStreams()
        open = [streams.counted("ann", told()) for _ in range(MOST_STREAMS)]
        for number, each in enumerate(open):
            assert streams.has_room("ann"), number
            assert await anext(each) == "one"
        assert not streams.has_room("ann") and streams.has_room("bob")
        await open[0].aclose()  # type: ignore[attr-defined]
        assert streams.has_room("ann"), "its reader left"
        for each in open[1:]:
            assert [text async for text in each] == ["two"]
        assert not streams._open

    asyncio.run(main())


def test_the_route_of_events_refuses_a_stream_beyond_them_to_that_account_alone(tmp_path: Path) -> None:
    app = create_app(tmp_path, Access())
    (route,) = [each for each in app.routes if getattr(each, "path", "") == "/events"]

    async def main() -> None:
        open = []

        async def ask(name: str, role: str = "viewer") -> int:
            scope = {"type": "http", "method": "GET", "path": "/events", "headers": [], "query_string": b""}
            user = SimpleNamespace(name=name, role=role)
            answer = await route.endpoint(Request(scope | {"firsthand.user": user}))  # type: ignore[attr-defined]
            if answer.status_code == 200:
                open.append(answer.body_iterator)
                assert (await anext(answer.body_iterator)).startswith("retry")
            return int(answer.status_code)

        assert {await ask("ann") for _ in range(MOST_STREAMS)} == {200}
        assert (await ask("ann"), await ask("ann", "admin"), await ask("bob")) == (429, 429, 200)
        await open[0].aclose()
        assert await ask("ann") == 200
        for each in open:
            await each.aclose()

    asyncio.run(main())
