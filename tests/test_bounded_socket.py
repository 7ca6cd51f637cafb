"""A socket whose reads end at a bound of time and of bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.worlds.database.bounded_socket import BoundedSocket

Pair = tuple[BoundedSocket, socket.socket]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, BoundedSocket() as ours:
        server.bind(str(tmp_path / "s"))
        server.listen()
        ours.allow(5.0, 0)
        ours.connect(str(tmp_path / "s"))
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_so_many_bytes_are_read_and_not_one_more(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"x" * 11)
    ours.allow(5.0, 10)
    with ours.makefile("rb", buffering=0) as file:
        assert file.read(4) == b"xxxx" and file.read(6) == b"xxxxxx" and ours.reached == ""
        with pytest.raises(OSError, match=r"^the reply has more than 10 bytes: ask for less$"):
            file.read(1)
    assert ours.reached == "the reply has more than 10 bytes: ask for less"
    ours.allow(5.0, 1)
    theirs.sendall(b"y")
    with ours.makefile("rb", buffering=0) as file:
        assert (file.read(1), ours.reached) == (b"y", "")


def test_the_time_is_that_of_all_reads_together_and_begins_anew_when_more_is_allowed(pair: Pair) -> None:
    ours, theirs = pair

    def drip() -> None:
        for _ in range(40):
            try:
                theirs.sendall(b"x")
            except OSError:
                return
            time.sleep(0.05)

    ours.allow(0.4, 1000)
    thread = threading.Thread(target=drip)
    began = time.monotonic()
    thread.start()
    with ours.makefile("rb", buffering=0) as file, pytest.raises(TimeoutError, match=r"within 0\.4 s: ask for less$"):
        while True:
            file.read(1)
    assert 0.3 < time.monotonic() - began < 1.5
    assert ours.reached == "there was no whole reply within 0.4 s: ask for less"
    with pytest.raises(TimeoutError):
        ours.recv_into(bytearray(1))  # though bytes are there
    ours.allow(5.0, 1000)
    assert ours.recv_into(bytearray(1)) == 1 and ours.reached == ""
    thread.join()


def test_a_silent_server_is_waited_for_no_longer_than_allowed(pair: Pair) -> None:
    ours, _ = pair
    ours.allow(1.0, 10)
    began = time.monotonic()
    time.sleep(0.7)
    with pytest.raises(TimeoutError):
        ours.recv_into(bytearray(1))
    assert time.monotonic() - began < 1.6, "one read waits for what is left of the time"
    assert ours.reached == "there was no whole reply within 1 s: ask for less"
