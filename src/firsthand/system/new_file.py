"""Writes files whole, and through no link: the folder may be somebody else's, with links to files of the user in it."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.system.ordinary_file import open_ordinary


def write_new(path: Path, content: str | bytes, *, errors: str = "strict") -> None:
    """Put a file of that content in the place of what has its name; OSError leaves what was there.

    A link is replaced, not followed, but for one to a pipe or a device such as `/dev/stdout`, which is written to. An
    ordinary file keeps its mode.
    """
    data = content.encode("utf-8", errors) if isinstance(content, str) else content
    if _is_stream(path):
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path`, for libraries that write by name; it takes the place of `path` at the end.

    Any link is replaced, and an ordinary file keeps its mode. An error leaves what was there; StoreError for a device or a
    pipe. The file is `NAME.part`: what a killed process left there is removed first.
    """
    if not path.is_symlink() and _is_stream(path):
        raise StoreError(f"{path} is no ordinary file: give another path")
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    try:
        yield part
        if (mode := _mode(path)) is not None:
            part.chmod(mode)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def copy_new(source: Path, path: Path) -> None:
    """Put a copy of an ordinary file in the place of what is at `path`, as `write_new`."""
    with replacing(path) as part, open_ordinary(source) as file, part.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _is_stream(path: Path) -> bool:
    """True for a pipe or a device, or a link to one."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _mode(path: Path) -> int | None:
    """The permissions of an ordinary file; None for a link, or if there is none."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) else None
