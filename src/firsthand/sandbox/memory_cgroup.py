"""A memory cgroup for a sandbox worker, where the kernel lets us make one: as root, or in a delegated subtree.

Counting what processes have mapped misses pages that nobody maps, such as shared memory that was unmapped but for one page,
pipes, sockets and page tables. The kernel counts them all, and kills the run when the total passes the limit. Both versions
of the interface are used. `open_cgroup` gives None where there is neither, and the counting alone remains.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SLACK_BYTES = 64 * 2**20
"""For the kernel's own tables of a run, its sockets, and the worker's own growth."""
LEFT_S = 10.0
"""An empty cgroup of a process that is gone is removed when it is this old."""
_NUMBERS = itertools.count()


class MemoryCgroup:
    """One cgroup, empty at first."""

    def __init__(self, folder: Path, version: int):
        self.folder, self.version = folder, version
        self.limit_file = folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")
        self.usage_file = folder / ("memory.current" if version == 2 else "memory.usage_in_bytes")
        self.events_file = folder / ("memory.events" if version == 2 else "memory.oom_control")
        self.own_bytes: int | None = None
        """Held before the first run, by the worker itself."""

    def entering(self, command: list[str]) -> list[str]:
        """The command, run inside the cgroup from its first instruction on."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def allow(self, more_bytes: int) -> None:
        """Set the limit to what the worker held before its first run and `more_bytes`, and some slack.

        What earlier runs left in the kernel's caches is not added: they are emptied first. Where more is left than a new and
        smaller limit holds, it is added all the same, since the kernel might end the worker for it.
        """
        used = int(self.usage_file.read_text())
        if self.own_bytes is None:
            self.own_bytes = used
        limit = self.own_bytes + more_bytes + SLACK_BYTES
        self.limit_file.write_text(str(limit if used < limit else used + more_bytes + SLACK_BYTES))

    def kills(self) -> int:
        """The number of processes that the kernel has killed for the limit."""
        lines = self.events_file.read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def close(self) -> None:
        """Remove it; its processes must have ended."""
        for _ in range(50):
            try:
                self.folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # the last of them is being reaped
                time.sleep(0.01)


def open_cgroup() -> MemoryCgroup | None:
    """A new cgroup below our own, or beside it; None where none can be made."""
    for parent, version in _parents():
        _remove_left(parent)
        folder = parent / f"firsthand-{os.getpid()}-{next(_NUMBERS)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        made = MemoryCgroup(folder, version)
        try:
            _set_up(made)
            return made
        except (OSError, ValueError):
            made.close()
    return None


def _set_up(made: MemoryCgroup) -> None:
    """Give a new cgroup its first limit; OSError or ValueError if it lacks one of the files."""
    made.limit_file.write_text(str(2**40))
    int(made.usage_file.read_text())
    made.kills()
    with suppress(FileNotFoundError):  # a kernel without swap
        (made.folder / ("memory.swap.max" if made.version == 2 else "memory.swappiness")).write_text("0")
    if made.version == 1:  # which counts sockets only if asked to
        with suppress(OSError):
            (made.folder / "memory.kmem.tcp.limit_in_bytes").write_text(str(SLACK_BYTES))


def _remove_left(parent: Path) -> None:
    """Remove the empty cgroups of processes that were killed before they could."""
    for folder in parent.glob("firsthand-*"):
        pid = folder.name.split("-")[1]
        with suppress(OSError):
            if not Path("/proc", pid).exists() and time.time() - folder.stat().st_mtime > LEFT_S:
                folder.rmdir()


def _parents() -> list[tuple[Path, int]]:
    """Cgroups below or beside which one might be made, each with its interface's version, 1 or 2."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            found.append((ROOT / "memory" / path.lstrip("/"), 1))
        elif not controllers:  # version 2 lets no processes and cgroups share a place: beside our own there may be room
            own = ROOT / path.lstrip("/")
            found += [(place, 2) for place in (own, own.parent) if place.is_relative_to(ROOT)]
    return found
