"""Reads one file of a zip, bounded, also where it is compressed with Zstandard as Inspect's logs are.

Python's zipfile knows Zstandard from 3.14 on; packages that teach it to older ones change zipfile for the whole process.
"""

from __future__ import annotations

import struct
import zipfile
import zlib

from firsthand.errors import DataError, MissingExtra

ZSTANDARD = 93
"""The number of the method in APPNOTE.TXT, 4.4.5."""
_HEADER = struct.Struct("<4s22xHH")
"""A local file header: its mark, and the lengths of name and extra field that follow it."""
_LONGER = 1 << 18
"""Bytes read beyond the bound, and its 128th part: what does not compress grows a little, and comes in whole blocks."""


def read_member(log: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """The contents of a file of an open zip, at most `most` + 1 bytes of them.

    zipfile.BadZipFile or DataError if it is damaged; MissingExtra if it is Zstandard and `zstandard` is not installed.
    """
    source = log.fp
    if source is None or info.flag_bits & 1:
        raise DataError(f"{info.filename[:80]} is encrypted, or its log is closed")
    if info.compress_type != ZSTANDARD:
        with log.open(info) as file:
            return file.read(most + 1)
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "studio", "a log that is compressed with Zstandard") from None
    source.seek(info.header_offset)
    head = source.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"Bad magic number for {info.filename[:80]}")
    _, name, extra = _HEADER.unpack(head)
    source.seek(name + extra, 1)
    packed = source.read(min(info.compress_size, most + most // 128 + _LONGER))
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader:
            data: bytes = reader.read(most + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(f"{info.filename[:80]}: {error}") from None
    if len(data) <= most and zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename[:80]!r}")
    return data
