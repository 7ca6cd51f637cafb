"""Open the Studio: every run, attempt, comparison, curve and received trace in the browser, live while they go on."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, StoreError
from firsthand.system.home import data_home
from firsthand.system.terminal import complain, console

if TYPE_CHECKING:
    from firsthand.ingest.intake import Intake, IntakeSettings

EXAMPLES = """
firsthand studio
firsthand studio --port 8900 --no-open
firsthand studio --home /data/firsthand
firsthand studio --port 4318 --keep 30d --redact 'ACME-[0-9]+'    # traces of other programs, kept for 30 days
firsthand studio --port 4318 --score 'rubric:judge=smollm2' --sample 0.1 --alert 'errors>0.1/1h' --alert-to alerts.jsonl
"""


@dataclass(frozen=True)
class Config:
    """The address of the Studio, and the folder it shows."""

    port: int = 0
    """The port; 0 takes any free one."""
    home: Path | None = None
    """The data home whose runs are shown; by default the one that all commands use."""
    open: bool = True
    """Open a browser."""
    receive: bool = True
    """Take spans by OTLP over HTTP at the same address, under /v1/traces."""
    grpc_port: int | None = None
    """Take spans by OTLP over gRPC too, at this port of 127.0.0.1; 0 takes any free one."""
    ingest_key: str = ""
    """A key that programs must show to send spans; by default $FIRSTHAND_INGEST_KEY, and without it none is needed."""
    keep: str = ""
    """Remove traces that have been quiet for longer, such as 30d."""
    keep_size: str = ""
    """Remove the oldest traces while all take more, such as 10GB."""
    cold: str = ""
    """Seal traces that have been quiet for longer, such as 1d, into Parquet files; needs the extra `cold`."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches are replaced in received spans before they are kept, besides the built-in rules."""
    score: tuple[str, ...] = ()
    """Scorers or judges of received traces, as in `firsthand score --with`."""
    sample: float = 1.0
    """Share of the received traces that are scored, 0 to 1."""
    alert: tuple[str, ...] = ()
    """Rules such as errors>0.1/1h (a bound) or seconds~3/5m (3 sigmas on a control chart)."""
    alert_to: str = ""
    """The file or the webhook that alerts are sent to."""
    alert_allow: str = ""
    """Addresses and names, with + between them, that a webhook may have although they are not public."""
    alert_ports: str = "80+443"
    """Ports that a webhook may have."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}: give 0 (any free one) to 65535")
        if self.home is not None and not self.home.is_dir():
            raise ConfigError(f"no folder {str(self.home)!r}: give a data home, which holds a folder `runs`")
        if self.grpc_port is not None and not 0 <= self.grpc_port < 65536:
            raise ConfigError(f"grpc_port is {self.grpc_port}: give 0 (any free one) to 65535")
        needs = ("grpc_port", "ingest_key", "keep", "keep_size", "cold", "redact", "score", "alert")
        if not self.receive and (given := next((name for name in needs if getattr(self, name)), None)):
            raise ConfigError(f"{given} and no-receive do not go together: it is about received traces")


def main(config: Config) -> int:
    """Serve until Ctrl-C."""
    try:
        import uvicorn

        from firsthand.studio.access import Access
        from firsthand.studio.studio_app import create_app
    except ImportError:
        raise ConfigError("the Studio needs its extra: pip install 'firsthand[studio]'") from None
    settings = _intake_settings(config) if config.receive else None
    key = config.ingest_key or os.environ.get("FIRSTHAND_INGEST_KEY") or None
    listening = _listen(config.port)
    access = Access()
    access.port = listening.getsockname()[1]
    intake = None if settings is None else _intake(config, settings)
    end_grpc: Callable[[], None] = lambda: None  # noqa: E731
    grpc_port = None
    if intake is not None and config.grpc_port is not None:
        from firsthand.ingest.otlp_grpc import serve_grpc

        grpc_port, end_grpc = serve_grpc(intake.writer, config.grpc_port, key)
    app = create_app(config.home or data_home(), access, None if intake is None else intake.writer, key)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            loop="asyncio",
            http="h11",
            access_log=False,
            log_level="critical",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=32 << 10,
        )
    )
    out = console()

    def tell() -> str:
        url = f"http://127.0.0.1:{access.port}/enter?code={access.new_code()}"
        out.print(f"The Studio: {url}", soft_wrap=True, markup=False, highlight=False)
        return url

    url = tell()
    if intake is not None:
        over_grpc = f", gRPC at 127.0.0.1:{grpc_port}" if grpc_port is not None else ""
        shown = "with the key" if key else "without a key"
        out.print(
            f"Traces: send OTLP to http://127.0.0.1:{access.port} {shown}{over_grpc}", markup=False, highlight=False
        )
    out.print("This address opens one browser; press Enter for another, Ctrl-C to stop.", markup=False)
    if config.open:
        _browse(url)
    if sys.stdin is not None and sys.stdin.isatty():
        threading.Thread(target=_tell_on_enter, args=(tell,), daemon=True).start()
    try:
        server.run(sockets=[listening])
    finally:
        end_grpc()
        if intake is not None:
            intake.close()
    return 0


def _intake(config: Config, settings: IntakeSettings) -> Intake | None:
    """What receives traces; None, with a line that says so, where another process does or the home is not writable."""
    from firsthand.ingest.intake import Intake

    try:
        return Intake(config.home or data_home(), settings, on_problem=complain)
    except (ConfigError, StoreError) as error:
        complain(f"no traces are received here: {error}")
        return None


def _intake_settings(config: Config) -> IntakeSettings:
    """The rules of the intake; every fault of a flag is found before anything is opened."""
    from firsthand import catalog
    from firsthand.ingest.intake import IntakeSettings, parse_alerts
    from firsthand.ingest.redaction import Redactor
    from firsthand.ingest.retention import age_of, size_of
    from firsthand.ingest.trace_evaluation import Evaluation
    from firsthand.tools.web.addresses import parse_rules

    Redactor(config.redact)
    evaluation = None
    if config.score:
        scorers = tuple((text, catalog.scorer(text)) for text in config.score)
        pairs = [text for text, scorer in scorers if getattr(scorer, "against", "")]
        if pairs:
            raise ConfigError(f"score is {pairs[0]!r}, which compares two agents: give a scorer of single traces")
        evaluation = Evaluation(scorers, config.sample)
    return IntakeSettings(
        keep_s=age_of(config.keep) if config.keep else None,
        keep_bytes=size_of(config.keep_size) if config.keep_size else None,
        cold_s=age_of(config.cold, "cold") if config.cold else None,
        redact=config.redact,
        evaluation=evaluation,
        alerts=parse_alerts(config.alert),
        alert_to=config.alert_to,
        alert_rules=parse_rules(config.alert_allow, config.alert_ports),
    )


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address."""
    # asyncio sends at once only where TCP is named: else each page waits 40 ms for an acknowledgement
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"127.0.0.1:{port} cannot be opened: {error.strerror or error}; give another --port"
        ) from None
    return listening


def _browse(url: str) -> None:
    """Open a browser, if there is one that is not of the terminal."""
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _tell_on_enter(tell: object) -> None:
    for _ in sys.stdin:
        tell()  # type: ignore[operator]
