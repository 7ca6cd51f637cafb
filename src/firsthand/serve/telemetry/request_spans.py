"""An OpenTelemetry span for each request, under the names of the GenAI conventions (see `telemetry/genai.py`).

A span belongs to the trace that the request's `traceparent` names, and is the parent of what a model behind another endpoint
records. An error in here loses the span and never the request. Prompts and answers are recorded only on request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from firsthand.message import Message, user
from firsthand.model import Completion, Prompt, Sampling, Usage
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import Telemetry

_MOST_ANSWERS = 64
"""The span has the finish reasons and texts of at most this many answers of a request."""


class Operation(NamedTuple):
    """A GenAI operation, which gives its requests' spans a name and attributes."""

    name: str
    """Such as `chat`, `text_completion`, `embeddings` or `invoke_agent`."""
    id_prefix: str = ""
    """The id of an answer is this and the id of its request."""


class RequestSpans:
    """Starts the spans of a server's requests. With `content` they have prompts and answers too."""

    def __init__(self, telemetry: Telemetry, *, content: bool = False):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.telemetry = telemetry
        self.content = content
        self._propagator = TraceContextTextMapPropagator()

    def start(
        self,
        request_id: str,
        method: str,
        route: str,
        headers: Mapping[str, str],
        notes: Mapping[str, Any],
        operation: Operation | None = None,
    ) -> RequestSpan | None:
        """The span of a request, entered for the code that serves it; None if it is not recorded.

        `notes` are the fields of its log line, and are read at its end.
        """
        with suppress(Exception):
            attributes: genai.Attributes = {"http.request.method": method[:20], "http.route": route}
            attributes |= genai.operation(operation.name) if operation else {}
            span = self._start(operation.name if operation else f"{method[:20]} {route}", headers, attributes)
            context = span.get_span_context()
            trace_context.enter(TraceParent(context.trace_id, context.span_id, bool(context.trace_flags.sampled)))
            if span.is_recording():
                return RequestSpan(span, request_id, notes, operation, content=self.content)
        return None

    def _start(self, name: str, headers: Mapping[str, str], attributes: genai.Attributes) -> Any:
        from opentelemetry import trace

        above = self._propagator.extract(headers, context=trace.set_span_in_context(trace.INVALID_SPAN))
        return self.telemetry.tracer.start_span(
            name, context=above, kind=trace.SpanKind.SERVER, attributes=attributes, start_time=time.time_ns()
        )

    def close(self) -> None:
        """Send the spans that wait, for a moment only."""
        self.telemetry.close()

    def metrics(self) -> str:
        """Counts of spans, in Prometheus's text format."""
        counts = {"ended": self.telemetry.ended, "sent": self.telemetry.sent, "failed": self.telemetry.failed}
        lines = [f'firsthand_spans_total{{state="{state}"}} {count}' for state, count in counts.items()]
        help = "Spans of requests that ended, that a collector took, and that none took; the queue loses the rest."
        return "\n".join([f"# HELP firsthand_spans_total {help}", "# TYPE firsthand_spans_total counter", *lines, ""])


class RequestSpan:
    """The span of one request."""

    def __init__(
        self, span: Any, request_id: str, notes: Mapping[str, Any], operation: Operation | None, *, content: bool
    ):
        self._span, self._request_id, self._notes, self._operation = span, request_id, notes, operation
        self._content = content
        self._attributes: genai.Attributes = {}
        self._called_ns = 0
        self._reasons: list[str] = []
        self._prompts: list[Message] = []
        self._answers: list[tuple[Message, str]] = []

    def model(self, name: str) -> None:
        """Record the model's name."""
        operation = self._operation.name if self._operation else ""
        self._attributes |= genai.operation(operation, name)
        self._span.update_name(genai.label(f"{operation} {name}"))

    def called(self, model: str, prompt: Prompt | Sequence[int], sampling: Sampling, n: int) -> None:
        """Record a call of the model. A request may make several, each with a prompt of its own."""
        with suppress(Exception):
            if not self._called_ns:
                self._called_ns = time.time_ns()
                self.model(model)
                stream = bool(self._notes.get("stream"))
                self._attributes |= genai.request(sampling.to_json(), n=n, stream=stream)
            if self._content and len(self._prompts) < _MOST_ANSWERS:
                self._prompts += _messages(prompt)

    def answered(self, completion: Completion, waited_s: float | None) -> None:
        """Record the end of an answer."""
        if len(self._reasons) < _MOST_ANSWERS:
            self._reasons.append(completion.finish_reason)
            if self._content:
                self._answers.append((completion.message, completion.finish_reason))
        if waited_s is not None:
            self._attributes.setdefault("firsthand.time_in_queue", waited_s)

    def close(self, status: int, client: str) -> None:
        """End the span with the status that the client got; 499 if it left before."""
        with suppress(Exception):
            self._finish(status, client)
            self._span.end()

    def _finish(self, status: int, client: str) -> None:
        from opentelemetry.trace import StatusCode

        notes, attributes = self._notes, self._attributes
        attributes |= {"http.response.status_code": status, "firsthand.client": client}
        if "prompt_tokens" in notes:
            counts = (int(notes.get(f"{kind}_tokens", 0)) for kind in ("prompt", "cached", "completion"))
            attributes |= genai.usage(Usage(*counts))
        if self._reasons:
            attributes |= {
                "gen_ai.response.id": (self._operation.id_prefix if self._operation else "") + self._request_id,
                "gen_ai.response.model": attributes.get("gen_ai.request.model", ""),
                "gen_ai.response.finish_reasons": self._reasons,
            }
        if "ttft_ms" in notes:
            first_s = notes["ttft_ms"] / 1000
            self._span.add_event("firsthand.first_token", timestamp=self._called_ns + int(first_s * 1e9))
            attributes |= {"gen_ai.response.time_to_first_chunk": first_s} if notes.get("stream") else {}
        if self._content:
            attributes |= genai.prompt(self._prompts) if self._prompts else {}
            attributes |= genai.answers(self._answers) if self._answers else {}
        code = int(notes.get("code", status))  # an error in the middle of a stream comes after a 200
        if code >= 400:
            attributes["error.type"] = str(code)
        if code >= 500:
            self._span.set_status(StatusCode.ERROR, genai.clean(str(notes.get("error", "")))[:300] or None)
        self._span.set_attributes(genai.exportable(attributes))


def _messages(prompt: Prompt | Sequence[int]) -> list[Message]:
    """A prompt as messages; token ids are shown as their number."""
    if isinstance(prompt, str):
        return [user(prompt)]
    messages = [each for each in prompt if isinstance(each, Message)]
    return messages or [user(f"[{len(prompt)} token ids]")]
