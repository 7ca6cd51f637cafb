"""A real server on loopback for the tests: uvicorn in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NamedTuple

from firsthand.model import Closable
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.server import Server
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_app import openai_app
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings


class ServerParts(NamedTuple):
    """What the apps of a server share."""

    models: ServedModels
    admission: Admission
    telemetry: ServerTelemetry


class Running:
    """A server under way."""

    def __init__(self, server: Server, thread: threading.Thread, loop: asyncio.AbstractEventLoop):
        self.server, self.thread, self.loop = server, thread, loop
        self.app, self.url = server.app, server.url
        self.models, self.admission, self.telemetry = server.app.models, server.app.admission, server.app.telemetry

    def stop(self) -> None:
        """What SIGTERM does."""
        self.loop.call_soon_threadsafe(self.server.stop)

    def raw(self, data: bytes, *, wait_s: float = 5.0) -> bytes:
        """What the server sends back to these bytes until it closes, or is silent for a moment."""
        with self.connect() as connection:
            connection.settimeout(wait_s)
            connection.sendall(data)
            return read_all(connection)

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)))


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes; for a while only."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
            if b"\r\n\r\n" in found:
                connection.settimeout(2.0)
    except (TimeoutError, ConnectionError):
        pass
    return found


def server_app(
    model: Any = None,
    *,
    keys: Keys | None = None,
    embedder: Any = None,
    name: str = "",
    log: Any = "none",
    log_texts: bool = False,
    apps: Callable[[ServerParts], Sequence[MountedApp]] = lambda parts: (),
    **settings: Any,
) -> ServerApp:
    """The application of a server, as `firsthand serve` makes it; `settings` are fields of its settings."""
    openai = {key: value for key, value in settings.items() if key in {each.name for each in fields(OpenAISettings)}}
    admitted = {"drain_s": 5.0} | {key: value for key, value in settings.items() if key not in openai}
    models = ServedModels(model, embedder, name=name)
    telemetry = ServerTelemetry(TelemetrySettings(log=str(log), log_texts=log_texts))
    admission = Admission(keys, AdmissionSettings(**admitted), mean_request_s=telemetry.metrics.mean_request_s)
    parts = ServerParts(models, admission, telemetry)
    return ServerApp(*parts, [openai_app(*parts, OpenAISettings(**openai)), *apps(parts)])


@contextmanager
def serving(model: Any = None, **options: Any) -> Iterator[Running]:
    """A server that is ready; the options are those of `server_app`."""
    app = server_app(model, **options)
    server = Server(app, ListenAddress(port=0))
    listening = server.open()
    loops: list[asyncio.AbstractEventLoop] = []

    def run() -> None:
        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await server.run_until_stopped(listening)

        asyncio.run(main())

    thread = threading.Thread(target=run, name="served")
    thread.start()
    try:
        until(lambda: server.started and app.models.state in ("ready", "failed"), 1200)
        yield Running(server, thread, loops[0])
    finally:
        server.force_exit = server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        if isinstance(model, Closable):
            model.close()


def until(fact: Any, most_s: float = 60.0) -> None:
    """Wait for a fact."""
    end = time.monotonic() + most_s
    while not fact():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)
