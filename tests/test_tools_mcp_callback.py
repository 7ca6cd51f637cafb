"""The loopback port of a sign-in: what counts as the browser's answer, and what other connections cannot do to it."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.errors import ToolError
from firsthand.system.terminal import Terminal
from firsthand.tools.mcp import oauth_sign_in
from firsthand.tools.mcp.oauth_sign_in import MAX_CONNECTIONS, BrowserSignIn
from firsthand.tools.mcp.server_declaration import ServerDeclaration

WEB = ServerDeclaration("web", url="https://h.example/mcp")
NO_ANSWER = "This is no answer to the sign-in that firsthand waits for."
PAGE = "https://auth.example/authorize?state=own&client_id=c"


class Agrees(Terminal):
    """A person who opens every page."""

    def is_there(self) -> bool:
        return True

    async def choose(self, question: str, choices: Any) -> str | None:
        return "yes"


async def page(port: int, target: str) -> tuple[str, str]:
    """The status and the text of the page for a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1"))
    async with asyncio.timeout(3.0):
        head, _, text = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head.split("\r\n")[0].removeprefix("HTTP/1.1 "), text.strip()


def signing_in(before: Callable[[int], Awaitable[Any]], *shown: str, answer: str = "code=good&state=own") -> Any:
    """What the sign-in gives for an answer that comes after other visits, once it has shown these pages."""

    async def main() -> Any:
        sign_in = BrowserSignIn(WEB, Agrees())
        port = int(sign_in.redirect_uri.removesuffix("/callback").rpartition(":")[2])
        try:
            for each in shown:
                await sign_in.redirect(each)
            waiting = asyncio.ensure_future(sign_in.answer())
            await asyncio.sleep(0)
            held = await before(port)
            assert not waiting.done(), "something else has ended the sign-in"
            told = await page(port, f"/callback?{answer}")
            async with asyncio.timeout(3.0):
                found = await waiting
            assert told == ("200 OK", "Signed in: you may close this page.")
            del held
            return found.code, found.state, found.iss
        finally:
            sign_in.close()

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: True)


async def nothing(port: int) -> None:
    """No visit before the browser's."""


@pytest.mark.parametrize("sent", [b"", b"GET /callback?code=good&state=own HTTP/1.1\r\nHost: h\r\n"])
def test_connections_that_send_no_whole_request_do_not_hold_up_the_answer(sent: bytes) -> None:
    async def idle(port: int) -> Any:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in held:
            writer.write(sent)
            await writer.drain()
        await asyncio.sleep(0.05)
        return held

    began = time.monotonic()
    assert signing_in(idle, PAGE) == ("good", "own", None)
    assert time.monotonic() - began < 3.0


def test_a_connection_without_a_request_is_closed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert oauth_sign_in.REQUEST_S <= 10.0
    monkeypatch.setattr(oauth_sign_in, "REQUEST_S", 0.1)

    async def idle(port: int) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /callback?code=early&state=own HTTP/1.1\r\n")
        async with asyncio.timeout(3.0):
            assert await reader.read() == b""

    assert signing_in(idle, PAGE) == ("good", "own", None)


def test_more_connections_than_are_read_at_once_close_the_oldest_and_not_the_answer() -> None:
    async def crowd(port: int) -> Any:
        held = []
        for _ in range(MAX_CONNECTIONS + 1):
            held.append(await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(0)
        async with asyncio.timeout(3.0):
            assert await held[0][0].read() == b""
        second = asyncio.ensure_future(held[1][0].read())
        await asyncio.wait({second}, timeout=0.1)
        assert not second.done(), "only the oldest is closed"
        second.cancel()
        return held

    assert signing_in(crowd, PAGE) == ("good", "own", None)


def test_connections_that_are_over_are_not_counted() -> None:
    async def visits(port: int) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(MAX_CONNECTIONS + 1):
            assert await page(port, "/favicon.ico") == ("404 Not Found", NO_ANSWER)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 "), "it was there first, and one of two"

    assert signing_in(visits, PAGE) == ("good", "own", None)


def test_an_answer_in_a_crowd_that_was_there_before_anybody_listened_is_read() -> None:
    async def main() -> Any:
        sign_in = BrowserSignIn(WEB)
        address = ("127.0.0.1", int(sign_in.redirect_uri.removesuffix("/callback").rpartition(":")[2]))
        # asyncio accepts what waits without giving way, so the crowd comes before the answer has been read
        held = [socket.create_connection(address)]
        held[0].sendall(b"GET /callback?code=good HTTP/1.1\r\n\r\n")
        held += [socket.create_connection(address) for _ in range(MAX_CONNECTIONS + 10)]
        try:
            async with asyncio.timeout(3.0):
                return (await sign_in.answer()).code
        finally:
            sign_in.close()
            for each in held:
                each.close()

    assert asyncio.run(main()) == "good"


def test_a_connection_that_cannot_be_accepted_does_not_end_a_sign_in() -> None:
    class Full(socket.socket):
        failures = 2

        def accept(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def main() -> Any:
        sign_in = BrowserSignIn(WEB)
        port = int(sign_in.redirect_uri.removesuffix("/callback").rpartition(":")[2])
        sign_in._listener = Full(fileno=sign_in._listener.detach())
        sign_in._listener.setblocking(False)
        try:
            waiting = asyncio.ensure_future(sign_in.answer())
            await page(port, "/callback?code=good")
            return (await waiting).code
        finally:
            sign_in.close()

    assert asyncio.run(main()) == "good"


@pytest.mark.parametrize(
    "target",
    [
        "//[x",
        "http://[x/callback?code=evil&state=own",
        "/anything?error=access_denied&state=own",
        "/callback/?code=evil&state=own",
        "/?code=evil&state=own",
        "?code=evil&state=own",
        "/callback?code=evil",
        "/callback?code=evil&state=other",
        "/callback?code=evil&state=other&state=own",
        "/callback?error=access_denied",
        "/callback?error=access_denied&state=OWN",
        "/callback?state=own",
        "/callback?code=&error=&state=own",
        "/callback#?code=evil&state=own",
        "/x?" + "&".join(["a=1"] * 3000),
        "/favicon.ico",
    ],
)
def test_no_other_request_ends_a_sign_in(target: str) -> None:
    async def visit(port: int) -> None:
        assert await page(port, target) == ("404 Not Found", NO_ANSWER)

    assert signing_in(visit, PAGE, answer="code=good&state=own&iss=i") == ("good", "own", "i")


def test_an_answer_has_the_state_of_the_page_that_was_shown_last() -> None:
    async def stale(port: int) -> None:
        assert await page(port, "/callback?code=old&state=first") == ("404 Not Found", NO_ANSWER)

    assert signing_in(stale, "https://a.example/?state=first", PAGE) == ("good", "own", None)
    assert signing_in(stale, "https://a.example/?state=first&state=own") == ("good", "own", None)
    assert signing_in(nothing, "https://a.example/?x=1", answer="code=good") == ("good", None, None)


def test_a_refusal_with_the_state_of_the_page_ends_the_sign_in() -> None:
    async def main() -> None:
        sign_in = BrowserSignIn(WEB, Agrees())
        port = int(sign_in.redirect_uri.removesuffix("/callback").rpartition(":")[2])
        try:
            await sign_in.redirect(PAGE)
            waiting = asyncio.ensure_future(sign_in.answer())
            told = await page(port, "/callback?error=access_denied&state=own&code=c")
            assert told == ("200 OK", "Signing in was refused: you may close this page.")
            with pytest.raises(ToolError, match="signing in to MCP server web was refused: access_denied"):
                await waiting
        finally:
            sign_in.close()

    asyncio.run(main())
