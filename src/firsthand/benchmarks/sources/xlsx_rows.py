"""Reads the first sheet of an XLSX workbook as rows of text, with bounds on size, depth and cells (stdlib alone)."""

from __future__ import annotations

import re
from pathlib import Path

from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml

MAX_CELLS = 1_000_000
MAX_COLUMN = 1000
_SHEET = "xl/worksheets/sheet1.xml"
_STRINGS = "xl/sharedStrings.xml"


def xlsx_rows(path: Path) -> list[list[str]]:
    """The rows of the first sheet, empty cells as empty text; DataError with the file's name if it cannot be read."""
    try:
        parts = ZipParts(contents(path), "XLSX workbook")
        strings = _shared(parts.read(_STRINGS)) if _STRINGS in parts.names else []
        return _cells(parts.read(_SHEET), strings)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path} ')}") from None


def _shared(data: bytes) -> list[str]:
    """The workbook's table of strings."""
    found: list[str] = []
    inside: list[str] = []
    words: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(name)
        if name == "si":
            words.clear()

    def end(name: str) -> None:
        inside.pop()
        if name == "si":
            found.append("".join(words))

    def text(said: str) -> None:
        if inside and inside[-1] == "t" and "rPh" not in inside:  # rPh is a pronunciation
            words.append(said)

    parse_xml(data, start, end, text)
    return found


def _cells(data: bytes, strings: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    cell: dict[str, str] = {}
    value: list[str] = []
    inside: list[str] = []
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(name)
        if name == "row":
            rows.append([])
        elif name == "c":
            cell.clear()
            cell.update(attributes)
            value.clear()

    def end(name: str) -> None:
        nonlocal count
        inside.pop()
        if name != "c" or not rows:
            return
        count += 1
        column = _column(cell.get("r", ""), len(rows[-1]))
        if count > MAX_CELLS or column > MAX_COLUMN:
            raise DataError(f"it has more than {MAX_CELLS:,} cells or {MAX_COLUMN} columns")
        rows[-1] += [""] * (column - len(rows[-1]))
        rows[-1].append(_value("".join(value), cell.get("t", "n"), strings))

    def text(said: str) -> None:
        if inside and inside[-1] in ("v", "t"):
            value.append(said)

    parse_xml(data, start, end, text)
    return rows


def _value(text: str, kind: str, strings: list[str]) -> str:
    if kind != "s":
        return text
    if not text.isdecimal() or int(text) >= len(strings):
        raise DataError(f"a cell refers to string {text[:20]!r}, and there are {len(strings)}")
    return strings[int(text)]


def _column(reference: str, next_one: int) -> int:
    """The index of the column of a cell such as `C7`."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return next_one
    index = 0
    for letter in letters.group():
        index = 26 * index + ord(letter) - 64
    return max(index - 1, next_one)
