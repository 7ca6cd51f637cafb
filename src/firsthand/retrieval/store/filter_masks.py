"""Rows that pass a filter: SQL over the stored fields, then a mask over rows; kept until the index changes."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.retrieval.retriever import Filter
from firsthand.retrieval.store.filter_conditions import (
    MAX_VALUES,
    RESERVED,
    TEXT,
    canonical,
    check_filter,
    condition_sql,
    excluded,
)
from firsthand.retrieval.store.search_rows import Ints, SearchRows

_KEPT = 64
_DENSE = 1 << 24
_COLUMNS = {"document": "id", "source": "source", "title": "title"}
Mask = NDArray[np.bool_]


class FilterMasks:
    """The rows that pass the latest filters."""

    def __init__(self) -> None:
        self._rows: dict[str, Ints] = {}

    def clear(self) -> None:
        """Forget all, as the rows have changed."""
        self._rows.clear()

    def rows(self, connection: sqlite3.Connection, where: Filter, searched: SearchRows) -> Ints:
        """The rows that pass, in ascending order. ConfigError if the filter cannot be understood."""
        key = canonical(dict(where))
        if key not in self._rows:
            check_filter(where)
            mask = searched.alive.copy()
            for name, condition in where.items():
                mask &= _passing(connection, name, condition, searched)
            while len(self._rows) >= _KEPT:
                self._rows.pop(next(iter(self._rows)))
            self._rows[key] = np.flatnonzero(mask)
        return self._rows[key]


def _passing(connection: sqlite3.Connection, name: str, condition: Any, searched: SearchRows) -> Mask:
    inner = excluded(condition)
    if inner is not None:
        return ~_passing(connection, name, inner[0], searched)
    if isinstance(condition, list | tuple) and len(condition) > MAX_VALUES:
        parts = (condition[first : first + MAX_VALUES] for first in range(0, len(condition), MAX_VALUES))
        passing: Mask = np.logical_or.reduce([_passing(connection, name, part, searched) for part in parts])
        return passing
    if name in RESERVED:
        column = _COLUMNS[name]
        sql, values = condition_sql(condition)
        typed = f"SELECT number, {TEXT} AS kind, CAST({column} AS BLOB) AS value FROM documents"
        statement = f"SELECT number FROM ({typed}) WHERE {sql}"
        return _among(connection, statement, values, searched.documents)
    sql, values = condition_sql(condition)
    key = name.encode("utf-8", "surrogatepass")
    statement = f"SELECT meta FROM fields WHERE key = ? AND ({sql})"
    return _among(connection, statement, [key, *values], searched.metas)


def _among(connection: sqlite3.Connection, statement: str, values: list[Any], held: Ints) -> Mask:
    """For each row, if its number is one that the statement selects."""
    found = np.fromiter((row[0] for row in connection.execute(statement, values)), dtype=np.int64)
    if not len(held):
        return np.zeros(0, dtype=np.bool_)
    if int(held.min()) < 0 or int(held.max()) > _DENSE + 64 * len(held):  # numbers that we did not give
        return np.isin(held, found)
    chosen = np.zeros(int(held.max()) + 1, dtype=np.bool_)
    chosen[found[found < len(chosen)]] = True
    return chosen[held]
