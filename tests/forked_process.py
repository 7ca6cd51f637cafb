"""Work in a process of its own, whose end, output and errors are kept."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Callable


def forked(work: Callable[[], object], stdin: bytes = b"", out: str = "") -> tuple[int, str, str]:
    """Exit status, output and errors of work in a process of its own; `out` is a file to write to instead."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            try:
                full = os.open(out, os.O_WRONLY) if out else said.fileno()
                for number, fd in enumerate((given.fileno(), full, errors.fileno())):
                    os.dup2(fd, number)
                sys.stdin, sys.stdout, sys.stderr = (open(n, mode, closefd=False) for n, mode in enumerate("rww"))  # noqa: SIM115
                atexit._clear()
                work()
                sys.stdout.flush()
                os._exit(0)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
                os._exit(99)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (said, errors):
            file.seek(0)
        return status, said.read().decode(), errors.read().decode()
