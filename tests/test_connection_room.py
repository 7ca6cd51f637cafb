"""Connections that owe a head or a body, or have not shown who they are: bounded in time and in number."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.server import ServerState

from firsthand.serve.http.bounded_protocol import BoundedProtocol
from firsthand.serve.http.connection_room import ConnectionRoom
from firsthand.system.recognised import recognise


class Transport(asyncio.Transport):
    def __init__(self, address: str = "10.0.0.1"):
        super().__init__({"peername": (address, 1), "sockname": ("10.0.0.9", 80)})
        self.aborted, self.written = 0, b""
        self.high: int | None = None

    def is_closing(self) -> bool:
        return bool(self.aborted)

    def abort(self) -> None:
        self.aborted += 1

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.aborted += 1

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high


def test_the_oldest_stranger_of_the_address_with_most_gives_way_and_a_known_one_stays() -> None:
    room, closed = ConnectionRoom(6), list[str]()

    def opened(name: str, address: str) -> None:
        room.opened(name, address, lambda: closed.append(name))

    for name, address in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        opened(name, address)
    assert closed == [], "half of six"
    room.recognised("a1", "a")
    opened("a3", "a")
    assert closed == [], "one that is known takes nothing of the strangers' half"
    opened("a4", "a")
    assert closed == ["a2"], "and is not the oldest any more"
    for number in range(5, 50):
        opened(f"a{number}", "a")
    assert closed[-1] == "a47" and "b1" not in closed and "a1" not in closed, "others keep theirs"
    room.recognised("a2", "a")
    room.closed("a47", "a")
    assert len(room._known) == 1, "one that was closed is not known afterwards"
    for number in (48, 49):
        room.recognised(f"a{number}", "a")
    room.recognised("b1", "b")
    for name in ("c1", "c2"):
        opened(name, "c")
    room.recognised("c1", "c")
    opened("c3", "c")
    assert closed[-1] == "c2", "no more than six in all"
    room.recognised("c3", "c")
    opened("d1", "d")
    assert closed[-1] == "d1" and room._num_strangers == 0 and room._strangers == {}
    for name in ("a1", "a48", "a49", "b1", "c1", "c3"):
        room.closed(name, name[0])
    assert room._known == set()


def with_protocol(check: Any, app: Any, **given: Any) -> None:
    async def main() -> None:
        config = uvicorn.Config(app, lifespan="off", log_level="critical")
        config.load()
        kind = type("Kind", (BoundedProtocol,), given)

        def made(address: str = "10.0.0.1") -> tuple[Any, Transport]:
            protocol, transport = kind(config=config, server_state=ServerState(), app_state={}), Transport(address)
            protocol.connection_made(transport)
            return protocol, transport

        await check(made)

    asyncio.run(main())


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await refuses(scope, receive, send)


HEAD = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n"


def test_a_body_has_to_come_in_time_however_many_pieces_it_comes_in() -> None:
    async def check(made: Any) -> None:
        protocol, transport = made()
        assert transport.high == 1
        protocol.data_received(HEAD)
        deadline = protocol._deadline
        left = deadline.when() - asyncio.get_running_loop().time()
        assert 34 < left <= 35, "a moment more than the app gives it, which answers 408"
        for _ in range(9):
            protocol.data_received(b"x" * 10)
            await asyncio.sleep(0)
            assert protocol._deadline is deadline and not deadline.cancelled(), "a piece of a body gains no time"
        protocol.flow.read_paused = True
        protocol._late()
        assert transport.aborted == 0, "the app does not read it yet"
        protocol.flow.read_paused = False
        protocol._late()
        assert transport.aborted == 1

        protocol, transport = made()
        protocol.data_received(HEAD + b"x" * 100)
        assert protocol._deadline is None, "it is there whole"
        await asyncio.sleep(0.02)
        assert b" 403 " in transport.written and transport.aborted == 0
        protocol.data_received(HEAD + b"x" * 100 + HEAD + b"x")  # two at once: the second waits for the first
        await asyncio.sleep(0.02)
        assert protocol.conn.their_state is h11.SEND_BODY and protocol._deadline is not None

    with_protocol(check, reads)


def test_a_body_whose_request_is_answered_has_little_time_left() -> None:
    async def check(made: Any) -> None:
        protocol, transport = made()
        protocol.data_received(HEAD)
        await asyncio.sleep(0.02)
        assert b" 403 " in transport.written
        left = protocol._deadline.when() - asyncio.get_running_loop().time()
        assert 3 < left <= 5
        protocol.data_received(b"x")
        assert protocol._deadline.when() - asyncio.get_running_loop().time() <= left
        protocol.flow.read_paused = True
        protocol._late()
        assert transport.aborted == 1

    with_protocol(check, refuses)


def test_a_client_that_shows_who_it_is_keeps_its_connection_while_strangers_come() -> None:
    async def known(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/known":
            recognise(scope)
        await refuses(scope, receive, send)

    async def check(made: Any) -> None:
        one, transport = made()
        one.data_received(b"GET /known HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.02)
        strangers = [made() for _ in range(20)]
        assert transport.aborted == 0 and [each[1].aborted for each in strangers] == [1] * 18 + [0] * 2
        late, of_late = made("10.0.0.2")
        late.data_received(b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.02)
        assert b" 403 " in of_late.written, "a newcomer is answered"
        one.connection_lost(None)
        assert not one.room._known

    with_protocol(check, known, room=ConnectionRoom(4))
    recognise({"type": "http"})
