"""The Studio's server: what comes before any check of who asks is bounded as in `firsthand serve`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from firsthand.commands.studio import server_of
from firsthand.serve.http.bounded_protocol import HEADER_BYTES, BoundedProtocol
from firsthand.studio.access import Access
from firsthand.studio.studio_app import create_app


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    access = Access()
    access.port = listening.getsockname()[1]
    server = server_of(create_app(tmp_path_factory.mktemp("home"), access))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield access.port
    server.should_exit = True
    thread.join(30)


def answer(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(port: int, *more: str) -> bytes:
    lines = ("POST /v1/traces HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *more)
    return "\r\n".join((*lines, "", "")).encode()


def test_a_body_of_tiny_chunks_is_refused_before_it_takes_the_studios_time(port: int) -> None:
    begun = head(port, "Transfer-Encoding: chunked")
    assert b" 400 " in answer(port, begun + b"1\r\nx\r\n" * 5000).partition(b"\r\n")[0]
    taken = answer(port, begun + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n").partition(b"\r\n")[0]
    assert taken.startswith(b"HTTP/1.1 ") and b" 400 " not in taken


def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    assert b" 400 " in answer(port, head(port, "X: " + "x" * HEADER_BYTES)).partition(b"\r\n")[0]
    assert b" 400 " not in answer(port, head(port, "X: " + "x" * (HEADER_BYTES // 2))).partition(b"\r\n")[0]


def test_a_client_that_sends_no_head_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_within_s", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HT")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.slow
def test_the_studio_starts_without_what_its_first_page_does_not_need() -> None:
    script = (
        "import sys\n"
        "import firsthand.cli, firsthand.commands.studio, firsthand.commands.studio_transfer, firsthand.studio.studio_app\n"
        "import firsthand.serve.http.bounded_protocol\n"
        "print(*sorted({'httpx', 'httpcore', 'trio', 'numpy', 'scipy', 'rich', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [], "each takes a twentieth of a second or more, and memory, at every start"
