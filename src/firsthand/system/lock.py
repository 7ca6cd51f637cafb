"""File locks that the system releases when the holding process dies, and who holds them.

A lock is the lock on the file, never its existence. Beside it lies a note of the holder's process, for a person to read;
the note of a killed process means nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from firsthand.errors import FirsthandError, StoreError

PATIENCE_S = 1.0
"""`claimed` tries for so long, because `is_held` holds a lock for an instant when it looks."""
_NOTE_S = 1.0
"""`holder` waits for so long for the note of a live process, which is written a moment after the lock was taken."""
_POLL_S = 0.01
_MAX_NOTE = 4096


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold the lock after waiting for its holder. StoreError if it is not writable."""
    with _opened(lock) as file:
        _flock(file, lock, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(lock: Path, busy: Callable[[str], FirsthandError]) -> Iterator[None]:
    """Hold the lock, or raise `busy(holder)` if another process or thread holds it. StoreError if it is not writable."""
    with _claimed(lock, busy):
        note = _note(lock)
        with suppress(OSError):  # a full disk: the lock holds without it
            written = note.with_name(f"{note.name}.new")
            written.unlink(missing_ok=True)  # what lies there may be a link to a file of somebody else
            with written.open("x", encoding="utf-8") as made:
                made.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}) + "\n")
            written.replace(note)
        try:
            yield
        finally:
            with suppress(OSError):
                note.unlink()


def taken(lock: Path, busy: Callable[[], FirsthandError]) -> IO[bytes]:
    """The file of the lock, which holds it until it is closed here and in each process that was given its descriptor.

    Raises `busy()` if another holds it; StoreError if it is not writable. There is no note of the holder.
    """
    file = _opened(lock)
    if not _flock(file, lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
        file.close()
        raise busy()
    return file


def _claimed(lock: Path, busy: Callable[[str], FirsthandError]) -> IO[bytes]:
    """The locked file, which is the one that lies there: a lock that was removed with its folder locks nothing."""
    until = time.monotonic() + PATIENCE_S
    while True:
        file = _opened(lock)
        try:
            if _flock(file, lock, fcntl.LOCK_EX | fcntl.LOCK_NB) and _lies_at(file, lock):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if time.monotonic() >= until:
            raise busy(holder(lock))
        time.sleep(_POLL_S)


def _lies_at(file: IO[bytes], lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.lstat())
    except OSError:
        return False


def is_held(lock: Path) -> bool:
    """True if a live process holds the lock."""
    try:
        with _ordinary(lock, os.O_RDONLY) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two that look do not see each other
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def holder(lock: Path) -> str:
    """The holder of a lock that is held, in words: its process, its host, and since when."""
    until = time.monotonic() + _NOTE_S
    while True:
        found = _noted(lock)
        is_alive = found is not None and (found[1] != socket.gethostname() or _is_alive(found[0]))
        if is_alive or time.monotonic() >= until:
            break
        time.sleep(_POLL_S)
    if found is None:
        return "another process, which left no note of itself"
    pid, host, since = found
    words = f"process {pid} on {host} since {since}"
    return words if is_alive else f"a process begun by {words}, which has ended itself"


def _noted(lock: Path) -> tuple[int, str, str] | None:
    """Process, host and time of the note, or None."""
    try:
        with _ordinary(_note(lock), os.O_RDONLY) as file:
            note = json.loads(file.read(_MAX_NOTE))
        return int(note["pid"]), str(note["host"]), str(note["since"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _note(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.holder")


def _ordinary(path: Path, flags: int) -> IO[bytes]:
    """The file, if it is an ordinary one and no link; OSError otherwise. A folder from others may hold anything."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return os.fdopen(handle, "rb" if flags == os.O_RDONLY else "ab")


def _opened(lock: Path) -> IO[bytes]:
    try:
        return _ordinary(lock, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise StoreError(
            f"{lock.parent} cannot be written ({error.strerror}): make the folder writable, or copy it to a place that is"
        ) from None


def _flock(file: IO[bytes], lock: Path, operation: int) -> bool:
    """False if another holds the lock."""
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(
            f"{lock} cannot be locked ({error.strerror}): use a folder on a file system that has locks"
        ) from None
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
