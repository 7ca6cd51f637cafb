"""Send stored attempts to an OpenTelemetry collector, so that Jaeger, Langfuse or Phoenix shows what they did."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.system.home import data_home
from firsthand.system.terminal import one_line
from firsthand.telemetry import genai
from firsthand.telemetry.otlp_export import Telemetry
from firsthand.telemetry.trace_spans import spans_of

EXAMPLES = """
firsthand export last --otlp                        # to $OTEL_EXPORTER_OTLP_ENDPOINT, or this machine's port 4318
firsthand export last 3fa9 --otlp http://localhost:4318 --content
"""


@dataclass(frozen=True)
class Config:
    """What to send, and where to."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    trace: str | None = field(default=None, metadata={"positional": True})
    """One attempt: the beginning of its id, or benchmark/task/agent/epoch. Without it, all of the run."""
    otlp: str | None = field(default=None, metadata={"bare": "env"})
    """A collector that takes OTLP over HTTP; alone: the one that $OTEL_EXPORTER_OTLP_ENDPOINT names."""
    content: bool = False
    """Send the messages too, which may hold what should stay here; those of protected benchmarks never are."""

    def __post_init__(self) -> None:
        if self.otlp is None:
            raise ConfigError("export where to? Give --otlp, with the URL of a collector or alone")


def main(config: Config) -> int:
    """Send, and say how much was taken."""
    content = config.content or genai.captures_content(os.environ)
    telemetry = Telemetry(None if config.otlp == "env" else config.otlp)
    attempts = spans = 0
    try:
        with store.open_run(config.run, data_home()) as run:
            traces = [run.trace(config.trace)] if config.trace is not None else run.traces()
            for trace in traces:
                found = spans_of(trace, run.id, content=content)
                if not telemetry.deliver(found):
                    raise ConfigError(
                        f"the collector took {attempts} attempts and not the next one: {one_line(telemetry.problem)}"
                    )
                attempts, spans = attempts + 1, spans + len(found)
    finally:
        telemetry.close()
    print(f"sent: {attempts} attempt{'s' * (attempts != 1)} as {spans} spans")
    return 0
