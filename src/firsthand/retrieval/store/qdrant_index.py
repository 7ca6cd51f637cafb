"""An index in a Qdrant collection, on a server or in the client's local mode."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

from firsthand.errors import MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.record_payloads import stored_record
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, record_pages

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_PAGE = 1000
_LOCAL = threading.RLock()
"""Held for each call of a client in local mode, whose collections threads may not read while one writes."""


def open_qdrant_index(client: QdrantClient, name: str, header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in the collection of that name; with a header, make it if it is not there."""
    return RecordIndex(QdrantRecords(client, name, header), f"Qdrant's collection {name!r}", header)


class QdrantRecords:
    """A RecordStore in a collection whose vectors are compared by dot product."""

    transactional = False

    def __init__(self, client: QdrantClient, name: str, header: IndexHeader | None):
        try:
            from qdrant_client import models
        except ImportError:
            raise MissingExtra("qdrant-client", "qdrant", "an index in Qdrant") from None
        self._client, self._name, self._models = client, name, models
        is_local = type(getattr(client, "_client", None)).__name__ == "QdrantLocal"
        self._alone: AbstractContextManager[Any] = _LOCAL if is_local else nullcontext()
        if not self._called("collection_exists", name):
            if header is None:
                raise StoreError(f"Qdrant has no collection {name!r}: give a header to make one")
            size = max(header.dimension, 1)  # of terms alone: one number, not searched
            self._called("create_collection", name, models.VectorParams(size=size, distance=models.Distance.DOT))
            for field in ("kind", "of", "searchable", "text"):
                self._called("create_payload_index", name, field, models.PayloadSchemaType.KEYWORD)

    def atomically(self) -> AbstractContextManager[None]:
        """No transaction: each write is one."""
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        """No snapshot: each read sees what is stored by then."""
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids."""
        for page in record_pages(records, _PAGE):
            points = [
                self._models.PointStruct(
                    id=str(UUID(each.id)),
                    vector=[1.0] if each.vector is None else each.vector.tolist(),
                    payload={**each.fields, "payload": each.payload},
                )
                for each in page
            ]
            self._called("upsert", self._name, points, wait=True)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        if ids:
            self._called("delete", self._name, [str(UUID(id)) for id in ids], wait=True)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        found: list[Any] = []
        for first in range(0, len(ids), _PAGE):
            some = [str(UUID(id)) for id in ids[first : first + _PAGE]]
            found += self._called("retrieve", self._name, some, with_payload=True, with_vectors=vectors)
        return {record.id: record for record in map(_record, found)}

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        found: list[Record] = []
        offset: Any = None
        while True:
            points, offset = self._called(
                "scroll", self._name, self._filter(condition), limit=_PAGE, offset=offset, with_payload=True,
                with_vectors=vectors,
            )  # fmt: skip
            found += map(_record, points)
            if offset is None:
                return found

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        found = self._called(
            "query_points", self._name, vector.tolist(), query_filter=self._filter(condition), limit=k, with_payload=False,
            search_params=self._models.SearchParams(exact=True),
        )  # fmt: skip
        return [(UUID(str(point.id)).hex, float(point.score)) for point in found.points]

    def close(self) -> None:
        """Leave the client to its owner."""

    def _filter(self, condition: Condition) -> Any:
        models = self._models
        if isinstance(condition, Every):
            return models.Filter(must=[self._filter(each) for each in condition.conditions])
        if isinstance(condition, Not):
            return models.Filter(must_not=[self._filter(condition.condition)])
        if isinstance(condition, Match):
            match = models.MatchAny(any=list(condition.values))
            leaf: Any = models.FieldCondition(key=condition.field, match=match)
        elif isinstance(condition, Range):
            span = models.Range(gte=condition.low, lte=condition.high)
            leaf = models.FieldCondition(key=condition.field, range=span)
        elif isinstance(condition, Among):
            leaf = models.HasIdCondition(has_id=[str(UUID(id)) for id in condition.ids])
        else:
            return models.Filter(should=[self._filter(each) for each in condition.conditions])
        return models.Filter(must=[leaf])

    def _called(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            with self._alone:
                return getattr(self._client, method)(*arguments, **options)
        except Exception as error:  # the client raises those of its transports, and ValueError in local mode
            raise StoreError(f"Qdrant cannot {method} in {self._name!r}: {str(error)[:300]}") from error


def _record(point: Any) -> Record:
    fields = dict(point.payload or {})
    payload = str(fields.pop("payload", ""))
    return stored_record("Qdrant's collection", UUID(str(point.id)).hex, fields, payload, point.vector)
