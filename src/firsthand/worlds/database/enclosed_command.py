"""The command that runs a program of a database's server: a folder of its own to write in, and a bound on its memory.

Where we are root it runs as a user that nobody else is. In bubblewrap it sees the system's programs and libraries, what it
was installed with, and its folders: no network, no home and no other process. Where bubblewrap is missing or may make no
namespaces, it runs as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firsthand.errors import SandboxError
from firsthand.sandbox.bwrap_command import own_id, parents_of, system_folders
from firsthand.sandbox.reader_command import showing

MEMORY_BYTES = 4 * 2**30
"""Address space of the program; MariaDB takes 1.7 GiB of it when it starts."""
_TRIED_S = 20.0


def give_away(folder: Path) -> int | None:
    """Give a folder, which others may reach through its parent then, to a user that nobody else is; returns the user's id.

    None, and nothing is given, if we are not root or cannot become somebody else. SandboxError if the user cannot reach it.
    """
    user = own_id() if sys.platform == "linux" else None
    if user is None:
        return None
    try:
        os.chown(folder, user, user)
        folder.parent.chmod(0o711)
        writes = ["/bin/sh", "-c", 'test -w "$1"', "sh", str(folder)]
        reached = subprocess.run(writes, timeout=_TRIED_S, **process_options(user, folder)).returncode == 0
    except PermissionError:  # root without the right to become somebody else
        os.chown(folder, os.geteuid(), os.getegid())
        return None
    if not reached:
        raise SandboxError(
            f"{folder.parent} cannot be reached by a user who is not root: set TMPDIR to a folder that can"
        )
    return user


def process_options(user: int | None, writable: Path) -> dict[str, Any]:
    """The options of `subprocess.Popen` for the command: its user, no variable of ours but PATH, a group of its own."""
    environment = {"PATH": os.environ.get("PATH", ""), "TMPDIR": str(writable), "LANG": "C.UTF-8", "TZ": "UTC"}
    became = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return {"env": environment, "cwd": "/", "start_new_session": True, "stdin": subprocess.DEVNULL, **became}


def enclosed(program: Sequence[str], user: int | None, writable: Path, readable: Path) -> list[str]:
    """The command that runs `program`, an absolute path and its arguments, with these two folders besides the system's."""
    bounded = ["/bin/sh", "-c", f'ulimit -c 0; ulimit -v {MEMORY_BYTES >> 10}; exec "$@"', "sh"]
    wrapper = _wrapper(Path(program[0]), writable, readable)
    return [*bounded, *(wrapper if _runs(wrapper, user, writable) else []), *program]


def _wrapper(program: Path, writable: Path, readable: Path) -> list[str]:
    shown = system_folders()
    installed = program.resolve().parent.parent
    if not any(installed.is_relative_to(place) for place in shown):
        shown[installed] = installed
    command = showing(shown | {readable: readable})
    command += [*parents_of(writable), "--bind", str(writable), str(writable)]
    return [*command, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]


def _runs(wrapper: Sequence[str], user: int | None, writable: Path) -> bool:
    """True if a program can be run in the wrapper here."""
    if sys.platform != "linux":
        return False
    try:
        options = process_options(user, writable)
        tried = subprocess.run([*wrapper, "/bin/sh", "-c", ":"], capture_output=True, timeout=_TRIED_S, **options)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
