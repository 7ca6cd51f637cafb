"""Sends attempts to an OpenTelemetry collector as they end, and propagates their trace context to endpoints meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from firsthand.loop.listener import Began, Listener, Step
from firsthand.rollout import Place
from firsthand.system import trace_context
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import Telemetry, collector_url, open_telemetry
from firsthand.telemetry.trace_spans import parent_of, spans_of
from firsthand.trace import Trace

Listeners = Callable[[Place], Listener | None]


class Sender:
    """Sends the attempts of a run; a no-op without telemetry."""

    def __init__(self, telemetry: Telemetry | None, run: str, *, content: bool = False):
        self.telemetry, self.run, self.content = telemetry, run, content

    def ended(self, trace: Trace) -> None:
        """Send an attempt. One that cannot be converted to spans is skipped: the run goes on."""
        if self.telemetry is None:
            return
        try:
            self.telemetry.send(spans_of(trace, self.run, content=self.content))
        except Exception as error:
            self.telemetry.note_problem(f"the attempt {trace.id} cannot be sent: {type(error).__name__}: {error}")

    def listeners(self, others: Listeners) -> Listeners:
        """Listeners that enter the span of each effect before they call `others`."""
        if self.telemetry is None:
            return others
        return lambda place: _Parent(place.id, self.run, others(place))


class _Parent:
    """A listener that makes each effect's span the current trace context."""

    def __init__(self, trace: str, run: str, other: Listener | None):
        self._trace, self._run, self._other = trace, run, other
        self.streams = other is not None and getattr(other, "streams", True)

    def __call__(self, step: Step) -> None:
        if isinstance(step, Began):
            trace_context.enter(parent_of(self._trace, self._run, step.id))
        if self._other is not None:
            self._other(step)


def _whereto() -> str:
    """The collector of the environment and advice, without what its URL may hold of a user; nothing for another exporter."""
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return ""
    parts = urlsplit(collector_url(None, os.environ))
    host = parts.netloc.rpartition("@")[2]
    return (
        f" to {parts.scheme}://{host}{parts.path}: start a collector there, or name another in "
        "$OTEL_EXPORTER_OTLP_ENDPOINT; `firsthand export` sends the run again"
    )


@contextmanager
def sending(run: str, *, asked: bool, on_problem: Callable[[str], None]) -> Iterator[Sender]:
    """A Sender for a run, active if a flag `asked` for it or the environment does; flushes the queue at the end."""
    telemetry = open_telemetry(asked, on_problem=on_problem)
    try:
        yield Sender(telemetry, run, content=genai.captures_content(os.environ))
    finally:
        if telemetry is not None:
            telemetry.close()
            if telemetry.ended > telemetry.sent:
                on_problem(f"{telemetry.ended - telemetry.sent} of {telemetry.ended} spans were not sent{_whereto()}")
