"""Receives spans by OTLP over gRPC, on the loopback address. Needs grpcio: the extra `otlp-grpc`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from firsthand.errors import ConfigError
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome

WAIT_S = 60.0
MAX_MESSAGE_BYTES = 16 << 20
"""Four times what the OpenTelemetry Collector takes; larger requests go over HTTP. Eight are received at a time."""


def serve_grpc(writer: SpanWriter, port: int, key: str | None = None) -> tuple[int, Callable[[], None]]:
    """Listen on 127.0.0.1; returns the port, and a function that ends it. ConfigError if the port is taken."""
    try:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
    except ImportError:
        raise ConfigError("spans over gRPC need an extra: pip install 'firsthand[studio,otlp-grpc]'") from None

    def export(raw: bytes, context: Any) -> Any:
        ended = threading.Event()
        outcomes: list[WriteOutcome] = []

        def done(outcome: WriteOutcome) -> None:
            outcomes.append(outcome)
            ended.set()

        if not writer.submit(raw, "protobuf", "", done) or not ended.wait(WAIT_S):
            context.abort(grpc.StatusCode.UNAVAILABLE, "too many requests wait: send it again later")
        outcome = outcomes[0]
        if outcome.problem:
            code = grpc.StatusCode.UNAVAILABLE if outcome.retry else grpc.StatusCode.INVALID_ARGUMENT
            context.abort(code, outcome.problem)
        answer = messages.ExportTraceServiceResponse()
        if outcome.rejected:
            answer.partial_success.rejected_spans = outcome.rejected
            answer.partial_success.error_message = "spans without valid ids were left out"
        return answer

    def refuse(requests: Any, context: Any) -> Any:
        context.abort(
            grpc.StatusCode.UNAUTHENTICATED, "send the key that the Studio was started with, as authorization"
        )

    class Keys(grpc.ServerInterceptor):  # type: ignore[misc]
        """Refuses calls without the key before their message is received: a handler of streams asks for none by itself."""

        def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
            if key is not None and not _shows_key(details.invocation_metadata, key):
                return grpc.stream_unary_rpc_method_handler(refuse)
            return continuation(details)

    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=None,  # bytes, which are decoded after the key and within bounds
        response_serializer=messages.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(
        ThreadPoolExecutor(8), options=limits, interceptors=(Keys(),), compression=grpc.Compression.Gzip
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    try:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise ConfigError(f"127.0.0.1:{port} cannot be opened for gRPC: give another --grpc-port")
    server.start()
    return bound, lambda: server.stop(1).wait()


def _shows_key(metadata: Any, key: str) -> bool:
    import hmac

    shown = {str(name).lower(): value for name, value in metadata}
    bearer = str(shown.get("authorization", "")).removeprefix("Bearer ").strip()
    given = [bearer, str(shown.get("x-api-key", ""))]
    return any(
        hmac.compare_digest(each.encode("utf-8", "replace"), key.encode("utf-8", "replace")) for each in given if each
    )
