"""What an MCP server asks for during a call, the sign-in, and the one endpoint that its client reaches."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpcore2
import httpx2
import mcp_types as types

from cpu_time import at_most_cpu_s
from firsthand.errors import AnswerPending, ToolError
from firsthand.loop.approval import Approval
from firsthand.loop.calling import caller
from firsthand.providers.scripted import Scripted
from firsthand.tools.mcp import http_endpoint
from firsthand.tools.mcp.http_endpoint import MAX_BODY, EndpointBackend, _Counted, _Events, http_client
from firsthand.tools.mcp.message_flow import ALLOWANCE, MAX_VALUES, TOO_DENSE, TOO_OFTEN, MessageFlow
from firsthand.tools.mcp.oauth_sign_in import BrowserSignIn, oauth
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import MAX_MESSAGE, RequestAnswers
from mcp_questions import SERVER, Person, during_a_call, form, notes, said

MANY_MARKS = "\u0301" * 20_000 + "\u0316" * 20_000
IMAGE = types.ImageContent(type="image", data="QUJD", mime_type="image/png")


def test_a_completion_is_asked_for_as_the_server_says_within_bounds() -> None:
    messages = [said("user", "one", IMAGE, "two"), said("assistant", "three")]
    model = Scripted(["teal", "red", "blue"])

    async def work(answers: RequestAnswers) -> Any:
        more: Any = {"system_prompt": "Be brief.", "temperature": -1.0, "stop_sequences": list("abcdefghij")}
        full = types.CreateMessageRequestParams(messages=messages, max_tokens=9_999, **more)
        small = types.CreateMessageRequestParams(messages=messages[1:], max_tokens=-3, temperature=0.5)
        exact = types.CreateMessageRequestParams(messages=messages[1:], max_tokens=4_096)
        return [await answers.sample(None, each) for each in (full, small, exact)]

    (first, *others), trace = during_a_call(work, model=model)
    assert (first.role, first.content.text, first.model, first.stop_reason) == ("assistant", "t", "scripted", "endTurn")
    assert [each.content.text for each in others] == ["red", "blue"]
    full, small, exact = model.asked
    assert [(each.role, each.text) for each in full.prompt] == [
        ("system", "Be brief."), ("user", "one\n[image]\ntwo"), ("assistant", "three"),
    ]  # fmt: skip
    assert [(each.role, each.text) for each in small.prompt] == [("assistant", "three")]
    assert (full.sampling.max_tokens, full.sampling.temperature, full.sampling.stop) == (4_096, 0.0, tuple("abcdefgh"))
    assert (small.sampling.max_tokens, small.sampling.temperature, small.sampling.stop) == (1, 0.5, ())
    assert exact.sampling.max_tokens == 4_096
    assert [call.id for call in trace.calls if call.kind == "generate"] == [f":0 request {n}" for n in range(3)]
    assert [note["server"] for note in notes(trace, "mcp_sampling")] == ["peer"] * 3
    assert notes(trace, "approval") == [], "what a rule allows is not noted as asked"


def test_a_completion_is_put_to_a_person_where_the_rule_says_so() -> None:
    params = types.CreateMessageRequestParams(messages=[said("user", "Which?")], max_tokens=5, system_prompt="S")

    async def work(answers: RequestAnswers) -> Any:
        return await answers.sample(None, params)

    shown = {"messages": ["user: Which?"], "system": "S"}
    for allowed, reason in ((True, ""), (False, "not today")):
        person = Person(allowed)
        result, trace = during_a_call(work, approval=Approval({"peer__sampling": "ask"}, ask=person))
        assert person.asked == [
            ("peer__sampling", "external", "MCP server peer asks the model for a completion.", shown)
        ]
        assert notes(trace, "approval") == [
            {
                "tool": "peer__sampling", "arguments": shown, "effect": "external",
                "allowed": allowed, "by": "test", "reason": reason,
            }
        ]  # fmt: skip
        found = result.content.text if allowed else (result.code, result.message)
        assert found == ("teal" if allowed else (-1, "not today"))
        assert len([call for call in trace.calls if call.kind == "generate"]) == allowed
    answers = RequestAnswers(SERVER, caller)
    outside = asyncio.run(answers.sample(None, params))
    assert isinstance(outside, types.ErrorData) and outside.message == "sampling is answered during a tool call only"
    asked = types.ElicitRequestFormParams(message="M", requested_schema={"type": "object", "properties": {}})
    apart = asyncio.run(answers.elicit(None, asked))
    assert isinstance(apart, types.ErrorData) and apart.message == "elicitation is answered during a tool call only"


def test_a_question_to_the_user_is_asked_whatever_is_allowed_and_answered_in_each_way() -> None:
    long = "m" * (MAX_MESSAGE + 1)
    url = types.ElicitRequestURLParams(mode="url", message=long, url="https://h.example/x", elicitation_id="1")
    odd = types.ElicitRequestURLParams(mode="url", message="m", url="file:///etc/passwd", elicitation_id="2")

    def asked(params: Any, person: Person, rules: Any = None) -> tuple[Any, Any]:
        async def work(answers: RequestAnswers) -> Any:
            return await answers.elicit(None, params)

        return during_a_call(work, approval=Approval(rules or {}, ask=person))

    person = Person(answers={"seat": "a"})
    result, trace = asked(form("m" * (MAX_MESSAGE + 1)), person)
    assert (result.action, result.content) == ("accept", {"seat": "a"})
    assert person.asked == [("peer__elicitation", "m" * (MAX_MESSAGE + 1), ["seat", "n"])]
    assert notes(trace, "mcp_elicitation") == [
        {"server": "peer", "message": "m" * MAX_MESSAGE, "answer": {"seat": "a"}}
    ]
    result, trace = asked(form(), Person(answers=None))
    assert (result.action, result.content) == ("decline", None)
    assert notes(trace, "mcp_elicitation") == [{"server": "peer", "message": "M", "answer": None}]
    assert asked(form(), Person(answers={}))[0].action == "accept", "an empty form is an answer"
    denied = Person(answers={"seat": "a"})
    assert asked(form(), denied, {"peer__elicitation": "deny"})[0].action == "decline" and denied.asked == []
    assert asked(form(), Person(error=ToolError("broken")))[0].message == "broken"
    opened = {"message": "m" * MAX_MESSAGE, "open": "https://h.example/x"}
    for allowed, action in ((True, "accept"), (False, "decline")):
        person = Person(allowed)
        result, trace = asked(url, person, {"peer__elicitation": "allow"})
        assert result.action == action and person.asked[0][3] == opened
        assert [(each["arguments"], each["allowed"]) for each in notes(trace, "approval")] == [(opened, allowed)]
    assert asked(odd, Person())[0].message == "only addresses of http and https are opened"
    odd.url = f"ftp://a{MANY_MARKS}/"
    with at_most_cpu_s(0.5):
        assert asked(odd, Person())[0].message == "only addresses of http and https are opened"


def test_a_pending_question_is_raised_once_for_its_own_call_and_counts_anew() -> None:
    async def work(answers: RequestAnswers) -> Any:
        effect = caller().effect  # type: ignore[union-attr]
        found = [await answers.elicit(None, form()) for _ in range(8)]
        answers.check_answered("another")
        with pytest.raises(AnswerPending):
            answers.check_answered(effect)
        answers.check_answered(effect)
        again = [await answers.elicit(None, form()) for _ in range(9)]
        return [each.action for each in found], again[7].action, again[8].message

    pending = Person(error=AnswerPending("approval", "later"))
    result, _ = during_a_call(work, approval=Approval(ask=pending))
    assert result == (["cancel"] * 8, "cancel", "more than 8 requests in one call")


def test_a_request_inside_of_a_reply_is_answered_if_it_is_declared(tmp_path: Path) -> None:
    roots = replace(SERVER, roots=(str(tmp_path), "/"))
    sample = types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[said("user", "x")], max_tokens=5)
    )
    elicit = types.ElicitRequest(params=form())

    def dispatched(request: Any, server: ServerDeclaration) -> Any:
        async def work(answers: RequestAnswers) -> Any:
            return await answers.dispatch(request)

        return during_a_call(work, server, approval=Approval(ask=Person(answers={})))[0]

    assert dispatched(sample, roots).content.text == "teal" and dispatched(elicit, roots).action == "accept"
    listed = dispatched(types.ListRootsRequest(), roots)
    assert [(str(each.uri), each.name) for each in listed.roots] == [
        (tmp_path.as_uri(), tmp_path.name),
        ("file:///", ""),
    ]
    for request, server in (
        (sample, replace(SERVER, sampling=False)),
        (elicit, replace(SERVER, elicitation=False)),
        (types.PingRequest(), SERVER),
    ):
        refused = dispatched(request, server)
        assert (refused.code, refused.message) == (types.METHOD_NOT_FOUND, "this client does not answer that")


# -- signing in --

WEB = ServerDeclaration(
    "web", url="https://h.example/mcp?k=1", scopes=("read", "write"), client_metadata_url="https://c/x"
)


async def visit(sign_in: BrowserSignIn, *requests: bytes) -> list[str]:
    """The pages that a browser is shown for these requests."""
    shown = []
    port = int(sign_in.redirect_uri.split(":")[2].split("/")[0])
    for request in requests:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        shown.append((await reader.read()).decode().rpartition("\r\n\r\n")[2])
        writer.close()
    return shown


def test_the_browser_brings_the_code_back_and_other_visits_do_not_end_the_wait() -> None:
    async def signed_in(*requests: bytes) -> Any:
        sign_in = BrowserSignIn(WEB)
        try:
            assert sign_in.redirect_uri.startswith("http://127.0.0.1:") and sign_in.redirect_uri.endswith("/callback")
            answer, pages = await asyncio.gather(sign_in.answer(), visit(sign_in, *requests), return_exceptions=True)
        finally:
            sign_in.close()
        with pytest.raises(OSError):
            await visit(sign_in, b"GET / HTTP/1.1\r\n\r\n")
        return answer, pages

    none, done = "This is no answer to the sign-in that firsthand waits for.\n", "Signed in: you may close this page.\n"
    icon, empty = b"GET /favicon.ico HTTP/1.1\r\nHost: h\r\n\r\n", b""
    full = b"GET /callback?code=a%20b&state=s&iss=https%3A%2F%2Fi HTTP/1.1\r\nHost: h\r\n\r\n"
    answer, pages = asyncio.run(signed_in(icon, empty, full))
    assert (answer.code, answer.state, answer.iss) == ("a b", "s", "https://i") and pages == [none, none, done]
    answer, _ = asyncio.run(signed_in(b"GET /callback?code=c HTTP/1.1\r\n\r\n"))
    assert (answer.code, answer.state, answer.iss) == ("c", None, None)
    refused, pages = asyncio.run(signed_in(b"GET /callback?error=access_denied HTTP/1.1\r\n\r\n"))
    assert str(refused) == "signing in to MCP server web was refused: access_denied"
    assert pages == ["Signing in was refused: you may close this page.\n"]


def test_nobody_is_sent_to_what_is_no_web_page_or_asked_without_a_terminal() -> None:
    async def main() -> None:
        sign_in = BrowserSignIn(WEB)
        try:
            with pytest.raises(ToolError, match="asks to sign in at 'file:///x', which is no web address"):
                await sign_in.redirect("file:///x")
            with at_most_cpu_s(0.5), pytest.raises(ToolError, match="4,000 are the limit"):
                await sign_in.redirect(f"https://a{MANY_MARKS}/")
            page = f"https://auth.example/{'a' * 3_979}"  # 4,000 characters
            for declared in ({}, {"issuer": "https://i", "scopes": ()}):
                sign_in.declaration = replace(WEB, **declared)
                with pytest.raises(ToolError, match=r"no terminal: run `firsthand mcp --sign-in FILE\.toml#web` once"):
                    await sign_in.redirect(page)
            sign_in.declaration = replace(WEB, scopes=())
            with pytest.raises(ToolError, match=r"run `firsthand mcp --sign-in https://h\.example/mcp\?k=1` once"):
                await sign_in.redirect(page)
            given = oauth(WEB, sign_in).context
            assert (given.server_url, given.client_metadata.scope) == ("https://h.example/mcp?k=1", "read write")
            assert [str(each) for each in given.client_metadata.redirect_uris or ()] == [sign_in.redirect_uri]
            assert given.client_metadata_url == "https://c/x"
            plain = oauth(replace(WEB, scopes=(), client_metadata_url=""), sign_in).context
            assert (plain.client_metadata.scope, plain.client_metadata_url) == (None, None)
        finally:
            sign_in.close()

    asyncio.run(main())


# -- the endpoint --


def test_the_endpoint_is_reached_under_its_own_name_and_port_and_what_is_allowed_on_every_port() -> None:
    async def main() -> None:
        async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        asked: list[Any] = []

        async def resolver(host: str, port: int) -> list[str]:
            asked.append((host, port))
            return ["127.0.0.2", "127.0.0.1"]

        server = await asyncio.start_server(hello, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def reached(url: str, host: str, allow: str = "", at: int = port) -> bytes:
            backend = EndpointBackend(ServerDeclaration("p", url=url, allow=allow), resolver)
            stream = await backend.connect_tcp(host, at, 2.0)
            try:
                return await stream.read(5, 2.0)
            finally:
                await stream.aclose()

        async with server:
            assert await reached(f"http://LocalHost:{port}/mcp", "LOCALHOST") == b"hello" and asked == []
            assert await reached("http://h/", "127.0.0.1", "127.0.0.0/8") == b"hello" and asked == []
            assert await reached("http://h/", "Site.Example", "site.example") == b"hello"
            assert asked == [("site.example", port)], "the second address answers where the first does not"
            for url, host, allow in (
                (f"http://localhost:{port + 1}/", "localhost", ""),
                ("http://h/", "other.example", "site.example"),
                ("http://h/", "127.0.0.1", "128.0.0.0/8+::1"),
            ):
                with pytest.raises(ToolError, match=f"port {port} may not be used: 80, 443 may"):
                    await reached(url, host, allow)
            for url, at, fine in (("https://127.0.0.1/", 443, True), ("https://127.0.0.1/", 80, False)):
                with pytest.raises(httpcore2.ConnectError if fine else ToolError):
                    await reached(url, "127.0.0.1", at=at)
                with pytest.raises(ToolError if fine else httpcore2.ConnectError):
                    await reached(url.replace("https", "http"), "127.0.0.1", at=at)
            with pytest.raises(ToolError, match="a socket file may not be reached"):
                await EndpointBackend(ServerDeclaration("p", url="http://h/")).connect_unix_socket("/x")

    asyncio.run(main())


class Pieces(httpx2.AsyncByteStream):
    """A body that comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.closed = pieces, False

    async def __aiter__(self) -> Any:
        for each in self.pieces:
            yield each

    async def aclose(self) -> None:
        self.closed = True


def body(stream: httpx2.AsyncByteStream) -> list[bytes]:
    async def read() -> list[bytes]:
        found = [each async for each in stream]
        await stream.aclose()
        return found

    return asyncio.run(read())


def test_an_event_may_have_as_many_values_as_a_message_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_endpoint, "MAX_VALUES", 4)
    for pieces in ((b",,,,\n",), (b",,\n", b",,\n", b"\n", b",,,,")):
        assert b"".join(body(_Events(Pieces(*pieces), MessageFlow()))) == b"".join(pieces)
    for pieces in ((b",,,,,\n",), (b",,\n", b",,,\n"), (b"\n", b",,,,,")):
        with pytest.raises(httpx2.ReadError, match=f"^{TOO_DENSE}$"):
            body(_Events(Pieces(*pieces), MessageFlow()))


def test_a_body_in_pieces_may_be_as_large_as_one_in_a_piece_and_no_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_endpoint, "MAX_BODY", 4)
    assert body(_Counted(Pieces(b"abc", b"d"))) == [b"abcd"]
    for pieces in ((b"abc", b"de"), (b"abcde",)):
        with pytest.raises(httpx2.ReadError):
            body(_Counted(Pieces(*pieces)))


@pytest.mark.slow
def test_bodies_and_events_are_counted_and_end_beyond_their_limit() -> None:
    half = b" " * (MAX_BODY // 2)
    inner = Pieces(half, half)
    assert body(_Counted(inner)) == [half + half] and inner.closed and body(_Counted(Pieces())) == [b""]
    with pytest.raises(httpx2.ReadError, match="more than 16,000,000 bytes"):
        body(_Counted(Pieces(half, half, b" ")))
    flow = MessageFlow()
    inner = Pieces(b"data: [1,2", b"]\nda", b"ta: [x")
    assert body(_Events(inner, flow)) == [b"data: [1,2]\n", b"data: [x"] and inner.closed, "by whole lines"
    # the last line of 8 bytes is charged with its one value, after the 11 bytes, of which some came back since
    assert 1 + 8 / 1_000 + 1 / 20 <= ALLOWANCE - flow._left + 1e-6 <= 2 + 19 / 1_000 + 3 / 20 + 1e-5
    assert body(_Events(Pieces(b"\n" + half, half), MessageFlow())) == [b"\n", half + half]
    with pytest.raises(httpx2.ReadError, match="more than 16,000,000 bytes"):
        body(_Events(Pieces(half, half, b" "), MessageFlow()))
    with pytest.raises(httpx2.ReadError, match="more than 16,000,000 bytes"):  # a line's beginning counts with its end
        body(_Events(Pieces(b"\n" + half, half, b" "), MessageFlow()))
    dense = b"," * MAX_VALUES
    for pieces in (
        (dense + b"\n",), (b"x\n" + dense[:9], dense[9:] + b"\n"), (dense, b"\n\n", dense[:9]),
        (dense[:150_000] + b"\n\n", dense[:100_000] + b"\n"), (dense[:150_000] + b"\r\r", dense[:100_000] + b"\r\r\n"),
    ):  # fmt: skip
        assert b"".join(body(_Events(Pieces(*pieces), MessageFlow()))) == b"".join(pieces)
    for pieces in ((dense + b",\n",), (b"x\n,", dense + b"\n"), (b"\n", dense, b",\n"), (b"x\n" + dense + b",\nx",),
                   (dense + b"\r", b"\n,\n"), (dense + b"\r,\r",), (dense + b"\n,\n",)):  # fmt: skip
        with pytest.raises(httpx2.ReadError, match=f"^{TOO_DENSE}$"):
            body(_Events(Pieces(*pieces), MessageFlow()))
    with pytest.raises(httpx2.ReadError, match=f"^{TOO_OFTEN}$"):
        body(_Events(Pieces(dense + b"\n\n", dense + b"\n"), MessageFlow()))  # each costs more than 10,000 of 20,000
    assert body(_Counted(Pieces(dense[1:], b","))) == [dense]
    with pytest.raises(httpx2.ReadError, match=f"^{TOO_DENSE}$"):
        body(_Counted(Pieces(dense, b",")))


def test_requests_to_the_endpoint_carry_the_declared_headers_and_ask_for_no_compression() -> None:
    async def main() -> Any:
        heads: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        declared = ServerDeclaration("p", url=url, headers={"X-Key": "k"}, opening_s=3, timeout_s=9)
        async with server, http_client(declared) as client:
            response = await client.get(url)
            return heads, response.status_code, response.content, (client.timeout.connect, client.timeout.read)

    slow = http_client(
        ServerDeclaration("p", url="http://h/", headers={"Accept-Encoding": "br"}, opening_s=9, timeout_s=3)
    )
    assert (slow.timeout, slow.headers["Accept-Encoding"]) == (httpx2.Timeout(9), "br"), (
        "a declared header goes before ours"
    )
    assert (slow.follow_redirects, slow.trust_env) == (False, False)
    heads, status, content, timeouts = asyncio.run(main())
    assert len(heads) == 1 and (status, content, timeouts) == (302, b"no", (3, 9)), "no redirect is followed"
    assert "accept-encoding: identity\r\n" in heads[0].lower() and "x-key: k\r\n" in heads[0].lower()
