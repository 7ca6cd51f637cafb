"""Destinations of recorded spans: an OTLP address, sent in the background, or a run, one attempt for each root call."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from firsthand.errors import ConfigError, DataError, FirsthandError
from firsthand.ingest.as_trace import asked_of, question_of, trace_of
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.otlp_environment import exporter_headers, is_compressed, resource_attributes, trusted
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.translate import facts_of
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.runs.run_names import DATABASE
from firsthand.system.address_secrets import without_secrets
from firsthand.system.bounded_reply import answer_of
from firsthand.system.otlp_reply import rejected_spans
from firsthand.task import Task
from firsthand.trace import Trace

MAX_WAITING = 20_000
MAX_WAITING_CHARS = 1 << 28
BATCH = 512
MAX_BATCH_CHARS = 1 << 24
"""Characters of a request's texts, and one span: as JSON they take at most six times as many bytes."""
EVERY_S = 0.5
TIMEOUT_S = 5.0
MAX_OPEN_TRACES = 1000
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+")
_HEADER_VALUE = re.compile(r"[ -~\t]*")


class SpanSink(Protocol):
    """Takes ended spans."""

    def put(self, span: IncomingSpan, is_root: bool) -> None:
        """Take a span, the last of its trace if it is the root; never waits and never fails."""

    def flush(self, within_s: float) -> bool:
        """Send what waits; True if all of it was sent in time."""


class OtlpSender:
    """Sends spans to an OTLP address as JSON, from a thread of its own. `dropped` counts what could not be sent.

    OpenTelemetry's variables add headers, attributes of the program and certificates, and may turn compression off.
    """

    def __init__(self, url: str, service: str, headers: Mapping[str, str]):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"trace_to was given {url!r}: give an address such as http://127.0.0.1:4318")
        self.url = url.rstrip("/") + "/v1/traces" if parts.path in ("", "/") else url
        self.dropped = 0
        self.problem = ""
        self._service = service
        self._resource = resource_attributes(os.environ)
        self._is_compressed = is_compressed(os.environ)
        given = {**exporter_headers(os.environ), **headers}
        self._headers = {name: _checked(name, value) for name, value in given.items()}
        self._waiting: deque[tuple[IncomingSpan, int]] = deque()  # with its characters
        self._waiting_chars = 0
        self._changed = threading.Condition()
        self._sending = 0
        self._pid = 0
        atexit.register(self.end, TIMEOUT_S)

    def put(self, span: IncomingSpan, is_root: bool) -> None:
        """Queue a span; one too many is dropped."""
        with self._changed:
            if self._pid != os.getpid():  # a thread does not survive a fork
                self._pid = os.getpid()
                threading.Thread(target=self._work, name="span-sender", daemon=True).start()
            num_chars = _num_chars(span)
            if len(self._waiting) >= MAX_WAITING or self._waiting_chars + num_chars > MAX_WAITING_CHARS:
                self.dropped += 1
                return
            self._waiting.append((span, num_chars))
            self._waiting_chars += num_chars
            if len(self._waiting) >= BATCH:
                self._changed.notify_all()

    def flush(self, within_s: float) -> bool:
        """Send what waits; True if all of it was sent in time."""
        end = time.monotonic() + within_s
        with self._changed:
            self._changed.notify_all()
            while self._waiting or self._sending:
                left = end - time.monotonic()
                if left <= 0 or self._pid != os.getpid():
                    return False
                self._changed.wait(min(left, 0.1))
                self._changed.notify_all()
        return True

    def end(self, within_s: float) -> bool:
        """As `flush`, when the program ends; what was lost is logged."""
        done = self.flush(within_s)
        lost = self.dropped + (0 if done or self._pid != os.getpid() else len(self._waiting) + self._sending)
        _tell(lost, "spans not sent", without_secrets(self.url), self.problem or "no collector took them")
        return done

    def _work(self) -> None:
        import httpx

        is_near = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")  # no proxy stands before these
        client: httpx.Client | None = None
        while True:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(EVERY_S)
                batch = self._next_batch()
                self._sending = len(batch)
            if not batch:
                continue
            taken = 0
            try:
                if client is None:
                    verify = trusted(os.environ)
                    client = httpx.Client(
                        timeout=TIMEOUT_S, follow_redirects=False, trust_env=not is_near, verify=verify
                    )
                taken = self._sent(client, batch)
            except Exception as error:  # an odd span or proxy: the thread goes on with the next batch
                self.problem = f"{type(error).__name__}: {error}"
            with self._changed:
                self.dropped += len(batch) - taken
                self._sending = 0
                self._changed.notify_all()
                is_more = len(batch) >= BATCH or self._waiting_chars > MAX_BATCH_CHARS
            if not is_more:
                time.sleep(0.02)

    def _next_batch(self) -> list[IncomingSpan]:
        """Take the next spans from those that wait: of a bounded number, and of a bounded length but for the last."""
        batch: list[IncomingSpan] = []
        before = self._waiting_chars
        while self._waiting and len(batch) < BATCH and before - self._waiting_chars < MAX_BATCH_CHARS:
            span, num_chars = self._waiting.popleft()
            batch.append(span)
            self._waiting_chars -= num_chars
        return batch

    def _sent(self, client: Any, batch: Sequence[IncomingSpan]) -> int:
        """The number of spans that the collector took."""
        import httpx

        body = json.dumps(otlp_json(batch, self._service, self._resource), ensure_ascii=True).encode()
        headers = {"content-type": "application/json", **self._headers}
        if self._is_compressed:
            body, headers = gzip.compress(body, 1), {"content-encoding": "gzip", **headers}
        for number in range(3):
            try:
                request = client.build_request("POST", self.url, content=body, headers=headers)
                reply = answer_of(client, request, within_s=2 * TIMEOUT_S)
                if reply.status < 300:
                    rejected = rejected_spans(reply.body, len(batch))
                    self.problem = rejected.why if rejected.number else self.problem
                    return len(batch) - rejected.number
                self.problem = f"the collector answered {reply.status}"
                if reply.status not in (429, 502, 503, 504):
                    return 0
            except (httpx.HTTPError, OSError, DataError) as error:
                self.problem = str(error) or type(error).__name__
            time.sleep(0.2 * 4**number)
        return 0


class RunRecorder:
    """Keeps each root call with what it called as an attempt of a run, redacted as received spans are.

    Several processes may keep theirs in one run. A call that ends after its root is not kept. `dropped` counts traces that
    were not kept, or not whole, and `problem` is the last reason.
    """

    def __init__(self, folder: Path, service: str):
        self._folder, self._service = folder, service
        self._lock = threading.Lock()
        self._waiting: deque[tuple[IncomingSpan, bool]] = deque()
        self._open: dict[str, list[IncomingSpan]] = {}
        self._run: Run | None = None
        self._redactor = Redactor()
        self.dropped = 0
        self.problem = ""
        atexit.register(self.end, TIMEOUT_S)
        if not (folder / DATABASE).exists() and folder.exists() and not folder.is_dir():
            raise ConfigError(
                f"trace_to was given {str(folder)!r}, which is a file: give a folder, or an address http(s)://..."
            )

    def put(self, span: IncomingSpan, is_root: bool) -> None:
        """Take a span; with its root the trace is kept. A stream that the garbage collector drops may end inside of this."""
        self._waiting.append((span, is_root))
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._take_waiting()
            finally:
                self._lock.release()

    def _take_waiting(self) -> None:
        """Take what waits; the lock is held, and whoever comes meanwhile leaves a span here and goes on."""
        while self._waiting:
            self._take(*self._waiting.popleft())

    def _take(self, span: IncomingSpan, is_root: bool) -> None:
        held = self._open.setdefault(span.trace_id, [])
        held.append(span)
        if not is_root:
            if len(self._open) > MAX_OPEN_TRACES:
                self._open.pop(next(iter(self._open)))
                self.dropped += 1
            return
        del self._open[span.trace_id]
        try:
            self._keep(span, held)
        except (FirsthandError, OSError) as error:
            self.dropped += 1
            self.problem = str(error)

    def flush(self, within_s: float) -> bool:
        """Close the run, which goes on with the next trace: nothing waits, for a trace is kept when its root ends."""
        while True:
            with self._lock:
                self._take_waiting()
                if self._run is not None:
                    self._run.finish("done")
                    self._run.close()
                    self._run = None
            if not self._waiting:
                return True

    def end(self, within_s: float) -> bool:
        """As `flush`, when the program ends; what ended after its root, or has none, is lost, and the loss is logged."""
        done = self.flush(within_s)
        with self._lock:
            lost, self._open = self._open, {}
        self.dropped += len(lost)
        why = self.problem or "calls ended after their root call, or it did not end"
        _tell(self.dropped, "traces not kept, or not whole", str(self._folder), why)
        return done

    def _keep(self, root: IncomingSpan, spans: list[IncomingSpan]) -> None:
        for span in spans:
            span.resource = {"service.name": self._service}
            self._redactor.redact(span)
        stored = [stored_of(number, span) for number, span in enumerate(spans)]
        question = question_of(stored)
        digest = hashlib.sha256(asked_of(stored).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        made = with_spans(trace_of(root.trace_id, stored), spans)
        body = made.to_json() | {"task_id": f"{root.name}-{digest}", "benchmark": "traced"}
        trace = type(made).from_json(json.loads(json.dumps(body, default=str)))
        run = self._opened()
        run.add_tasks("traced", [Task(trace.task_id, question)])
        run.add_agent(trace.agent_name, {"name": trace.agent_name})
        run.append(trace)

    def _opened(self) -> Run:
        if self._run is None:
            about = {"traced": self._service}
            self._run = store.open_or_create(self._folder.parent, about, "traced", at=self._folder)
        return self._run


def _tell(count: int, what: str, where: str, why: str) -> None:
    if count:
        logging.getLogger("firsthand").warning("%s: %s: %d (%s)", where[:300], what, count, " ".join(why.split())[:300])


def stored_of(seq: int, span: IncomingSpan) -> StoredSpan:
    """A span as the store gives it back."""
    facts = facts_of(span)
    usage = Usage(facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens, facts.cost_usd)
    what: SpanKind = facts.what
    return StoredSpan(seq, span, what, facts.label, facts.model, usage)


def with_spans(trace: Trace, spans: Sequence[IncomingSpan]) -> Trace:
    """The trace with all that its spans hold: attributes, events and error are in the data of the event, or the detail of
    the call, that was made of a span. A run has no other place for them, as the store of received traces has.
    """
    held = {each.span_id: _held(each) for each in spans}
    events = [replace(each, data=each.data | held.get(str(each.data.get("span")), {})) for each in trace.events]
    in_events = {each.data.get("span") for each in trace.events}
    calls = [
        each
        if (id := each.detail.get("span")) in in_events
        else replace(each, detail=each.detail | held.get(str(id), {}))
        for each in trace.calls
    ]
    return replace(trace, events=tuple(events), calls=tuple(calls))


def _held(span: IncomingSpan) -> Json:
    """Return the contents of a span besides its name, its times and its kind."""
    body = span.body() | ({} if span.error is None else {"error": span.error})
    return {name: body[name] for name in ("attributes", "events", "links", "scope", "error") if name in body}


def _num_chars(span: IncomingSpan) -> int:
    held = [span.attributes, *(event["attributes"] for event in span.events)]
    return sum(len(value) for each in held for value in each.values() if isinstance(value, str))


def otlp_json(spans: Sequence[IncomingSpan], service: str, about: Mapping[str, str] | None = None) -> Json:
    """An ExportTraceServiceRequest in OTLP's JSON encoding; `about` holds further attributes of the program."""
    own = {"service.name": service, "telemetry.sdk.language": "python", "telemetry.sdk.name": "firsthand"}
    resource = _pairs({**own, **(about or {}), "service.name": service})
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": resource},
                "scopeSpans": [{"scope": {"name": "firsthand.traced"}, "spans": [_span_json(each) for each in spans]}],
            }
        ]
    }


def _span_json(span: IncomingSpan) -> Json:
    body: Json = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind or 1,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _pairs(span.attributes),
        "events": [
            {"name": each["name"], "timeUnixNano": str(each["at_ns"]), "attributes": _pairs(each["attributes"])}
            for each in span.events
        ],
        "status": {} if span.error is None else {"code": 2, "message": span.error},
    }
    return body | ({"parentSpanId": span.parent_id} if span.parent_id else {})


def _pairs(attributes: Json) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if -(2**63) <= value < 2**63 else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value} if value == value and abs(value) != float("inf") else {"stringValue": str(value)}
    return {"stringValue": value if isinstance(value, str) else str(value)}


def _checked(name: str, value: str) -> str:
    """The value of a header, without blanks around it; ConfigError, which does not quote it, if it cannot be sent."""
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigError(f"trace_to was given a header named {name[:80]!r}: give a name of letters, digits and dashes")
    value = value.strip()  # a key that was read from a file ends with a line break
    if not _HEADER_VALUE.fullmatch(value):
        raise ConfigError(f"trace_to was given a value for {name[:80]!r} that no header may have: give printable ASCII")
    return value
