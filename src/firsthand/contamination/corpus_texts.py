"""The texts of a corpus folder, in pieces that memory holds: plain files, .jsonl with a field `text`, and both as .gz."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.system.given_folder import files_below
from firsthand.system.json_values import values_in
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.packed_stream import filled_lines, open_gzip

PIECE_BYTES = 16 << 20
OVERLAP_BYTES = 4096
"""Bytes of a piece that the next one begins with, so that no n-gram is cut."""
MAX_LINE_BYTES = 256 << 20
"""Of a line of .jsonl, which memory holds whole: a few kilobytes of .gz can be one of gigabytes."""
BETWEEN = b"\n\xff\n"
"""Between two documents of a piece: a word that no UTF-8 text holds, so that an n-gram over it is that of no item."""
MAX_LINE_VALUES = 2_000_000
"""JSON values of a line: two bytes of it may become an object of 64."""
FIELDS = ("text", "content", "prompt", "completion", "question", "answer")
_BINARY = {
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".pdf",
    ".zip",
    ".npy",
    ".npz",
    ".parquet",
    ".bin",
    ".gguf",
    ".safetensors",
    ".pyc",
}


def corpus_files(folder: Path) -> list[Path]:
    """The files of a corpus, sorted; ConfigError if there are none. Images, archives and model files are left out."""
    if not folder.exists():
        raise ConfigError(f"no corpus {str(folder)!r}: give a folder of texts, or one file")
    files = [folder] if folder.is_file() else files_below(folder)
    kept = [each for each in files if each.suffix.casefold() not in _BINARY]
    if not kept:
        raise ConfigError(f"{folder} holds no text: give a folder with text or .jsonl files")
    return kept


def pieces(path: Path) -> Iterator[bytes]:
    """The text of a file, as UTF-8, piece by piece; pieces overlap."""
    try:
        with open_ordinary(path) as raw, open_gzip(raw, path) if path.suffix == ".gz" else raw as file:
            if ".jsonl" in path.suffixes:
                yield from _joined(_of_lines(file, path))
                return
            before = b""
            while piece := file.read(PIECE_BYTES):
                yield before + piece
                before = piece[-OVERLAP_BYTES:]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None


def _of_lines(file: IO[bytes], path: Path, most: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    for number, line in filled_lines(iter(lambda: file.readline(most + 1), b""), path):
        if len(line) > most:
            raise DataError(f"{path}, line {number}: longer than {most:,} bytes: one document a line was expected")
        if values_in(line, MAX_LINE_VALUES) > MAX_LINE_VALUES:
            raise DataError(
                f"{path}, line {number}: more than {MAX_LINE_VALUES:,} JSON values: one document was expected"
            )
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}, line {number}: not JSON: is the file cut short?") from None
        if not isinstance(row, str | dict):
            raise DataError(f"{path}, line {number}: {str(row)[:40]!r}: an object with a text, or a text, was expected")
        texts = [row] if isinstance(row, str) else [row[name] for name in FIELDS if isinstance(row.get(name), str)]
        yield "\n".join(texts).encode("utf-8", "replace")


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Documents in pieces of about PIECE_BYTES; no n-gram runs from one document into the next."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield BETWEEN.join(held)
            held, size = [], 0
    if held:
        yield BETWEEN.join(held)
