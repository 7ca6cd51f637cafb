"""A memory's file that was cut short: refused, or filled up with zeros to be salvaged."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.system.ordinary_file import open_ordinary, read_head
from firsthand.system.sqlite_locks import SQLITE_MAGIC, head_of_open


def _size_in_header(path: Path) -> int:
    """The bytes that a SQLite file has by its header; 0 if it has none."""
    try:
        head = read_head(path, 100)
    except OSError:
        return 0
    if len(head) < 100 or not head.startswith(SQLITE_MAGIC):
        return 0
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")


def refuse_cut_short(path: Path) -> None:
    """StoreError if a file has fewer pages than its header says, and no log beside it that would hold the rest."""
    needed, log = _size_in_header(path), path.with_name(f"{path.name}-wal")
    if needed and path.stat().st_size < needed and not (log.exists() and log.stat().st_size):
        raise StoreError(
            f"{path} is cut short: it has {path.stat().st_size:,} bytes and needs {needed:,}. Restore it from a copy, or "
            f"save what can be read with `firsthand memory export {shlex.quote(str(path))} --salvage`"
        )


def padded_copy(path: Path, folder: Path) -> Path:
    """A copy of a file and its log, as long as its header says. StoreError if the file is not there or its disk is full."""
    copy = folder / path.name
    try:
        if (
            content := head_of_open(path, path.stat().st_size)
        ) is not None:  # another memory of this process has it open
            copy.write_bytes(content)
        else:
            with open_ordinary(path) as file, copy.open("wb") as to:
                shutil.copyfileobj(file, to)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():
            shutil.copyfile(log, copy.with_name(log.name))
        needed = _size_in_header(copy)
        if copy.stat().st_size < needed <= 64 * (path.stat().st_size + (1 << 20)):
            os.truncate(copy, needed)
    except OSError as error:
        raise StoreError(f"{path} cannot be copied to be read: {error.strerror or error}") from None
    return copy
