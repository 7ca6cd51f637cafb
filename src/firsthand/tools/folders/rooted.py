"""A folder that no path escapes from: paths are resolved one part at a time, relative to open folders.

Checking a path and then opening it would leave a moment in which a link can be swapped in. So each part is opened relative
to its open parent with O_NOFOLLOW, links are read and followed by us, `..` goes back to a parent that we hold, and an
absolute link is refused: what Linux calls RESOLVE_BENEATH, on any POSIX system. Reading follows links that stay inside;
writing follows none, so that the file that is written is the one whose path was approved. Hard links cannot be told from
files: who can make one inside the folder can show the file it leads to.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from firsthand.errors import ConfigError, ToolError
from firsthand.system.sqlite_locks import open_beside_sqlite
from firsthand.tools.folders.version_control import owner

MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Rooted:
    """The files under one folder. Every failure is a ToolError that the model can read."""

    def __init__(self, root: str | Path):
        self.path = Path(root).expanduser().resolve()
        if not self.path.is_dir():
            raise ConfigError(f"{str(root)!r} is no folder: give one whose files the tools may see")

    @contextmanager
    def place(self, path: str, *, make: bool = False, follow: bool = True) -> Iterator[tuple[int, str]]:
        """The open folder that `path` ends in, and the last name there, which is no link; `.` for the folder itself.

        With `make`, for writing, missing folders on the way are made, and what belongs to version control is refused, as are
        links. Without `follow` links are refused too.
        """
        parts = deque(self._parts(path))
        held = [os.open(self.path, _FOLDER)]
        links = 0
        try:
            with _told(path):
                while parts:
                    part = parts.popleft()
                    if make and (system := owner(held[-1], part, is_last=not parts)) is not None:
                        raise ToolError(
                            f"{path!r} belongs to {system}, or would: it is not written to; give another path"
                        )
                    if part == "..":
                        if len(held) == 1:
                            raise ToolError(f"{path!r} leads out of the folder: give a path inside it")
                        os.close(held.pop())
                        continue
                    target = _link(held[-1], part)
                    if target is not None:
                        links += 1
                        if target.startswith("/") or links > MAX_LINKS:
                            raise ToolError(f"{path!r} is or holds a link that leads out of the folder, or in a circle")
                        if make or not follow:
                            raise ToolError(self._behind_link(path))
                        parts.extendleft(reversed(_split(target)))
                    elif parts:
                        held.append(_enter(held[-1], part, make=make))
                    else:
                        break
                else:
                    part = "."
            yield held[-1], part
        finally:
            for folder in held:
                os.close(folder)

    @contextmanager
    def open(self, path: str, *, follow: bool = True) -> Iterator[BinaryIO]:
        """The file at `path`, open for reading: an ordinary file and nothing else."""
        with self.place(path, follow=follow) as (folder, name), _told(path), open_file(folder, name, path) as file:
            yield file

    @contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """The folder at `path`, open."""
        with self.place(path) as (parent, name):
            with _told(path):
                opened = os.open(name, _FOLDER, dir_fd=parent)
            try:
                yield opened
            finally:
                os.close(opened)

    def create(self, path: str, content: bytes) -> None:
        """Write a file that is not there yet."""
        with self.place(path, make=True) as (folder, name), _told(path):
            if name == ".":
                raise ToolError(f"{path!r} is a folder: give the path of a file")
            _write_new(folder, name, content, 0o666)

    def remove(self, path: str) -> None:
        """Remove a file. Like writing, it is refused where version control keeps its own."""
        with self.place(path, make=True) as (folder, name), _told(path):
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise ToolError(f"{path!r} is no ordinary file: it is not removed")
            os.unlink(name, dir_fd=folder)

    def replace(
        self,
        path: str,
        content: bytes,
        *,
        unless_changed_from: os.stat_result | None = None,
        mode: int | None = None,
    ) -> None:
        """Put the content in the place of a file, whole or not at all; a hard link to the old one keeps the old content.

        A new file has the `mode`, or else the old one's.
        """
        with self.place(path, make=True) as (folder, name), _told(path):
            old = _status(folder, name)
            if old is not None and not stat.S_ISREG(old.st_mode):
                raise ToolError(f"{path!r} is no ordinary file: it is not written to")
            if unless_changed_from is not None and _identity(old) != _identity(unless_changed_from):
                raise ToolError(f"{path!r} has been changed by somebody else in the meantime: read it again")
            beside = f".firsthand-{secrets.token_hex(8)}"
            kept = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777
            _write_new(folder, beside, content, kept if mode is None else mode)
            try:
                os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(beside, dir_fd=folder)
                raise

    def relative(self, path: str) -> str:
        """The path as it is read from the folder: without a part that says nothing; empty for the folder itself."""
        return "/".join(self._parts(path))

    def _behind_link(self, path: str) -> str:
        """The reason why nothing is written through the link in a path."""
        real = Path(os.path.realpath(self.path / self.relative(path)))
        where = f" to {str(real.relative_to(self.path))!r}" if real.is_relative_to(self.path) else ""
        return f"{path!r} is or goes through a link{where}, and nothing is written through links: give the path of the file"

    def _parts(self, path: str) -> list[str]:
        if "\0" in path or len(path) > 4096 or (not path.isascii() and path != path.encode("utf-8", "ignore").decode()):
            raise ToolError(f"{path[:80]!r} is no path")
        if path.startswith("/"):
            inside = Path(os.path.normpath(path))
            if ".." in path.split("/") or not inside.is_relative_to(self.path):
                raise ToolError(f"{path!r} is not inside the folder: give a path relative to it, such as 'notes.txt'")
            path = str(inside.relative_to(self.path))
        return _split(path)


@contextmanager
def open_file(folder: int, name: str, path: str) -> Iterator[BinaryIO]:
    """The ordinary file of that name in an open folder. Devices, pipes, sockets and links are never opened for reading."""
    known = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(known.st_mode):
        raise ToolError(f"{path!r} is {kind_of(known)}: only ordinary files can be read")

    def expect(status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):  # swapped since
            raise ToolError(f"{path!r} is no ordinary file")

    with open_beside_sqlite(name, _FILE, expect, dir_fd=folder) as file:
        yield file


def enter(folder: int, name: str) -> int:
    """The folder of that name in an open folder, open; OSError if it is a link."""
    return os.open(name, _FOLDER, dir_fd=folder)


def kind_of(status: os.stat_result) -> str:
    """The kind of a directory entry, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link(folder: int, name: str) -> str | None:
    """The target of the link of that name; None if there is no such link."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _enter(folder: int, name: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def _write_new(folder: int, name: str, content: bytes, mode: int) -> None:
    """Write a new file to the disk. What is half written is removed."""
    with os.fdopen(os.open(name, _NEW, mode, dir_fd=folder), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    return None if status is None else (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """The system's error about a path, as a ToolError for the model."""
    try:
        yield
    except OSError as error:
        says = {
            errno.ENOENT: "is not there: list the folder to see what is",
            errno.EEXIST: "is there already",
            errno.ELOOP: "is a link that was changed while it was looked at",
            errno.ENOTDIR: "goes through something that is no folder",
            errno.EISDIR: "is a folder",
            errno.EACCES: "may not be opened by this user",
            errno.ENAMETOOLONG: "is too long a name",
        }
        what = says.get(error.errno or 0, f"cannot be opened: {error.strerror or error}")
        raise ToolError(f"{path[:200]!r} {what}") from None
