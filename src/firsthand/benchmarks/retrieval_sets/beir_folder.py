"""Reads a folder in BEIR's layout (Thakur et al., 2021): corpus.jsonl, queries.jsonl, and qrels/test.tsv.

Also read: the corpus or the queries packed by gzip, queries as a table of id and text (queries.test.tsv), and judgements
in TREC's four columns (qrels.test.trec), as Anserini publishes them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from firsthand.benchmarks.retrieval_sets.judged_set import JudgedSet, judged
from firsthand.benchmarks.sources.datasets import MAX_BYTES
from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.retrieval.document import Document
from firsthand.scorers.ranking import MAX_RELEVANCE
from firsthand.system.given_data import held
from firsthand.system.json_values import values_in_text
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.packed_stream import filled_lines, open_gzip

MAX_CORPUS_BYTES = 4 * 2**30
"""Size limit of an unpacked corpus; BEIR's largest that is not sharded is below it."""
MAX_LINE_BYTES = 64 * 2**20
"""Size limit of a line, which memory holds whole: a few kilobytes of .gz can be one of gigabytes."""
MAX_LINE_VALUES = 2_000_000
"""JSON values of a line: a document has three texts, and what else its `metadata` holds."""


def corpus_file(folder: Path) -> Path:
    """Returns the file of the documents; DataError if there is none."""
    return existing(folder, "corpus.jsonl", "corpus.jsonl.gz")


def read_corpus(folder: Path) -> list[Document]:
    """Returns the documents of corpus.jsonl: `_id`, `title` and `text`. DataError with file and line for a bad row."""
    path = corpus_file(folder)
    found: dict[str, Document] = {}
    for where, row in json_rows(path, MAX_CORPUS_BYTES):
        id, title, text = id_of(row, where), row.get("title") or "", row.get("text")
        if not isinstance(text, str) or not isinstance(title, str):
            raise DataError(f"{where}: 'title' and 'text' of document {id!r} must be text, not {str(row)[:60]!r}")
        if id in found:
            raise DataError(f"{where}: document {id!r} is there twice")
        found[id] = Document(id, text, title=title, source=id)
    if not found:
        raise DataError(f"{path} holds no documents: is it truncated?")
    return list(found.values())


def read_judged(folder: Path, split: str = "test") -> JudgedSet:
    """Returns the queries of a split with their judgements; DataError if a file is missing or malformed."""
    queries = existing(folder, "queries.jsonl", "queries.jsonl.gz", f"queries.{split}.tsv")
    marks = existing(folder, f"qrels/{split}.tsv", f"qrels.{split}.tsv", f"qrels.{split}.trec")
    texts: dict[str, str] = {}
    for where, id, text in _tsv_queries(queries) if queries.suffix == ".tsv" else _json_queries(queries):
        if id in texts:
            raise DataError(f"{where}: query {id!r} is there twice")
        texts[id] = text
    return judged(texts, read_judgements(marks), f"folder {folder.name}, split {split}")


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Returns query id -> document id -> relevance, from BEIR's three columns with a heading or TREC's four without."""
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(text_lines(path, MAX_BYTES), 1):
        columns = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or (number == 1 and columns[0] in ("query-id", "query_id")):
            continue
        if len(columns) == 4:
            columns = [columns[0], columns[2], columns[3]]
        try:
            query, document, mark = columns[0].strip(), columns[1].strip(), int(columns[2])
            if len(columns) != 3 or not query or not document:
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, line {number}: query, document and a whole number were expected, not {line[:60]!r}"
            ) from None
        if abs(mark) > MAX_RELEVANCE:
            raise DataError(
                f"{path}, line {number}: a relevance of at most {MAX_RELEVANCE:,} was expected: give grades"
            )
        if document in (marks := found.setdefault(query, {})):
            raise DataError(f"{path}, line {number}: document {document!r} is judged twice for query {query!r}")
        marks[document] = mark
    if not found:
        raise DataError(f"{path} holds no judgements: is it truncated?")
    return found


def existing(folder: Path, *names: str) -> Path:
    """Returns the first of these files that the folder has; DataError if it has none."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder: give one in BEIR's layout, with corpus.jsonl, queries.jsonl and qrels/"
        )
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise DataError(f"{folder} has no {' and no '.join(names)}: a folder in BEIR's layout was expected")
    return held(found, folder)


def json_rows(path: Path, most: int) -> Iterator[tuple[str, Json]]:
    """Yields place and object of each line of a .jsonl or .jsonl.gz file."""
    for number, line in filled_lines(text_lines(path, most), path):
        where = f"{path}, line {number}"
        if values_in_text(line, MAX_LINE_VALUES) > MAX_LINE_VALUES:
            raise DataError(f"{where} holds more than {MAX_LINE_VALUES:,} JSON values: one document was expected")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: an object was expected, not {line[:60]!r}")
        yield where, row


def text_lines(path: Path, most: int) -> Iterator[str]:
    """Yields the lines of a UTF-8 file, unpacked if it ends in .gz; DataError past `most` bytes."""
    read = 0
    try:
        with open_ordinary(path) as raw, open_gzip(raw, path) if path.suffix == ".gz" else raw as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                read += len(line)
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES >> 20} MiB: is it cut short?")
                if read > most:
                    raise DataError(f"{path} is larger than {most >> 20} MiB: is it the right file?")
                yield line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start} of a line)") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None


def id_of(row: Json, where: str) -> str:
    """Returns the row's `_id`; DataError if it is not text."""
    id = row.get("_id")
    if not isinstance(id, str) or not id:
        raise DataError(f"{where}: the field '_id' holds {str(id)[:60]!r}, and text was expected")
    return id


def _json_queries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields place, id and text of each query."""
    for where, row in json_rows(path, MAX_BYTES):
        text = row.get("text")
        if not isinstance(text, str):
            raise DataError(f"{where}: the field 'text' holds {str(text)[:60]!r}, and text was expected")
        yield where, id_of(row, where), text


def _tsv_queries(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text_lines(path, MAX_BYTES), 1):
        id, tab, text = line.partition("\t")
        if not tab or not id.strip():
            raise DataError(f"{path}, line {number}: id, a tab and text were expected, not {line[:60]!r}")
        yield f"{path}, line {number}", id.strip(), text
