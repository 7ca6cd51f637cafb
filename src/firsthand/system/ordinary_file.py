"""Opens files of somebody else's folder: ordinary ones alone, for a named pipe or a device there has no end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_TEXT_BYTES = 1 << 28


def open_ordinary(path: Path) -> BufferedReader:
    """The file, opened for reading; OSError if it is not an ordinary one."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(errno.EINVAL, os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is no ordinary file")
    return os.fdopen(handle, "rb")


def read_bounded_text(path: Path) -> str:
    """The UTF-8 text of a file that a user names, which may be a pipe; OSError if it is longer than `MAX_TEXT_BYTES`."""
    with path.open("rb") as file:
        is_longer = os.fstat(file.fileno()).st_size > MAX_TEXT_BYTES
        content = b"" if is_longer else file.read(MAX_TEXT_BYTES + 1)  # the size of a pipe is not known
    if is_longer or len(content) > MAX_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_TEXT_BYTES >> 20} MiB", str(path))
    return content.decode()
