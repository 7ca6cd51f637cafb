"""Signing in to an MCP server, and the endpoint that its client reaches: what a person is shown, and what is let through."""

from __future__ import annotations

import asyncio
import io
import socket
import webbrowser
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpcore2
import httpx2

from firsthand.errors import ToolError
from firsthand.tools.mcp import oauth_sign_in
from firsthand.tools.mcp.http_endpoint import BoundedTransport, EndpointBackend, _Counted, _Events
from firsthand.tools.mcp.oauth_sign_in import BrowserSignIn, _same_but_port, oauth
from firsthand.tools.mcp.server_declaration import ServerDeclaration

WEB = ServerDeclaration("web", url="https://h.example/mcp")


def signed_in(*requests: bytes, ends: bool = True) -> Any:
    """What the sign-in gives, or its error, when a browser sends these requests."""

    async def main() -> Any:
        sign_in = BrowserSignIn(WEB)
        try:
            answer = asyncio.ensure_future(sign_in.answer())
            port = int(sign_in.redirect_uri.split(":")[2].split("/")[0])
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                if ends:
                    writer.write_eof()
                    reading = asyncio.ensure_future(reader.read())
                    await asyncio.wait({answer, reading}, return_when="FIRST_COMPLETED")
                    reading.cancel()
                else:
                    await asyncio.wait({answer}, timeout=3.0)
                writer.close()
            async with asyncio.timeout(3.0):
                return await answer
        except ToolError as error:
            return str(error)
        finally:
            sign_in.close()

    return asyncio.run(main())


def test_a_refusal_is_told_in_few_words_and_goes_before_a_code() -> None:
    refused = "signing in to MCP server web was refused: "
    assert signed_in(b"GET /callback?error=" + b"e" * 81 + b" HTTP/1.1\r\n\r\n") == refused + "e" * 80
    assert signed_in(b"GET /callback?code=c&error=no&error=two HTTP/1.1\r\n\r\n") == refused + "no"
    found = signed_in(
        b"GET /callback?code= HTTP/1.1\r\n\r\n", b"GET /?state=s&code=%C3%A9&code=x&iss=i HTTP/1.1\r\n\r\n"
    )
    assert (found.code, found.state, found.iss) == ("é", "s", "i"), "an empty code is none"


def test_a_request_is_read_up_to_its_limit_and_nobody_is_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = b"GET /callback?code=c HTTP/1.1\r\nx: "
    found = signed_in(head + b"y" * (oauth_sign_in.MAX_REQUEST - len(head)), ends=False)
    assert (found.code, found.state, found.iss) == ("c", None, None)
    monkeypatch.setattr(oauth_sign_in, "SIGN_IN_S", 0.05)
    assert signed_in() == "nobody signed in to MCP server web within 0.05 s"
    assert signed_in(b"GET /callback?state=s HTTP/1.1\r\n\r\n") == "nobody signed in to MCP server web within 0.05 s"


def test_a_person_at_a_terminal_is_shown_the_address_and_their_browser_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, opened = Terminal(), list[str]()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(webbrowser, "open", opened.append)

    async def main() -> None:
        sign_in = BrowserSignIn(WEB)
        try:
            await sign_in.redirect("https://auth.example/a\x1b?b")
            with pytest.raises(ToolError) as raised:
                await sign_in.redirect("javascript:" + "x" * 80)
            said = f"MCP server web asks to sign in at 'javascript:{'x' * 69}', which is no web address"
            assert str(raised.value) == said
            flow = oauth(replace(WEB, client_metadata_url="https://c/x"), sign_in).context
            assert flow.redirect_handler == sign_in.redirect and flow.callback_handler == sign_in.answer
            assert flow.storage._declaration.client_metadata_url == "https://c/x"  # type: ignore[attr-defined]
            assert flow.client_metadata.client_name == "firsthand"
        finally:
            sign_in.close()

    asyncio.run(main())
    assert opened == ["https://auth.example/a\x1b?b"]
    lines = shown.getvalue().split("\n")
    assert lines[0] == "firsthand: MCP server web asks you to sign in at" and "\x1b" not in lines[1] and len(lines) == 3
    assert lines[1].startswith("  https://auth.example/a") and lines[1].endswith("?b")


def test_an_address_is_the_same_but_for_its_port() -> None:
    known = ["https://o/callback", "http://127.0.0.1:5/callback"]
    assert _same_but_port("http://127.0.0.1:7/callback", known) and not _same_but_port("http://127.0.0.1:5/", known)
    for other in ("https://127.0.0.1:5/callback", "http://127.0.0.2:5/callback", "http://o/callback"):
        assert not _same_but_port(other, known)
    assert not _same_but_port("http://127.0.0.1:7/callback", [])


class Lines(httpcore2.AsyncNetworkBackend):
    """Connects to `there` alone, and keeps what it was asked."""

    def __init__(self, there: str) -> None:
        self.there, self.asked = there, list[Any]()

    async def connect_tcp(self, host: str, *rest: Any, **more: Any) -> Any:
        self.asked.append((host, *rest))
        if host != self.there:
            raise (httpcore2.ConnectError if len(self.asked) % 2 else httpcore2.ConnectTimeout)(host)
        return f"a stream to {host}"


def test_the_endpoint_is_reached_by_its_name_and_others_by_their_first_four_addresses() -> None:
    addresses = [f"93.184.216.{number}" for number in range(1, 6)]

    async def resolver(host: str, port: int) -> list[str]:
        return addresses

    async def reached(there: str, host: str, port: int, url: str = "https://H.example:8/mcp", allow: str = "") -> Any:
        backend = EndpointBackend(ServerDeclaration("p", url=url, allow=allow), resolver)
        lines = backend._inner = Lines(there)  # type: ignore[assignment]
        try:
            return await backend.connect_tcp(host, port, 2.5, "10.0.0.1", ["o"]), lines.asked
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, ToolError) as error:
            return str(error), lines.asked

    rest = (2.5, "10.0.0.1", ["o"])
    assert asyncio.run(reached("h.EXAMPLE", "h.EXAMPLE", 8)) == ("a stream to h.EXAMPLE", [("h.EXAMPLE", 8, *rest)])
    tried = [(each, 443, *rest) for each in addresses]
    assert asyncio.run(reached(addresses[3], "o.example", 443)) == (f"a stream to {addresses[3]}", tried[:4])
    assert asyncio.run(reached(addresses[4], "o.example", 443)) == (addresses[3], tried[:4])
    assert asyncio.run(reached("", "h.example", 9)) == ("port 9 may not be used: 80, 443 may", [])
    port = [(each, 9, *rest) for each in addresses]
    assert asyncio.run(reached(addresses[0], "o.example", 9, allow="o.example")) == (
        f"a stream to {addresses[0]}",
        port[:1],
    )
    local = asyncio.run(reached("[::1]", "[::1]", 8, url="http://[::1]:8/"))
    assert local == ("a stream to [::1]", [("[::1]", 8, *rest)])


def test_a_response_is_counted_by_its_kind_and_a_compressed_one_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"{}"

        async def aclose(self) -> None:
            closed.append(True)

    async def main() -> None:
        transport = BoundedTransport(WEB)
        headers: dict[str, str] = {}

        async def answer(self: Any, request: Any) -> httpx2.Response:
            return httpx2.Response(200, headers=headers, stream=Body())

        monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", answer)

        async def sent(method: str, **given: str) -> Any:
            headers.clear()
            headers.update({key.replace("_", "-"): value for key, value in given.items()})
            return (await transport.handle_async_request(httpx2.Request(method, WEB.url))).stream

        events = "text/event-stream; charset=utf-8"
        first, second = await sent("GET", content_type=events), await sent("GET", content_type=events)
        own, other = await sent("POST", content_type=events), await sent("POST", content_type=events)
        assert all(type(each) is _Events for each in (first, second, own, other))
        assert first._flow is second._flow is transport._listening and own._flow is not other._flow
        assert own._flow is not transport._listening
        for plain in ({}, {"content_type": "application/json"}, {"content_encoding": " Identity "}):
            assert type(await sent("GET", **plain)) is _Counted
        for packed in ("gzip", "identity, gzip"):
            with pytest.raises(httpx2.ReadError, match=r"^the response is compressed, which was not asked for$"):
                await sent("POST", content_encoding=packed)
        assert closed == [True, True]

    asyncio.run(main())


def test_the_listener_of_a_sign_in_is_reached_at_its_own_loopback_address_alone() -> None:
    sign_in, other = BrowserSignIn(WEB), BrowserSignIn(WEB)
    try:
        head, host, end = sign_in.redirect_uri.split(":")
        port, path = end.split("/")
        assert (head, host, path) == ("http", "//127.0.0.1", "callback") and sign_in.redirect_uri != other.redirect_uri
        socket.create_connection(("127.0.0.1", int(port)), 1.0).close()
        with pytest.raises(OSError):  # another address of this machine
            socket.create_connection(("127.0.0.2", int(port)), 1.0).close()
    finally:
        sign_in.close()
        other.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), 1.0)
