"""Finds and reads the files of bias benchmarks, which come from their authors' repositories."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.datasets import contents, located
from firsthand.benchmarks.sources.tables import TableRow, decoded, parse_table
from firsthand.errors import DataError


def bias_file(path: str, data: str, origin: str) -> Path:
    """The file in the folder `data` or in $FIRSTHAND_DATA; DataError with its origin if it is in neither."""
    found = located(path, data)
    if found is None:
        raise DataError(
            f"{Path(path).name} is not on this machine: fetch it from {origin}, and give its folder as data=FOLDER"
        )
    return found


def bias_rows(path: str, data: str, origin: str) -> tuple[list[TableRow], str]:
    """The rows of a table, and the hash of the file."""
    file = bias_file(path, data, origin)
    raw = contents(file)
    text = decoded(raw, file)
    if file.suffix == ".csv" and text.startswith(","):
        text = "row" + text  # a table that was written with its row numbers and no name for them
    return parse_table(text, file, file.suffix), hashlib.sha256(raw).hexdigest()


def bias_object(path: str, data: str, origin: str) -> tuple[Any, str]:
    """The JSON of a file, and the hash of the file."""
    file = bias_file(path, data, origin)
    raw = contents(file)
    try:
        return json.loads(raw), hashlib.sha256(raw).hexdigest()
    except (ValueError, RecursionError):
        raise DataError(f"{file} is no JSON: is it cut short?") from None


def text_cell(row: TableRow, name: str) -> str:
    """The text in a column; DataError if it is none."""
    value = row.columns.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.where}: {name!r} is {str(value)[:40]!r}, and a text was expected")
    return value
