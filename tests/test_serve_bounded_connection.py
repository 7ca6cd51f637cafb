"""HTTP/1.1 within bounds, byte by byte and without a socket: heads, chunks, bodies that do not end, and late heads."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import h11
import pytest

from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.http import bounded_protocol
from firsthand.serve.http.bounded_protocol import (
    CHUNK_BYTES,
    FREE_CHUNKS,
    HEADER_BYTES,
    BoundedConnection,
    BoundedProtocol,
)
from firsthand.serve.openai.completions import merged

CHUNKED = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


def connection() -> BoundedConnection:
    return BoundedConnection(h11.SERVER, HEADER_BYTES)


def events(made: BoundedConnection, data: bytes) -> list[Any]:
    """The kinds of the events of these bytes, data joined."""
    made.receive_data(data)
    found: list[Any] = []
    while True:
        event = made.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return found
        if isinstance(event, h11.Data) and found and isinstance(found[-1], bytes):
            found[-1] += bytes(event.data)
        else:
            found.append(bytes(event.data) if isinstance(event, h11.Data) else type(event).__name__)
        if isinstance(event, h11.EndOfMessage):
            return found


def answer(made: BoundedConnection) -> None:
    made.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    made.send(h11.EndOfMessage())


def head_of(size: int) -> bytes:
    head = b"GET /x HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n"
    return head.replace(b"x: ", b"x: " + b"y" * (size - len(head)))


def test_a_head_has_so_many_bytes_also_where_it_comes_in_one_packet() -> None:
    assert HEADER_BYTES == 32_768
    for size, fine in ((HEADER_BYTES, True), (HEADER_BYTES + 1, False), (HEADER_BYTES + 5_000, False)):
        made = connection()
        if fine:
            assert events(made, head_of(size)) == ["Request", "EndOfMessage"]
            answer(made)
            made.start_next_cycle()
            with pytest.raises(h11.RemoteProtocolError, match="the head is too long"):
                events(made, head_of(HEADER_BYTES + 1))
        else:
            with pytest.raises(h11.RemoteProtocolError, match="the head is too long"):
                events(made, head_of(size))
    with_body = connection()
    body = b"z" * 50_000
    sent = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\n\r\n" + body
    assert events(with_body, sent) == ["Request", body, "EndOfMessage"], "the body is no part of the head"


def test_a_chunked_body_has_free_chunks_and_one_more_for_some_bytes_of_it() -> None:
    assert (FREE_CHUNKS, CHUNK_BYTES) == (256, 64)
    tiny = b"1\r\nx\r\n"  # of n chunks of a byte n - n // 64 have to be free
    for extra, count, fine in ((b"", 260, True), (b"", 261, False), (b"40\r\n" + b"y" * 64 + b"\r\n", 260, True),
                               (b"40\r\n" + b"y" * 64 + b"\r\n", 261, False)):  # fmt: skip
        made = connection()
        sent = CHUNKED + extra + tiny * count
        if fine:
            assert events(made, sent)[0] == "Request"
        else:
            with pytest.raises(h11.RemoteProtocolError, match="the chunks are too small"):
                events(made, sent)
    again = connection()
    assert events(again, CHUNKED + tiny * 200 + b"0\r\n\r\n") == ["Request", b"x" * 200, "EndOfMessage"]
    answer(again)
    again.start_next_cycle()
    assert events(again, CHUNKED + tiny * 200 + b"0\r\n\r\n") == ["Request", b"x" * 200, "EndOfMessage"], "counted anew"
    answer(again)
    again.start_next_cycle()
    plain = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 300\r\n\r\n"
    large = CHUNKED + b"1000\r\n" + b"y" * 4096 + b"\r\n0\r\n\r\n"
    assert events(again, large) == ["Request", b"y" * 4096, "EndOfMessage"]
    answer(again)
    again.start_next_cycle()
    with pytest.raises(h11.RemoteProtocolError, match="the chunks are too small"):
        events(again, CHUNKED + tiny * 261)  # the bytes of an earlier request allow none
    again = connection()
    assert events(again, plain) == ["Request"]
    assert [events(again, b"z") for _ in range(299)] == [[b"z"]] * 299, "pieces of a network are no chunks"


def test_a_body_that_goes_on_after_its_answer_is_read_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounded_protocol.UNREAD_BYTES == 16 << 20
    monkeypatch.setattr(bounded_protocol, "UNREAD_BYTES", 10)
    plain = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n"
    made = connection()
    assert events(made, plain + b"z" * 8) == ["Request", b"z" * 8]
    answer(made)
    assert events(made, b"zz") == [b"zz"], "ten bytes of it in all"
    with pytest.raises(h11.RemoteProtocolError, match="the body of an answered request does not end"):
        events(made, b"z")
    later = connection()
    for _ in range(2):
        assert events(later, plain.replace(b"100", b"8") + b"z" * 8) == ["Request", b"z" * 8, "EndOfMessage"]
        answer(later)
        later.start_next_cycle()
    events(later, plain)
    answer(later)
    assert events(later, b"z" * 10) == [b"z" * 10], "the bytes of earlier requests do not count"
    waits = connection()
    assert events(waits, plain + b"z" * 50) == ["Request", b"z" * 50], "an answer that has not come yet bounds nothing"


class Transport:
    """A connection that notes whether it was hung up."""

    def __init__(self) -> None:
        self.aborted = 0
        self.closing = False
        self.high: int | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted += 1

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high


def test_a_head_has_to_come_in_time_at_the_beginning_and_later() -> None:
    async def main() -> None:
        import uvicorn
        from uvicorn.server import ServerState

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, lifespan="off", log_level="critical")
        config.load()

        def made(seconds: float = 30.0) -> tuple[Any, Transport]:
            protocol = BoundedProtocol(config=config, server_state=ServerState(), app_state={})
            protocol.head_within_s = seconds
            transport = Transport()
            protocol.connection_made(transport)
            return protocol, transport

        whole = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
        protocol, transport = made()
        assert transport.high == 1, "an answer waits until the client has taken all that was sent"
        first = protocol._deadline
        assert 29 < first.when() - asyncio.get_running_loop().time() <= 30
        protocol.data_received(whole[:10])
        assert protocol._deadline is first and not first.cancelled(), "a piece of a head gains no time"
        protocol.data_received(whole[10:])
        assert first.cancelled()
        await asyncio.sleep(0.01)
        protocol.data_received(whole[:5])
        second = protocol._deadline
        assert second is not first and not second.cancelled()
        protocol._late()
        assert transport.aborted == 1
        protocol.connection_lost(None)
        assert second.cancelled()
        protocol, transport = made(0.001)
        await asyncio.sleep(0.01)
        assert transport.aborted == 1
        protocol, transport = made()
        transport.closing = True
        protocol._late()
        assert transport.aborted == 0
        protocol, transport = made()
        protocol.conn = SimpleNamespace(their_state=h11.SEND_BODY, our_state=h11.ERROR)
        protocol._late()
        assert transport.aborted == 0, "a body is no head"

    asyncio.run(main())


def test_streams_are_merged_as_they_come_and_none_is_lost_at_the_end() -> None:
    closed: list[str] = []

    async def source(name: str, count: int, wait_s: float = 0.0) -> Any:
        try:
            for at in range(count):
                await asyncio.sleep(wait_s)
                yield Delta(f"{name}{at}", Completion(assistant("x"), "stop", Usage()) if at == count - 1 else None)
        finally:
            closed.append(name)

    async def whole() -> list[Any]:
        return [
            (place, delta.text) async for place, delta in merged([source("a", 3), source("b", 0), source("c", 200)])
        ]

    found = asyncio.run(whole())
    assert [text for place, text in found if place == 0] == ["a0", "a1", "a2"]
    assert [text for place, text in found if place == 2] == [f"c{at}" for at in range(200)]
    assert len(found) == 203 and sorted(closed) == ["a", "b", "c"]
    assert found.index((0, "a1")) < found.index((2, "c150"))
    closed.clear()

    async def left() -> int:
        pieces = merged([source("a", 3, 60.0), source("b", 500)])
        assert (await anext(pieces))[0] == 1
        await pieces.aclose()
        return len(asyncio.all_tasks())

    assert asyncio.run(left()) == 1 and sorted(closed) == ["a", "b"], "closing it closes them all"

    async def nothing() -> list[Any]:
        return [each async for each in merged([])]

    assert asyncio.run(nothing()) == []


def test_a_body_with_two_lengths_is_refused() -> None:
    both = (
        b"POST /x HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    with pytest.raises(h11.RemoteProtocolError, match="two lengths"):
        events(connection(), both)
    for header in (b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"):
        assert "Request" in events(connection(), both.replace(header, b""))[:1]
