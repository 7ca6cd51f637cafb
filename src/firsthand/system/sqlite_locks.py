"""Opens files for reading so that closing them drops no lock of a SQLite connection of this process.

POSIX drops all locks that a process has on a file when the process closes any descriptor of that file (fcntl(2)); SQLite
can see to its own descriptors alone. A connection without its lock lets another process delete the log that it writes to.
So a descriptor of a database that this process has open elsewhere is kept until it has not. SQLite locks the database and
its `-shm`; logs and journals have no locks. A program's own `sqlite3.connect` in another thread, in the very moment between
the look and the close, is not seen; those of `connect_bounded` are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import sys
import threading
from collections.abc import Callable, Container, Iterable
from contextlib import nullcontext
from io import BufferedReader, FileIO
from pathlib import Path

SQLITE_MAGIC = b"SQLite format 3\0"
_SHM_VERSION = (3_007_000).to_bytes(4, sys.byteorder)
"""The first bytes of a `-shm` file (SQLite's WAL format, section 2.1)."""

opening = threading.RLock()
"""Taken while a connection or a reader opens its file, and from a look at the open files to a close."""
os.register_at_fork(before=opening.acquire, after_in_parent=opening.release, after_in_child=opening.release)

_MOST_NUMBERS = 1 << 16
"""Descriptors that are looked at where they are not listed."""

_File = tuple[int, int]
"""A file's device and inode."""
_ours: set[int] = set()
"""The descriptors that `open_beside_sqlite` has opened."""
_kept: dict[_File, list[int]] = {}
"""Those of them that are not closed yet, for it would drop locks."""


def open_beside_sqlite(
    path: Path | str, flags: int, expect: Callable[[os.stat_result], None] | None = None, *, dir_fd: int | None = None
) -> BufferedReader:
    """The file, opened with these flags for reading; OSError if this process has it open as a SQLite database.

    Args:
        expect: Raises what the caller says of a file that is of no ordinary kind.
    """
    handle = _taken_up(path, flags, dir_fd) if _kept else None
    if handle is None:
        with opening if flags & os.O_NONBLOCK else nullcontext():  # a pipe may wait for its writer
            handle = os.open(path, flags, dir_fd=dir_fd)
            _ours.add(handle)
    try:
        status = os.fstat(handle)
        if expect is not None:
            expect(status)
        head = _head(handle, status)
        if not _may_be_sqlite(head):  # nor will it be one: SQLite refuses to write to it
            ordinary = os.fdopen(handle, "rb")
            _ours.discard(handle)
            return ordinary
        file: BufferedReader = BufferedReader(_Reader(handle, closefd=False))
    except BaseException:
        _close(handle)
        raise
    with opening:
        is_in_use = _is_sqlite(head) and bool(_open_elsewhere({_key(status)}))
    if is_in_use:
        file.close()
        raise OSError(errno.EBUSY, "it is a SQLite database that is open in this process", str(path))
    return file


def head_of_open(path: Path, most: int) -> bytes | None:
    """The first bytes of a file that this process has open, from the descriptor that is there; None if it has not."""
    key = _key(path.stat())
    handle = _open_elsewhere({key}).get(key)
    try:
        head = None if handle is None else os.pread(handle, most, 0)
        return head if handle is not None and _key(os.fstat(handle)) == key else None
    except OSError:  # closed since
        return None


class _Reader(FileIO):
    """A descriptor that is closed by `_close`."""

    def close(self) -> None:
        if not self.closed:
            handle = self.fileno()
            super().close()
            _close(handle)


def _close(handle: int) -> None:
    """Close a descriptor of ours, or keep it if that would drop locks; those that are kept for nothing are closed."""
    with opening:
        status = os.fstat(handle)
        key = _key(status)
        if _may_be_sqlite(_head(handle, status)):
            others = _open_elsewhere({key, *_kept})
            for each in [each for each in _kept if each not in others]:
                _end(_kept.pop(each))
            if key in others:
                _kept.setdefault(key, []).append(handle)
                return
        _end([handle])


def _taken_up(path: Path | str, flags: int, dir_fd: int | None) -> int | None:
    """A descriptor of the file that was kept, at its beginning: with a new one for each reading there were ever more."""
    status = os.stat(path, dir_fd=dir_fd, follow_symlinks=not flags & os.O_NOFOLLOW)
    with opening:
        handles = _kept.get(_key(status))
        if not handles:
            return None
        handle = handles.pop()
        if not handles:
            del _kept[_key(status)]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _end(handles: Iterable[int]) -> None:
    for handle in handles:
        _ours.discard(handle)
        os.close(handle)


def _open_elsewhere(keys: Container[_File]) -> dict[_File, int]:
    """Those of the files that this process has open to be read, but for ours, each with a descriptor."""
    found: dict[_File, int] = {}
    for number in _descriptors():
        if number in _ours:
            continue
        try:
            key = _key(os.fstat(number))
            if key in keys and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
                found[key] = number
        except OSError:  # closed since
            continue
    return found


def _descriptors() -> Iterable[int]:
    """The open descriptors, or all numbers there may be where no folder lists them (no /proc, or an empty /dev/fd)."""
    for folder in ("/dev/fd", "/proc/self/fd"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            names = os.listdir(handle)  # noqa: PTH208 -- a descriptor is no path
        except OSError:
            names = []
        finally:
            os.close(handle)
        if str(handle) in names:
            return map(int, names)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return range(_MOST_NUMBERS if most == resource.RLIM_INFINITY else min(most, _MOST_NUMBERS))


def _head(handle: int, status: os.stat_result) -> bytes | None:
    """The first bytes of a file; None for a pipe or a device."""
    try:
        return os.pread(handle, len(SQLITE_MAGIC), 0) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def _is_sqlite(head: bytes | None) -> bool:
    """True for a database or its `-shm`."""
    return head is not None and (head == SQLITE_MAGIC or head[:4] == _SHM_VERSION)


def _may_be_sqlite(head: bytes | None) -> bool:
    """True for what may become one too, for both are empty or zeros at first."""
    return _is_sqlite(head) or (head is not None and not head.strip(b"\0"))


def _key(status: os.stat_result) -> _File:
    return status.st_dev, status.st_ino
