"""Signing in to an MCP server, and the endpoint that its client reaches: what a person is shown, and what is let through."""

from __future__ import annotations

import asyncio
import io
import queue
import socket
import struct
import threading
import webbrowser
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpcore2
import httpx2

from firsthand.errors import ToolError
from firsthand.system.terminal import Terminal
from firsthand.tools.mcp import oauth_sign_in
from firsthand.tools.mcp.http_endpoint import BoundedTransport, EndpointBackend, _Counted, _Events
from firsthand.tools.mcp.oauth_sign_in import BrowserSignIn, _same_but_port, oauth
from firsthand.tools.mcp.server_declaration import ServerDeclaration

WEB = ServerDeclaration("web", url="https://h.example/mcp")


def signed_in(
    *requests: bytes, ends: bool = True, declared: ServerDeclaration = WEB, registers_anew: bool = False
) -> Any:
    """What the sign-in gives, or its error, when a browser sends these requests."""

    async def main() -> Any:
        sign_in = BrowserSignIn(declared, registers_anew=registers_anew)
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
        b"GET /callback?code= HTTP/1.1\r\n\r\n", b"GET /callback?state=s&code=%C3%A9&code=x&iss=i HTTP/1.1\r\n\r\n"
    )
    assert (found.code, found.state, found.iss) == ("é", "s", "i"), "an empty code is none"


def test_a_request_is_read_up_to_its_limit_and_nobody_is_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = b"GET /callback?code=c HTTP/1.1\r\nx: "
    found = signed_in(head + b"y" * (oauth_sign_in.MAX_REQUEST - len(head)), ends=False)
    assert (found.code, found.state, found.iss) == ("c", None, None)
    monkeypatch.setattr(oauth_sign_in, "SIGN_IN_S", 0.05)
    said = (
        "nobody signed in to MCP server web within 0.05 s; if its page does not know this client, run `firsthand mcp "
        "--sign-in https://h.example/mcp`, which registers it anew"
    )
    assert signed_in() == signed_in(b"GET /callback?state=s HTTP/1.1\r\n\r\n") == said
    short = "nobody signed in to MCP server web within 0.05 s"
    assert signed_in(registers_anew=True) == short
    assert signed_in(declared=replace(WEB, issuer="https://i.example", client_id="me")) == short


def test_connections_without_a_request_or_a_path_are_passed_over() -> None:
    code = b"GET /callback?code=c HTTP/1.1\r\n\r\n"
    for others in (
        [b""],
        [b"", b""],
        [b"\r\n\r\n"],
        [b"GET\r\n\r\n"],
        [b"GET \r\n\r\n"],
        [b"\xff\xfe"],
        [b" / x\r\n\r\n"],
    ):
        found = signed_in(*others, code)
        assert (found.code, found.state, found.iss) == ("c", None, None), others
    for alone in (b"GET /callback?code=c", b"GET /callback?code=c\r\n", b"\xe4 /callback?code=c x y\r\n\r\n"):
        assert signed_in(alone).code == "c", alone
    assert signed_in(b"GET /callback?code=%E4&state=\xe4 HTTP/1.1\r\n\r\n").state == "\xe4", (
        "latin-1, as heads of HTTP are"
    )


@pytest.mark.parametrize(
    ("sent", "own"), [(b"", False), (b"GET /x HTTP/1.1\r\n", False), (b"GET /callback?code=own\r\n\r\n", True)]
)
def test_a_connection_that_the_browser_resets_does_not_end_the_sign_in(sent: bytes, own: bool) -> None:
    async def main() -> Any:
        sign_in = BrowserSignIn(WEB)
        try:
            port = int(sign_in.redirect_uri.split(":")[2].split("/")[0])
            with socket.create_connection(("127.0.0.1", port)) as reset:
                reset.sendall(sent)
                reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with socket.create_connection(("127.0.0.1", port)) as browser:
                browser.sendall(b"GET /callback?code=c&state=s HTTP/1.1\r\n\r\n")
                async with asyncio.timeout(3.0):
                    found = await sign_in.answer()
                browser.settimeout(3.0)
                page = b"" if found.code == "own" else browser.recv(1000)
            return found.code, page.decode().split("\r\n\r\n")[-1]
        finally:
            sign_in.close()

    told = ("c", "Signed in: you may close this page.\n")
    assert asyncio.run(main()) in ((("own", ""), told) if own else (told,)), "what was reset may have been read before"


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_request_without_an_end_is_answered_at_its_limit_while_its_sender_goes_on(pieces: int) -> None:
    head = b"GET /callback?code=c&state=s&state=t&iss=i HTTP/1.1\r\nx: "
    whole = head + b"y" * (oauth_sign_in.MAX_REQUEST - len(head))

    async def main() -> None:
        sign_in = BrowserSignIn(WEB)
        answer = asyncio.ensure_future(sign_in.answer())
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(sign_in.redirect_uri.split(":")[2][:-9]))
            size = (len(whole) - 1) // pieces + 1
            for at in range(0, len(whole) - 1, size):
                writer.write(whole[at : min(at + size, len(whole) - 1)])
                await writer.drain()
            await asyncio.wait({answer}, timeout=0.05)
            assert not answer.done(), "one byte is left"
            writer.write(whole[-1:])
            async with asyncio.timeout(2.0):
                found = await answer
                page = await reader.readuntil(b"page.\n")
            assert (found.code, found.state, found.iss) == ("c", "s", "i"), "the first of two"
            assert page == (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
                b"Signed in: you may close this page.\n"
            )
            writer.close()
        finally:
            answer.cancel()
            sign_in.close()

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        b"GET /callback?code=c HTTP/1.1\r",
        b"GET /callback?code=c",
        b"GET  /callback?code=c HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_a_request_that_ends_early_is_read_as_far_as_it_came(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth_sign_in, "SIGN_IN_S", 0.2)
    found = signed_in(head)
    if head.startswith(b"GET /"):
        assert (found.code, found.state, found.iss) == ("c", None, None)
    else:
        assert found.startswith("nobody signed in to MCP server web within 0.2 s; ")


def test_no_browser_opens_without_a_terminal_whatever_display_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, shown = list[str](), io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "XDG_SESSION_TYPE", "FORCE_COLOR", "TERM", "SSH_TTY", "CI"):
        monkeypatch.setenv(name, "1")
    sign_in = BrowserSignIn(WEB)
    try:
        with pytest.raises(ToolError) as told:
            asyncio.run(sign_in.redirect("https://auth.example/"))
    finally:
        sign_in.close()
    assert str(told.value) == (
        "MCP server web asks to sign in, and there is no terminal: run `firsthand mcp --sign-in https://h.example/mcp` "
        "once at a terminal"
    )
    assert opened == [] and shown.getvalue() == ""


def test_a_browser_opens_a_page_once_the_person_who_was_shown_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    answers: list[str | None] = ["no", None, "yes"]

    class Person(Terminal):
        def is_there(self) -> bool:
            return True

        async def choose(self, question: str, choices: Any) -> str | None:
            asked.append((question, choices))
            return answers.pop(0)

    left, opened = threading.Event(), queue.Queue[str]()
    monkeypatch.setattr(webbrowser, "open", lambda url: (opened.put(url), left.wait(5.0)))

    async def main() -> None:
        sign_in = BrowserSignIn(WEB, Person())
        page = "https://you@auth.example:8/a\x1b?b"
        try:
            for _ in range(2):
                with pytest.raises(ToolError) as refused:
                    await sign_in.redirect(page)
                said = "nobody signed in to MCP server web: the page at auth.example:8 was not opened"
                assert str(refused.value) == said and opened.empty()
            await sign_in.redirect(page)  # returns while the browser runs
            assert opened.get(timeout=3.0) == page and opened.empty() and not left.is_set()
            shown = "  https://you@auth.example:8/a\\x1b?b"
            first = "firsthand: MCP server web asks you to sign in at auth.example:8"
            assert asked == [(f"{first}\n{shown}\nOpen it in the browser?", ("yes", "no"))] * 3
            for bad, said in (
                ("javascript:" + "x" * 80, f"at 'javascript:{'x' * 69}', which is no web address"),
                ("https://a/" + "x" * 3_991, "at an address of 4,001 characters: 4,000 are the limit"),
            ):
                with pytest.raises(ToolError) as raised:
                    await sign_in.redirect(bad)
                assert str(raised.value) == f"MCP server web asks to sign in {said}"
            flow = oauth(replace(WEB, client_metadata_url="https://c/x"), sign_in).context
            assert flow.redirect_handler == sign_in.redirect and flow.callback_handler == sign_in.answer
            assert flow.storage._declaration.client_metadata_url == "https://c/x"  # type: ignore[attr-defined]
            assert flow.client_metadata.client_name == "firsthand"
        finally:
            left.set()
            sign_in.close()

    asyncio.run(main())


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


def test_a_client_asks_the_resolver_that_it_was_given_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    asked: list[Any] = []
    places = {"site.example": ["127.0.0.1"], "inner.example": ["93.184.216.34", "10.0.0.1"], "none.example": []}

    async def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return places[host]

    async def main() -> None:
        heads: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        declared = ServerDeclaration("p", url=f"http://127.0.0.1:{port}/mcp", allow="site.example")
        async with server, BoundedTransport(declared, resolver) as transport:
            for url, lookups in ((f"http://site.example:{port}/a?b", 1), (declared.url, 1)):
                response = await transport.handle_async_request(httpx2.Request("GET", url))
                assert (response.status_code, await response.aread()) == (200, b"{}")
                assert asked == [("site.example", port)] * lookups, "the endpoint's own address is not looked up"
            for host, said in (
                (
                    "inner.example",
                    "'inner.example' is at 10.0.0.1, which is no public address: it may not be reached from here",
                ),
                ("none.example", "the host 'none.example' has no address"),
            ):
                with pytest.raises(ToolError) as told:
                    await transport.handle_async_request(httpx2.Request("GET", f"http://{host}/"))
                assert str(told.value) == said
        assert [head.split(b"\r\n")[0] for head in heads] == [b"GET /a?b HTTP/1.1", b"GET /mcp HTTP/1.1"]
        assert asked[1:] == [("inner.example", 80), ("none.example", 80)]

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
