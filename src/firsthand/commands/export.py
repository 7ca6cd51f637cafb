"""Send stored attempts to an OpenTelemetry collector, for viewing in Jaeger, Langfuse or Phoenix."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import one_line
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import Telemetry, check_collector, collector_url
from firsthand.telemetry.trace_spans import spans_of

EXAMPLES = """
firsthand export last --otlp                        # to $OTEL_EXPORTER_OTLP_ENDPOINT, or this machine's port 4318
firsthand export last 3fa9 --otlp http://localhost:4318 --content
"""


@dataclass(frozen=True)
class Config:
    """Attempts to send, and the collector."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    trace: str | None = field(default=None, metadata={"positional": True})
    """One attempt: the beginning of its id, or benchmark/task/agent/epoch. Without it, the whole run."""
    otlp: str | None = field(default=None, metadata={"bare": "env"})
    """URL of a collector for OTLP over HTTP; alone: $OTEL_EXPORTER_OTLP_ENDPOINT."""
    content: bool = False
    """Send messages too, which may hold private text; those of protected benchmarks are never sent."""

    def __post_init__(self) -> None:
        if self.otlp is None:
            raise ConfigError("export needs a destination: give --otlp, with the URL of a collector or alone")


def main(config: Config) -> int:
    """Send, and print how many attempts were accepted."""
    content = config.content or genai.captures_content(os.environ)
    endpoint = None if config.otlp == "env" else config.otlp
    telemetry, url = Telemetry(endpoint), collector_url(endpoint, os.environ)
    attempts = spans = 0
    try:
        with store.open_run(config.run, data_home()) as run:
            if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp" or endpoint is not None:
                check_collector(url)
            traces = [run.trace(config.trace)] if config.trace is not None else run.traces()
            for trace in traces:
                found = spans_of(trace, run.id, content=content)
                if not telemetry.deliver(found):
                    raise ConfigError(
                        f"the collector at {url} accepted {count_of(attempts, 'attempt')} and refused the next: "
                        f"{one_line(telemetry.problem)}"
                    )
                attempts, spans = attempts + 1, spans + len(found)
    finally:
        telemetry.close()
    print(f"sent: {attempts} attempt{'s' * (attempts != 1)} as {spans} spans")
    return 0
