"""Reads one file of a zip in pieces, whatever size the archive states: stored, deflated, or Zstandard as Inspect's logs are.

zipfile unpacks bzip2 and LZMA without a bound, so files of those methods are refused. It knows Zstandard from 3.14 on;
packages that teach it to older ones change zipfile for the whole process.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator

from firsthand.errors import MissingExtra, reason_of

ZSTANDARD = 93
"""The number of the method in APPNOTE.TXT, 4.4.5."""
_HEADER = struct.Struct("<4s22xHH")
"""A local file header: its mark, and the lengths of name and extra field that follow it."""
_LONGER = 1 << 18
"""Bytes read beyond the bound, and its 128th part: what does not compress grows a little, and comes in whole blocks."""
_PIECE = 1 << 16
_NAMES = {9: "Deflate64", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 95: "XZ", 98: "PPMd", 99: "AES"}


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, *, password: bytes = b"") -> bytes:
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


def member_pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, password: bytes = b"") -> Iterator[bytes]:
    """The contents of a stored or deflated file of an open zip, in pieces of 64 KiB or less; raises as `read_member`."""
    expect_bounded(info)
    try:
        with archive.open(info, pwd=password or None) as file:
            while piece := file.read(_PIECE):
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


def _zstandard(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
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
            data: bytes = reader.read(most + 1)
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(f"{info.filename[:80]}: {error}") from None
    if len(data) <= most and zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename[:80]!r}")
    return data
