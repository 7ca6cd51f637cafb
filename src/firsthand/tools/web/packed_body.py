"""Unpacks the body of a response, gzip or deflate, piece by piece and no further than is asked for.

A gzip body may have several members, one after another (RFC 1952, 2.2); what is behind the last one is left out.
"""

from __future__ import annotations

import zlib

_MAGIC = b"\x1f\x8b"
_SLICE = 4096
"""Bytes given to zlib at a time: at a member's end it copies the rest of them, so a body of many empty members is cheap."""


class PackedBody:
    """The state of a body that is being unpacked."""

    def __init__(self, encoding: str):
        self._encoding = encoding
        self._unpack = zlib.decompressobj(47)
        self._began = self._over = False
        self._between = b""

    @property
    def is_whole(self) -> bool:
        """True if the packed data came to its end, or none came."""
        return self._unpack.eof or not self._began

    def add(self, piece: bytes, most: int) -> bytes:
        """Unpack a piece of the body, to at most `most` bytes; zlib.error if it is not packed as the encoding says."""
        unpacked = bytearray()
        for first in range(0, len(piece), _SLICE):
            rest = piece[first : first + _SLICE]
            while rest and len(unpacked) < most:
                if self._unpack.eof:
                    rest = self._next_member(rest)
                    continue
                unpacked += self._decompress(rest, most - len(unpacked))
                self._began = True
                rest = self._unpack.unused_data
        return bytes(unpacked)

    def _decompress(self, piece: bytes, most: int) -> bytes:
        try:
            return self._unpack.decompress(piece, most)
        except zlib.error:
            if self._encoding != "deflate" or self._began:
                raise
            self._unpack = zlib.decompressobj(-15)  # deflate without its header, as some servers send it
            return self._unpack.decompress(piece, most)

    def _next_member(self, rest: bytes) -> bytes:
        """The rest to unpack behind the end of a member, which zeros and bytes of no use may follow."""
        rest, self._between = (self._between + rest).lstrip(b"\0"), b""
        if self._over or self._encoding == "deflate":
            return b""
        if rest.startswith(_MAGIC):
            self._unpack = zlib.decompressobj(31)
            return rest
        self._between = rest if rest == _MAGIC[:1] else b""
        self._over = bool(rest) and not self._between
        return b""
