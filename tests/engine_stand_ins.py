"""Chroma and LanceDB as small modules in memory, for the default tests: the real ones take seconds to import.

They do what the stores ask of them: filters and pages of Chroma, and LanceDB's SQL, which SQLite runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


@contextmanager
def modules(**made: Any) -> Iterator[None]:
    """Have these modules imported in place of those that are installed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in made.items():
            patch.setitem(__import__("sys").modules, name, module)
        yield


class Chroma:
    """Chroma's client, with its collections by name."""

    def __init__(self, *given: Any):
        self.given, self.made, self.collections = given, {}, {}

    def get_collection(self, name: str, **options: Any) -> Any:
        assert options == {"embedding_function": None}
        return self.collections[name]

    def get_or_create_collection(self, name: str, **options: Any) -> Any:
        self.made[name] = options
        return self.collections.setdefault(name, Collection())


class Collection:
    """Chroma's collection: what is stored under an id that is there keeps the fields that are not given, as Chroma does."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.calls: list[tuple[str, int]] = []

    def upsert(self, ids: list[str], embeddings: Any, metadatas: Any, documents: Any) -> None:
        self.calls.append(("upsert", len(ids)))
        for id, vector, fields, text in zip(ids, embeddings, metadatas, documents, strict=True):
            kept = self.rows[id][1] if id in self.rows else {}
            self.rows[id] = [vector, kept | fields, text]

    def delete(self, ids: list[str]) -> None:
        self.calls.append(("delete", len(ids)))
        for id in ids:
            del self.rows[id]

    def get(self, include: list[str], ids: list[str] | None = None, where: Any = None) -> Any:
        self.calls.append(("get", -1 if ids is None else len(ids)))
        found = [id for id, row in self.rows.items() if (ids is None or id in ids) and _fits(row[1], where)]
        columns = dict(zip(("embeddings", "metadatas", "documents"), range(3), strict=True))
        return {"ids": found} | {
            name: [self.rows[id][at] for id in found] if name in include else None for name, at in columns.items()
        }

    def query(self, query_embeddings: Any, n_results: int, ids: list[str], include: list[str]) -> Any:
        assert include == ["distances"]
        self.calls.append(("query", n_results))
        (query,) = query_embeddings
        far = sorted((1.0 - float(np.dot(self.rows[id][0], query)), id) for id in ids if id in self.rows)[:n_results]
        return {"ids": [[id for _, id in far]], "distances": [[each for each, _ in far]]}


def _fits(fields: Any, where: Any) -> bool:
    if where is None:
        return True
    ((field, body),) = where.items()
    ((sign, given),) = body.items()
    value = fields.get(field)
    if sign == "$in":
        assert given
        return value in given
    return isinstance(value, float) and (value >= given if sign == "$gte" else value <= given)


def chroma() -> ModuleType:
    """The module `chromadb`."""
    module = ModuleType("chromadb")
    module.Settings = lambda **options: options  # type: ignore[attr-defined]
    module.PersistentClient = Chroma  # type: ignore[attr-defined]
    return module


class Lance:
    """A connection of LanceDB, with its tables by name."""

    def __init__(self, *given: Any, **options: Any):
        self.given, self.options, self.tables, self.schemas = given, options, {}, {}

    def open_table(self, name: str) -> Any:
        return self.tables[name]

    def create_table(self, name: str, *, schema: Any, exist_ok: bool) -> Any:
        assert exist_ok
        self.schemas[name] = schema
        return self.tables.setdefault(name, Table())


class Table:
    """A table of LanceDB over one of SQLite."""

    def __init__(self) -> None:
        self.base = sqlite3.connect(":memory:", check_same_thread=False)
        self.base.create_function("array_has", 2, lambda tags, tag: tag in json.loads(tags))
        self.base.create_function("make_array", -1, lambda *values: json.dumps(values))
        self.base.create_function(
            "array_has_any", 2, lambda one, other: bool({*json.loads(one)} & {*json.loads(other)})
        )
        self.base.execute(
            "CREATE TABLE rows (id PRIMARY KEY, kind, of, searchable, text, fields, payload, tags, vector)"
        )
        self.calls: list[tuple[str, Any]] = []

    def merge_insert(self, key: str) -> Any:
        assert key == "id"
        merged = SimpleNamespace(execute=self._write)
        merged.when_not_matched_insert_all = lambda: merged
        return SimpleNamespace(when_matched_update_all=lambda: merged)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.calls.append(("write", len(rows)))
        for row in rows:
            kept = {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
            self.base.execute(
                f"REPLACE INTO rows ({', '.join(kept)}) VALUES ({', '.join('?' * len(kept))})", [*kept.values()]
            )

    def delete(self, where: str) -> None:
        self.calls.append(("delete", where.count(",") + 1))
        self.base.execute(f"DELETE FROM rows WHERE {where}")

    def count_rows(self) -> int:
        return int(self.base.execute("SELECT count(*) FROM rows").fetchone()[0])

    def search(self, vector: Any = None, *, vector_column_name: str = "") -> Any:
        assert vector is None or vector_column_name == "vector"
        return Search(self, vector)


class Search:
    """A search of a table: of all rows in the order that they were written, or of the nearest by their dot product."""

    def __init__(self, table: Table, vector: Any):
        self.table, self.vector, self.kind = table, vector, ""

    def distance_type(self, kind: str) -> Search:
        self.kind = kind
        return self

    def where(self, where: str, *, prefilter: bool = False) -> Search:
        assert prefilter or self.vector is None, "or the nearest of all would be filtered, and too few be left"
        self.condition = where
        return self

    def select(self, columns: list[str]) -> Search:
        self.columns = columns
        return self

    def limit(self, most: int) -> Search:
        self.most = most
        return self

    def to_arrow(self) -> Search:
        return self

    def to_pylist(self) -> list[dict[str, Any]]:
        self.table.calls.append(("read" if self.vector is None else "nearest", self.most))
        found = self.table.base.execute(f"SELECT {', '.join(self.columns)}, vector FROM rows WHERE {self.condition}")
        rows = [dict(zip((*self.columns, "vector"), (*row[:-1], json.loads(row[-1])), strict=False)) for row in found]
        if self.vector is not None:
            assert self.kind == "dot"
            rows = sorted(
                ({**row, "_distance": 1.0 - float(np.dot(row["vector"], self.vector))} for row in rows),
                key=lambda row: row["_distance"],
            )
        if "vector" not in self.columns:
            rows = [{name: value for name, value in row.items() if name != "vector"} for row in rows]
        return rows[: self.most]


def lance() -> dict[str, ModuleType]:
    """The modules `lancedb` and `pyarrow`, whose types are tuples."""
    made, arrow = ModuleType("lancedb"), ModuleType("pyarrow")
    made.connect = Lance  # type: ignore[attr-defined]
    for name in ("field", "list_", "string", "float32"):
        setattr(arrow, name, lambda *given, name=name: (name, *given) if given else name)
    arrow.schema = list  # type: ignore[attr-defined]
    return {"lancedb": made, "pyarrow": arrow}
