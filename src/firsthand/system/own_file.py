"""Refuses links in the place of our own files and folders: what comes from somebody else may link to what is yours.

Files of such a folder are read here too: ordinary ones alone, through no link, and no more of them than was expected.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from firsthand.errors import StoreError
from firsthand.system.json_values import values_in
from firsthand.system.sqlite_locks import open_beside_sqlite

MAX_JSON_BYTES = 1 << 24
MAX_JSON_VALUES = 2_000_000


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


def expect_own_tree(path: Path) -> None:
    """StoreError if a link, a pipe or a device is at a path that is ours to write, or anywhere below it."""
    if not is_own_folder(path):
        expect_own_file(path)
        return
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            found = sorted(os.scandir(folder), key=lambda each: each.name)
            inside = [each.path for each in found if each.is_dir(follow_symlinks=False)]
            strange = next((each for each in found if each.path not in inside and not _is_ordinary(each)), None)
        except OSError as error:
            raise StoreError(f"{folder} cannot be looked at: {error.strerror or error}") from None
        if strange is not None:
            expect_own_file(Path(strange.path))
        waiting += map(Path, reversed(inside))


def open_own(path: Path) -> BinaryIO:
    """The file, opened for reading; OSError for a link, or anything but an ordinary file."""

    def expect(status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))

    return open_beside_sqlite(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, expect)


def read_own(path: Path, most: int) -> bytes:
    """The content of an ordinary file of at most so many bytes; OSError for a link, any other file, or a larger one."""
    with open_own(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def read_own_json(path: Path) -> Any:
    """What the JSON in an ordinary file holds; OSError as `read_own`, ValueError for what is none, or too much of it."""
    content = read_own(path, MAX_JSON_BYTES)
    if values_in(content, MAX_JSON_VALUES) > MAX_JSON_VALUES:
        raise ValueError(f"it has more than {MAX_JSON_VALUES:,} values")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def is_own_folder(path: Path) -> bool:
    """True if a folder, and no link to one, is at the path."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _is_ordinary(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _mode(path: Path) -> int | None:
    """The mode of what is at a path, a link itself included; None for nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error.strerror or error}") from None
