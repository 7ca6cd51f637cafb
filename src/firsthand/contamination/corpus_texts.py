"""The texts of a corpus folder, in pieces that memory holds: plain files, all strings of JSON and .jsonl, and all as .gz.

JSON is known by its content too, because its escapes (`\\n`, `\\u0435`) hide the words of a text searched as it stands.

A file whose texts are not read (Parquet, archives, other packings, encodings other than UTF-8, rows of numbers) is told as
such, never as clean.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.message import Json
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
"""Fields of an object that come first, in this order: an item may run from its question into its answer."""
_NO_TEXT = {".png", ".jpg", ".jpeg", ".gif", ".gguf", ".safetensors", ".pyc"}
"""Images, weights and code objects hold none of a corpus's texts."""
_OTHER_FORMS = {".pdf", ".zip", ".npy", ".npz", ".parquet", ".bin"}
_JSON_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*\"|\[\s*[\[{\"])")
"""The beginning of an object, or of a list of objects, lists or strings."""
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|[nrt])")
"""An escape of JSON for a character, or for white space."""
_MARKS = {
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "a zip file", b"PAR1": "Parquet", b"%PDF-": "PDF",
}  # fmt: skip


_NOT_UTF8 = "has bytes that are not UTF-8: give it as UTF-8"


class _Coding:
    """Checks a file that is read piece by piece for bytes that are not UTF-8; its last character may be cut short."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.is_other = False

    def take(self, piece: bytes) -> None:
        """Check the next piece."""
        try:
            if not self.is_other:
                self._decoder.decode(piece)
        except UnicodeDecodeError:
            self.is_other = True


class UnreadText(DataError):
    """A file of a corpus whose texts are not read, or not all of them."""


def corpus_files(folder: Path) -> list[Path]:
    """The files of a corpus, sorted; ConfigError if there are none. Images, weights and code objects are left out."""
    if not folder.exists():
        raise ConfigError(f"no corpus {str(folder)!r}: give a folder of texts, or one file")
    files = [folder] if folder.is_file() else files_below(folder)
    kept = [each for each in files if each.suffix.casefold() not in _NO_TEXT]
    if not kept:
        raise ConfigError(f"{folder} holds no text: give a folder with text or .jsonl files")
    return kept


def pieces(path: Path) -> Iterator[bytes]:
    """The text of a file, as UTF-8, piece by piece; pieces overlap. UnreadText, at the end, if it holds what is not read."""
    suffixes = [each.casefold() for each in path.suffixes]
    if path.suffix.casefold() in _OTHER_FORMS:
        raise UnreadText(f"{path} is neither text nor .jsonl")
    try:
        with open_ordinary(path) as raw, open_gzip(raw, path) if suffixes[-1:] == [".gz"] else raw as file:
            head = cast("BufferedReader", file).peek(64)
            if form := next((form for mark, form in _MARKS.items() if head.startswith(mark)), ""):
                raise UnreadText(f"{path} is {form}: give it as UTF-8, plain or as .gz")
            if ".jsonl" in suffixes or ".ndjson" in suffixes:
                yield from _joined(_of_lines(file, path))
                return
            is_named = ".json" in suffixes
            if is_named or _JSON_HEAD.match(head):
                yield from _joined(_of_json(file, path, is_named))
                return
            before, zeros, coding = b"", False, _Coding()
            while piece := file.read(PIECE_BYTES):
                zeros = zeros or piece.count(0) * 100 > len(piece)
                coding.take(piece)
                yield before + piece
                before = piece[-OVERLAP_BYTES:]
            if zeros:
                raise UnreadText(f"{path} has zero bytes as no text has: give it as UTF-8")
            if coding.is_other:
                raise UnreadText(f"{path} {_NOT_UTF8}")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None


def _of_lines(file: IO[bytes], path: Path, most: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    first_numbers = 0
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
        texts, is_numbers = _texts(row)
        if is_numbers and not first_numbers:
            first_numbers = number
        yield "\n".join(texts).encode("utf-8", "replace")
    if first_numbers:
        raise UnreadText(f"{path}, line {first_numbers}: numbers and no text: give the texts of its tokens")


def _of_json(file: IO[bytes], path: Path, is_named: bool, most: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The documents of a JSON text, or of lines of JSON: each element of a list is one.

    What is no JSON, such as a list cut short, is given as it stands, and again without escapes. UnreadText, at the end, for
    that of a file whose name says JSON, for a text of too many bytes or values, and for numbers without text.
    """
    first = file.readline(most + 1)
    lines = chain([first], iter(lambda: file.readline(most + 1), b""))
    if len(first) <= most and values_in(first, MAX_LINE_VALUES) <= MAX_LINE_VALUES and _decoded(first) is None:
        lines = chain([first + file.read(most + 1 - len(first))], iter(lambda: file.readline(most + 1), b""))
    unread = ""
    for number, line in filled_lines(lines, path):
        is_large = len(line) > most or values_in(line, MAX_LINE_VALUES) > MAX_LINE_VALUES
        value = None if is_large else _decoded(line)
        if value is None:
            if is_large:
                told = (
                    f"larger than {most:,} bytes or {MAX_LINE_VALUES:,} values: give it as .jsonl, one document a line"
                )
                unread = unread or f"{path}, line {number}: {told}"
            elif is_named:
                unread = unread or f"{path}, line {number}: not JSON: is the file cut short?"
            elif _is_other_coding(line):
                unread = unread or f"{path}, line {number}: {_NOT_UTF8}"
            for text in dict.fromkeys([line, _ESCAPE.sub(_unescaped, line)]):
                yield from (
                    text[max(0, at - OVERLAP_BYTES) : at + PIECE_BYTES] for at in range(0, len(text), PIECE_BYTES)
                )
            continue
        rows = value if isinstance(value, list) else [value]
        found = [_texts(row) for row in rows]
        yield from ("\n".join(texts).encode("utf-8", "replace") for texts, _ in found)
        bare = isinstance(value, list) and any(isinstance(row, int | float) for row in rows)
        if any(is_numbers for _, is_numbers in found) or (bare and not any(texts for texts, _ in found)):
            unread = unread or f"{path}, line {number}: numbers and no text: give the texts of its tokens"
    if unread:
        raise UnreadText(unread)


def _is_other_coding(line: bytes) -> bool:
    coding = _Coding()
    coding.take(line)
    return coding.is_other


def _unescaped(found: re.Match[bytes]) -> bytes:
    """The character of an escape, as UTF-8; a blank for white space and halves of characters."""
    return chr(int(found[1] or b"20", 16)).encode("utf-8", "replace")


def _decoded(raw: bytes) -> Any:
    """The value of a JSON text; None if it is none, or null."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _texts(row: Json | str) -> tuple[list[str], bool]:
    """All strings of a row at any depth, those of FIELDS first in each object; True if it has none but numbers in a list."""
    found: list[str] = []
    numbers = False
    pending: list[Any] = [row]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, list):
            numbers = numbers or any(isinstance(one, int | float) for one in each)
            pending += reversed(each)
        elif isinstance(each, dict):
            first = [each[name] for name in FIELDS if name in each]
            pending += reversed([*first, *(value for name, value in each.items() if name not in FIELDS)])
    return found, numbers and not found


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Documents in pieces of about PIECE_BYTES; no n-gram runs from one document into the next."""
    held: list[bytes] = []
    size = 0
    unread = None
    try:
        for line in lines:
            held.append(line)
            size += len(line)
            if size >= PIECE_BYTES:
                yield BETWEEN.join(held)
                held, size = [], 0
    except UnreadText as error:
        unread = error
    if held:
        yield BETWEEN.join(held)
    if unread:
        raise unread
