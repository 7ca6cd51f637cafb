"""The gRPC binding of A2A on a port of its own, with the server's keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import a2a.types.a2a_pb2_grpc as a2a_grpc
import grpc
import grpc.aio
from a2a.auth.user import User
from a2a.server.request_handlers.grpc_handler import DefaultGrpcServerCallContextBuilder, GrpcHandler
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types.a2a_pb2 import DESCRIPTOR
from google.protobuf.message import DecodeError

from firsthand.errors import ConfigError
from firsthand.serve.a2a.a2a_handler import ClientUser
from firsthand.serve.a2a.a2a_settings import MAX_VALUES
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.refusals import Refusal
from firsthand.system.ordinary_file import read_bounded
from firsthand.system.protobuf_values import protobuf_holds_more

MAX_MESSAGE_BYTES = 4 << 20
_METHODS = DESCRIPTOR.services_by_name["A2AService"].methods_by_name
_STOP_S = 2.0


class GrpcDoor:
    """A gRPC server that runs as long as the server that it belongs to."""

    def __init__(self, address: ListenAddress, port: int, admission: Admission):
        self._address, self._wanted, self._admission = address, port, admission
        self._server: grpc.aio.Server | None = None
        self.port = port
        """The port, once it is open."""

    def open_port(self) -> int:
        """Choose the port, so that the card can name it before the server starts."""
        if not self._wanted:
            import socket

            with socket.socket() as probe:
                probe.bind((self._address.host, 0))
                self.port = probe.getsockname()[1]
        return self.port

    async def start(self, handler: RequestHandler) -> None:
        """Take requests."""
        server = grpc.aio.server(
            interceptors=[_Keys(self._admission)],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", 256),
            ],
            maximum_concurrent_rpcs=self._admission.settings.max_requests,
        )
        service = GrpcHandler(handler, _Users(self._admission.keys))
        a2a_grpc.add_A2AServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        where = f"{self._address.host}:{self.port}"
        cert, key = self._address.tls_cert, self._address.tls_key
        try:
            if cert is not None and key is not None:
                pair = (read_bounded(key, 1 << 20), read_bounded(cert, 1 << 20))
                server.add_secure_port(where, grpc.ssl_server_credentials([pair]))
            else:
                server.add_insecure_port(where)
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{where} cannot be opened for gRPC: {error}") from None
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close the port; calls under way have a moment to end."""
        if self._server is not None:
            await self._server.stop(_STOP_S)


class _Keys(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a key or of another version, and all calls while the server stops."""

    def __init__(self, admission: Admission):
        self._admission = admission

    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        if self._admission.is_draining:
            return _refusing(grpc.StatusCode.UNAVAILABLE, "the server is stopping: ask another one")
        client = _client(self._admission.keys, details.invocation_metadata)
        if client is None:
            return _refusing(
                grpc.StatusCode.UNAUTHENTICATED, "the API key is missing or not known: send it as a Bearer token"
            )
        version = next((value for name, value in details.invocation_metadata if name.lower() == "a2a-version"), "1.0")
        if str(version).partition(".")[0] != "1":
            return _refusing(grpc.StatusCode.UNIMPLEMENTED, f"A2A {str(version)[:40]!r} is not spoken here: use 1.0")
        return _admitted(_bounded(await continuation(details), details.method, client), self._admission, client)


class _Users(DefaultGrpcServerCallContextBuilder):
    """Makes the SDK's user of a call."""

    def __init__(self, keys: Keys):
        self._keys = keys

    def build_user(self, context: grpc.aio.ServicerContext) -> User:
        """The client of a call, which has passed the interceptor."""
        client = _client(self._keys, context.invocation_metadata() or ())
        assert client is not None, "the interceptor refuses calls without a key"
        return ClientUser(client.name)


def _client(keys: Keys, metadata: Any) -> Client | None:
    given = [value for name, value in metadata if name.lower() == "authorization"]
    text = given[0] if len(given) == 1 and isinstance(given[0], str) else None
    return keys.find(text) if len(given) < 2 else None


def _bounded(handler: Any, method: str, client: Client) -> Any:
    """The handler of a call whose message can be read, has at most the client's `body_bytes`, and at most MAX_VALUES values,
    which the SDK reads repeatedly."""
    known = _METHODS.get(method.rpartition("/")[2])
    if handler is None or handler.request_streaming or known is None:
        return handler
    decode = handler.request_deserializer
    name, most = known.input_type.name, client.limits.body_bytes

    def read(raw: bytes) -> Any:
        if len(raw) > most:
            return _Unreadable(f"the message has more than {most} bytes: send less", grpc.StatusCode.RESOURCE_EXHAUSTED)
        if protobuf_holds_more(raw, known.input_type, MAX_VALUES):
            return _Unreadable(f"the message holds more than {MAX_VALUES:,} values: send less at once")
        try:
            return decode(raw)
        except DecodeError:
            return _Unreadable(f"the message is no {name} of A2A 1.0 in protobuf: build it with an SDK of the protocol")

    async def one(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if isinstance(request, _Unreadable):
            await context.abort(request.code, request.why)
        return await handler.unary_unary(request, context)

    async def stream(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if isinstance(request, _Unreadable):
            await context.abort(request.code, request.why)
        async for each in handler.unary_stream(request, context):
            yield each

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, read, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(one, read, handler.response_serializer)


@dataclass(frozen=True)
class _Unreadable:
    """Stands for a message that is not handed on."""

    why: str
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT


def _admitted(handler: Any, admission: Admission, client: Client) -> Any:
    """The handler of a call within the client's limits, as a request over HTTP is.

    It asks for the message itself, as handlers of streams do: gRPC would wait for it without a deadline, and before a slot
    is held.
    """
    if handler is None or handler.request_streaming:
        return handler

    async def one(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
        async with _slot(admission, client, context):
            request = await _message(requests, admission.settings.body_s, context)
            async with _deadline(client, context):
                return await handler.unary_unary(request, context)

    async def stream(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
        async with _slot(admission, client, context):
            request = await _message(requests, admission.settings.body_s, context)
            async with _deadline(client, context):
                async for each in handler.unary_stream(request, context):
                    yield each

    coding = (handler.request_deserializer, handler.response_serializer)
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, *coding)
    return grpc.stream_unary_rpc_method_handler(one, *coding)


@asynccontextmanager
async def _slot(admission: Admission, client: Client, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Hold one of the client's slots."""
    try:
        with admission.slot(client):
            yield
    except Refusal as refusal:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal.message)


async def _message(requests: AsyncIterator[Any], most_s: float, context: grpc.aio.ServicerContext) -> Any:
    """The one message of a call, which may take `body_s` to come."""
    try:
        async with asyncio.timeout(most_s):
            async for request in requests:
                return request
    except TimeoutError:
        late = f"the message did not come within {most_s:g} s: send it faster"
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message: send one")


@asynccontextmanager
async def _deadline(client: Client, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """End the call after the client's `request_s`, whether the answer takes so long or the client to read it."""
    most_s = client.limits.request_s
    try:
        async with asyncio.timeout(most_s) as timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the answer took more than {most_s:g} s")


def _refusing(code: grpc.StatusCode, text: str) -> Any:
    async def refuse(requests: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(code, text)

    return grpc.stream_unary_rpc_method_handler(refuse)  # a handler of streams does not wait for the message
