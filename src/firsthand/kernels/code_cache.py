"""Keeps compiled kernels on disk, in one folder for all environments of a user.

Numba's own cache compares only the file that a function is in, so a kernel that calls into a neighbour would go on running
the neighbour's old code after an edit or an upgrade. It numbers its files and enters them in its index before it writes
them, so that of two processes that compile at the same time one may run the code of other types. It compiles again for
each installation, and in each of two processes that start together.

Here the folder's name is a hash of this room's sources and of numba's version: a new environment, or an upgrade that
changes no kernel, compiles nothing. Of several processes that want the same function one compiles, and the others wait.
Importing this file imports numba.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import fcntl
import glob
import grp
import hashlib
import logging
import os
import pwd
import shutil
import stat
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
from numba.core import config
from numba.core.caching import IndexDataCacheFile, NullCache

logger = logging.getLogger("firsthand")
PACKAGE = Path(__file__).parent.parent
WAIT_S = 300.0
"""The longest wait for another process that compiles the same function; then it is compiled here too."""
UNUSED_S = 60 * 86_400.0
"""The time without use after which code of other versions is deleted."""


class CodeFiles(IndexDataCacheFile):
    """numba's cache files of a function, named by what is in them, and written before the index names them."""

    def __init__(self, cache_path: str, filename_base: str, source_stamp: Any):
        super().__init__(cache_path, filename_base, source_stamp)
        self._base = filename_base
        self._held: int | None = None

    def load(self, key: Any) -> Any:
        """Returns the code for a key, or None; then it will be compiled here, which is logged once per process."""
        found = super().load(key)
        if found is None and self._took_turn():  # another process may have saved it since
            found = super().load(key)
        if found is None:
            _tell_once()
        else:
            self._release()
        return found

    def _load_index(self) -> dict[Any, str]:
        """The index; empty if it names classes of another version of this folder, which cannot be unpickled."""
        try:
            found: dict[Any, str] = super()._load_index()
        except (AttributeError, ImportError):
            return {}
        return found

    def save(self, key: Any, data: Any) -> None:
        """Save the code for a key (types and processor), delete stale code, and let waiting processes go on."""
        digest = hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).hexdigest()
        try:
            self._save_data(name := f"{self._base}.{digest[:24]}.nbc", data)
            known = {**self._load_index(), key: name}
            self._save_index(known)
        finally:
            self._release()
        for file in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
            if file.name not in known.values():  # what another process is about to enter is compiled once more
                file.unlink(missing_ok=True)

    def _took_turn(self) -> bool:
        """Take the right to compile this function, which `save` gives back. False if this process has it, or nobody can."""
        if self._held is not None:
            return False
        try:
            folder = Path(self._cache_path)
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / f"{self._base}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a folder that cannot be written
            return False
        if not (taken := _locked(lock)):
            _tell_of_waiting()
            until = time.monotonic() + WAIT_S
            while not (taken := _locked(lock)) and time.monotonic() < until:
                time.sleep(0.05)
        if taken:
            self._held = lock
        else:
            os.close(lock)
        return True

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _locked(lock: int) -> bool:
    """True if this process has the lock now; a file system without locks gives it to everyone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def keep_code(compiled: Any, function: Callable[..., Any]) -> None:
    """Give a dispatcher of numba that caches on disk the files of this module instead of its own."""
    kept: Any = getattr(compiled, "_cache", None)
    if not hasattr(kept, "_cache_file"):  # private to numba; without it the cache only notices less
        return
    file = Path(function.__code__.co_filename).resolve()
    folder = shared_folder() if file.is_relative_to(PACKAGE) else None
    path = Path(kept._cache_path)
    beside = path.resolve() == file.parent / "__pycache__"
    trusted = os.environ.get("NUMBA_CACHE_DIR") or (not vars(config)["CACHE_DIR"] and (beside or _is_safe(path)))
    if folder is None and not trusted:  # a settings file names it, or it is numba's for this user and others can write
        compiled._cache = NullCache()
        tell_of_no_cache()
        return
    kept._cache_file = CodeFiles(str(folder or path), kept._impl.filename_base, sources_digest(file))


@cache
def shared_folder() -> Path | None:
    """The folder of this user for these sources; None where NUMBA_CACHE_DIR names another, or none can be written."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return None
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        ours = caches.resolve() / "firsthand"
        if ours.is_symlink() and ours.lstat().st_uid != os.geteuid():  # whoever made it can lead it elsewhere later
            return None
        root = ours.resolve() / "kernels"
        for made in (root.parent, root):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_ours(root):  # before anything is made, or deleted as unused, in it
            return None
        versions = f"{numba.__version__} {llvmlite.__version__} {sys.implementation.cache_tag}"
        folder = root / hashlib.sha256(f"{versions} {sources_digest()}".encode()).hexdigest()[:16]
        new = not folder.is_dir()
        folder.mkdir(exist_ok=True, mode=0o700)
        if not _is_ours(folder):  # code from a folder that others can write would run as us
            return None
        os.utime(folder)
        if new:
            _delete_unused(root)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder


def _is_safe(folder: Path) -> bool:
    try:
        return _is_ours(folder.resolve())
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    """True if nobody but this user and root can put files into a folder, or another folder or link in its place."""
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    return all(_keeps_its_entries(each.stat()) for each in folder.parents)


def _keeps_its_entries(about: os.stat_result) -> bool:
    """True if nobody but this user and root can rename what this user has in a folder."""
    if about.st_uid not in (0, os.geteuid()):
        return False
    if about.st_mode & stat.S_ISVTX:  # as in /tmp
        return True
    if about.st_mode & stat.S_IWOTH:
        return False
    return not about.st_mode & stat.S_IWGRP or _is_alone_in(about.st_gid)


def _is_alone_in(group: int) -> bool:
    """True for the group that many systems give each user, with the user's own name."""
    try:
        about = grp.getgrgid(group)
        return about.gr_name == pwd.getpwuid(os.geteuid()).pw_name and set(about.gr_mem) <= {about.gr_name}
    except KeyError:
        return False


def _delete_unused(root: Path) -> None:
    """Delete the code of versions that no process has opened for two months."""
    for other in root.iterdir():
        if other.is_dir() and time.time() - other.stat().st_mtime > UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)


@cache
def sources_digest(file: Path | None = None) -> str:
    """A hash of this room's sources, and of the file of a kernel that lies elsewhere: any change in them compiles again."""
    room = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(room.rglob("*.py")):
        digest.update(f"{source.relative_to(room)}\0{hashlib.sha256(source.read_bytes()).hexdigest()}\0".encode())
    if file is not None and not file.is_relative_to(room) and file.is_file():
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def tell_of_no_cache() -> None:
    """Log once that nothing is kept, and what to do."""
    logger.info(
        "compiled kernels cannot be kept, so every start compiles them for about half a minute: set NUMBA_CACHE_DIR to a "
        "folder of yours"
    )


@cache
def _tell_once() -> None:
    logger.info("compiling kernels for this machine: once, for about half a minute")


@cache
def _tell_of_waiting() -> None:
    logger.info("another process compiles the kernels: waiting for it")
