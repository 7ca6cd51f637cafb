"""What strangers send to the other doors: gRPC of A2A and of traces, sign-in through a proxy, odd ids and numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

import otlp_requests as otlp
from firsthand.commands import studio
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.studio.access import Access, AccessMiddleware
from firsthand.studio.accounts import GUESSES_OF_ADDRESS, Accounts
from firsthand.studio.studio_store import SqliteStore
from firsthand.system.json_values import has_id_of_no_text
from firsthand.system.recognised import RECOGNISED


def asked(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 5)})


def test_an_address_is_what_our_own_proxies_say_and_nobody_else() -> None:
    access = Access(proxies=("127.0.0.1", "10.0.0.2"))
    for request, address in (
        (asked("127.0.0.1", "7.7.7.7"), "7.7.7.7"),
        (asked("127.0.0.1", "6.6.6.6, 7.7.7.7"), "7.7.7.7"),  # the client has made up the first
        (asked("127.0.0.1", "6.6.6.6", "7.7.7.7, 10.0.0.2"), "7.7.7.7"),
        (asked("127.0.0.1"), "127.0.0.1"),
        (asked("127.0.0.1", "10.0.0.2"), "10.0.0.2"),
        (asked("9.9.9.9", "7.7.7.7"), "9.9.9.9"),
        (asked("127.0.0.1", "x" * 99), "x" * 45),
    ):
        assert access.address_of(request) == address
    assert Access().address_of(asked("127.0.0.1", "7.7.7.7")) == "127.0.0.1", "none is named"


def test_wrong_guesses_through_a_named_proxy_close_signing_in_to_their_own_address_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.studio.accounts.matches", lambda password, kept: password == "right")
    accounts, access = Accounts(SqliteStore(tmp_path)), Access(proxies=("127.0.0.1",))
    accounts.add("ada", "a long password", "admin")
    for number in range(GUESSES_OF_ADDRESS):
        assert accounts.sign_in(f"no{number}", "wrong", access.address_of(asked("127.0.0.1", "6.6.6.6"))) is None
    assert accounts.sign_in("ada", "right", access.address_of(asked("127.0.0.1", "6.6.6.6"))) is None
    assert accounts.sign_in("ada", "right", access.address_of(asked("127.0.0.1", "7.7.7.7"))) is not None


def test_a_proxy_is_named_by_its_address_and_with_a_wider_one() -> None:
    assert studio.Config(host="0.0.0.0", https=True, proxy=("127.0.0.1", "::1")).proxy == ("127.0.0.1", "::1")
    for text in ("nginx", "10.0.0.0/8", "127.1", ""):
        with pytest.raises(ConfigError, match="give an address as a socket has it"):
            studio.Config(host="0.0.0.0", proxy=(text,))
    with pytest.raises(ConfigError, match="name, https and proxy are for a wider address"):
        studio.Config(proxy=("127.0.0.1",))


def test_an_id_of_half_a_character_is_told_apart() -> None:
    for body in (b'{"id": "\\ud800"}', b'{"id": "a\\uDFFF"}', b'[{"id": 1}, {"id": "\\udc00"}]'):
        assert has_id_of_no_text(body), body
    for body in (
        b'{"id": "\\ud83d\\ude00"}', b'{"id": "\\\\ud800"}', b'{"id": 1, "text": "\\ud800"}', b'{"id": "\\ud800"',
        b'"\\ud800"', b"[1]",
    ):  # fmt: skip
        assert not has_id_of_no_text(body), body


def test_what_is_told_of_a_failed_store_names_no_folder_and_asks_for_no_hopeless_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TraceStore(tmp_path, create=True)
    spans = SpanPreparer(Redactor()).prepared([])
    writer, outcomes = SpanWriter(store, SpanPreparer(Redactor())), list[WriteOutcome]()
    cause: Exception = OSError()

    def fails(ready: Any) -> int:
        raise StoreError(f"the disk of {store.folder} is full, {store.database.path} too") from cause

    monkeypatch.setattr(store, "add", fails)
    for cause in (OSError(), OverflowError()):
        writer._keep([(SimpleNamespace(done=outcomes.append), spans, 0)], refused := [])  # type: ignore[list-item]
        [(_, outcome)] = refused
        assert outcome.problem == "the disk of the store is full, the store/traces.sqlite too"
        assert outcome.retry == isinstance(cause, OSError)
    writer.close()
    store.close()


def test_a_message_of_many_values_is_refused_at_the_grpc_port_before_it_is_decoded() -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    pytest.importorskip("a2a", reason="a2a-sdk is not installed")
    from a2a.types.a2a_pb2 import SendMessageRequest

    from firsthand.serve.a2a.a2a_settings import MAX_VALUES
    from firsthand.serve.a2a.grpc_door import _bounded
    from firsthand.serve.admission.admission_settings import ClientLimits
    from firsthand.serve.admission.api_keys import Client

    class Refused(Exception):
        pass

    class Call:
        async def abort(self, code: Any, text: str) -> None:
            raise Refused(code, text)

    async def one(request: Any, context: Any) -> Any:
        return len(request.message.parts)

    async def several(request: Any, context: Any) -> Any:
        yield len(request.message.parts)

    def message(values: int) -> bytes:
        made = SendMessageRequest()
        part = made.message.parts.add()
        for _ in range(values):
            part.data.list_value.values.add()
        return made.SerializeToString()

    def text(characters: int) -> bytes:
        made = SendMessageRequest()
        made.message.parts.add(text="x" * characters)
        return made.SerializeToString()

    decoded: list[int] = []

    def decode(raw: bytes) -> Any:
        decoded.append(len(raw))
        return SendMessageRequest.FromString(raw)

    service, client = "/lf.a2a.v1.A2AService", Client("a", ClientLimits(), b"")
    unary = _bounded(grpc.unary_unary_rpc_method_handler(one, decode, repr), f"{service}/SendMessage", client)
    stream = _bounded(
        grpc.unary_stream_rpc_method_handler(several, decode, repr), f"{service}/SendStreamingMessage", client
    )

    async def main() -> None:
        for raw in (text(3_000_000), message(MAX_VALUES - 4)):  # the message, its part, the data and the list
            assert await unary.unary_unary(unary.request_deserializer(raw), Call()) == 1
            assert [each async for each in stream.unary_stream(stream.request_deserializer(raw), Call())] == [1]
        decoded.clear()
        raw = message(MAX_VALUES)
        with pytest.raises(Refused, match="more than 50,000 values: send less at once"):
            await unary.unary_unary(unary.request_deserializer(raw), Call())
        with pytest.raises(Refused, match="INVALID_ARGUMENT"):
            _ = [each async for each in stream.unary_stream(stream.request_deserializer(raw), Call())]
        assert decoded == []
        for raw in (b"\xff" * 100, b"\x0a\x03..", b"\x0a\x05\x0a\x03\xff\xff\xff"):  # no tag, cut, and no UTF-8
            with pytest.raises(Refused, match=r"INVALID_ARGUMENT.*is no SendMessageRequest of A2A"):
                await unary.unary_unary(unary.request_deserializer(raw), Call())
            with pytest.raises(Refused, match="build it with an SDK of the protocol"):
                _ = [each async for each in stream.unary_stream(stream.request_deserializer(raw), Call())]

    asyncio.run(main())
    other = grpc.stream_stream_rpc_method_handler(several)
    assert _bounded(None, "x", client) is None and _bounded(other, f"{service}/SendMessage", client) is other


@pytest.mark.slow
def test_spans_over_grpc_without_the_key_are_refused_before_their_message_is_received(tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from firsthand.ingest.otlp_grpc import MAX_MESSAGE_BYTES, serve_grpc

    store = TraceStore(tmp_path, create=True)
    writer = SpanWriter(store, SpanPreparer(Redactor()))
    port, end = serve_grpc(writer, 0, "right")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            endless = channel.stream_unary(path)
            more = True

            def never() -> Any:
                while more:
                    yield bytes(1000)

            with pytest.raises(grpc.RpcError) as refused:
                endless(never(), timeout=30)
            more = False
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            export = channel.unary_unary(path)
            with pytest.raises(grpc.RpcError) as large:
                export(bytes(MAX_MESSAGE_BYTES + 1), metadata=[("x-api-key", "right")], timeout=30)
            assert large.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            export(
                otlp.as_protobuf(otlp.span(1, 1, note="x" * 5_000_000)), metadata=[("x-api-key", "right")], timeout=30
            )
        assert len(store.spans(f"{1:032x}")) == 1
    finally:
        end()
        writer.close()
        store.close()


def test_the_number_of_a_feature_in_an_address_has_few_digits() -> None:
    from firsthand.studio.views.feature_views import _index

    def numbered(text: str) -> int:
        return _index(Request({"type": "http", "headers": [], "path_params": {"index": text}}))

    assert numbered("0") == 0 and numbered("9" * 18) == 10**18 - 1
    for text in ("1" * 5000, "9" * 19, "-1", "x", "", "\u0663"):
        with pytest.raises(UnknownName, match="features have numbers"):
            numbered(text)


def test_a_session_or_a_key_makes_a_connection_known_and_a_page_for_all_does_not() -> None:
    access = Access()
    session = access.exchange(access.new_code())
    known: list[str] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        """Answers nothing."""

    def visited(path: str, *headers: tuple[str, str]) -> bool:
        known.clear()
        given = [(name.encode(), value.encode()) for name, value in (("host", "127.0.0.1:0"), *headers)]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": given,
                 "extensions": {RECOGNISED: lambda: known.append(path)}}  # fmt: skip

        async def silent(message: Any) -> None:
            """Takes the answer."""

        asyncio.run(AccessMiddleware(page, access)(scope, None, silent))  # type: ignore[arg-type]
        return bool(known)

    own = ("cookie", f"{access.cookie}={session}")
    assert visited("/", own) and visited("/static/x.css", own)
    assert not visited("/") and not visited("/static/x.css") and not visited("/", ("cookie", f"{access.cookie}=no"))
