"""The telemetry of a server: its metrics, request log and spans, shared by every app that it serves."""

from __future__ import annotations

import os
from typing import Any

from firsthand.model import Usage
from firsthand.serve.telemetry.metrics import Metrics
from firsthand.serve.telemetry.request_log import RequestLog
from firsthand.serve.telemetry.request_spans import RequestSpans
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import open_telemetry


class ServerTelemetry:
    """Records what a server does."""

    def __init__(self, settings: TelemetrySettings):
        self.settings = settings
        self.metrics = Metrics()
        self.log = RequestLog(None if settings.log == "none" else settings.log, self.metrics)
        self.spans: RequestSpans | None = None
        """None until `open_spans` opens them."""

    def open_spans(self) -> None:
        """Export spans from now on, if the settings or the environment ask for it."""
        opened = open_telemetry(self.settings.otel, on_problem=lambda text: self.log.write("telemetry", error=text))
        self.spans = None if opened is None else RequestSpans(opened, content=genai.captures_content(os.environ))

    def count_usage(self, notes: dict[str, Any], usage: Usage) -> None:
        """Add the tokens of an answer to the metrics, and to the request's line in the log."""
        counts = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        for kind, count in counts.items():
            self.metrics.tokens[kind] += count
            notes[f"{kind}_tokens"] = notes.get(f"{kind}_tokens", 0) + count

    def close(self) -> None:
        """Send the spans that wait, for a moment only, and close the log."""
        if self.spans is not None:
            self.spans.close()
        self.log.close()
