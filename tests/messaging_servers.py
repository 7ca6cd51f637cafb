"""A Redis and a NATS server for tests, from Debian's binaries, each on a free port in a temporary folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _served(command: list[str], port: int, folder: Path) -> subprocess.Popen[bytes]:
    """The started server, once it takes connections."""
    log = (folder / "log").open("wb")
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert started.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        else:
            return started
    raise AssertionError((folder / "log").read_text())


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[str]:
    """The address of a Redis server over a folder, killed at the end."""
    binary = shutil.which("redis-server")
    if binary is None or find_spec("redis") is None:
        pytest.skip("redis-server and the package redis are not installed")
    port = _free_port()
    kept = ["--dir", str(folder), "--appendonly", "yes", "--save", "", *options]
    server = _served([binary, "--port", str(port), "--bind", "127.0.0.1", *kept], port, folder)
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


@contextmanager
def nats_server(folder: Path, sync: str = "2m", port: int | None = None) -> Iterator[str]:
    """The address of a NATS server with JetStream over a folder, killed at the end; `sync`: when it writes to disk."""
    binary = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None or find_spec("nats") is None:
        pytest.skip("nats-server and the package nats-py are not installed")
    port = port or _free_port()
    (folder / "js.conf").write_text(f'jetstream {{ store_dir: "{folder}", sync_interval: {sync} }}')
    server = _served([binary, "-a", "127.0.0.1", "-p", str(port), "-c", str(folder / "js.conf")], port, folder)
    yield f"nats://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server that no other process uses."""
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="session")
def nats_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a NATS server with JetStream that no other process uses."""
    with nats_server(tmp_path_factory.mktemp("nats")) as address:
        yield address
