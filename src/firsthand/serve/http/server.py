"""The server process: uvicorn with bounds on headers and idle connections, and a shutdown that loses no answer.

SIGTERM or Ctrl-C closes the address at once; requests under way may end, within `drain_s`, and the process exits with 0. A
second signal exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from firsthand.errors import ConfigError, ModelError
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.bounded_protocol import HEADER_BYTES, BoundedProtocol
from firsthand.serve.http.connection_room import ConnectionRoom
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.tls_connection import MOST_STRANGERS, over_tls

IDLE_S = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Serves an app until a signal comes, or `stop` is called."""

    def __init__(
        self,
        app: ServerApp,
        address: ListenAddress,
        *,
        on_open: Callable[[str], None] = lambda url: None,
        stop_if_failed: bool = False,
    ):
        self.app, self.address = app, address
        self._stop_if_failed = stop_if_failed
        self._listens = asyncio.Event()
        self.url = ""
        self._on_open = on_open
        self._drain_timer: asyncio.TimerHandle | None = None
        super().__init__(
            uvicorn.Config(
                app,
                host=address.host,
                port=address.port,
                http=_protocol(
                    app, ConnectionRoom(most_strangers=MOST_STRANGERS) if address.tls_cert else ConnectionRoom()
                ),
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
                timeout_graceful_shutdown=int(app.admission.settings.drain_s) + 3,
                ssl_certfile=address.tls_cert,
                ssl_keyfile=address.tls_key,
            )
        )

    def open(self) -> socket.socket:
        """A socket that listens on the address."""
        try:
            if not self.config.loaded:
                self._load_config()
        except ssl.SSLError as error:
            named = f"{str(self.address.tls_cert)!r} and {str(self.address.tls_key)!r}"
            raise ConfigError(
                f"the certificate {named} cannot be used ({error.reason or error}): give a chain and its key in PEM"
            ) from None
        host = self.address.host.strip("[]")
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(host, self.address.port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)  # asyncio sends at once only where TCP is named
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(self.config.backlog)  # two sockets may be bound to one port until one of them listens
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"{self.address.host}:{self.address.port} cannot be opened: {reason}; give another --host or --port"
            ) from None
        port = listening.getsockname()[1]
        scheme = "https" if self.address.tls_cert else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        return listening

    def _load_config(self) -> None:
        self.config.load()
        context, self.config.ssl = self.config.ssl, None  # asyncio would tell of a connection after its handshake alone
        if context is not None:
            self.config.http_protocol_class = over_tls(self.config.http_protocol_class, context)  # type: ignore

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serve. The models are loaded meanwhile; until then requests get 503."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(32, "firsthand-serve"))
        loading = asyncio.create_task(self._load())
        try:
            async with self.app.lifespan():
                await self.serve([listening])
        finally:
            loading.cancel()
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            self.app.telemetry.log.write("stopped")
            self.app.telemetry.log.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._listens.set()

    def stop(self) -> None:
        """Take no more requests, let those under way end, then stop. Called again: stop at once."""
        if self.should_exit:
            self.force_exit = True
            return
        admission = self.app.admission
        admission.drain()
        self.app.telemetry.log.write("draining", in_flight=admission.in_flight)
        reason = Refusal(503, "the server is stopping and can wait no longer: ask another one", code="draining")
        loop = asyncio.get_running_loop()
        self._drain_timer = loop.call_later(admission.settings.drain_s, admission.cancel_all, reason)
        self.should_exit = True

    async def _load(self) -> None:
        await self.app.models.load(self.app.telemetry.log.write)
        if self.app.models.state != "failed":
            await self._listens.wait()  # the lifespans of the apps may take longer than the models
        if self.app.is_ready:
            self._on_open(self.url)
        elif self._stop_if_failed:
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, and exit with 0 (uvicorn would die of the signal)."""
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


def serve(app: ServerApp, address: ListenAddress, *, on_open: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes. `on_open` is called with the URL when the first request can be answered.

    ModelError if the models cannot be loaded.
    """

    def opened(url: str) -> None:
        """Freeze loaded objects, which stay until the process ends, so that garbage collection skips them."""
        gc.collect()
        gc.freeze()
        on_open(url)

    server = Server(app, address, on_open=opened, stop_if_failed=True)
    listening = server.open()
    asyncio.run(server.run_until_stopped(listening))
    if app.models.state == "failed":
        raise ModelError(f"the model could not be served: {app.models.problem}")


def _protocol(app: ServerApp, connections: ConnectionRoom) -> type[H11Protocol]:
    """The bounded protocol, with our refusals and counts, and a quick way for the pieces of a stream."""

    class Bounded(BoundedProtocol):
        head_within_s = app.admission.settings.body_s
        room = connections

        def send_400_response(self, msg: str) -> None:
            refusal = Refusal(
                400, "this is no valid HTTP/1.1 request: its head is malformed or too long, or its chunks too small"
            )
            app.telemetry.metrics.count_request("other", 400, 0.0)
            body = refusal.body()
            head = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            for event in (
                h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                try:
                    self.transport.write(self.conn.send(event) or b"")
                except h11.LocalProtocolError:  # a response has begun already
                    break
            self.transport.close()

        def handle_events(self) -> None:
            super().handle_events()
            scope: Any = self.scope  # None until the first request
            if scope is not None:
                extensions = scope.setdefault("extensions", {})
                extensions["firsthand.abort"] = self.transport.abort
                extensions["firsthand.taken"] = self.flow.drain
                if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
                    extensions["firsthand.write"] = partial(self._write, self.cycle)

        def _write(self, cycle: RequestResponseCycle, content: bytes) -> bool:
            """Send a chunk of a response that has begun and has no Content-Length; False if it cannot go out at once.

            For the many small pieces of a stream: a chunk changes nothing in h11's state, and calling h11 costs more than
            sending.
            """
            if self.flow.write_paused or cycle.disconnected or not content:
                return False
            self.transport.write(b"%x\r\n%b\r\n" % (len(content), content))
            return True

    return Bounded
