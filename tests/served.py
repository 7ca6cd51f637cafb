"""A real server on loopback for the tests: uvicorn in a thread, a door behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from firsthand.serve.http.api_keys import Keys
from firsthand.serve.http.server import Address, Server
from firsthand.serve.http.server_settings import Settings
from firsthand.serve.models.served_model import Door


class Running:
    """A server under way."""

    def __init__(self, server: Server, thread: threading.Thread, loop: asyncio.AbstractEventLoop):
        self.server, self.thread, self.loop = server, thread, loop
        self.door, self.url = server.door, server.url

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


@contextmanager
def serving(model: Any = None, *, keys: Keys | None = None, embedder: Any = None, name: str = "",
            log: Any = None, **settings: Any) -> Iterator[Running]:  # fmt: skip
    """A server that is ready."""
    chosen = Settings(**{"drain_s": 5.0, **settings})
    door = Door(model, chosen, keys or Keys(), embedder=embedder, name=name, log_target=log)
    server = Server(door, Address(port=0))
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
        until(lambda: server.started and door.state in ("ready", "failed"), 1200)
        yield Running(server, thread, loops[0])
    finally:
        server.force_exit = server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        if hasattr(model, "close"):
            model.close()


def until(fact: Any, most_s: float = 60.0) -> None:
    """Wait for a fact."""
    end = time.monotonic() + most_s
    while not fact():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)
