"""Streams of MCP and A2A peers: a line is passed on once it was counted, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from firsthand.errors import ModelError
from firsthand.system.line_buffer import LineBuffer


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_line_is_held_back_until_it_ends(end: bytes) -> None:
    whole = end.join([b"one", b"", b"two", b"thr"])
    for size in range(1, len(whole) + 1):
        buffer, given = LineBuffer(), list[bytes]()
        for at in range(0, len(whole), size):
            given.append(buffer.add(whole[at : at + size]))
            assert not given[-1] or given[-1].endswith((b"\n", b"\r"))
            assert len(b"".join(given)) + len(buffer) == min(at + size, len(whole))
        held = len(buffer)
        given.append(buffer.rest())
        assert b"".join(given) == whole and len(given[-1]) == held == 3 and len(buffer) == 0
        # an end in two pieces makes no blank line, which would end an event
        assert [line for each in given for line in each.splitlines()] == [b"one", b"", b"two", b"thr"]


def test_the_first_half_of_an_end_waits_for_the_second() -> None:
    buffer = LineBuffer()
    assert (buffer.add(b"a\r"), buffer.add(b"\n"), buffer.add(b"b\r"), buffer.add(b"c")) == (b"", b"a\r\n", b"", b"b\r")
    assert (buffer.add(b"\r"), buffer.add(b"\r"), buffer.rest(), buffer.rest()) == (b"", b"c\r", b"\r", b"")


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_no_byte_of_a_dense_event_is_passed_on_whatever_ends_its_lines(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpx = pytest.importorskip("httpx")
    from firsthand.providers import a2a_transport

    monkeypatch.setattr(a2a_transport, "MAX_VALUES", 10)

    def got(*pieces: bytes, kind: str = kind) -> bytes | str:
        class Sent(httpx.AsyncByteStream):  # type: ignore[misc,name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for each in pieces:
                    yield each

        async def answer(self: Any, request: Any) -> Any:
            return httpx.Response(200, headers={"content-type": kind}, stream=Sent())

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
        seen = b""

        async def main() -> bytes | str:
            nonlocal seen
            async with a2a_transport.bounded_client("", 1.0, "http://h") as client:
                try:
                    async with client.stream("GET", "http://h/") as response:
                        async for piece in response.aiter_bytes():
                            seen += piece
                except ModelError as error:
                    assert b"," not in seen
                    return str(error)
            return seen

        return asyncio.run(main())

    dense = "a2a:http://h sent more than 10 JSON values at once, so they are not read"
    for end in (b"\n", b"\r", b"\r\n", b"\x0b", b"\xe2\x80\xa8"):
        assert got(b"data: [1", b",2" * 10 + end + end, b"x") == dense
    assert got(b"data: " + b"[" * 6 + b"\r", b"\n" + b"[" * 6 + b"\n") == dense, "CR and LF are one end, in two pieces"
    fine = (b"data: [1", b",2" * 8 + b"\r\n\r", b'\ndata: [",,,,,,,,,,,,"]\n\n')
    assert got(*fine) == b"".join(fine)
    other = "a2a:http://h sent text that is not in UTF-8, so it is not read"
    assert got('{"a": 1}'.encode("utf-16")) == other == got(b"+ACw-", kind=f"{kind}; charset=utf-7")
    assert got(b"{}", kind=f"{kind}; charset=UTF-8") == b"{}"


def test_events_of_mcp_in_an_encoding_that_hides_their_commas_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    httpx2 = pytest.importorskip("httpx2")
    pytest.importorskip("mcp")
    from firsthand.tools.mcp.http_endpoint import BoundedTransport
    from firsthand.tools.mcp.server_declaration import ServerDeclaration

    async def sent(charset: str) -> int:
        async def answer(self: Any, request: Any) -> Any:
            return httpx2.Response(
                200, headers={"content-type": f"text/event-stream{charset}"}, stream=httpx2.ByteStream(b"")
            )

        monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", answer)
        transport = BoundedTransport(ServerDeclaration("s", url="https://h/"))
        return int((await transport.handle_async_request(httpx2.Request("POST", "https://h/"))).status_code)

    assert [asyncio.run(sent(each)) for each in ("", "; charset=utf-8", ";charset=ISO-8859-1")] == [200] * 3
    for each in ("utf-7", "utf-16"):
        with pytest.raises(httpx2.ReadError, match=f"^the events are in '{each}': UTF-8 was expected$"):
            asyncio.run(sent(f"; charset={each}"))


def test_an_answer_is_told_as_it_grows_and_no_more_once_its_beginning_changed() -> None:
    from firsthand.providers.a2a_answer import Answer

    def told(*puts: tuple[str, str, bool]) -> tuple[list[str], str]:
        answer, news = Answer("a2a:http://host"), list[str]()
        for artifact, text, append in puts:
            answer.put(artifact, text, append=append)
            news.append(answer.news())
        return news, answer.text

    assert told(("1", "a", True), ("1", "b", True), ("2", "c", False)) == (["a", "b", "\n\nc"], "ab\n\nc")
    assert told(("1", "a", False), ("1", "ab", False), ("1", "ab", False)) == (["a", "b", ""], "ab"), "all of it again"
    assert told(("1", "ab", False), ("1", "b", False), ("1", "c", True)) == (["ab", "", ""], "bc")
    assert told(("1", "a", True), ("2", "b", True), ("1", "", True), ("2", "c", True)) == (
        ["a", "\n\nb", "", "c"], "a\n\nbc",
    )  # fmt: skip
    assert told(("1", "a", True), ("2", "b", True), ("1", "x", True), ("2", "c", True)) == (
        ["a", "\n\nb", "", ""], "ax\n\nbc",
    )  # fmt: skip


def test_a_page_whose_gzip_has_ended_is_not_copied_with_each_piece_that_follows() -> None:
    import gzip

    pytest.importorskip("httpcore")
    from firsthand.tools.fetch import read_body

    class Page:
        async def aiter_stream(self) -> AsyncIterator[bytes]:
            packed = gzip.compress(b"hi")
            yield packed[:9]
            yield packed[9:]
            for _ in range(50):
                yield b"\xff"

    assert asyncio.run(read_body(Page(), "gzip", 1_000)) == (b"hi", False)  # type: ignore[arg-type]
    assert asyncio.run(read_body(Page(), "gzip", 60)) == (b"hi", True)  # type: ignore[arg-type]
