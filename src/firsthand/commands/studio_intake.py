"""Opens what receives traces of other programs for `firsthand studio`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firsthand import catalog
from firsthand.errors import ConfigError, StoreError
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.system.terminal import complain


class IntakeFlags(Protocol):
    """The flags of the command that are about received traces; see `commands/studio.py`."""

    @property
    def grpc_port(self) -> int | None: ...
    @property
    def ingest_key(self) -> str: ...
    @property
    def keep(self) -> str: ...
    @property
    def keep_size(self) -> str: ...
    @property
    def cold(self) -> str: ...
    @property
    def redact(self) -> tuple[str, ...]: ...
    @property
    def score(self) -> tuple[str, ...]: ...
    @property
    def sample(self) -> float: ...
    @property
    def alert(self) -> tuple[str, ...]: ...
    @property
    def alert_to(self) -> str: ...
    @property
    def alert_allow(self) -> str: ...
    @property
    def alert_ports(self) -> str: ...


@dataclass(frozen=True)
class Receiving:
    """An open intake: its key, and its port for gRPC if it has one."""

    intake: Intake
    key: str | None
    grpc_port: int | None
    end_grpc: Callable[[], None]

    def told(self, port: int) -> str:
        """A line that says where to send spans."""
        over_grpc = f", gRPC at 127.0.0.1:{self.grpc_port}" if self.grpc_port is not None else ""
        shown = "with the key" if self.key else "without a key"
        return f"Traces: send OTLP to http://127.0.0.1:{port} {shown}{over_grpc}"

    def close(self) -> None:
        """Write what was received, and end."""
        self.end_grpc()
        self.intake.close()


def open_intake(flags: IntakeFlags, home: Path, *, is_wide: bool) -> Receiving | None:
    """The intake that receives traces; None, with a line that says why, where it may not or cannot.

    ConfigError for a fault of a flag, before anything is opened. An address that others reach (`is_wide`) needs a key.
    """
    settings = intake_settings(flags)
    key = flags.ingest_key or os.environ.get("FIRSTHAND_INGEST_KEY") or None
    if is_wide and key is None:
        complain("no traces are received here: others reach this address, so give --ingest-key or FIRSTHAND_INGEST_KEY")
        return None
    try:
        intake = Intake(home, settings, on_problem=complain)
    except (ConfigError, StoreError) as error:
        complain(f"no traces are received here: {error}")
        return None
    if flags.grpc_port is None:
        return Receiving(intake, key, None, lambda: None)
    from firsthand.ingest.otlp_grpc import serve_grpc

    try:
        grpc_port, end_grpc = serve_grpc(intake.writer, flags.grpc_port, key)
    except BaseException:
        intake.close()  # so that its file may be opened again
        raise
    return Receiving(intake, key, grpc_port, end_grpc)


def intake_settings(flags: IntakeFlags) -> IntakeSettings:
    """The rules of the intake; every fault of a flag is found before anything is opened."""
    from firsthand.ingest.redaction import Redactor
    from firsthand.ingest.retention import age_of, size_of
    from firsthand.ingest.trace_evaluation import Evaluation
    from firsthand.tools.web.addresses import parse_rules

    Redactor(flags.redact)
    evaluation = None
    if flags.score:
        scorers = tuple((text, catalog.scorer(text)) for text in flags.score)
        pairs = [text for text, scorer in scorers if getattr(scorer, "against", "")]
        if pairs:
            raise ConfigError(f"score is {pairs[0]!r}, which compares two agents: give a scorer of single traces")
        evaluation = Evaluation(scorers, flags.sample)
    return IntakeSettings(
        keep_s=age_of(flags.keep) if flags.keep else None,
        keep_bytes=size_of(flags.keep_size) if flags.keep_size else None,
        cold_s=age_of(flags.cold, "cold") if flags.cold else None,
        redact=flags.redact,
        evaluation=evaluation,
        alerts=parse_alerts(flags.alert),
        alert_to=flags.alert_to,
        alert_rules=parse_rules(flags.alert_allow, flags.alert_ports, ports_hint="--alert-ports {ports}"),
    )
