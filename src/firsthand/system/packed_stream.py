"""Reads a gzip file as a stream whose size goes with that of the file, and the lines of a text without its blank ones.

1.5 MB of gzip can be 1.5 GB of line ends, which pass one at a time through a loop that looks for the next document.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar, cast

from firsthand.errors import DataError

FREE_BYTES, MOST_A_BYTE = 64 << 20, 100
"""Unpacked bytes of any file, and for each byte of the packed one; texts of documents have about 10."""
MAX_BLANK_LINES = 1_000_000
"""Blank lines in a row."""
LineT = TypeVar("LineT", str, bytes)


def open_gzip(raw: IO[bytes], path: Path) -> IO[bytes]:
    """The unpacked content of a file that is open; DataError where it becomes larger than that of a file of texts is."""
    return cast("IO[bytes]", io.BufferedReader(_Unpacked(raw, path), 1 << 18))


def filled_lines(lines: Iterable[LineT], path: Path) -> Iterator[tuple[int, LineT]]:
    """The lines that are not blank, with their numbers; DataError after `MAX_BLANK_LINES` blank ones in a row."""
    last = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line
            last = number
        elif number - last > MAX_BLANK_LINES:
            raise DataError(f"{path} has more than {MAX_BLANK_LINES:,} blank lines after line {last:,}: remove them")


class _Packed:
    """Counts the bytes of the packed file, which may be a pipe."""

    def __init__(self, file: IO[bytes]):
        self._file, self.size = file, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.size += len(piece)
        return piece


class _Unpacked(io.RawIOBase):
    def __init__(self, raw: IO[bytes], path: Path):
        self._path, self._packed, self._size = path, _Packed(raw), 0
        self._file = gzip.GzipFile(fileobj=cast("IO[bytes]", self._packed), mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray) -> int:  # type: ignore[override]
        found = self._file.readinto(target)
        self._size += found
        if self._size > FREE_BYTES + MOST_A_BYTE * self._packed.size:
            raise DataError(
                f"{self._path} unpacks to more than {self._size >> 20} MiB, {MOST_A_BYTE} times its size: unpack it, and "
                "give the plain file"
            )
        return found
