"""Opens files of somebody else's folder: ordinary ones alone, for a named pipe or a device there has no end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path

from firsthand.system.sqlite_locks import head_of_open, open_beside_sqlite

MAX_TEXT_BYTES = 1 << 28


def open_ordinary(path: Path) -> BufferedReader:
    """The file, opened for reading; OSError if it is not an ordinary one."""
    return open_beside_sqlite(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, _expect_ordinary)


def read_head(path: Path, most: int) -> bytes:
    """The first bytes of an ordinary file, which may be a database that this process has open; OSError as above."""
    if (head := head_of_open(path, most)) is not None:
        return head
    with open_ordinary(path) as file:
        return file.read(most)


def read_ordinary(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """The content of an ordinary file of at most `most` bytes; OSError if it is longer, or no ordinary one."""
    with open_ordinary(path) as file:
        return _content(file, path, most)


def read_ordinary_text(
    path: Path, most: int = MAX_TEXT_BYTES, *, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """The text of an ordinary file, whose line ends become `\\n`; OSError as `read_ordinary`, or UnicodeDecodeError."""
    return TextIOWrapper(BytesIO(read_ordinary(path, most)), encoding, errors).read()


def read_bounded(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file that a user names, which may be a pipe; OSError if it is longer than `most` bytes."""
    with open_beside_sqlite(path, os.O_RDONLY | os.O_CLOEXEC) as file:
        return _content(file, path, most)


def read_bounded_text(path: Path) -> str:
    """The UTF-8 text of a file that a user names, which may be a pipe; OSError if it is longer than `MAX_TEXT_BYTES`."""
    return read_bounded(path, MAX_TEXT_BYTES).decode()


def _expect_ordinary(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "pipe" if stat.S_ISFIFO(status.st_mode) else "device"
        told = f"it is no ordinary file but a {kind}, which may have no end: write it to a file, and give that"
        raise OSError(errno.EINVAL, os.strerror(errno.EISDIR) if stat.S_ISDIR(status.st_mode) else told)


def _content(file: BufferedReader, path: Path, most: int) -> bytes:
    is_longer = os.fstat(file.fileno()).st_size > most
    content = b"" if is_longer else file.read(most + 1)  # the size of a pipe or a device is not known
    if is_longer or len(content) > most:
        size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most:,} bytes"
        raise OSError(errno.EFBIG, f"it is larger than {size}", str(path))
    return content
