"""Reads parts of ZIP archives with bounds, and XML without entities: what DOCX and EPUB files are made of.

Sizes are those of the bytes that come out, not those that the archive states. A document type declaration is an error, so no
entity is ever defined.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any
from xml.parsers import expat

from firsthand.errors import DataError
from firsthand.system.zip_members import BoundedZipFile, read_member

MAX_PART_BYTES = 200_000_000
MAX_RATIO = 500
"""A part that expands more than this is a bomb; XML of Word expands 10 to 50 times."""
RATIO_FROM_BYTES = 10_000_000
MAX_PARTS = 20_000
MAX_DEPTH = 500


class ZipParts:
    """The parts of an archive, which together may expand to so many bytes."""

    def __init__(self, data: bytes, kind: str):
        self.kind = kind
        self.left = MAX_PART_BYTES
        try:
            self.archive = BoundedZipFile(io.BytesIO(data))
            self.names = {each.filename: each for each in self.archive.infolist()}
        except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
            if data.startswith(b"\xd0\xcf\x11\xe0"):
                raise DataError(
                    f"it is encrypted or of an old format, and no {kind}: save it anew without a password"
                ) from None
            raise DataError(f"it is no {kind}: {error}") from None
        if len(self.archive.infolist()) > MAX_PARTS:
            raise DataError(f"it has {len(self.archive.infolist())} parts, and at most {MAX_PARTS} are read")

    def read(self, name: str) -> bytes:
        """The bytes of a part. DataError if it is missing, damaged, encrypted or a bomb."""
        if name not in self.names:
            raise DataError(f"it is no {self.kind}: it has no part {name[:100]!r}")
        info = self.names[name]
        try:
            data = read_member(self.archive, info, self.left)
        except (zipfile.BadZipFile, RuntimeError, OSError, ValueError) as error:
            raise DataError(f"its part {name[:100]!r} cannot be read: {error}") from None
        if len(data) > self.left or (
            len(data) > RATIO_FROM_BYTES and len(data) > MAX_RATIO * max(info.compress_size, 1)
        ):
            raise DataError(
                f"its part {name[:100]!r} expands from {info.compress_size:,} to {len(data):,} bytes or more: "
                "a ZIP bomb is not read"
            )
        self.left -= len(data)
        return data


def parse_xml(
    data: bytes, start: Callable[[str, dict[str, str]], Any], end: Callable[[str], Any], words: Callable[[str], Any]
) -> None:
    """Calls the functions as elements and words come; names are without their namespace. DataError if it is no XML."""
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(f"its XML is nested more than {MAX_DEPTH} deep")
        start(name.rpartition("}")[2], {key.rpartition("}")[2]: value for key, value in attributes.items()})

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name.rpartition("}")[2])

    def declared(*_: object) -> None:
        raise DataError("its XML declares a document type, which may hide entities: it is not read")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = words, declared
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"its XML is damaged: {error}") from None
