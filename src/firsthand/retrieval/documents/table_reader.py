"""Reads CSV and TSV: a paragraph for each row, `column: value` a line, so that a row is understood without its header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.system.plurals import count_of

_DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
MAX_CELL_CHARS = 10_000_000


def read_table(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The rows as text, each a place; the first row holds the names of the columns.

    Quotes that are never closed end with the file and are a remark, as are rows of another length than the header.
    """
    text, notes = decode(data)
    text, _, dropped = clean(text)
    notes += dropped
    delimiter = "\t" if name.lower().endswith((".tsv", ".tab")) else _likeliest(text)
    rows = _rows(text, delimiter)
    header = [" ".join(cell.split()) or f"column {at}" for at, cell in enumerate(next(rows, []), 1)]
    if len(header) > MAX_COLUMNS:
        raise DataError(f"its first row has {len(header)} columns, and at most {MAX_COLUMNS} are read")
    title_at = None
    if settings.title_field is not None and settings.title_field in header:
        title_at = header.index(settings.title_field)
    elif settings.title_field is not None:
        notes.append(f"no column {settings.title_field!r} for titles")
    written, places, ragged, length = [], [], 0, 0
    for number, row in enumerate(rows, 1):
        if not any(cell.strip() for cell in row):
            continue
        ragged += len(row) != len(header)
        named = [header[at] if at < len(header) else f"column {at + 1}" for at in range(len(row))]
        lines = [f"{key}: {cell.strip()}" for key, cell in zip(named, row, strict=True) if cell.strip()]
        title = " ".join(row[title_at].split())[:100] if title_at is not None and title_at < len(row) else ""
        paragraph = "\n".join([title, *lines] if title else lines) + "\n\n"
        places.append(Location(length, "row", f"{number} ({title})" if title else str(number)))
        written.append(paragraph)
        length += len(paragraph)
    if ragged:
        notes.append(f"{count_of(ragged, 'row')} with another number of cells than the header's {len(header)}")
    document = Document(name, "".join(written), "", meta={"kind": "table"}, locations=tuple(places))
    return FileContent((document,), tuple(notes))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"it is no table: {error}") from None
    finally:
        csv.field_size_limit(before)


def _likeliest(text: str) -> str:
    """The delimiter that stands most often in the first line, outside quotes; a comma if none does."""
    line = "".join(text[:10_000].split("\n")[0].split('"')[::2])
    return max(_DELIMITERS, key=line.count)
