"""Reads a user's CSV, TSV, JSONL and JSON tables, with the line of every row, and errors that name file and line.

The encoding is taken from a byte-order mark (UTF-8 or UTF-16) and is UTF-8 without one; any other must be given. A row is an
object of columns; missing or extra cells are an error here, not a zero in a table later.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.system.json_values import values_in, values_in_text
from firsthand.system.packed_text import lines_by_any_end, lines_of

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
MAX_VALUES = 20_000_000
"""JSON values of one file, or cells of a CSV with ROW_VALUES more for each row; as objects they take up to 2 GB."""
MAX_LINES = 20_000_000
"""Lines of one table, empty ones included: these are no values."""
ROW_VALUES = 4
MAX_COMMAS = 2_000_000
"""Commas of one CSV row: its cells are all made before they can be counted."""
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class TableRow:
    """A row's columns, with the file and line where it ends."""

    columns: Json
    where: str


def read_table(path: Path, encoding: str = "") -> list[TableRow]:
    """Read the file's rows, by its suffix; DataError if there are none or one is malformed."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a file {', '.join(SUFFIXES)} was expected")
    return parse_table(decoded(contents(path), path, encoding), path, path.suffix.lower())


def parse_table(text: str, path: Path, suffix: str) -> list[TableRow]:
    """The rows of a text in the layout of that suffix; `path` is named in errors."""
    if suffix in (".jsonl", ".json"):
        expect_values(text, str(path))
    if suffix != ".json" and max(text.count("\n"), text.count("\r")) > MAX_LINES:
        raise DataError(f"{path} has more than {MAX_LINES:,} lines: is it the right file? Split it if it is")
    kinds = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".json": _json}
    rows = list(kinds[suffix](text, path))
    if not rows:
        raise DataError(f"{path} holds no rows: is it truncated, or only a header?")
    _expect_commas(rows[0], path)
    return rows


def expect_values(text: str | bytes, where: str, before: int = 0) -> int:
    """About how many values a JSON text holds; DataError if they and those before it are too many to be decoded."""
    most = max(0, MAX_VALUES - before)
    number = values_in_text(text, most) if isinstance(text, str) else values_in(text, most)
    if number > most:
        raise DataError(f"{where} holds more than {MAX_VALUES:,} JSON values: is it the right file? Split it if it is")
    return number


def _expect_commas(row: TableRow, path: Path) -> None:
    """DataError for a .csv file of one column whose heading shows another separator."""
    heading = next(iter(row.columns)) if len(row.columns) == 1 else ""
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if path.suffix.lower() == ".csv" and mark in heading:
            raise DataError(f"{path} has {word} between its columns: save it with commas, or with tabs as .tsv")


def decoded(raw: bytes, path: Path, encoding: str = "") -> str:
    """Decode bytes: in `encoding`, by their byte-order mark, or as UTF-8; DataError if that fails."""
    found = encoding or next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(found)
    except LookupError:
        raise DataError(
            f"encoding is {encoding!r}, which Python does not know: give another, such as latin-1"
        ) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: byte {error.start} is not {found}: save the file as UTF-8, or say which encoding it has, "
            'such as encoding = "latin-1"'
        ) from None
    if "\0" in text:
        raise DataError(f"{path} has zero bytes: it is not text, or needs an encoding, such as utf-16-le")
    return text


def _csv(text: str, path: Path, delimiter: str = ",") -> Iterator[TableRow]:
    commas = values = 0

    def lines() -> Iterator[str]:
        nonlocal commas
        for number, line in enumerate(lines_by_any_end(text), 1):
            commas += line.count(delimiter)
            if commas > MAX_COMMAS:
                raise DataError(
                    f"{path}, line {number}: a row of more than {MAX_COMMAS:,} cells: is it the right file?"
                )
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = sorted(name for name, count in Counter(header).items() if count > 1)
        if twice or not all(header):
            raise DataError(f"{path}, line 1: each column needs its own name, not {', '.join(twice) or 'an empty one'}")
        commas = 0
        for cells in reader:
            commas = 0
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            values += len(cells) + ROW_VALUES
            if values > MAX_VALUES:
                raise DataError(
                    f"{where}: more rows than can be read, {MAX_VALUES:,} cells with {ROW_VALUES} for each row: split it"
                )
            if len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} cells, and the header has {len(header)}: is a quote or a comma missing?"
                )
            yield TableRow(dict(zip(header, cells, strict=True)), where)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}: is a quote not closed, or the file cut short?"
        ) from None


def _tsv(text: str, path: Path) -> Iterator[TableRow]:
    return _csv(text, path, "\t")


def _jsonl(text: str, path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        last = " (the last line: is the file cut short?)" if not line.endswith("\n") else ""
        yield TableRow(_object(_loaded(line.removesuffix("\n"), where, last), where), where)


def _json(text: str, path: Path) -> Iterator[TableRow]:
    body = _loaded(text, str(path), " (is the file cut short?)") if text.strip() else []
    if not isinstance(body, list):
        raise DataError(f"{path}: a list of objects was expected, not {str(body)[:60]}")
    for number, row in enumerate(body, 1):
        where = f"{path}, item {number}"
        yield TableRow(_object(row, where), where)


class _RepeatedKeyError(Exception):
    """An object has a key twice: which value is meant is not known."""


def _loaded(text: str, where: str, hint: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        raise DataError(f"{where}: the key {str(error)!r:.100} comes twice in one object: write it once") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where}{hint}: not JSON: {text[:60]!r}") from None


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _object(row: Any, where: str) -> Json:
    if not isinstance(row, dict):
        raise DataError(f"{where}: an object of columns was expected, not {str(row)[:60]}")
    return row
