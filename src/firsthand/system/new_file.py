"""Writes files whole, and through no link: the folder may be somebody else's, with links to files of the user in it."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def write_new(path: Path, content: str | bytes, *, errors: str = "strict") -> None:
    """Put a file of that content in the place of what has its name; OSError leaves what was there.

    A link is replaced, not followed, but for one to a pipe or a device such as `/dev/stdout`, which is written to. An
    ordinary file keeps its mode.
    """
    data = content.encode("utf-8", errors) if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as stream:
            stream.write(data)
        return
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.new")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if (mode := _mode(path)) is not None:
                os.fchmod(handle, mode)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _mode(path: Path) -> int | None:
    """The permissions of an ordinary file; None for a link, or if there is none."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) else None
