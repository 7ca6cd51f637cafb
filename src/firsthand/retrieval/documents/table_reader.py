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
MAX_NAME_CHARS = 200
"""Longer names of columns are shortened, since each row repeats them."""
MAX_TEXT_TIMES = 20
"""The text of a table is at most so many times as long as its file, or has MIN_TEXT_BOUND characters."""
MIN_TEXT_BOUND = 50_000_000


def read_table(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The rows as text, each a place; the first row holds the names of the columns.

    Quotes that are never closed end with the file and are a remark, as are rows of another length than the header.
    A table whose text would be far longer than its file, by the names of its columns in each row, is refused.
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
    if shortened := sum(len(key) > MAX_NAME_CHARS for key in header):
        header = [key if len(key) <= MAX_NAME_CHARS else f"{key[:MAX_NAME_CHARS]}…" for key in header]
        named = "1 name of a column was" if shortened == 1 else f"{shortened} names of columns were"
        notes.append(f"{named} shortened to {MAX_NAME_CHARS} characters")
    bound = max(MAX_TEXT_TIMES * len(text), MIN_TEXT_BOUND)
    written, places, ragged, length = [], [], 0, 0
    for number, row in enumerate(rows, 1):
        if not any(cell.strip() for cell in row):
            continue
        ragged += len(row) != len(header)
        lines = [
            f"{header[at] if at < len(header) else f'column {at + 1}'}: {bare}"
            for at, cell in enumerate(row)
            if (bare := cell.strip())
        ]
        title = " ".join(row[title_at].split())[:100] if title_at is not None and title_at < len(row) else ""
        paragraph = "\n".join([title, *lines] if title else lines) + "\n\n"
        places.append(Location(length, "row", f"{number} ({title})" if title else str(number)))
        written.append(paragraph)
        length += len(paragraph)
        if length > bound:
            raise DataError(
                f"it is a table of {len(text):,} characters, and with the names of its columns in each row it is more than "
                f"{bound:,}: shorten the names, or leave out empty or repeated columns"
            )
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
