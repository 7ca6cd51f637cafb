"""Settings of a server's request log and spans."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TelemetrySettings:
    """The request log and spans of a server."""

    log: str = "-"
    """The request log, a line of JSON for each request: a file, - for standard error, or none."""
    log_texts: bool = False
    """Write prompts and answers into the log too."""
    otel: bool = False
    """Export a span of each request to an OpenTelemetry collector. $OTEL_EXPORTER_OTLP_ENDPOINT names it, and is enough."""
