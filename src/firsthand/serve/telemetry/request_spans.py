"""A span of each request, under the names of OpenTelemetry's GenAI conventions (see `runs.genai`).

It belongs to the trace that the request's `traceparent` names, and a model behind another endpoint is asked in its name.
Whatever goes wrong in here costs the span and never the request. Prompts and answers are told only where that was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from firsthand.message import Message, user
from firsthand.model import Completion, Prompt, Sampling, Usage
from firsthand.serve.models.served_model import Asked, Door
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import Telemetry, open_telemetry

_OPERATIONS = {
    "/v1/chat/completions": ("chat", "chatcmpl-"),
    "/v1/responses": ("chat", "resp_"),
    "/v1/completions": ("text_completion", "cmpl-"),
    "/v1/embeddings": ("embeddings", ""),
}
"""What a route does, and how the ids of its answers begin."""
_UNTOLD = ("/health", "/health/live", "/metrics")
"""Asked every few seconds by machines: their spans would hide the others."""
_MOST_ANSWERS = 64
"""Of a request with more answers these many have a finish reason and a text in the span."""


def open_spans(door: Door, *, asked: bool = False) -> Spans | None:
    """What tells of a door's requests; None if neither a flag asked for it nor the environment."""
    telemetry = open_telemetry(asked, on_problem=lambda text: door.log.write("telemetry", error=text))
    return None if telemetry is None else Spans(telemetry, content=genai.captures_content(os.environ))


class Spans:
    """Begins the spans of a server's requests. `content` tells prompts and answers too."""

    def __init__(self, telemetry: Telemetry, *, content: bool = False):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.telemetry = telemetry
        self.content = content
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, asked: Asked, method: str, headers: Mapping[str, str]) -> RequestSpan | None:
        """The span of a request that has come, entered for the code that serves it; None if it is not to be recorded."""
        if asked.route in _UNTOLD:
            return None
        with suppress(Exception):
            verb, _ = _OPERATIONS.get(asked.route, ("", ""))
            attributes: genai.Attributes = {"http.request.method": method[:20], "http.route": asked.route}
            attributes |= genai.operation(verb) if verb else {}
            made = self._start(verb or f"{method[:20]} {asked.route}", headers, attributes)
            place = made.get_span_context()
            trace_context.enter(TraceParent(place.trace_id, place.span_id, bool(place.trace_flags.sampled)))
            if made.is_recording():
                return RequestSpan(made, asked, content=self.content)
        return None

    def _start(self, name: str, headers: Mapping[str, str], attributes: genai.Attributes) -> Any:
        from opentelemetry import trace

        above = self._propagator.extract(headers, context=trace.set_span_in_context(trace.INVALID_SPAN))
        return self.telemetry.tracer.start_span(
            name, context=above, kind=trace.SpanKind.SERVER, attributes=attributes, start_time=time.time_ns()
        )

    def close(self) -> None:
        """Send what waits, for a moment only."""
        self.telemetry.close()

    def metrics(self) -> str:
        """What became of spans, in Prometheus's text format."""
        told = self.telemetry
        counts = {"ended": told.ended, "sent": told.sent, "failed": told.failed}
        lines = [f'firsthand_spans_total{{state="{state}"}} {count}' for state, count in counts.items()]
        help = "Spans of requests that ended, that a collector took, and that none took; the queue loses the rest."
        return "\n".join([f"# HELP firsthand_spans_total {help}", "# TYPE firsthand_spans_total counter", *lines, ""])


class RequestSpan:
    """One request, as it becomes known."""

    def __init__(self, made: Any, asked: Asked, *, content: bool):
        self._made, self._asked, self._content = made, asked, content
        self._attributes: genai.Attributes = {}
        self._asked_ns = 0
        self._reasons: list[str] = []
        self._prompts: list[Message] = []
        self._told: list[tuple[Message, str]] = []

    def model(self, name: str) -> None:
        """Whom the request is for."""
        verb, _ = _OPERATIONS.get(self._asked.route, ("", ""))
        self._attributes |= genai.operation(verb, name)
        self._made.update_name(genai.clean(f"{verb} {name}"))

    def asks(self, model: str, prompt: Prompt | Sequence[int], sampling: Sampling, n: int) -> None:
        """What the model is asked for. A request may ask several times, for prompts of its own."""
        with suppress(Exception):
            if not self._asked_ns:
                self._asked_ns = time.time_ns()
                self.model(model)
                stream = bool(self._asked.notes.get("stream"))
                self._attributes |= genai.request(sampling.to_json(), n=n, stream=stream)
            if self._content and len(self._prompts) < _MOST_ANSWERS:
                self._prompts += _messages(prompt)

    def answered(self, completion: Completion, waited_s: float | None) -> None:
        """An answer that has come to its end."""
        if len(self._reasons) < _MOST_ANSWERS:
            self._reasons.append(completion.finish_reason)
            if self._content:
                self._told.append((completion.message, completion.finish_reason))
        if waited_s is not None:
            self._attributes.setdefault("firsthand.time_in_queue", waited_s)

    def close(self, status: int) -> None:
        """End the span with the status that the client got; 499 if it left before."""
        with suppress(Exception):
            self._finish(status)
            self._made.end()

    def _finish(self, status: int) -> None:
        from opentelemetry.trace import StatusCode

        notes, found = self._asked.notes, self._attributes
        found |= {"http.response.status_code": status, "firsthand.client": self._asked.client.name}
        if "prompt_tokens" in notes:
            counts = (int(notes.get(f"{kind}_tokens", 0)) for kind in ("prompt", "cached", "completion"))
            found |= genai.usage(Usage(*counts))
        if self._reasons:
            _, begin = _OPERATIONS.get(self._asked.route, ("", ""))
            found |= {
                "gen_ai.response.id": begin + self._asked.id,
                "gen_ai.response.model": found.get("gen_ai.request.model", ""),
                "gen_ai.response.finish_reasons": self._reasons,
            }
        if "ttft_ms" in notes:
            first_s = notes["ttft_ms"] / 1000
            self._made.add_event("firsthand.first_token", timestamp=self._asked_ns + int(first_s * 1e9))
            found |= {"gen_ai.response.time_to_first_chunk": first_s} if notes.get("stream") else {}
        if self._content:
            found |= genai.prompt(self._prompts) if self._prompts else {}
            found |= genai.answers(self._told) if self._told else {}
        code = int(notes.get("code", status))  # an error in the middle of a stream comes after a 200
        if code >= 400:
            found["error.type"] = str(code)
        if code >= 500:
            self._made.set_status(StatusCode.ERROR, genai.clean(str(notes.get("error", "")))[:300] or None)
        self._made.set_attributes(found)


def _messages(prompt: Prompt | Sequence[int]) -> list[Message]:
    """A prompt as messages; token ids are told by their number."""
    if isinstance(prompt, str):
        return [user(prompt)]
    said = [each for each in prompt if isinstance(each, Message)]
    return said or [user(f"[{len(prompt)} token ids]")]
