"""Event streams of the A2A door: JSON without characters that some readers take for line ends, and comments in silence."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from firsthand.serve.a2a.event_stream import readable_events
from firsthand.system.line_separators import escape_separators

Message = dict[str, Any]
STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
PING = b": ping\r\n\r\n"


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_line_separators_of_json_are_escaped_and_nothing_else_is() -> None:
    text = "a\u2028b\u2029c\x85d é\xa8 \u2027\u202a\u0084\u0086 e"
    raw = json.dumps({"said": text}, ensure_ascii=False).encode()
    escaped = escape_separators(b"data: " + raw + b"\r\n\r\n")
    assert json.loads(escaped[6:]) == {"said": text}
    assert (
        escaped
        == b"data: "
        + raw.replace("\u2028".encode(), rb"\u2028")
        .replace("\u2029".encode(), rb"\u2029")
        .replace(b"\xc2\x85", rb"\u0085")
        + b"\r\n\r\n"
    )
    assert len(escaped.decode().splitlines()) == 2
    assert escape_separators("é\xa8 \u2027\u202a\x84".encode()) == "é\xa8 \u2027\u202a\x84".encode()


def told(app: Any, *, ping_s: float = 60.0) -> list[Message]:
    """What a server is told by an app that sends through `readable_events`."""
    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)

    async def main() -> None:
        async with readable_events(send, ping_s) as sent:  # type: ignore[arg-type]
            await app(sent)
        before = len(found)
        await asyncio.sleep(3 * ping_s if ping_s < 1 else 0)
        assert len(found) == before, "nothing is sent after the app has ended"

    asyncio.run(main())
    return found


def test_an_event_stream_is_escaped_and_another_response_is_left_as_it_is() -> None:
    raw = 'data: {"a": "\u2028\x85"}\r\n\r\n'.encode()

    async def streams(send: Any) -> None:
        await send(STREAM)
        await send(piece(raw))
        await send(piece(raw, more=False))

    escaped = rb'data: {"a": "\u2028\u0085"}' + b"\r\n\r\n"
    assert told(streams) == [STREAM, piece(escaped), piece(escaped, more=False)]
    plain = {**STREAM, "headers": [(b"content-type", b"application/json")]}

    async def answers(send: Any) -> None:
        await send(plain)
        await asyncio.sleep(0.05)
        await send(piece(raw, more=False))

    assert told(answers, ping_s=0.01) == [plain, piece(raw, more=False)]


def test_a_silent_stream_has_comments_until_its_last_piece() -> None:
    async def slow(send: Any) -> None:
        await send(STREAM)
        await asyncio.sleep(0.1)
        await send(piece(b"data: 1\r\n\r\n"))
        await asyncio.sleep(0.1)
        await send(piece(b"", more=False))
        await asyncio.sleep(0.1)

    start, *pieces = told(slow, ping_s=0.02)
    bodies = [each["body"] for each in pieces]
    at = bodies.index(b"data: 1\r\n\r\n")
    assert start == STREAM and pieces[-1] == piece(b"", more=False) and all(each["more_body"] for each in pieces[:-1])
    assert 1 <= at <= 5 and set(bodies[:at]) == {PING}
    assert 1 <= len(bodies[at + 1 : -1]) <= 5 and set(bodies[at + 1 : -1]) == {PING}

    async def quick(send: Any) -> None:
        await send(STREAM)
        for at in range(25):
            await send(piece(b"data: %d\r\n\r\n" % at))
            await asyncio.sleep(0.02)
        await send(piece(b"", more=False))

    assert PING not in [each.get("body") for each in told(quick, ping_s=0.2)]


def test_comments_do_not_break_into_a_piece_that_its_client_takes_slowly_and_end_where_the_client_has_gone() -> None:
    found: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            found.append(message["body"])
            await asyncio.sleep(0.1 if message["body"] != PING else 0)
            if message["body"] == PING:
                raise OSError("gone")
            found.append(message["body"])

    async def main() -> None:
        async with readable_events(send, 0.01) as sent:  # type: ignore[arg-type]
            await sent(STREAM)
            await sent(piece(b"one"))
            await asyncio.sleep(0.1)
            assert found == [b"one", b"one", PING], "one comment failed, and no other was tried"
            await sent(piece(b"two", more=False))

    asyncio.run(main())
    assert found[3:] == [b"two", b"two"]

    async def broken(sent: Any) -> None:
        await sent(STREAM)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        told(broken, ping_s=0.01)
