"""Bounds the text of a packed file by the memory that it takes, and iterates its lines.

CPython keeps all characters of a text as wide as the widest of them: one emoji makes 64 MiB of letters 256 MiB. A plain
file is as large as what somebody had to send, and is bounded by its size alone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from firsthand.errors import DataError

MAX_TEXT_BYTES = 256 << 20
"""Memory that the text of a packed file, or of one file of an archive, may take."""
_CONTINUATION = bytes(range(0x80, 0xC0))
_TWO, _FOUR = re.compile(rb"[\xc4-\xef]"), re.compile(rb"[\xf0-\xff]")
_TWO_OF_JSON = re.compile(rb"[\xc4-\xef]|\\u(?!00)")
_FOUR_OF_JSON = re.compile(rb"[\xf0-\xff]|\\u[dD][89abAB]")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON, closed or not."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_PIECE = 1 << 20
_LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]++")


def text_bytes(raw: bytes, *, escapes: bool = False) -> int:
    """The memory that bytes of UTF-8 take once they are decoded; the most that it can be for UTF-16.

    With `escapes`, those of JSON make the text as wide as what they stand for.
    """
    two, four = (_TWO_OF_JSON, _FOUR_OF_JSON) if escapes else (_TWO, _FOUR)
    if raw.isascii() and not (escapes and b"\\u" in raw):
        return len(raw)
    if raw.startswith(_UTF_16):
        return 2 * len(raw)
    width = 4 if four.search(raw) else 2 if two.search(raw) else 1
    pieces = (raw[start : start + _PIECE] for start in range(0, len(raw), _PIECE))
    return width * sum(len(piece.translate(None, _CONTINUATION)) for piece in pieces)


def expect_text(raw: bytes, what: str, most: int = MAX_TEXT_BYTES) -> None:
    """DataError if the text of what was unpacked, or a string of JSON in it, would take more than `most` bytes of memory."""
    size = text_bytes(raw)
    if size <= most < text_bytes(raw, escapes=True):  # each string is as wide as its own escapes make it
        size = max(size, sum(text_bytes(found[0], escapes=True) for found in _STRING.finditer(raw)))
    if size > most:
        raise DataError(
            f"{what} unpacks to a text of {size >> 20:,} MiB in memory, more than {most >> 20} MiB: split it, or unpack it "
            "and give the plain file"
        )


def unpacked_gzip(raw: bytes, path: Path, most: int, most_text: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a gzip file; DataError if it is cut short, or has more than `most` bytes or `most_text` as text."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(raw, most + 1)
    except zlib.error:
        found = b""
    if len(found) > most:
        raise DataError(f"{path} unpacks to more than {most >> 20} MiB: is it the right file?")
    if not unpacker.eof:
        raise DataError(f"{path} is not a complete gzip file: fetch it again")
    expect_text(found, str(path), most_text)
    return found


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text with their \\n, one at a time: a list of empty lines takes eight times the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def lines_by_any_end(text: str) -> Iterator[str]:
    """The lines of a text with their \\n, \\r or \\r\\n, as a csv reader takes them; `io.StringIO` copies the text."""
    return (found[0] for found in _LINE.finditer(text))
