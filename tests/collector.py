"""A real OTLP collector on loopback: it takes spans by HTTP and protobuf, or hangs, or refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What was sent, and where to."""

    def __init__(self, url: str):
        self.url = url
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.requests = 0
        self.sizes: list[int] = []

    def take(self, body: bytes) -> None:
        found = ExportTraceServiceRequest.FromString(body)
        for each in found.resource_spans:
            self.resources.append(values(each.resource.attributes))
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def wait(self, count: int, most_s: float = 60.0) -> list[Any]:
        """So many spans, the oldest first."""
        end = time.monotonic() + most_s
        while len(self.spans) < count:
            assert time.monotonic() < end, f"{len(self.spans)} of {count} spans came"
            time.sleep(0.01)
        return sorted(self.spans, key=lambda span: span.start_time_unix_nano)


@contextmanager
def collecting(
    *,
    status: int = 200,
    hang: bool = False,
    redirect: str | None = None,
    body: bytes | None = b"",
    garbage: bytes = b"",
) -> Iterator[Collector]:
    """A collector that answers with a status, or never, or with a redirect, a body (None: without end), or garbage."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.requests += 1
            if hang:
                stop.wait(60)
                return
            taken = self.rfile.read(int(self.headers["content-length"]))
            collector.sizes.append(len(taken))
            if garbage:
                self.wfile.write(garbage)
                self.close_connection = True
                return
            if status == 200 and redirect is None:
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                collector.take(taken)
            self.send_response(307 if redirect else status)
            if redirect:
                self.send_header("location", redirect)
            if body is not None:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the client has read enough
                self.wfile.write(body or b"")
                while body is None and not stop.is_set():
                    self.wfile.write(bytes(1 << 16))
            self.close_connection = body is None

        def do_GET(self) -> None:
            collector.requests += 1
            self.send_error(404)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def values(attributes: Any) -> dict[str, Any]:
    """OTLP's attributes as plain data."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
