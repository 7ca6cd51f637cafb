"""Reads files of a zip in pieces, whatever size the archive states: stored, deflated, or Zstandard as Inspect's logs are.

All that is read of one archive is bounded by the size of its file: 2 MB of zeros can be 8 GiB of samples. zipfile unpacks
bzip2 and LZMA without a bound, so files of those methods are refused. It knows Zstandard from 3.14 on; packages that teach
it to older ones change zipfile for the whole process.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from firsthand.errors import MissingExtra, reason_of
from firsthand.system.packed_stream import MOST_A_BYTE

ZSTANDARD = 93
"""The number of the method in APPNOTE.TXT, 4.4.5."""
FREE_BYTES = 256 << 20
"""Unpacked bytes of any archive, beside `MOST_A_BYTE` for each byte of its file; `MOST_BYTES` at most."""
MOST_BYTES = 8 << 30
_HEADER = struct.Struct("<4s22xHH")
"""A local file header: its mark, and the lengths of name and extra field that follow it."""
_LONGER = 1 << 18
"""Bytes read beyond the bound, and its 128th part: what does not compress grows a little, and comes in whole blocks."""
_PIECE = 1 << 16
_NAMES = {9: "Deflate64", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 95: "XZ", 98: "PPMd", 99: "AES"}


class TooMuchUnpacked(zipfile.BadZipFile):
    """An archive holds more than is read of one of its size; the message says what to do."""


class BoundedZipFile(zipfile.ZipFile):
    """A zip that is open for reading, and counts what is read of it. Entries may overlap, so the file's size counts."""

    def __init__(self, file: Path | IO[bytes]):
        super().__init__(file)
        assert self.fp is not None
        self.packed = self.fp.seek(0, os.SEEK_END)
        self.most = self.left = most_unpacked(self.packed)

    def take(self, size: int) -> None:
        """Count bytes that were unpacked; zipfile.BadZipFile beyond what the size of the file allows."""
        self.left -= size
        if self.left < 0:
            raise self.too_large()

    def expect_within(self, infos: Iterable[zipfile.ZipInfo]) -> None:
        """zipfile.BadZipFile if these files state more than may be unpacked, before any of them is."""
        if sum(info.file_size for info in infos) > self.left:
            raise self.too_large()

    def too_large(self) -> zipfile.BadZipFile:
        """The error of an archive that unpacks to more than its size allows."""
        return TooMuchUnpacked(
            f"it has {self.packed:,} bytes and unpacks to more than {self.most >> 20:,} MiB, the most that is read of a "
            "zip of its size: unpack it and pack it again with `zip -0`"
            if self.most < MOST_BYTES
            else f"it unpacks to more than {MOST_BYTES >> 30} GiB, the most that is read of a zip: split it"
        )


def most_unpacked(packed: int) -> int:
    """The bytes that may be read of a zip of this size, all its files together."""
    return min(FREE_BYTES + MOST_A_BYTE * packed, MOST_BYTES)


def read_member(archive: BoundedZipFile, info: zipfile.ZipInfo, most: int, *, password: bytes = b"") -> bytes:
    """The contents of a file of an open zip, at most `most` + 1 bytes of them.

    zipfile.BadZipFile if it is damaged, or packed in another way; RuntimeError for a wrong password; MissingExtra
    if it is Zstandard and `zstandard` is not installed.
    """
    if archive.fp is None or (info.flag_bits & 1 and not password):
        raise zipfile.BadZipFile(f"{info.filename[:80]} is encrypted, or its archive is closed")
    if info.compress_type == ZSTANDARD:
        return _zstandard(archive, info, most)
    found = bytearray()
    for piece in member_pieces(archive, info, password=password):
        found += piece[: most + 1 - len(found)]
        if len(found) > most:
            break
    return bytes(found)


def member_pieces(archive: BoundedZipFile, info: zipfile.ZipInfo, *, password: bytes = b"") -> Iterator[bytes]:
    """The contents of a stored or deflated file of an open zip, in pieces of 64 KiB or less; raises as `read_member`."""
    expect_bounded(info)
    try:
        with archive.open(info, pwd=password or None) as file:
            while piece := file.read(_PIECE):
                archive.take(len(piece))
                yield piece
    except (zlib.error, EOFError, NotImplementedError) as error:
        raise zipfile.BadZipFile(f"{info.filename[:80]}: {reason_of(error) or 'it ends too early'}") from None


def expect_bounded(info: zipfile.ZipInfo) -> None:
    """zipfile.BadZipFile unless a file is stored or deflated: zipfile unpacks nothing else piece by piece."""
    kind = info.compress_type
    if kind not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(
            f"{info.filename[:80]} is packed with {_NAMES.get(kind, f'method {kind}')}, and stored or deflated files are "
            "read: pack it again with `zip`"
        )


def _zstandard(archive: BoundedZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "studio", "reading a zip that is compressed with Zstandard") from None
    source = archive.fp
    assert source is not None
    source.seek(info.header_offset)
    head = source.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"Bad magic number for {info.filename[:80]}")
    _, name, extra = _HEADER.unpack(head)
    source.seek(name + extra, 1)
    packed = source.read(min(info.compress_size, most + most // 128 + _LONGER))
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader:
            data: bytes = reader.read(min(most, archive.left) + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(f"{info.filename[:80]}: {error}") from None
    archive.take(len(data))
    if len(data) <= most and zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename[:80]!r}")
    return data
