"""Passes a stream of bytes on by whole lines, so that each is looked at before anybody reads it."""

from __future__ import annotations

ASCII_LIKE = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1")
"""Encodings of streams in which a comma, a quote or a line's end is the byte it is in ASCII, and no other."""


class LineBuffer:
    """Holds back the line that has not ended. CR, LF or both end a line, as in server-sent events."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def __len__(self) -> int:
        """The bytes that are held back."""
        return len(self._kept)

    def add(self, piece: bytes) -> bytes:
        """The lines that are whole now, with their ends. A CR that comes last waits: it may be half of an end."""
        looked_at = max(0, len(self._kept) - 1)
        self._kept += piece
        last = max(self._kept.rfind(b"\n", looked_at), self._kept.rfind(b"\r", looked_at, len(self._kept) - 1))
        lines = bytes(self._kept[: last + 1])
        del self._kept[: last + 1]
        return lines

    def rest(self) -> bytes:
        """Return the unfinished last line at the end of the stream."""
        lines = bytes(self._kept)
        self._kept.clear()
        return lines
