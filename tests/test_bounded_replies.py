"""Replies of HTTP servers are read uncompressed and within bounds, whichever client asks."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import firsthand
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import OtlpSender
from firsthand.providers.endpoint_clients import bounded_client
from firsthand.retrieval.store.weaviate_index import open_weaviate_index
from firsthand.system.bounded_reply import Reply, answer_of, ask, ask_async
from firsthand.system.json_values import ValueCount

ROOT = Path(firsthand.__file__).parent
BOUNDED = {
    "hub/download.py": "counts the bytes as they come, unpacked by nobody",
    "providers/a2a_transport.py": "counts bytes and values in its transport",
    "providers/endpoint_clients.py": "counts in the stream that the SDKs read",
    "providers/google.py": "is never used: the SDK makes one otherwise",
    "tools/mcp/http_endpoint.py": "counts bytes and values in its transport",
    "claims/patterns/a2a_across_frameworks.py": "asks a server that the measurement started",
}
"""Modules that make a client and bound its replies in another way than `ask`."""


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose pieces are counted as they are taken."""

    def __init__(self, *pieces: bytes):
        self.pieces, self.taken = pieces, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


def answered(reply: httpx.Response, **bounds: Any) -> Reply:
    """What `ask` and `ask_async` read of a reply, which is the same."""
    given = {"max_bytes": 10, "within_s": 5.0, **bounds}
    body = reply.stream
    with httpx.Client(transport=httpx.MockTransport(lambda request: reply)) as client:
        try:
            found: Any = ask(client, client.build_request("GET", "http://h/"), **given)
        except DataError as error:
            found = str(error)

    async def again() -> Any:
        other = httpx.Response(reply.status_code, headers=reply.headers, stream=body)
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: other)) as client:
            try:
                return await ask_async(client, client.build_request("GET", "http://h/"), **given)
            except DataError as error:
                return str(error)

    assert asyncio.run(again()) == found
    if isinstance(found, str):
        raise DataError(found)
    assert isinstance(found, Reply)
    return found


def test_a_reply_is_read_to_its_bounds_and_no_further() -> None:
    assert answered(httpx.Response(201, stream=Pieces(b"12345", b"67890"))) == Reply(201, b"1234567890")
    body = Pieces(b"12345", b"678901", b"more")
    with pytest.raises(DataError, match=r"^it sent more than 10 bytes$"):
        answered(httpx.Response(200, stream=body))
    assert body.taken == 4  # two by each
    assert answered(httpx.Response(200, stream=Pieces(b"[[],", b"[]]")), max_values=4).json() == [[], []]
    with pytest.raises(DataError, match=r"^it sent more than 3 JSON values$"):
        answered(httpx.Response(200, stream=Pieces(b"[[],", b"[]]")), max_values=3)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "zstd", "GZIP", "br", "identity, deflate"])
def test_a_packed_reply_is_refused_before_a_byte_of_it_is_taken(encoding: str) -> None:
    body = Pieces(gzip.compress(b"{}"))
    with pytest.raises(
        DataError, match=f"^it compressed its reply as '{encoding}', unrequested: turn compression off$"
    ):
        answered(httpx.Response(200, headers={"content-encoding": encoding}, stream=body))
    assert body.taken == 0
    assert answered(httpx.Response(200, headers={"content-encoding": " Identity"}, stream=Pieces(b"{}"))).json() == {}


def test_a_redirect_is_followed_where_the_client_does_and_its_body_is_not_read() -> None:
    body = Pieces(b"x" * 100)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        packed = {"location": "/next", "content-encoding": "gzip"}
        if request.url.path == "/next":
            return httpx.Response(200, text="there")
        return httpx.Response(302, headers=packed, stream=body)

    def asked(**options: Any) -> Reply:
        with httpx.Client(transport=httpx.MockTransport(answer), **options) as client:
            return ask(client, client.build_request("GET", "http://h/"), max_bytes=10, within_s=5.0)

    assert asked(follow_redirects=True).text == "there" and body.taken == 0
    with pytest.raises(DataError, match="compressed its reply"):
        asked()
    with pytest.raises(DataError, match=r"^it redirects more than 0 times$"):
        asked(follow_redirects=True, max_redirects=0)


def test_json_is_read_in_utf_8_alone() -> None:
    assert Reply(200, '{"a": "é"}'.encode()).json() == {"a": "é"}
    for raw in ('["∀", {}]'.encode("utf-16"), b"\xff", b"[" * 100_000, b""):
        with pytest.raises(ValueError):
            Reply(200, raw).json()


def test_a_collector_is_judged_by_its_status_whatever_its_body_is() -> None:
    def status(reply: httpx.Response) -> int:
        with httpx.Client(transport=httpx.MockTransport(lambda request: reply)) as client:
            return answer_of(client, client.build_request("POST", "http://h/"), within_s=5).status

    packed, endless = Pieces(b"x"), Pieces(*[b"x" * 60_000] * 9)
    assert status(httpx.Response(202, headers={"content-encoding": "gzip, gzip"}, stream=packed)) == 202
    assert status(httpx.Response(503, stream=endless)) == 503 and (packed.taken, endless.taken) == (0, 2)
    sender = OtlpSender("http://h/", "s", {})
    packed = Pieces(b"x")
    reply = httpx.Response(200, headers={"content-encoding": "zstd"}, stream=packed)
    with httpx.Client(transport=httpx.MockTransport(lambda request: reply)) as client:
        assert sender._sent(client, [IncomingSpan("1" * 32, "1" * 16, "", "n", 1, 2, {})]) == 1 and packed.taken == 0


def test_spans_that_a_collector_took_are_sent_once_though_its_reply_breaks_off() -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"partialSuccess": '
            raise httpx.ReadError("connection reset")

    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=Broken())

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        sent = OtlpSender("http://h/", "s", {})._sent(client, [IncomingSpan("1" * 32, "1" * 16, "", "n", 1, 2, {})])
        assert (sent, len(asked)) == (1, 1)
        assert answer_of(client, client.build_request("POST", "http://h/"), within_s=5) == Reply(200, b"")


def test_a_client_that_a_user_gives_to_weaviate_is_bounded_too() -> None:
    reply = httpx.Response(200, headers={"content-encoding": "gzip, gzip"}, stream=Pieces(b"x"))
    with (
        httpx.Client(base_url="http://w", transport=httpx.MockTransport(lambda request: reply)) as client,
        pytest.raises(StoreError, match="cannot answer in 'Docs': it compressed its reply as 'gzip, gzip'"),
    ):
        open_weaviate_index(client, "Docs")


@pytest.mark.slow
def test_each_module_that_makes_a_client_bounds_what_it_reads() -> None:
    making = {
        path.relative_to(ROOT).as_posix(): text
        for path in ROOT.rglob("*.py")
        if re.search(r"\b(?:httpx2?|library)\.(?:Async)?Client\(", text := path.read_text(encoding="utf-8"))
    }
    unbounded = {name for name, text in making.items() if "system.bounded_reply import" not in text} - BOUNDED.keys()
    assert unbounded == set() and len(making) > 8
    for name, text in making.items():
        if name not in BOUNDED:
            assert not re.search(
                r"\.(?:iter|aiter)_(?:bytes|raw|text|lines)\(|client\.(?:get|post|request|stream)\(", text
            ), name


def test_values_are_counted_alike_however_the_text_is_cut() -> None:
    texts = [
        json.dumps({'a"\\': ["[,{", "\\", 'x"', "\\\\", 'é,"', {}], "b,": {"c": [1, 2, [3]]}}).encode(),
        b'data: {"a": "x\\"y,,", "b": [,]}\n\n: a comment " with a quote,\ndata: {},{}\n\n',
        b': "\rdata: {},{}\r"\\\n[,', b'"\\', b'"', b"", b'""""",', b"\\,\\[",
    ]  # fmt: skip
    expected = [14, 7, 5, 0, 0, 0, 0, 2]
    for text, values in zip(texts, expected, strict=True):
        for size in range(1, len(text) + 2):
            count = ValueCount()
            for at in range(0, len(text), size):
                count.add(text[at : at + size])
            assert count.values == values, (text, size)


def test_as_many_redirects_are_followed_as_the_client_allows_and_no_more() -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        left = int(request.url.path[1:])
        return httpx.Response(302, headers={"location": f"/{left - 1}"}) if left else httpx.Response(200, text="here")

    with httpx.Client(transport=httpx.MockTransport(reply), follow_redirects=True, max_redirects=2) as client:
        for hops in (0, 2):
            request = client.build_request("GET", f"http://a.example/{hops}")
            assert ask(client, request, max_bytes=9, within_s=9).text == "here"
        with pytest.raises(DataError, match="it redirects more than 2 times"):
            ask(client, client.build_request("GET", "http://a.example/3"), max_bytes=9, within_s=9)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://u:secretpw@127.0.0.1:1", "ALL_PROXY names a SOCKS proxy, which needs a package: `pip"),
        ("http_proxy", "socks://u:secretpw@127.0.0.1:1", "http_proxy holds no address of a proxy: give http://HOST:PORT"),
        ("HTTPS_PROXY", "ftp://u:secretpw@127.0.0.1:1", "HTTPS_PROXY holds no address of a proxy"),
        ("HTTP_PROXY", "http://u:secretpw@127.0.0.1:notaport", "HTTP_PROXY holds no address of a proxy"),
        ("SSL_CERT_FILE", "/nope/secretpw.pem", "the certificates of SSL_CERT_FILE cannot be read: No such file"),
    ],
)  # fmt: skip
def test_proxies_and_certificates_that_cannot_be_used_are_one_sentence_without_their_value(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        bounded_client(httpx, timeout_s=1, max_reply_bytes=9, follow_redirects=False)
    assert str(caught.value).startswith(said) and "secretpw" not in str(caught.value)
