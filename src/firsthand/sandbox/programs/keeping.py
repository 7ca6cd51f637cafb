"""Folders that all runs of a worker share. It runs inside the sandbox, beside `worker.py`; standard library only.

They are parts of one bounded file system, the store. Each run sees them at their own places: in its own mount namespace
they are bound there, and the store's own place is covered by the folder that belongs there, so that it is seen once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

_BIND = 0x1000


def make(store: str, folders: Sequence[str]) -> None:
    """Make the parts of the store, once, before anything untrusted runs."""
    for number, folder in enumerate(folders):
        os.mkdir(part(store, number), 0o700 if folder == "/root" else 0o755)


def show(
    mount: Callable[[str, str, str, int], None], store: str, folders: Sequence[str], within: Sequence[str]
) -> None:
    """Bind each part at its place, the one that covers the store last; in the mount namespace of one run.

    What lies `within` such a place and is to be seen all the same, as this Python may be, is bound there again, whatever
    an earlier run has put in its way.
    """
    shown = [(place, os.open(place, os.O_PATH)) for place in within]
    for number, folder in sorted(enumerate(folders), key=lambda each: each[1] == store):
        mount(part(store, number), folder, "none", _BIND)
    for place, handle in shown:
        with suppress(OSError):  # no room for a folder: there is nothing at that place then
            found = real_folder(place)
            try:
                if not os.path.samestat(os.fstat(found), os.fstat(handle)):
                    mount(f"/proc/self/fd/{handle}", f"/proc/self/fd/{found}", "none", _BIND)
            finally:
                os.close(found)
        os.close(handle)
    with suppress(OSError):  # /dev/shm leads here
        os.mkdir("/tmp/shm", 0o700)


def real_folder(place: str) -> int:
    """A descriptor of the folder at an absolute path. Each part of the way that is a link or a file becomes a folder.

    A mount by path would follow a run's link, with rights that the run has not, to wherever it leads.
    """
    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for name in place.strip("/").split("/"):
            above, here = here, folder_in(here, name)
            os.close(above)
    except BaseException:
        os.close(here)
        raise
    return here


def folder_in(above: int, name: str) -> int:
    """A descriptor of the folder of that name in an opened one; what else has the name is removed."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        os.unlink(name, dir_fd=above)
    os.mkdir(name, 0o755, dir_fd=above)
    return os.open(name, flags, dir_fd=above)


def part(store: str, number: int) -> str:
    """The path of a folder in the store."""
    return os.path.join(store, str(number))
