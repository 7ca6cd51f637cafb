"""An index in a namespace of a Pinecone index, whose metric must be the dot product.

Pinecone shows writes a moment later, so a search right after `put` may miss them, and holds 40 kB beside each vector, so
larger documents are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from firsthand.errors import ConfigError, MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.record_payloads import stored_record
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, record_pages

MAX_METADATA_BYTES = 40_000
_PAGE = 100


def open_pinecone_index(client: Any, name: str, header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in a namespace; with a header, make it if it is not there.

    `client` is `Pinecone(...).Index(host=...)`, of the header's dimension (1 for terms alone).
    """
    try:
        import pinecone  # noqa: F401
    except ImportError:
        raise MissingExtra("pinecone", "pinecone", "an index in Pinecone") from None
    return RecordIndex(PineconeRecords(client, name), f"Pinecone's namespace {name!r}", header)


class PineconeRecords:
    """A RecordStore in a namespace. Fields and payload are metadata; "rid" repeats the id, by which filters can name it."""

    transactional = False

    def __init__(self, client: Any, namespace: str):
        self._client, self._namespace = client, namespace

    def atomically(self) -> AbstractContextManager[None]:
        """No transaction: each write is one."""
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        """No snapshot: each read sees what is stored by then."""
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids. ConfigError, before any is stored, if one is too large."""
        for each in records:
            size = len(each.payload) + sum(len(name) + len(str(value)) for name, value in each.fields.items())
            if size > MAX_METADATA_BYTES:
                raise ConfigError(
                    f"a record has {size} bytes beside its vector, and Pinecone holds {MAX_METADATA_BYTES}: "
                    "divide the document"
                )
        for page in record_pages(records, _PAGE):
            points = [
                {
                    "id": each.id,
                    "values": [1.0] if each.vector is None else each.vector.tolist(),
                    "metadata": {**each.fields, "payload": each.payload, "rid": each.id},
                }
                for each in page
            ]
            self._called("upsert", vectors=points)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        for first in range(0, len(ids), _PAGE):
            self._called("delete", ids=list(ids[first : first + _PAGE]))

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        found: dict[str, Record] = {}
        for first in range(0, len(ids), _PAGE):
            found |= _records(self._called("fetch", ids=list(ids[first : first + _PAGE])))
        return found

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        found: dict[str, Record] = {}
        token: str | None = None
        while True:
            more = {} if token is None else {"pagination_token": token}
            page = self._called("fetch_by_metadata", filter=_filter(condition), limit=_PAGE, **more)
            found |= _records(page)
            token = getattr(page.pagination, "next", None)
            if not token:
                return [*found.values()]

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        found = self._called("query", vector=vector.tolist(), top_k=min(k, 10_000), filter=_filter(condition))
        return [(match.id, float(match.score)) for match in found.matches]

    def close(self) -> None:
        """Leave the client to its owner."""

    def _called(self, method: str, **options: Any) -> Any:
        try:
            return getattr(self._client, method)(namespace=self._namespace, **options)
        except Exception as error:  # the client's, and those of its transport
            raise StoreError(f"Pinecone cannot {method} in {self._namespace!r}: {str(error)[:300]}") from error


def _filter(condition: Condition, *, holds: bool = True) -> dict[str, Any]:
    """Pinecone's filter for a condition, or for its negation, which Pinecone has only for single values."""
    if isinstance(condition, Not):
        return _filter(condition.condition, holds=not holds)
    if isinstance(condition, Match | Among):
        field, values = ("rid", condition.ids) if isinstance(condition, Among) else (condition.field, condition.values)
        if not values:
            return {"rid": {"$exists": not holds}}
        if holds:
            return {field: {"$in": list(values)}}
        return {"$or": [{field: {"$nin": list(values)}}, {field: {"$exists": False}}]}
    if isinstance(condition, Range):
        ends = {"$gte": condition.low, "$lte": condition.high}
        given = {sign: end for sign, end in ends.items() if end is not None}
        if holds:
            return {"$and": [{condition.field: {sign: end}} for sign, end in given.items()]}
        beyond = [{condition.field: {{"$gte": "$lt", "$lte": "$gt"}[sign]: end}} for sign, end in given.items()]
        return {"$or": [*beyond, {condition.field: {"$exists": False}}]}
    parts = [_filter(each, holds=holds) for each in condition.conditions]
    return {"$and" if isinstance(condition, Every) == holds else "$or": parts}


def _records(page: Any) -> dict[str, Record]:
    found = {}
    for id, point in page.vectors.items():
        fields = {name: value for name, value in dict(point.metadata or {}).items() if name != "rid"}
        payload = str(fields.pop("payload", ""))
        found[id] = stored_record("Pinecone's namespace", id, fields, payload, point.values)
    return found
