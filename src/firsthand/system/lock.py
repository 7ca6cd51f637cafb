"""File locks that the system releases when the holding process dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firsthand.errors import StoreError


@contextmanager
def held(lock: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the lock, shared with other holders, or `alone` after waiting for all of them. StoreError if not writable."""
    try:
        file = lock.open("ab")
    except OSError as error:
        raise StoreError(
            f"{lock.parent} cannot be written ({error.strerror}): make the folder writable, or copy it to a place that is"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def is_held(lock: Path) -> bool:
    """True if a live process holds the lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
