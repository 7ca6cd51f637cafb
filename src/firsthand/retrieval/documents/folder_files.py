"""Walks a folder: the files to read in a fixed order, and what is left out, with the reason.

Links are not followed. One that leads out of the folder is a failure, as are devices, pipes and what cannot be accessed;
links inside the folder, hidden folders and kinds that are not read are remarks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.documents.formats import FileFormat, format_of
from firsthand.system.sqlite_locks import open_beside_sqlite

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
LEFT_OUT_FOLDERS = frozenset(("node_modules", "__pycache__", "venv", "site-packages"))
"""Folders of installed and generated files. Hidden ones are left out too."""


@dataclass(frozen=True)
class FolderFile:
    """A file that is to be read."""

    path: Path
    name: str
    """The path below the folder, with slashes: the id of its document."""
    size_bytes: int
    format: FileFormat


@dataclass(frozen=True)
class LeftOut:
    """Something that is not read."""

    name: str
    reason: str
    failed: bool
    """True if it should have been read and cannot be."""


@dataclass(frozen=True)
class FolderFilter:
    """Globs over paths below the folder; `*` matches slashes too."""

    include: Sequence[str] = ()
    """Only these; empty: all. Hidden folders and unknown kinds stay left out."""
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for glob in (*self.include, *self.exclude):
            if not glob or glob.startswith("/"):
                raise ConfigError(f"{glob!r} is no pattern below the folder: write it as '*.md' or 'notes/*'")

    def takes(self, name: str) -> bool:
        """True if a file of that path is read."""
        if self.include and not _matches(self.include, name):
            return False
        return not _matches(self.exclude, name)


def walk(root: Path, chosen: FolderFilter, own: frozenset[Path] = frozenset()) -> Iterator[FolderFile | LeftOut]:
    """The files below a folder, or the one file that `root` is, by path. `own` are the index's files.

    ConfigError if there is nothing at `root`.
    """
    try:
        status = root.stat()
    except OSError as error:
        raise ConfigError(f"no folder or file {str(root)!r} can be read: {error.strerror or error}") from None
    if not stat.S_ISDIR(status.st_mode):
        yield _file(root, shown(root.name), status, FolderFilter())
        return
    real = root.resolve()
    waiting = [(root, "")]
    while waiting:
        folder, above = waiting.pop()
        try:
            with os.scandir(folder) as opened:
                entries = sorted(opened, key=lambda each: each.name)
        except OSError as error:
            yield LeftOut(above or ".", f"the folder cannot be read: {error.strerror or error}", True)
            continue
        folders = []
        for entry in entries:
            name = f"{above}/{shown(entry.name)}" if above else shown(entry.name)
            path = Path(entry.path)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                yield LeftOut(name, f"it cannot be accessed: {error.strerror or error}", True)
                continue
            if path in own:
                continue
            if stat.S_ISLNK(status.st_mode):
                if (found := _link(path, name, real, chosen)) is not None:
                    yield found
            elif stat.S_ISDIR(status.st_mode):
                if entry.name.startswith(".") or entry.name in LEFT_OUT_FOLDERS:
                    kind = "hidden" if entry.name.startswith(".") else "generated"
                    yield LeftOut(f"{name}/", f"{kind} folders are left out", False)
                elif (path / "pyvenv.cfg").exists():
                    yield LeftOut(f"{name}/", "Python environments are left out", False)
                else:
                    folders.append((path, name))
            elif chosen.takes(name):
                yield _file(path, name, status, chosen)
        waiting += reversed(folders)


def expect_files(roots: Sequence[Path], chosen: FolderFilter, own: Iterable[Path] = ()) -> None:
    """ConfigError if none of the folders or files has one that is read: before an embedder is loaded for nothing."""
    ours = frozenset(each.parent.resolve() / each.name for each in own)
    found = [each for root in roots for each in walk(root.expanduser().resolve(), chosen, ours)]
    if any(isinstance(each, FolderFile) for each in found):
        return
    reasons = [f"{each.name}: {each.reason}" for each in found if isinstance(each, LeftOut)]
    places = ", ".join(map(str, roots))
    more = f" ({'; '.join(reasons[:3])}{'; ...' if len(reasons) > 3 else ''})" if reasons else ""
    raise ConfigError(f"{places}: no file there can be indexed{more}: give a folder of documents, or other patterns")


def read_bytes(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """The bytes of an ordinary file, and its status. DataError if it is no such file, too large, or not readable."""
    try:
        file = open_beside_sqlite(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _expect_ordinary)
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror or error}") from None
    with file:
        status = os.fstat(file.fileno())
        if status.st_size > most:
            raise DataError(_too_large(status.st_size, most))
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise DataError(_too_large(len(data), most))
    return data, status


def _expect_ordinary(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DataError("it is no ordinary file any more")


def shown(name: str) -> str:
    """A file's name as text of one line, whatever its bytes: it is a document's id, and is printed wherever that is.

    Two names are never shown alike: `\\xff` is a byte, `\\u0085` a control character, and a backslash is written twice.
    """
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return _CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode() if found[0].isascii() else f"\\u{ord(found[0]):04x}"


def _too_large(size: int, most: int) -> str:
    return f"it has {size:,} bytes, and at most {most:,} are read: divide it, or raise --max-file-bytes"


def _file(path: Path, name: str, status: os.stat_result, chosen: FolderFilter) -> FolderFile | LeftOut:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        return LeftOut(name, f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'no ordinary file')}", True)
    found = format_of(name)
    if found is None:
        return LeftOut(name, _unread(Path(name)), False)
    return FolderFile(path, name, status.st_size, found)


def _unread(name: Path) -> str:
    """Why a file of a kind that is not read is left out."""
    if name.suffix:
        return f"{name.suffix.lower()}: not a kind that is read"
    if name.name.startswith("."):
        return "a hidden file whose name has no ending: not a kind that is read"
    return "files without an ending: not a kind that is read"


def _link(path: Path, name: str, real: Path, chosen: FolderFilter) -> LeftOut | None:
    """The note on a link; nothing of one that the filter leaves out."""
    if not chosen.takes(name):
        return None
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return LeftOut(name, "it is a link to nothing", True)
    if target.is_relative_to(real):
        return LeftOut(
            name, f"it is a link to {shown(str(target.relative_to(real)))}, which is read by that name", False
        )
    return LeftOut(name, "it is a link that leaves the folder: index its target, or copy it here", True)


def _matches(globs: Sequence[str], name: str) -> bool:
    """True if a glob fits the path, or, without a slash in it, the file's name."""
    last = name.rpartition("/")[2]
    return any(fnmatchcase(name, glob) or ("/" not in glob and fnmatchcase(last, glob)) for glob in globs)
