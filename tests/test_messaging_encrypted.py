"""Brokers over TLS: who does not speak it, or has another's certificate, is told no password; replies that are none."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server, socket
from threading import Thread
from typing import Any

import pytest
import redis

from firsthand.errors import StoreError
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging


@contextmanager
def answering(answer: Callable[[socket], None]) -> Iterator[int]:
    """The port of a server that does this with each connection."""
    with create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(2)
    thread.join(5)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "is_told"), [("tls", False), ("nats", True)])
def test_a_server_named_tls_is_told_nothing_in_clear_text(scheme: str, is_told: bool) -> None:
    told: list[bytes] = []

    def answer(connection: socket) -> None:
        about = {"server_id": "x", "version": "2.10.0", "proto": 1, "max_payload": 1 << 20, "headers": True}
        connection.sendall(b"INFO " + json.dumps(about).encode() + b"\r\n")
        told.append(connection.recv(4096))

    with answering(answer) as port, pytest.raises(StoreError) as failed:
        NatsMessaging(f"{scheme}://ann:a-long-secret@127.0.0.1:{port}", timeout_s=0.3)
    assert any(b"a-long-secret" in each for each in told) is is_told
    assert ("offers no TLS" in str(failed.value)) is not is_told and "a-long-secret" not in str(failed.value)


def test_the_certificate_of_a_redis_server_has_to_be_that_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=other", "-addext", "subjectAltName=DNS:other.example"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    told: list[bytes] = []

    def answer(connection: socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            told.append(encrypted.recv(4096))

    asked: list[dict[str, object]] = []
    from_url = redis.Redis.from_url

    def noted(url: str, **given: Any) -> Any:
        asked.append(given)
        return from_url(url, **given)

    monkeypatch.setattr(redis.Redis, "from_url", noted)
    with answering(answer) as port, pytest.raises(StoreError, match=r"mismatch|certificate"):
        RedisMessaging(
            f"rediss://ann:a-long-secret@localhost:{port}?ssl_ca_certs={tmp_path / 'cert.pem'}", timeout_s=0.5
        )
    assert not any(told)
    assert (
        asked[0]["ssl_check_hostname"] is True and asked[0]["ssl_cert_reqs"] == "required"
    )  # redis-py 5 checks no name


@pytest.mark.parametrize("reply", [b"*1\r\n" * 20_000 + b"+OK\r\n", b":" + b"9" * 10_000 + b"\r\n", b"$abc\r\n"])
def test_a_reply_of_redis_that_is_none_is_one_sentence(reply: bytes) -> None:
    def answer(connection: socket) -> None:
        connection.recv(4096)
        connection.sendall(reply)

    with (
        answering(answer) as port,
        pytest.raises(StoreError, match=r"the Redis server at .* failed: a reply that is none"),
    ):
        RedisMessaging(f"redis://127.0.0.1:{port}", timeout_s=1)
