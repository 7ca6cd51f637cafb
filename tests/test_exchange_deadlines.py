"""A deadline over a whole exchange, whatever a server sends before its head."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from firsthand.errors import DataError, DownloadError
from firsthand.hub import download
from firsthand.system.bounded_reply import answer_of, ask
from firsthand.system.exchange_deadline import exchange_deadline

HEADS = {
    "informational heads one after the other": (b"HTTP/1.1 102 Processing\r\n\r\n", 0.02),
    "a flood of them": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.0),
    "a head byte by byte": (b"H", 0.02),
    "a body byte by byte": (b"", 0.02),
}


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        while connection.recv(65536):
                            answer(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_an_exchange_ends_in_its_time_whatever_comes_before_the_head(kind: str) -> None:
    piece, pause_s = HEADS[kind]

    def drip(connection: socket.socket) -> None:
        if not piece:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        for _ in range(100_000):
            connection.sendall(piece or b"x")
            time.sleep(pause_s)

    with _server(drip) as url, httpx.Client(timeout=5) as client:
        began = time.monotonic()
        with pytest.raises(DataError, match=r"its reply takes longer than 0.2 s"):
            ask(client, client.build_request("GET", url), max_bytes=99_999, within_s=0.2)
        assert time.monotonic() - began < 4
    if piece:
        with (
            _server(drip) as url,
            httpx.Client(timeout=5) as client,
            pytest.raises(DataError, match=r"longer than 0.1 s"),
        ):
            answer_of(client, client.build_request("POST", url), within_s=0.1)


def test_a_connection_is_used_again_and_a_quick_exchange_needs_no_deadline() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with _server(answer) as url, httpx.Client(timeout=5) as client:
        for _ in range(3):
            assert ask(client, client.build_request("GET", url), max_bytes=9, within_s=5).body == b"ok"
            assert answer_of(client, client.build_request("POST", url), within_s=5).status == 200
        assert client.get(url).text == "ok"
        assert len(client._transport._pool.connections) == 1  # type: ignore[attr-defined]


def test_a_timeout_of_the_client_that_comes_first_is_its_own() -> None:
    with (
        _server(lambda connection: time.sleep(0.3)) as url,
        httpx.Client(timeout=0.05) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        ask(client, client.build_request("GET", url), max_bytes=9, within_s=60)


def test_a_hub_whose_headers_do_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "HEAD_S", 0.1)

    def drip(connection: socket.socket) -> None:
        for _ in range(1000):
            connection.sendall(b"H")
            time.sleep(0.02)

    with (
        _server(drip) as url,
        httpx.Client(timeout=5) as client,
        pytest.raises(DownloadError, match=r"does not answer \(its reply takes longer than 0.1 s\)"),
        download._http_errors(url),
        download._open(client, url, {}),
    ):
        pass


def test_a_list_of_a_hub_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DOCUMENT_S", 0.1)
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not done.wait(0.01):
            connection.sendall(b" " * 700)  # faster than the slowest rate that is waited for

    with _server(drip) as url:
        try:
            with pytest.raises(DownloadError, match=r"does not answer \(its reply takes longer than 0.1 s\)"):
                download.get_json_bytes(url, headers={})
        finally:
            done.set()


def test_a_list_of_a_hub_that_comes_in_pieces_in_time_is_whole() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[]")
        connection.sendall(b"  ")

    with _server(answer) as url:
        assert download.get_json_bytes(url, headers={}) == b"[]  "


def test_the_seconds_told_are_those_of_the_whole_exchange_and_other_faults_stay_what_they_are() -> None:
    url = httpx.URL("http://a.example/")
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as client:
        with pytest.raises(DataError, match="takes longer than 5 s"), exchange_deadline(client, url, 0, told_s=5):
            raise httpx.ReadTimeout("slow")
        with pytest.raises(DataError, match="takes longer than 0 s"), exchange_deadline(client, url, 0):
            raise httpx.ReadTimeout("slow")
        with pytest.raises(httpx.ReadTimeout), exchange_deadline(client, url, 60):
            raise httpx.ReadTimeout("slow")
        with pytest.raises(httpx.ConnectError), exchange_deadline(client, url, 0):
            raise httpx.ConnectError("gone")
