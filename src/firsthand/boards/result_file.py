"""A file of results, for boards that are asked often: one SQLite file with all numbers and the scores of all items.

Item scores are stored as float32 for each model and column, so that two million of them are read in a tenth of a second.
"""

# M models, T tasks

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.benchmarks.sources.tables import expect_values
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.errors import DataError, StoreError, reason_of
from firsthand.system.bounded_sqlite import connect_bounded

RESULT_FILE = ".results"
VERSION = 2
"""Files of version 1, which have no digests of tasks, are read too."""
MAX_ROW_BYTES = 256 << 20
_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": int | float,
    "float | None": int | float | None,
}
"""Declared type of a field of BoardResult -> the types that JSON gives for it."""
_SCHEMA = """
CREATE TABLE results (body TEXT NOT NULL);
CREATE TABLE item_columns (id INTEGER PRIMARY KEY, key TEXT NOT NULL, tasks TEXT NOT NULL, clusters TEXT NOT NULL,
  abouts TEXT NOT NULL, problems TEXT NOT NULL);
CREATE TABLE item_scores (column_id INTEGER NOT NULL, model TEXT NOT NULL, scores BLOB NOT NULL);
"""
_SCHEMAS = {1: _SCHEMA.replace(", problems TEXT NOT NULL", ""), VERSION: _SCHEMA}


def write_result_file(path: Path, results: ResultSet) -> None:
    """Writes all results to a new file, in place of one that is there; StoreError if that fails."""
    if path.suffix != RESULT_FILE:
        raise StoreError(f"{path}: a file of results ends in {RESULT_FILE}: choose such a name")
    draft = path.with_name(path.name + ".draft")
    verified = {(item.key, model) for item in results.items for model in item.models}
    try:
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft)) as connection, connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            stated = [each for each in results.results if (each.key, each.model) not in verified]
            connection.executemany("INSERT INTO results VALUES (?)", [(json.dumps(each.to_json()),) for each in stated])
            for number, item in enumerate(results.items):
                abouts = json.dumps([each.to_json() for each in item.abouts])
                told = map(json.dumps, (item.key, item.tasks, item.clusters))
                row = (number, *told, abouts, json.dumps(item.problems))
                connection.execute("INSERT INTO item_columns VALUES (?, ?, ?, ?, ?, ?)", row)
                scores = np.ascontiguousarray(item.scores, "<f4")
                blobs = [(number, model, scores[i].tobytes()) for i, model in enumerate(item.models)]
                connection.executemany("INSERT INTO item_scores VALUES (?, ?, ?)", blobs)
        draft.replace(path)
    except (OSError, sqlite3.Error) as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {reason_of(error)}") from None


def read_result_file(path: Path) -> Iterator[BoardResult | ItemScores]:
    """The results of a file that `write_result_file` made; DataError if it is another, or damaged."""
    try:
        with closing(connect_bounded(path.resolve(), "ro")) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
            made = set(connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in _SCHEMAS:
                raise DataError(
                    f"{path} has version {version} of the file of results, and {VERSION} is read: import again"
                )
            if made != {(statement.strip(),) for statement in _SCHEMAS[version].split(";") if statement.strip()}:
                raise DataError(f"{path} has tables or views that firsthand did not make: import the results again")
            left = _Left(path)
            for (body,) in connection.execute("SELECT body FROM results"):
                yield _result(left.parsed(body))
            rows: dict[int, list[tuple[str, bytes]]] = {}
            for number, model, blob in connection.execute(
                "SELECT column_id, model, scores FROM item_scores ORDER BY rowid"
            ):
                left.take(model, blob)
                rows.setdefault(number, []).append((model, blob))
            for number, key, tasks, clusters, abouts, *more in connection.execute(
                "SELECT * FROM item_columns ORDER BY id"
            ):
                found, names = rows.pop(number, []), left.parsed(tasks)
                if any(len(blob) != 4 * len(names) for _, blob in found):
                    raise DataError(f"{path} is damaged: a model has another number of scores than there are items")
                scores = np.frombuffer(b"".join(blob for _, blob in found), "<f4").reshape(len(found), len(names))
                told = tuple(_result(each) for each in left.parsed(abouts))
                models = _texts([model for model, _ in found])
                column = ColumnKey(*_texts(left.parsed(key)))
                digests = _texts(left.parsed(more[0])) if more else ()
                if len(digests) not in (0, len(names)):
                    raise DataError(f"{path} is damaged: it has another number of digests than there are items")
                yield ItemScores(column, models, _texts(names), scores, _texts(left.parsed(clusters)), told, digests)
    except (OSError, sqlite3.Error, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{path} is no file of results, or is damaged: {reason_of(error)}: import the results again"
        ) from None


class _Left:
    """The bytes that a file's rows may still have: of rows that share pages, a small file would have gigabytes."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        self.values = 0

    def take(self, *fields: str | bytes) -> None:
        """DataError if the rows so far are larger than the file."""
        self.size -= sum(map(len, fields))
        if self.size < 0:
            raise DataError(f"{self.path} is damaged, its rows are larger than the file: import the results again")

    def parsed(self, text: str) -> Any:
        """The JSON of a field; DataError if the file has too many values."""
        self.take(text)
        self.values += expect_values(text, str(self.path), self.values)
        return json.loads(text)


def _result(body: Any) -> BoardResult:
    """A result as it was written; TypeError or ValueError if a field is of another type."""
    result = BoardResult(**body)
    for field in fields(BoardResult):
        value = getattr(result, field.name)
        if not isinstance(value, _TYPES[str(field.type)]) or (isinstance(value, bool) and field.type != "bool"):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}, and {field.type} was expected")
        if type(value) is int:
            float(value)
    if result.when and datetime.fromisoformat(result.when).tzinfo is None:
        raise ValueError(f"when is {result.when!r}, and has no time zone")
    return result


def _texts(values: Any) -> tuple[str, ...]:
    """A list of texts as it was written; TypeError if it is something else."""
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError(f"a list of texts was expected, not {str(values)[:60]}")
    return tuple(values)
