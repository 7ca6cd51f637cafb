"""The gRPC door of A2A: its port, its keys, and the slots that its calls hold."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("a2a", reason="needs the A2A SDK: pip install 'firsthand[a2a]'")

import grpc

from firsthand.errors import ConfigError
from firsthand.serve.a2a.grpc_door import GrpcDoor, _admitted, _bounded, _Keys, _refusing, _Users
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.listen_address import ListenAddress


class Aborted(Exception):
    pass


class Call:
    """The context of a call over gRPC."""

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        raise Aborted(code, text)

    def invocation_metadata(self) -> Any:
        return None


async def sent(*messages: Any) -> Any:
    """The messages of a call."""
    for message in messages:
        yield message


async def never() -> Any:
    """The messages of a call that sends none, and does not end."""
    await asyncio.Event().wait()
    yield


def aborted(call: Any) -> tuple[str, str]:
    """The code and the text that a call ends with."""

    async def main() -> Any:
        if hasattr(call, "__aiter__"):
            return [each async for each in call]
        return await call

    with pytest.raises(Aborted) as caught:
        asyncio.run(main())
    return caught.value.args[0].name, caught.value.args[1]


def test_a_call_over_grpc_is_admitted_by_key_version_and_slot() -> None:
    ann = Client("ann", ClientLimits(concurrency=1), hashlib.sha256(b"k" * 16).digest())
    admission = Admission(Keys((ann,)), AdmissionSettings(max_requests=5))
    key = ("Authorization", "Bearer " + "k" * 16)

    async def unary(request: Any, context: Any) -> Any:
        assert (admission.by_client, admission.in_flight) == ({"ann": 1}, 1)
        with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
            await made.stream_unary(sent(request), context)
        return f"one {request}"

    async def streams(request: Any, context: Any) -> Any:
        for at in range(2):
            yield f"{at} {request}"
        with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
            _ = [each async for each in stream.stream_stream(sent(request), context)]

    plain = grpc.unary_unary_rpc_method_handler(unary, str, repr)
    made = _admitted(plain, admission, ann)
    stream = _admitted(grpc.unary_stream_rpc_method_handler(streams, int, ascii), admission, ann)
    assert (made.request_deserializer, made.response_serializer) == (str, repr)
    assert (stream.request_deserializer, stream.response_serializer) == (int, ascii) and not made.response_streaming
    both = grpc.stream_stream_rpc_method_handler(streams)
    assert _admitted(None, admission, ann) is None and _admitted(both, admission, ann) is both

    async def main() -> None:
        for _ in range(2):
            assert await made.stream_unary(sent("q"), Call()) == "one q"
            assert [each async for each in stream.stream_stream(sent("q"), Call())] == ["0 q", "1 q"]

        async def intercepted(*metadata: Any) -> Any:
            async def going_on(details: Any) -> Any:
                return plain

            details = SimpleNamespace(invocation_metadata=metadata, method="x")
            handler = await _Keys(admission).intercept_service(going_on, details)
            return await handler.stream_unary(sent("q"), Call())

        for metadata in ((key,), (key, ("A2A-Version", "1.0")), (("other", "0.3"), key)):
            assert await intercepted(*metadata) == "one q"
        for version in ("1", "1.", "1.0", "1.9", "1.10", "1.0.3"):
            assert await intercepted(key, ("a2a-version", version), ("a2a-version", "2.0")) == "one q", version
        for version in ("", "0", "0.1", "2", "2.1", "10", "11.0", "01.0", ".1", "v1", " 1", "1,2", "-1.0"):
            with pytest.raises(Aborted) as caught:
                await intercepted(("a2a-version", version), key, ("a2a-version", "1.0"))
            told = f"A2A {version!r} is not spoken here: use 1.0"
            assert caught.value.args == (grpc.StatusCode.UNIMPLEMENTED, told)
        for metadata, code, text in (
            ((), "UNAUTHENTICATED", "the API key is missing or not known: send it as a Bearer token"),
            ((key, key), "UNAUTHENTICATED", "the API key is missing or not known: send it as a Bearer token"),
            (
                (("a2a-version", "9"),),
                "UNAUTHENTICATED",
                "the API key is missing or not known: send it as a Bearer token",
            ),
            ((key, ("a2a-version", "0.3")), "UNIMPLEMENTED", "A2A '0.3' is not spoken here: use 1.0"),
            ((key, ("a2a-version", "2" * 41)), "UNIMPLEMENTED", f"A2A {'2' * 40!r} is not spoken here: use 1.0"),
            ((key, ("a2a-version", "2" * 50)), "UNIMPLEMENTED", f"A2A {'2' * 40!r} is not spoken here: use 1.0"),
        ):
            with pytest.raises(Aborted) as caught:
                await intercepted(*metadata)
            assert caught.value.args == (getattr(grpc.StatusCode, code), text)
        assert admission.by_client == {}
        admission.drain()
        with pytest.raises(Aborted) as caught:
            await intercepted(key)
        assert caught.value.args == (grpc.StatusCode.UNAVAILABLE, "the server is stopping: ask another one")
        with pytest.raises(Aborted):
            await _refusing(grpc.StatusCode.ABORTED, "x").stream_unary(None, Call())

    asyncio.run(main())
    assert _Users(Keys()).build_user(Call()).user_name == Keys().anyone.name


def test_a_clients_body_bytes_and_request_s_hold_over_grpc() -> None:
    ann = Client("ann", ClientLimits(body_bytes=2000, request_s=0.02), hashlib.sha256(b"k" * 16).digest())
    admission = Admission(Keys((ann,)), AdmissionSettings(body_s=0.02))

    async def unary(request: Any, context: Any) -> Any:
        if request == b"":
            await asyncio.Event().wait()
        return len(request)

    async def streams(request: Any, context: Any) -> Any:
        yield "begun"
        await asyncio.Event().wait()

    async def own_timeout(request: Any, context: Any) -> Any:
        raise TimeoutError

    def bounded(handler: Any, method: str) -> Any:
        return _admitted(_bounded(handler, f"/lf.a2a.v1.A2AService/{method}", ann), admission, ann)

    def one(work: Any) -> Any:
        return bounded(grpc.unary_unary_rpc_method_handler(work, bytes), "GetTask")

    stream = bounded(grpc.unary_stream_rpc_method_handler(streams, bytes), "SubscribeToTask")
    large = ("RESOURCE_EXHAUSTED", "the message has more than 2000 bytes: send less")
    late = ("DEADLINE_EXCEEDED", "the answer took more than 0.02 s")
    for made, call in ((one(unary), "stream_unary"), (stream, "stream_stream")):
        read, answer = made.request_deserializer, getattr(made, call)
        fits = b"\x0a\xcd\x0f" + b"x" * 1997  # a field of 1,997 characters
        assert read(fits) == fits
        assert aborted(answer(sent(read(fits + b"\x0a")), Call())) == large
        assert aborted(answer(sent(read(b"")), Call())) == late
        assert aborted(answer(sent(), Call())) == ("INVALID_ARGUMENT", "the call has no message: send one")
        assert aborted(answer(never(), Call())) == (
            "DEADLINE_EXCEEDED", "the message did not come within 0.02 s: send it faster",
        )  # fmt: skip
    assert asyncio.run(one(unary).stream_unary(sent(b"hi", b"more"), Call())) == 2
    with pytest.raises(TimeoutError):
        asyncio.run(one(own_timeout).stream_unary(sent(b"hi"), Call()))
    assert (admission.by_client, admission.in_flight) == ({}, 0)


def test_a_call_holds_its_slot_while_its_message_comes() -> None:
    ann = Client("ann", ClientLimits(concurrency=1), hashlib.sha256(b"k" * 16).digest())
    admission = Admission(Keys((ann,)), AdmissionSettings(body_s=0.02))
    made = _admitted(grpc.unary_unary_rpc_method_handler(None), admission, ann)

    async def main() -> None:
        first = asyncio.create_task(made.stream_unary(never(), Call()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
            await made.stream_unary(never(), Call())
        with pytest.raises(Aborted, match="DEADLINE_EXCEEDED"):
            await first

    asyncio.run(main())


def test_a_grpc_port_is_the_one_that_is_wanted_or_a_free_one() -> None:
    admission = Admission()
    assert GrpcDoor(ListenAddress(), 4711, admission).open_port() == 4711
    free = GrpcDoor(ListenAddress(), 0, admission)
    assert free.port == 0 and 1024 <= free.open_port() == free.port
    asyncio.run(free.stop())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(alternative, critical=False).sign(key, SHA256())
    )  # fmt: skip
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_a_door_is_open_until_it_is_stopped_with_tls_where_the_server_has_it(tmp_path: Path) -> None:
    keys = Keys((Client("ann", ClientLimits(), hashlib.sha256(b"k" * 16).digest()),))
    cert, key = certificate(tmp_path)

    async def refused(door: GrpcDoor, *, tls: bool) -> Any:
        where = f"127.0.0.1:{door.port}"
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        async with grpc.aio.secure_channel(where, credentials) if tls else grpc.aio.insecure_channel(where) as channel:
            call = channel.unary_unary("/lf.a2a.v1.A2AService/GetTask")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=5)
            return caught.value.code(), caught.value.details()

    async def main() -> None:
        for tls in (False, True):
            address = ListenAddress(tls_cert=cert if tls else None, tls_key=key if tls else None)
            door = GrpcDoor(address, 0, Admission(keys))
            door.open_port()
            await door.start(object())  # type: ignore[arg-type]
            assert await refused(door, tls=tls) == (
                grpc.StatusCode.UNAUTHENTICATED, "the API key is missing or not known: send it as a Bearer token",
            )  # fmt: skip
            again = GrpcDoor(address, door.port, Admission(keys))
            with pytest.raises(ConfigError, match=f"^{address.host}:{door.port} cannot be opened for gRPC: "):
                await again.start(object())  # type: ignore[arg-type]
            await door.stop()
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", door.port)) != 0
        address = ListenAddress(tls_cert=cert, tls_key=key)
        for gone in (key, cert):  # after the address was checked
            kept = gone.read_bytes()
            gone.unlink()
            with pytest.raises(ConfigError, match=f"^127.0.0.1:4711 cannot be opened for gRPC: .*{gone.name}"):
                await GrpcDoor(address, 4711, Admission(keys)).start(object())  # type: ignore[arg-type]
            gone.write_bytes(kept)

    asyncio.run(main())
