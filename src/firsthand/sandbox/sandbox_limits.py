"""Limits of one run in the sandbox, and of the workspace that several share. Defaults suit an answer's code and tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from firsthand.errors import ConfigError

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "dev", "proc", "sys", "base", "packages")


@dataclass(frozen=True)
class RunLimits:
    """The limits of one run. All hold at once; what is reached first ends the run, or fails the call that asks for more."""

    wall_s: float = 10.0
    """Wall-clock seconds; then every process of the run is killed."""
    cpu_s: float = 10.0
    """Seconds of processor time, for each process."""
    memory_bytes: int = 512 * 2**20
    """Address space of each process, and memory of all processes together."""
    processes: int = 64
    """Processes and threads at any time."""
    open_files: int = 128
    """Open files of each process."""
    file_bytes: int = 32 * 2**20
    """Size of any one file."""
    scratch_bytes: int = 64 * 2**20
    """All files of the scratch folder together; they are kept in memory."""
    scratch_files: int = 4096
    """Number of files and folders in the scratch folder."""
    output_bytes: int = 2**20
    """Bytes of stdout, and of stderr, that are kept; a run that writes more is killed."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"{name} is {value}: give a number above 0")
        if self.memory_bytes < 64 * 2**20:
            raise ConfigError(f"memory_bytes is {self.memory_bytes}: Python itself needs 64 MiB of address space")


@dataclass(frozen=True)
class Workspace:
    """A folder that all runs of one sandbox share, `/testbed`; it is in memory, and gone when the sandbox is closed."""

    base: Path | None = None
    """A folder that is shown beside it, read-only, as `/base`: what the workspace is filled from."""
    size_bytes: int = 2**30
    """Bytes of all its files together; unused space costs nothing."""
    files: int = 100_000
    """The most files and folders. A run that makes more is killed."""
    folders: tuple[str, ...] = ()
    """Places, such as `/root` and `/tmp`, that are kept as well, as parts of the same space; each begins empty."""

    def __post_init__(self) -> None:
        for folder in self.folders:
            parts = PurePosixPath(folder).parts
            if parts[:1] != ("/",) or not parts[1:] or parts[1] in _SYSTEM or ".." in parts:
                raise ConfigError(f"{folder!r} cannot be kept: give a folder such as /root, not one of the system's")
        if self.size_bytes < 1 or self.files < 1:
            raise ConfigError(f"a workspace of {self.size_bytes} bytes and {self.files} files: give numbers above 0")
