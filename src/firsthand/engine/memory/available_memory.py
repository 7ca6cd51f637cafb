"""Memory that this process can still get. No torch here; `devices.py` asks for a GPU's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60
"""Version 1 control groups report a number near 2^63 where there is no limit."""


def free_bytes(root: Path = ROOT) -> int | None:
    """Returns the bytes available without swapping, at most what the control groups' limits leave; None if unknown.

    Reads `MemAvailable` on Linux, else free or physical memory by POSIX. `root` is the folder that holds `/proc` and
    `/sys`.
    """
    available = _available(root)
    return min((each for each in (available, *_cgroup_limits(root)) if each is not None), default=None)


def _available(root: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _pages("SC_AVPHYS_PAGES") or _pages("SC_PHYS_PAGES")


def _pages(name: str) -> int | None:
    if name not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yields the bytes left by the limit of each control group of this process, parents included.

    Cached files count as free.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = (*line.split(":", 2), "", "")[:3]
            if number == "0":
                base, limit, usage, files = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
            elif "memory" in controllers.split(","):
                base = "sys/fs/cgroup/memory"
                limit, usage, files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            else:
                continue
            own = Path(path.lstrip("/"))
            for group in (own, *own.parents):  # the root last: in a container the own group is mounted there
                left = _cgroup_limit(root / base / group, limit, usage, files)
                if left is not None:
                    yield left


def _cgroup_limit(group: Path, limit: str, usage: str, files: str) -> int | None:
    """Returns the bytes that one control group leaves; None without a limit."""
    with suppress(OSError, ValueError):
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
        if most < _UNLIMITED:
            return max(most - used + _stat(group / "memory.stat", files), 0)
    return None


def _stat(file: Path, name: str) -> int:
    """Returns one number of a control group's statistics; 0 if it is missing."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
