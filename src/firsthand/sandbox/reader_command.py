"""The `bwrap` command around a program of ours that parses bytes of strangers: no network, no home, nothing to write.

It is a second wall, behind a parser that was taken over, and no place for code of strangers, which runs in a worker. The
program sees the system's programs and libraries, this Python with its packages and our own package, all read-only, and the
pipes that it was given. Where bubblewrap is missing or may make no namespaces, it runs as it is.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import firsthand
from firsthand.errors import SandboxError
from firsthand.sandbox import seccomp
from firsthand.sandbox.bwrap_command import devices, held_open, parents_of, python_folders, system_folders

_TRIED_S = 20.0


def reader_command(program: Sequence[str], given: list[int]) -> list[str]:
    """The command that runs `program` in a sandbox, or the program alone where that cannot be had.

    `given` receives the descriptors that it reads, to be passed on and closed. Kill the group of its process: bubblewrap
    stands between.
    """
    return _wrapped(program, given) if can_wrap() else list(program)


def import_path() -> str:
    """The PYTHONPATH by which the program finds our package and all installed ones, without a home."""
    return os.pathsep.join(map(str, [Path(firsthand.__file__).parent.parent, *_packages()]))


@functools.cache
def can_wrap() -> bool:
    """True if a program can be run in such a sandbox here; tried once."""
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        return False
    given: list[int] = []
    try:
        command = _wrapped([sys.executable, "-I", "-S", "-c", ""], given)
        return subprocess.run(command, pass_fds=given, capture_output=True, timeout=_TRIED_S, env={}).returncode == 0
    except (OSError, SandboxError, subprocess.TimeoutExpired):
        return False
    finally:
        for fd in given:
            os.close(fd)


def showing(folders: Mapping[Path, Path]) -> list[str]:
    """The beginning of a `bwrap` command without rights and network, with these folders to read, by the place of each."""
    command = [
        shutil.which("bwrap") or "bwrap",
        "--cap-drop",
        "ALL",
        "--unshare-user-try",
        "--unshare-pid",
        "--unshare-net",
    ]
    command += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "reader"]
    for place, folder in folders.items():
        command += [*parents_of(place), "--ro-bind", str(folder), str(place)]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (path := Path("/", name)).is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
    if (cache := Path("/etc/ld.so.cache")).is_file():
        command += ["--ro-bind", str(cache), str(cache)]
    return command


def _wrapped(program: Sequence[str], given: list[int]) -> list[str]:
    command = showing(_shown())
    if (filter_code := seccomp.program(platform.machine())) is not None:
        given.append(held_open(filter_code))
        command += ["--seccomp", str(given[-1])]
    return [*command, "--proc", "/proc", *devices(), "--remount-ro", "/", "--chdir", "/", "--", *program]


def _shown() -> dict[Path, Path]:
    """Folders by the place where they are shown: the system's, Python's, its packages, and our package."""
    shown = {**system_folders(), **python_folders()}
    ours = Path(firsthand.__file__).parent
    for folder in (Path(sys.prefix), *_packages(), ours):
        if folder in (Path("/"), Path.home()):
            raise SandboxError(
                f"Python is installed in {folder}, which cannot be shown: use one in a folder of its own"
            )
        if not any(folder.is_relative_to(place) for place in shown):
            shown[folder] = folder.resolve()
    return shown


def _packages() -> list[Path]:
    """The folders of installed packages, the user's own among them if this Python reads them."""
    found = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [path for each in found if (path := Path(each)).is_dir()]
