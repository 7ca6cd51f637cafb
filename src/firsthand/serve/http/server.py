"""A Door open on an address: uvicorn with bounds on headers and idle connections, and an end that loses no answer.

SIGTERM or Ctrl-C closes the address at once; answers under way end, for `drain_s` at most, and the process ends with 0. A
second signal ends it now.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from firsthand.errors import ConfigError, ModelError
from firsthand.serve.http.app import make_app
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.models.served_model import Door

HEADER_BYTES = 32 << 10
IDLE_S = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    """A TLS certificate chain in PEM."""
    private_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}: give 0 (any free one) to 65535")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("TLS needs both a certificate and its private key: give --tls-cert and --tls-key")
        for path in (self.certificate, self.private_key):
            if path is not None and not path.is_file():
                raise ConfigError(f"no file {str(path)!r}: give the path of a PEM file")


class Server(uvicorn.Server):
    """Serves a door until a signal comes, or `stop` is called."""

    def __init__(
        self,
        door: Door,
        address: Address,
        *,
        on_open: Callable[[str], None] = lambda url: None,
        stop_if_failed: bool = False,
    ):
        self.door, self.address = door, address
        self._stop_if_failed = stop_if_failed
        self.url = ""
        self._on_open = on_open
        self._clock: asyncio.TimerHandle | None = None
        super().__init__(
            uvicorn.Config(
                make_app(door),
                host=address.host,
                port=address.port,
                http=_protocol(door),
                ws="none",
                lifespan="off",
                loop="asyncio",
                access_log=False,
                log_level="critical",
                server_header=False,
                proxy_headers=False,
                backlog=4096,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=int(door.settings.drain_s) + 3,
                ssl_certfile=address.certificate,
                ssl_keyfile=address.private_key,
            )
        )

    def open(self) -> socket.socket:
        """A socket that listens on the address."""
        host = self.address.host.strip("[]")
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(host, self.address.port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)  # asyncio sends at once only where TCP is named
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{self.address.host}:{self.address.port} cannot be opened: {reason}") from None
        port = listening.getsockname()[1]
        scheme = "https" if self.address.certificate else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        return listening

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serve. The model is loaded meanwhile; until then requests are told to wait."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(32, "firsthand-serve"))
        warming = asyncio.create_task(self._warm())
        try:
            await self.serve([listening])
        finally:
            warming.cancel()
            if self._clock is not None:
                self._clock.cancel()
            self.door.log.write("stopped")
            self.door.log.close()

    def stop(self) -> None:
        """Take no more requests, let those under way end, then end."""
        if self.should_exit:
            self.force_exit = True
            return
        door = self.door
        door.state = "draining"
        door.log.write("draining", in_flight=door.metrics.in_flight)
        self._clock = asyncio.get_running_loop().call_later(door.settings.drain_s, self._cut_all)
        self.should_exit = True

    def _cut_all(self) -> None:
        for asked in list(self.door.asked):
            asked.cut(Refusal(503, "the server is stopping and can wait no longer: ask another one", code="draining"))

    async def _warm(self) -> None:
        await self.door.warm_up()
        if self.door.is_ready:
            self._on_open(self.url)
        elif self._stop_if_failed:
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, and end with 0 for it (uvicorn would die of the signal)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.stop)

        before = {each: signal.signal(each, handle) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def serve(door: Door, address: Address, *, on_open: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes. `on_open` is told the URL when the first request can be answered.

    ModelError if the model cannot be loaded.
    """
    _allow_many_connections()
    server = Server(door, address, on_open=on_open, stop_if_failed=True)
    listening = server.open()
    asyncio.run(server.run_until_stopped(listening))
    if door.state == "failed":
        raise ModelError(f"the model could not be served: {door.problem}")


def _allow_many_connections() -> None:
    """Let the process have as many open files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 16
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _protocol(door: Door) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, with a limit on how long a client may take for its headers."""

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._deadline = self.loop.call_later(door.settings.body_s, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            idle = self.conn.their_state is h11.IDLE
            if idle and (self._deadline is None or self._deadline.cancelled()):  # a later request on this connection
                self._deadline = self.loop.call_later(door.settings.body_s, self._late)
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE and self._deadline is not None:
                self._deadline.cancel()

        def send_400_response(self, msg: str) -> None:
            refusal = Refusal(400, "this is no valid HTTP/1.1 request: its head is malformed or too long")
            door.metrics.count_request("other", 400, 0.0)
            body = refusal.body()
            head = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            for event in (
                h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                try:
                    self.transport.write(self.conn.send(event) or b"")
                except h11.LocalProtocolError:  # an answer was begun already
                    break
            self.transport.close()

        def handle_events(self) -> None:
            super().handle_events()
            scope: Any = getattr(self, "scope", None)
            if isinstance(scope, dict):
                extensions = scope.setdefault("extensions", {})
                extensions["firsthand.abort"] = self.transport.abort
                if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
                    extensions["firsthand.write"] = partial(self._write, self.cycle)

        def _write(self, cycle: RequestResponseCycle, content: bytes) -> bool:
            """Send a piece of a body that has begun and whose length was not told; False if it cannot go out at once.

            For the many small pieces of a stream: a chunk changes nothing in h11's state, and asking it costs more than
            sending.
            """
            if self.flow.write_paused or cycle.disconnected or not content:
                return False
            self.transport.write(b"%x\r\n%b\r\n" % (len(content), content))
            return True

        def _late(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.abort()

    return Bounded
