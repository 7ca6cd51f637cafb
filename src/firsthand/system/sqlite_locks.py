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
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from io import BufferedReader, FileIO
from pathlib import Path

SQLITE_MAGIC = b"SQLite format 3\0"
_SHM_VERSION = (3_007_000).to_bytes(4, sys.byteorder)
"""The first bytes of a `-shm` file (SQLite's WAL format, section 2.1)."""

opening = threading.RLock()
"""Held while a connection opens its file, and from a look at the open files to a close."""
os.register_at_fork(before=opening.acquire, after_in_parent=opening.release, after_in_child=opening.release)

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
    status = os.stat(path, dir_fd=dir_fd, follow_symlinks=not flags & os.O_NOFOLLOW)
    if _is_kept(status):
        raise _in_use(path)
    handle = os.open(path, flags, dir_fd=dir_fd)
    _ours.add(handle)
    try:
        if expect is not None:
            expect(os.fstat(handle))
        file: BufferedReader = BufferedReader(_Reader(handle, closefd=False))
    except BaseException:
        _close(handle)
        raise
    head = _head(handle)
    if head and _is_sqlite(head) and _key(os.fstat(handle)) in _open_elsewhere():
        file.close()
        raise _in_use(path)
    return file


def head_of_open(path: Path, most: int) -> bytes | None:
    """The first bytes of a file that this process has open, from the descriptor that is there; None if it has not."""
    handle = _open_elsewhere().get(_key(path.stat()))
    return None if handle is None else os.pread(handle, most, 0)


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
        if _is_sqlite(_head(handle)):
            others = _open_elsewhere()
            for key in [each for each in _kept if each not in others]:
                _end(_kept.pop(key))
            if (key := _key(os.fstat(handle))) in others:
                _kept.setdefault(key, []).append(handle)
                return
        _end([handle])


def _is_kept(status: os.stat_result) -> bool:
    """True if a descriptor of the file is kept, and still has to be."""
    with opening:
        handles = _kept.get(_key(status))
        if handles is None:
            return False
        if _is_sqlite(_head(handles[0])) and _key(status) in _open_elsewhere():
            return True
        _end(_kept.pop(_key(status)))
        return False


def _end(handles: Iterable[int]) -> None:
    for handle in handles:
        _ours.discard(handle)
        os.close(handle)


def _open_elsewhere() -> dict[_File, int]:
    """The ordinary files that this process has open to be read, but for ours, each with a descriptor."""
    found: dict[_File, int] = {}
    try:
        numbers: Iterable[int] = [int(each.name) for each in Path("/dev/fd").iterdir()]
    except OSError:
        numbers = range(1024)
    for number in numbers:
        if number in _ours:
            continue
        try:
            status = os.fstat(number)
            if stat.S_ISREG(status.st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
                found[_key(status)] = number
        except OSError:  # closed since
            continue
    return found


def _head(handle: int) -> bytes | None:
    """The first bytes of a file; None for a pipe or a device."""
    try:
        return os.pread(handle, len(SQLITE_MAGIC), 0) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    except OSError:
        return None


def _is_sqlite(head: bytes | None) -> bool:
    """True for what may be a database or its `-shm`, which are empty or zeros at first."""
    return head is not None and (head == SQLITE_MAGIC or head[:4] == _SHM_VERSION or not head.strip(b"\0"))


def _key(status: os.stat_result) -> _File:
    return status.st_dev, status.st_ino


def _in_use(path: Path | str) -> OSError:
    return OSError(errno.EBUSY, "it is a SQLite database that is open in this process", str(path))
