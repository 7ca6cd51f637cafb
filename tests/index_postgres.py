"""A PostgreSQL server with pgvector for tests, from Debian's binaries, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

VERSIONS = Path("/usr/lib/postgresql")
NOBODY = 65534


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server that no other process uses."""
    found = sorted(VERSIONS.glob("*/bin/pg_ctl"), key=lambda path: path.parts[4])
    vector = Path("/usr/share/postgresql")
    if not found or not [*vector.glob("*/extension/vector.control")] or find_spec("psycopg") is None:
        pytest.skip("PostgreSQL with pgvector and psycopg are not installed")
    bin, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="pg"))  # below /tmp: the server does not run as root
    data, options = folder / "data", {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    if options:
        shutil.chown(folder, NOBODY, NOBODY)

    def ran(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr + done.stdout

    ran(
        str(bin / "initdb"),
        "-D",
        str(data),
        "-U",
        "tests",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale",
        "C.UTF-8",
    )
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=32MB"
    log = str(folder / "log")
    ran(str(bin / "pg_ctl"), "-D", str(data), "-l", log, "-w", "-t", "60", "-o", settings, "start")
    try:
        yield f"host={folder} user=tests dbname=postgres"
    finally:
        ran(str(bin / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
