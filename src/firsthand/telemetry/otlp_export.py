"""Exports spans to an OpenTelemetry collector by OTLP over HTTP: Jaeger, Langfuse, Phoenix and others accept them.

Telemetry never delays or fails a run. A background thread empties a bounded queue; a collector that hangs, refuses or is
down costs spans, which are counted, and nothing else. The destination comes from OpenTelemetry's own environment
variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME ...), which its SDK reads.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from firsthand import __version__
from firsthand.errors import ConfigError, FirsthandError, MissingExtra
from firsthand.system.otlp_reply import rejected_spans
from firsthand.telemetry import genai
from firsthand.telemetry.trace_spans import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_CREDENTIALS = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_(TRACES_)?CREDENTIAL_PROVIDER"
"""Variables of the SDK that name a session to use in place of ours."""
_PATH = "/v1/traces"
_BATCH = 512
"""Spans that are sent at a time where somebody waits for them."""
CONNECT_S = 3.0
"""Max seconds until a collector that somebody waits for accepts a connection."""
_REQUEST_BYTES = 1 << 24
"""Bytes of spans in a request, about: collectors and the SDK refuse large ones as a whole."""
_REPLY_BYTES, _REPLY_S = 65_536, 2.0
"""The longest body of a reply that is read, and the seconds after which no more of it is waited for."""
CLOSE_S = 2.0
"""Max seconds to flush unsent spans at exit."""


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """True if the environment asks for spans to be sent."""
    if _is_disabled(environment):
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter != "none"
    return any(environment.get(name) for name in _ENDPOINTS)


def open_telemetry(
    asked: bool, *, endpoint: str | None = None, on_problem: Callable[[str], None] = lambda text: None
) -> Telemetry | None:
    """A Telemetry that sends spans; None if nobody asked for them or OTEL_SDK_DISABLED is set.

    What cannot be done is an error if a flag `asked`, and `on_problem` is told of it if only the environment did.
    """
    if _is_disabled(os.environ) or not (asked or is_asked_for(os.environ)):
        return None
    try:
        return Telemetry(endpoint, on_problem=on_problem)
    except FirsthandError as error:
        if asked:
            raise
        on_problem(f"no spans are sent: {error}")
        return None


def check_telemetry(asked: bool) -> None:
    """MissingExtra or ConfigError if a flag `asked` for spans that cannot be sent from here; no collector is asked."""
    if not asked or _is_disabled(os.environ):
        return
    try:
        _exporter(None).shutdown()
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "otel", "sending spans") from None


def collector_url(endpoint: str | None, environment: Mapping[str, str]) -> str:
    """The URL that spans are sent to: of the collector at `endpoint`, or where OpenTelemetry's variables say."""
    if endpoint is not None:
        return traces_url(endpoint)
    own, base = (environment.get(name, "").strip() for name in _ENDPOINTS)
    return own or f"{(base or 'http://localhost:4318').rstrip('/')}{_PATH}"


def check_collector(url: str) -> None:
    """ConfigError if nothing listens at a collector's address. Behind a proxy nothing is checked."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        shown = f"{parts.scheme}://{host}:{port}{parts.path}"
        raise ConfigError(
            f"no collector answers at {shown} ({error.strerror or error}): start one there, or give the address of another, "
            "as in --otlp http://HOST:4318"
        ) from None


def _is_disabled(environment: Mapping[str, str]) -> bool:
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


class Telemetry:
    """A queue of spans and the thread that sends them. `on_problem` is told when sending begins to fail.

    `endpoint` is a collector's base URL, such as http://localhost:4318; without it the environment says where it is.
    """

    def __init__(self, endpoint: str | None = None, *, on_problem: Callable[[str], None] = lambda text: None):
        try:
            from opentelemetry.sdk.trace import TracerProvider

            self._exporter = _exporter(endpoint, self._take_reply)
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "otel", "sending spans") from None
        self.ended = self.sent = self.failed = 0
        """Spans that were to be sent, that a collector took, and that were lost since it did not. The rest waits, or was too
        much for the queue."""
        self.problem = ""
        """Why the last spans could not be sent."""
        self.reply = b""
        """The body of the collector's last reply."""
        self._on_problem = on_problem
        self._is_failing = False
        self._lock = threading.Lock()
        self._unsampled = 0
        """The trace of the last root that the sampler left out."""
        self._ids = _ids()
        self._listener = _Listener(self)
        logging.getLogger("opentelemetry").addHandler(self._listener)
        self._processor = _processor(self, self._exporter)
        provider = TracerProvider(resource=_resource(os.environ), shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._processor)
        self.tracer: Any = provider.get_tracer("firsthand", __version__)

    def send(self, spans: Iterable[Span]) -> None:
        """Put spans into the queue; of each trace its root first, for a sampler that leaves that out leaves out the rest."""
        with self._lock:
            for span in spans:
                self._put(span)

    def deliver(self, spans: Iterable[Span]) -> bool:
        """Send spans and wait; returns whether a collector accepted them all."""
        waiting = list(spans)
        failed = self.failed
        for start in range(0, len(waiting), _BATCH):
            self.send(waiting[start : start + _BATCH])
            self._processor.force_flush()
            if self.failed > failed:
                return False
        return True

    def close(self, within_s: float = CLOSE_S) -> None:
        """Flush the queue, at most `within_s` seconds; spans not sent by then are lost."""
        ending = threading.Thread(target=self._processor.shutdown, name="firsthand-otel-end", daemon=True)
        ending.start()
        ending.join(within_s)
        if ending.is_alive():
            with suppress(Exception):
                self._exporter.shutdown()  # what is being sent is given up
        logging.getLogger("opentelemetry").removeHandler(self._listener)

    def _put(self, span: Span) -> None:
        from opentelemetry import trace

        parent = trace.set_span_in_context(trace.INVALID_SPAN)
        if span.parent_id is not None:
            if span.trace_id == self._unsampled:
                return
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            above = trace.SpanContext(span.trace_id, span.parent_id, is_remote=False, trace_flags=flags)
            parent = trace.set_span_in_context(trace.NonRecordingSpan(above))
        self._ids.use(span.trace_id, span.span_id)
        made = self.tracer.start_span(
            genai.label(span.name),
            context=parent,
            kind=trace.SpanKind.CLIENT if span.kind == "client" else trace.SpanKind.INTERNAL,
            attributes=genai.exportable(span.attributes),
            start_time=span.start_ns,
        )
        self._ids.use(0, 0)
        if span.parent_id is None:
            self._unsampled = 0 if made.is_recording() else span.trace_id
        for event in span.events:
            made.add_event(genai.label(event.name), genai.exportable(event.attributes), event.at_ns)
        if span.error is not None:
            made.set_status(trace.StatusCode.ERROR, genai.label(span.error) or None)
        made.end(span.end_ns)

    def note(self, count: int, succeeded: bool) -> None:
        """Count spans that the exporter was given."""
        if succeeded:
            self.sent += count
        else:
            self.failed += count
            if not self._is_failing:
                self.note_problem(f"spans cannot be sent: {self.problem or 'the collector did not take them'}")
        self._is_failing = not succeeded

    def note_reply(self, count: int) -> bool:
        """Count spans of a request that was accepted, by the collector's reply; False if it rejected some of them."""
        rejected = rejected_spans(self.reply, count)
        if not rejected.number:
            self.note(count, True)
            return True
        self.sent += count - rejected.number
        self.problem = rejected.why
        self.note(rejected.number, False)
        return False

    def _take_reply(self, body: bytes) -> None:
        self.reply = body

    def note_problem(self, text: str) -> None:
        """Tell whoever wants to know."""
        with suppress(Exception):
            self._on_problem(text)


class _Listener(logging.Handler):
    """Hears what the SDK complains of, which would otherwise be printed."""

    def __init__(self, telemetry: Telemetry):
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        self._telemetry.problem = " ".join(record.getMessage().split())[:300]


def _exporter(endpoint: str | None, on_reply: Callable[[bytes], None] = lambda body: None) -> Any:
    """An exporter to an endpoint, by default the environment's. `on_reply` is given the bodies of replies."""
    kind = "otlp" if endpoint is not None else os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if kind not in ("otlp", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {kind!r:.80}: give otlp, console or none")
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r:.80}: spans are sent as http/protobuf, which collectors take on "
            "port 4318"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provided = any(re.fullmatch(_CREDENTIALS, name) and value for name, value in os.environ.items())
    url = None if endpoint is None else traces_url(endpoint)
    return OTLPSpanExporter(endpoint=url, session=None if provided else _session(on_reply))


def _session(on_reply: Callable[[bytes], None] = lambda body: None) -> Any:
    """A session that asks the given address alone and reads no body but a short one: a redirect would take headers with keys
    elsewhere, and the SDK counts it as success; a body may have no end."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: Any) -> None:
            """None: of a redirect that is not followed, `requests` reads the body all the same."""

        def request(self, *args: Any, **options: Any) -> requests.Response:
            with super().request(*args, **{**options, "stream": True}) as response:
                if 300 <= response.status_code < 400:
                    raise requests.exceptions.InvalidURL(
                        f"the collector answered {response.status_code}, a redirect: give the address it leads to"
                    )
                if response.ok:
                    on_reply(_short_body(response))
                answer = requests.Response()
                answer.status_code, answer.reason, answer.url = response.status_code, response.reason, response.url
                answer.headers = response.headers
                return answer

    session = Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def _short_body(response: Any) -> bytes:
    """The body of a reply: with a stated length, in chunks or up to the connection's end; empty if packed, broken off,
    longer than 64 KiB or late."""
    stated = response.headers.get("Content-Length", "")
    is_chunked = response.headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
    if response.headers.get("Content-Encoding") or (response.headers.get("Transfer-Encoding") and not is_chunked):
        return b""
    if stated and not (stated.isascii() and stated.isdigit() and len(stated) <= 5 and int(stated) <= _REPLY_BYTES):
        return b""
    most = int(stated) if stated and not is_chunked else _REPLY_BYTES + 1
    body, until = bytearray(), time.monotonic() + _REPLY_S
    try:
        while len(body) < most:
            if time.monotonic() > until:
                return b""
            piece = response.raw.read1(most - len(body), decode_content=False)
            if not piece:
                break
            body += piece
    except Exception:  # a reply that breaks off: its status counts
        return b""
    is_whole = len(body) <= _REPLY_BYTES and (len(body) == most or is_chunked or not stated)
    return bytes(body) if is_whole else b""


def traces_url(endpoint: str) -> str:
    """The URL that accepts spans on a collector with that base URL."""
    with suppress(ValueError):
        parts = urlsplit(endpoint.strip())
        if parts.scheme in ("http", "https") and parts.hostname:
            url = endpoint.strip().rstrip("/")
            return url if url.endswith(_PATH) else url + _PATH
    raise ConfigError(f"the collector {endpoint!r:.120} is no URL: give one such as http://localhost:4318")


def _processor(telemetry: Telemetry, exporter: Any) -> Any:
    """The SDK's queue around an exporter, both counted."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Counted(SpanExporter):
        def export(self, spans: Any) -> Any:
            results = [self._send(part) for part in _requests(spans)]
            return next((each for each in results if each is not SpanExportResult.SUCCESS), SpanExportResult.SUCCESS)

        def _send(self, spans: Any) -> Any:
            result = SpanExportResult.FAILURE
            try:
                result = exporter.export(spans)
            except Exception as error:
                telemetry.problem = f"{type(error).__name__}: {error}"[:300]
            if result is not SpanExportResult.SUCCESS:
                telemetry.note(len(spans), False)
                return result
            return result if telemetry.note_reply(len(spans)) else SpanExportResult.FAILURE

        def shutdown(self) -> None:
            exporter.shutdown()

    class Counting(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            telemetry.ended += bool(span.context and span.context.trace_flags.sampled)
            super().on_end(span)

    return Counting(Counted())


def _requests(spans: Iterable[Any]) -> Iterator[list[Any]]:
    """The spans in groups of about _REQUEST_BYTES, at least one span each."""
    group: list[Any] = []
    held = 0
    for span in spans:
        size = 1024 + sum(3 * len(value) if isinstance(value, str) else 64 for value in span.attributes.values())
        if group and held + size > _REQUEST_BYTES:
            yield group
            group, held = [], 0
        group.append(span)
        held += size
    if group:
        yield group


def _resource(environment: Mapping[str, str]) -> Any:
    """The resource attributes: service `firsthand`, unless the environment names another."""
    from opentelemetry.sdk.resources import Resource

    pairs = [item.split("=", 1) for item in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in item]
    stated = {key.strip(): value.strip() for key, value in pairs}  # as the SDK reads them
    named = environment.get("OTEL_SERVICE_NAME") or stated.get("service.name")
    own = {} if named else {"service.name": "firsthand"}
    return Resource.create({**own, "service.version": __version__})


def _ids() -> Any:
    """An id generator that gives the ids it was told to, once, and random ones otherwise."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def __init__(self) -> None:
            self._next = threading.local()

        def use(self, trace_id: int, span_id: int) -> None:
            self._next.trace_id, self._next.span_id = trace_id, span_id

        def generate_trace_id(self) -> int:
            return self._take("trace_id") or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self._take("span_id") or super().generate_span_id()

        def _take(self, name: str) -> int:
            value = int(getattr(self._next, name, 0))
            setattr(self._next, name, 0)
            return value

    return Ids()
