"""Reads CSV and TSV: a paragraph for each row, `column: value` a line, so that a row is understood without its header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import islice

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.system.packed_text import lines_by_any_end
from firsthand.system.plurals import count_of

_DELIMITERS = ",;\t|"
_STATED_DELIMITER = re.compile(r'sep=([^"\n])(?:\n|\Z)', re.IGNORECASE)
_QUOTED = re.compile('"[^"]*+"')
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_LOOKED_AT_CHARS = 10_000
"""Characters of a table's beginning by which its delimiter is guessed."""
MAX_COLUMNS = 10_000
MAX_CELL_CHARS = 10_000_000
MAX_NAME_CHARS = 200
"""Longer names of columns are shortened, since each row repeats them."""
MAX_TEXT_TIMES = 20
"""The text of a table takes at most so many times the bytes of its file, or MIN_TEXT_BOUND, and never MAX_TEXT_BOUND."""
MIN_TEXT_BOUND = 250_000_000
MAX_TEXT_BOUND = 1_000_000_000
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")
ROW_BYTES = 200
"""The bytes that a row takes beside its characters, with its place."""


def read_table(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The rows as text, each a place; the first row that has a filled cell holds the names of the columns.

    Of two signs that may part cells the likelier is taken, and a remark names both. Further lines of a cell are indented.
    A quote that is never closed is a character like others, in its row and those behind it, and is a remark, as are rows
    of another length than the header. A first line `sep=;`, as Excel writes it, names what stands between cells.
    A table whose text would be far longer than its file, by the names of its columns in each row, is refused.
    """
    text, notes = decode(data)
    text, _, dropped = clean(text)
    notes += dropped
    if stated := _STATED_DELIMITER.match(text):
        delimiter, text = stated[1], text[stated.end() :]
    elif name.lower().endswith((".tsv", ".tab")):
        delimiter = "\t"
    else:
        delimiter, told = _likeliest(text)
        notes += told
    rows = _rows(text, delimiter, notes)
    header = [" ".join(cell.split()) or f"column {at}" for at, cell in enumerate(_first_filled(rows), 1)]
    title_at = None
    if settings.title_field is not None and settings.title_field in header:
        title_at = header.index(settings.title_field)
    elif settings.title_field is not None:
        notes.append(f"no column {settings.title_field!r} for titles")
    if shortened := sum(len(key) > MAX_NAME_CHARS for key in header):
        header = [key if len(key) <= MAX_NAME_CHARS else f"{key[:MAX_NAME_CHARS]}…" for key in header]
        named = "1 name of a column was" if shortened == 1 else f"{shortened} names of columns were"
        notes.append(f"{named} shortened to {MAX_NAME_CHARS} characters")
    bound = min(max(MAX_TEXT_TIMES * len(data), MIN_TEXT_BOUND), MAX_TEXT_BOUND)
    char_bytes = 1 if text.isascii() else 4 if _FOUR_BYTES.search(text) else 2
    written, places, ragged, length = [], [], 0, 0
    for number, row in enumerate(rows, 1):
        if not any(cell.strip() for cell in row):
            continue
        ragged += len(row) != len(header)
        lines = [
            f"{header[at] if at < len(header) else f'column {at + 1}'}: {_indented(bare)}"
            for at, cell in enumerate(row)
            if (bare := cell.strip())
        ]
        title = " ".join(row[title_at].split())[:100] if title_at is not None and title_at < len(row) else ""
        paragraph = "\n".join([title, *lines] if title else lines) + "\n\n"
        places.append(Location(length, "row", f"{number} ({title})" if title else str(number)))
        written.append(paragraph)
        length += len(paragraph)
        if length * char_bytes + len(places) * ROW_BYTES > bound:
            raise DataError(
                f"it is a table of {len(data):,} bytes, and with the names of its columns in each row it takes more than "
                f"{bound:,}: divide it, shorten the names, or leave out empty or repeated columns"
            )
    if ragged:
        notes.append(f"{count_of(ragged, 'row')} with another number of cells than the header's {len(header)}")
    document = Document(name, "".join(written), "", meta={"kind": "table"}, locations=tuple(places))
    return FileContent((document,), tuple(notes))


def _indented(cell: str) -> str:
    """The filled lines of a cell, further ones indented, so that none looks like another column or row."""
    lines = cell.splitlines()
    return cell if len(lines) == 1 else "\n  ".join(line for line in lines if line.strip())


def _rows(text: str, delimiter: str, notes: list[str]) -> Iterator[list[str]]:
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        lines = _CountedLines(_lines(text, delimiter))
        read = 0  # lines of whole rows
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter), 1):
            if lines.ended:
                notes.append(
                    f"a quote in line {read + 1} or behind it is never closed: from there on quotes are characters"
                )
                yield from _unquoted(islice(lines_by_any_end(text), read, None), delimiter, number)
                return
            _check_columns(number, len(row))
            yield row
            read = lines.count
    except csv.Error as error:
        raise DataError(f"it is no table: {error}") from None
    finally:
        csv.field_size_limit(before)


def _unquoted(lines: Iterator[str], delimiter: str, first: int) -> Iterator[list[str]]:
    """The rows of lines whose quotes are characters."""
    for number, line in enumerate(lines, first):
        _check_columns(number, line.count(delimiter) + 1)
        yield from csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE)


class _CountedLines:
    """Lines with their count; a row that ends only as they do has a quote that is open."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self.count = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.count += 1
            yield line
        self.ended = True


def _lines(text: str, delimiter: str) -> Iterator[str]:
    """The lines, each with few enough cells to be read as a row; what stands in quotes is no cell of its own."""
    cell = re.compile(f'(?:[^"{re.escape(delimiter)}]|"[^"]*+")*+{re.escape(delimiter)}')
    quoted = False
    for number, line in enumerate(lines_by_any_end(text), 1):
        if line.count(delimiter) >= MAX_COLUMNS:
            at, cells, counted = 0, 1, f'"{line}' if quoted else line
            while found := cell.match(counted, at):
                at, cells = found.end(), cells + 1
                _check_columns(number, cells)
        quoted ^= line.count('"') % 2 == 1
        yield line


def _check_columns(number: int, columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise DataError(
            f"its row {number} has more than {MAX_COLUMNS} columns: leave out or join those you do not need"
        )


def _first_filled(rows: Iterable[list[str]]) -> list[str]:
    """The first row that has a filled cell."""
    return next((row for row in rows if any(cell.strip() for cell in row)), [])


def _likeliest(text: str) -> tuple[str, list[str]]:
    """The delimiter by which most of the first rows have as many cells as the header, of equals the one with most cells,
    but no comma that stands between digits alone; a comma if none divides the header. A remark names an equal one.
    """
    lines = text[:_LOOKED_AT_CHARS].split("\n")
    if len(text) > _LOOKED_AT_CHARS and len(lines) > 1:
        lines.pop()

    def fit(delimiter: str) -> tuple[int, int]:
        rows = csv.reader(lines, delimiter=delimiter)
        header = len(_first_filled(rows))
        return (1 + sum(len(row) == header for row in rows), header) if header > 1 else (0, 0)

    fits = {delimiter: fit(delimiter) for delimiter in _DELIMITERS}
    likeliest = max(_DELIMITERS, key=lambda each: fits[each])
    rows = fits[likeliest][0]
    equals = [each for each in _DELIMITERS if each != likeliest and fits[each][0] == rows > 1]
    if not equals:
        return likeliest, []
    if likeliest == "," and _commas_are_decimal(lines):
        likeliest = max(equals, key=lambda each: fits[each])
        equals = [","]
    other = "a tab" if equals[0] == "\t" else repr(equals[0])
    taken = "tabs" if likeliest == "\t" else repr(likeliest)
    return likeliest, [
        f"its cells are divided at {taken}, and {other} would divide as many rows: a first line sep=; or the like says which"
    ]


def _commas_are_decimal(lines: list[str]) -> bool:
    """True if below the header commas stand between digits alone, or in quotes."""
    rows = [_QUOTED.sub("", line) for line in lines if line.strip()][1:]
    return all("," not in _DECIMAL_COMMA.sub("", row) for row in rows)
