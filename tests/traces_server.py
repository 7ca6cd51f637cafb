"""A process that receives traces as `firsthand studio` does, for tests that kill it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class StartedServer:
    """The process and its address."""

    url: str
    process: subprocess.Popen[str]
    page: str
    """An address that opens a browser's session."""


@contextmanager
def started(home: Path, *words: str) -> Iterator[StartedServer]:
    """`firsthand studio` over a home, ready, and killed at the end if it still runs."""
    command = [sys.executable, "-m", "firsthand", "studio", "--no-open", "--home", str(home), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        page = re.search(r"http://\S+", process.stdout.readline())
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert page is not None and found is not None
        process.stdout.readline()
        yield StartedServer(found[0], process, page[0])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
