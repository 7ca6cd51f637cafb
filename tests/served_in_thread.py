"""Servers that run in the test's own thread while another thread asks them, until a signal comes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def wide_address() -> Iterator[ListenAddress]:
    """An address that others reach, at a port that is taken, so that nothing is served there by mistake."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        yield ListenAddress(host="0.0.0.0", port=taken.getsockname()[1])


def asked(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and body of one request; JSON is read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    told = {"Content-Type": "application/json", **headers}
    connection.request(method, path, None if body is None else json.dumps(body), told)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, json.loads(text) if text.startswith(("{", "[")) else text


def until_signal(port: int, serve: Callable[[], int], asks: Callable[[], None]) -> int:
    """The exit code of `serve`, which gets the signal of Ctrl-C once it listens and `asks` has asked."""

    over = threading.Event()

    def client() -> None:
        begun = time.monotonic()
        try:
            while not over.is_set() and time.monotonic() - begun < 30:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    asks()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
        finally:
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # the server's own is in place
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        return serve()
    finally:
        over.set()
        thread.join(60)


def telemetry_told(monkeypatch: pytest.MonkeyPatch, told: list[Any]) -> None:
    """Note in `told` when a server's telemetry opens its spans and closes."""
    for name in ("open_spans", "close"):
        whole = getattr(ServerTelemetry, name)
        monkeypatch.setattr(ServerTelemetry, name, lambda self, n=name, whole=whole: told.append(n) or whole(self))
