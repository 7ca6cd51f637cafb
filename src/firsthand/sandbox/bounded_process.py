"""Runs a program on a stranger's files with bounds on its time, its idling and its output, and ends all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

IDLE_S = 20.0
"""A group of processes that used no processor time and wrote nothing for so long waits for something that never comes."""
_STEP_S = 0.05


class Unfinished(Exception):
    """The program reached a bound; the text says which."""


def run_bounded(
    command: Sequence[str], *, stdin: bytes, environment: Mapping[str, str], limit_s: float, max_bytes: int,
    idle_s: float = IDLE_S, watched: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """Run the program in a process group of its own, and kill the group at a bound.

    It is at work while its group uses the processor or `watched`, the folder it writes to, changes in size.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            command, stdin=given, stdout=out, stderr=err, env=dict(environment), cwd="/", start_new_session=True
        )
        try:
            _wait(process, (out.fileno(), err.fileno()), limit_s, max_bytes, idle_s, watched)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started as well, also where it ended itself
            process.wait()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(list(command), process.returncode, out.read(), err.read(max_bytes))


def _wait(
    process: subprocess.Popen[bytes], outputs: Sequence[int], limit_s: float, max_bytes: int, idle_s: float,
    watched: Path | None,
) -> None:  # fmt: skip
    """Return when the process has ended; Unfinished at a bound."""
    began = active = time.monotonic()
    seen: tuple[int, ...] = ()
    step = 0.001
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(step)
        sizes = tuple(os.fstat(output).st_size for output in outputs)
        if sum(sizes) > max_bytes:
            raise Unfinished(f"printed more than {max_bytes:,} bytes")
        if process.returncode is not None:
            return
        now = time.monotonic()
        if now - began > limit_s:
            raise Unfinished(f"did not finish within {limit_s:g} s")
        if now - active > idle_s:
            used = (*sizes, _ticks(process.pid), _bytes(watched))
            if used == seen:
                raise Unfinished(f"did nothing for {idle_s:g} s: a pipe or a device among its files?")
            seen, active = used, now
        step = min(step * 2, _STEP_S)


def _ticks(group: int) -> int:
    """Return the processor time that the living processes of a group have used; 0 where there is no /proc."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_bytes().rpartition(b") ")[2].split()
            if int(fields[2]) == group:
                total += int(fields[11]) + int(fields[12])
    return total


def _bytes(folder: Path | None) -> int:
    """Return the bytes of the files below a folder."""
    total = 0
    for path in folder.rglob("*") if folder is not None else ():
        with suppress(OSError):
            total += path.lstat().st_size
    return total
