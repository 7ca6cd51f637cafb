"""Starts a process whose group ends with this process, however this process ends.

A server reads the end of its input when its client dies, and may ignore it. So a small shell stands beside it and reads from
a pipe that only this process holds: when the pipe ends, by `kill -9` of this process too, it kills the group. The server
waits for a line on its input before it becomes its program, so at no moment does it run unguarded. Needs a POSIX shell and
nothing else: Linux and macOS alike. A process that has left the group is not reached.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

SHELL = "/bin/sh"
ORPHAN_GRACE_S = 1
"""Seconds that a server has to end on its own after this process died."""
_BECOME = 'read -r _ && exec "$@"'
_WATCH = f'trap "" HUP INT TERM; read -r _; sleep {ORPHAN_GRACE_S}; kill -s KILL -- "-$1"'


@asynccontextmanager
async def guarded_process(
    command: str, args: tuple[str, ...], *, env: Mapping[str, str], cwd: str, limit: int
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A program in a session and process group of its own, with pipes to all three streams of at most `limit` bytes each.

    What is left of the group is killed at the end of the block. OSError if the program cannot be started.
    """
    _check_program(command, env.get("PATH", os.defpath), cwd)
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        SHELL, "-c", _BECOME, SHELL, command, *args,
        env=env, cwd=cwd or None, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, limit=limit,
    )  # fmt: skip
    watch = None
    try:
        watch = await asyncio.create_subprocess_exec(
            SHELL, "-c", _WATCH, "firsthand-mcp-guard", str(process.pid),
            stdin=pipe, stdout=null, stderr=null, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(b"\n")
        yield process
    finally:
        if process.returncode is None:
            signal_group(process.pid, signal.SIGKILL)
        if watch is not None:
            await asyncio.shield(asyncio.ensure_future(_end(watch)))


def signal_group(group: int, sent: signal.Signals) -> None:
    """Send a signal to a process group, which may be gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sent)


async def _end(watch: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        watch.kill()
    await watch.wait()


def _check_program(command: str, path: str, cwd: str) -> None:
    """Raise the OSError of a program that is not there or may not be run: the shell would say so in its own words."""
    file = str(Path(cwd or ".") / command) if os.sep in command else command
    if shutil.which(file, path=path) is None:
        number = errno.EACCES if os.sep in command and Path(file).exists() else errno.ENOENT
        raise OSError(number, os.strerror(number), command)
