"""Runs a command once one of N places is free: the conformance suite starts all of its clients at the same moment.

python tests/mcp_peers/in_turn.py N COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path


def main(places: int, command: list[str]) -> None:
    """Take a place, which is free again when the command ends, and become the command."""
    folder = Path(tempfile.gettempdir()) / f"firsthand-in-turn-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    files = [os.open(folder / str(number), os.O_CREAT | os.O_RDWR) for number in range(places)]
    while True:
        for file in files:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            os.set_inheritable(file, True)
            os.execvp(command[0], command)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
