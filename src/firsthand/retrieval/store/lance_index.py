"""An index in a LanceDB table: in a folder, or in an object store that LanceDB writes to, such as s3://bucket/path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.errors import MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.record_payloads import stored_record
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record

_PAGE = 1000
_COLUMNS = ("kind", "of", "searchable", "text")
"""Fields with a column of their own; the others are tags `name=value`, and `name` alone for numbers."""


def open_lance_index(place: Any, name: str, header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in the table of that name; with a header, make it if it is not there.

    `place` is a LanceDB connection, or the folder or address of one.
    """
    return RecordIndex(LanceRecords(place, name, header), f"LanceDB's table {name!r}", header)


class LanceRecords:
    """A RecordStore in a table without an index of vectors, so that searches are exact.

    Ranges of numbers are compared here, as the columns of a table are fixed and fields are not.
    """

    transactional = False

    def __init__(self, place: Any, name: str, header: IndexHeader | None):
        try:
            import lancedb
            import pyarrow
        except ImportError:
            raise MissingExtra("lancedb", "lance", "an index in LanceDB") from None
        self._name = name
        try:
            if isinstance(place, str | Path):  # another process's writes are seen by the next call
                place = lancedb.connect(str(place), read_consistency_interval=timedelta(0))
            if header is None:
                self._table = place.open_table(name)
            else:
                texts = [pyarrow.field(each, pyarrow.string()) for each in ("id", *_COLUMNS, "fields", "payload")]
                vector = pyarrow.list_(pyarrow.float32(), max(header.dimension, 1))
                tags = pyarrow.field("tags", pyarrow.list_(pyarrow.string()))
                schema = pyarrow.schema([*texts, tags, pyarrow.field("vector", vector)])
                self._table = place.create_table(name, schema=schema, exist_ok=True)
        except Exception as error:
            raise StoreError(
                f"LanceDB has no table {name!r} ({str(error)[:300]}): give a header to make one"
            ) from error

    def atomically(self) -> AbstractContextManager[None]:
        """No transaction: each write is a version of the table."""
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        """No snapshot: each read sees what is stored by then."""
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids, in one version of the table."""
        if records:
            rows = [_row(each) for each in records]
            self._called(
                "write",
                lambda: (
                    self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
                ),
            )

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        for first in range(0, len(ids), _PAGE):
            where = _sql_among("id", ids[first : first + _PAGE])
            self._called("delete", lambda where=where: self._table.delete(where))

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        found: dict[str, Record] = {}
        for first in range(0, len(ids), _PAGE):
            for each in self._read(_sql_among("id", ids[first : first + _PAGE]), vectors):
                found[each.id] = each
        return found

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        return self._read(self._sql(condition), vectors)

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        where = self._sql(condition)

        def search() -> Any:
            asked = self._table.search(vector, vector_column_name="vector").distance_type("dot")
            return asked.where(where, prefilter=True).select(["id"]).limit(k).to_arrow().to_pylist()

        return [(each["id"], 1.0 - float(each["_distance"])) for each in self._called("search", search)]

    def close(self) -> None:
        """Leave the connection to its owner."""

    def _read(self, where: str, vectors: bool) -> list[Record]:
        columns = ["id", "fields", "payload", *(["vector"] if vectors else [])]

        def read() -> Any:
            most = max(1, self._table.count_rows())
            return self._table.search().where(where).select(columns).limit(most).to_arrow().to_pylist()

        return [_record(each) for each in self._called("read", read)]

    def _sql(self, condition: Condition) -> str:
        if isinstance(condition, Every):
            return " AND ".join(f"({self._sql(each)})" for each in condition.conditions) or "true"
        if isinstance(condition, Not):
            return f"NOT ({self._sql(condition.condition)})"
        if isinstance(condition, Among):
            return _sql_among("id", condition.ids)
        if isinstance(condition, Match):
            if condition.field in _COLUMNS:
                return _sql_among(condition.field, condition.values)
            tags = [_quoted(f"{condition.field}={value}") for value in condition.values]  # ORs would nest, and overflow
            return f"array_has_any(tags, make_array({', '.join(tags)}))" if tags else "false"
        if isinstance(condition, Range):
            low, high = condition.low, condition.high
            held = self._read(f"array_has(tags, {_quoted(condition.field)})", False)
            numbers = ((each.id, float(each.fields[condition.field])) for each in held)
            return _sql_among(
                "id", [id for id, n in numbers if (low is None or n >= low) and (high is None or n <= high)]
            )
        return " OR ".join(f"({self._sql(each)})" for each in condition.conditions) or "false"

    def _called(self, what: str, act: Any) -> Any:
        try:
            return act()
        except Exception as error:  # of lancedb, pyarrow and the object store
            raise StoreError(f"LanceDB cannot {what} in {self._name!r}: {str(error)[:300]}") from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql_among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(_quoted, values))})" if values else "false"


def _row(record: Record) -> dict[str, Any]:
    own = {name: str(record.fields.get(name, "")) for name in _COLUMNS}
    tags = [name if isinstance(value, float) else f"{name}={value}" for name, value in record.fields.items()]
    vector = np.ones(1, np.float32) if record.vector is None else record.vector
    rest = {"fields": json.dumps(dict(record.fields)), "payload": record.payload}
    return {"id": record.id, **own, **rest, "tags": tags, "vector": vector.astype(np.float32).tolist()}


def _record(row: dict[str, Any]) -> Record:
    return stored_record("LanceDB's table", row["id"], row["fields"], row["payload"], row.get("vector"))
