"""Refuses links in the place of our own files and folders: what comes from somebody else may link to what is yours."""

from __future__ import annotations

import stat
from pathlib import Path

from firsthand.errors import StoreError


def expect_own_file(path: Path) -> None:
    """StoreError if a link, or anything but an ordinary file, has the path of a file that is ours to write."""
    mode = _mode(path)
    if mode is None or stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise StoreError(
            f"{path} is a link, which would be followed to a file elsewhere: give the path of that file itself, or put a "
            "copy in the link's place"
        )
    raise StoreError(f"{path} is no ordinary file: give another path")


def expect_own_folder(path: Path) -> None:
    """StoreError if a link, or a file, has the path of a folder that is ours to write and to tidy up."""
    mode = _mode(path)
    if mode is None or stat.S_ISDIR(mode):
        return
    if stat.S_ISLNK(mode):
        raise StoreError(
            f"{path} is a link, which would be followed to a folder elsewhere: move that folder to the link's place; "
            "another disk is mounted there, or has the whole data home by FIRSTHAND_HOME"
        )
    raise StoreError(f"{path} is no folder: move it away")


def is_own_folder(path: Path) -> bool:
    """True if a folder, and no link to one, is at the path."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path) -> int | None:
    """The mode of what is at a path, a link itself included; None for nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error.strerror or error}") from None
