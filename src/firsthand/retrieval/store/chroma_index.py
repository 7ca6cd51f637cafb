"""An index in a Chroma collection in a folder, or on a server through its HTTP client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from firsthand.errors import MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.record_payloads import stored_record
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, record_pages

_PAGE = 500
_VALUES = 10_000
"""Values of a filter in one call: SQLite, in which Chroma looks them up, takes 32,766."""
_TRIES = 8
T = TypeVar("T")


def open_chroma_index(client: Any, name: str, header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in the collection of that name; with a header, make it if it is not there.

    `client` is a Chroma client, or the path of the folder that an embedded one keeps its files in.
    """
    return RecordIndex(ChromaRecords(client, name, header), f"Chroma's collection {name!r}", header)


class ChromaRecords:
    """A RecordStore in a collection. A condition is first resolved to ids, as Chroma's filters cannot negate all of ours."""

    transactional = False

    def __init__(self, client: Any, name: str, header: IndexHeader | None):
        try:
            import chromadb
        except ImportError:
            raise MissingExtra("chromadb", "chroma", "an index in Chroma") from None
        if isinstance(client, str | Path):
            settings = chromadb.Settings(anonymized_telemetry=False)
            client = chromadb.PersistentClient(str(client), settings)
        self._name = name
        try:
            if header is None:
                self._collection = client.get_collection(name, embedding_function=None)
            else:
                configuration = {"hnsw": {"space": "ip", "ef_search": 500, "ef_construction": 200}}
                self._collection = client.get_or_create_collection(
                    name, embedding_function=None, configuration=configuration
                )
        except Exception as error:
            raise StoreError(f"Chroma has no collection {name!r} ({error}): give a header to make one") from error

    def atomically(self) -> AbstractContextManager[None]:
        """No transaction: each write is one."""
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        """No snapshot: each read sees what is stored by then."""
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids, each page in one step.

        Chroma keeps fields that are not given, so a record that has such a field is removed first.
        """
        for page in record_pages(records, _PAGE):
            ids = [each.id for each in page]
            there = self._got(ids=ids, include=["metadatas"])
            kept = dict(zip(there["ids"], there["metadatas"], strict=True))
            self.remove([each.id for each in page if not (kept.get(each.id) or {}).keys() <= each.fields.keys()])
            self._called(
                "upsert",
                ids=ids,
                embeddings=[[1.0] if each.vector is None else each.vector.tolist() for each in page],
                metadatas=[dict(each.fields) for each in page],
                documents=[each.payload for each in page],
            )

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        there = [
            id for first in range(0, len(ids), _PAGE) for id in self._got(ids=list(ids[first : first + _PAGE]))["ids"]
        ]
        for first in range(0, len(there), _PAGE):
            self._called("delete", ids=there[first : first + _PAGE])

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        return self._again(lambda: self._get(ids, vectors))

    def _get(self, ids: Sequence[str], vectors: bool) -> dict[str, Record]:
        found: dict[str, Record] = {}
        include = ["metadatas", "documents", *(["embeddings"] if vectors else [])]
        for first in range(0, len(ids), _PAGE):
            body = self._got(ids=list(ids[first : first + _PAGE]), include=include)
            for place, id in enumerate(body["ids"]):
                vector = body["embeddings"][place] if vectors else None
                fields, payload = body["metadatas"][place], body["documents"][place]
                found[id] = stored_record("Chroma's collection", id, fields, payload, vector)
        return found

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        return [*self._again(lambda: self._get(sorted(self._ids(condition)), vectors)).values()]

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        return self._again(lambda: self._nearest(vector, k, condition))

    def _nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        ids = sorted(self._ids(condition))
        if not ids:
            return []
        found = self._called(
            "query", query_embeddings=[vector.tolist()], n_results=min(k, len(ids)), ids=ids, include=["distances"]
        )
        best = [(id, 1.0 - float(far)) for id, far in zip(found["ids"][0], found["distances"][0], strict=True)]
        return best if len(best) == min(k, len(ids)) else self._nearest_of_all(vector, k, ids)

    def _nearest_of_all(self, vector: Vectors, k: int, ids: Sequence[str]) -> list[tuple[str, float]]:
        """The same from the vectors themselves, where a graph that updates have worn leads to fewer."""
        there = self._get(ids, vectors=True)
        scores = [(id, float(each.vector @ vector)) for id, each in there.items() if each.vector is not None]
        return sorted(scores, key=lambda pair: (-pair[1], pair[0]))[:k]

    def close(self) -> None:
        """Leave the client to its owner."""

    def _ids(self, condition: Condition) -> set[str]:
        if isinstance(condition, Every):
            found = [self._ids(each) for each in condition.conditions]
            return set.intersection(*found) if found else self._all()
        if isinstance(condition, Not):
            return self._all() - self._ids(condition.condition)
        if isinstance(condition, Among):
            return set(condition.ids)
        if isinstance(condition, Match):
            pages = [condition.values[first : first + _VALUES] for first in range(0, len(condition.values), _VALUES)]
            return {id for page in pages for id in self._got(where={condition.field: {"$in": list(page)}})["ids"]}
        if isinstance(condition, Range):
            ends = [(sign, end) for sign, end in (("$gte", condition.low), ("$lte", condition.high)) if end is not None]
            found = [set(self._got(where={condition.field: {sign: end}})["ids"]) for sign, end in ends]
            return set.intersection(*found)
        return set().union(*(self._ids(each) for each in condition.conditions))

    def _all(self) -> set[str]:
        return set(self._got()["ids"])

    def _got(self, *, include: Sequence[str] = (), **options: Any) -> Any:
        return self._called("get", include=list(include), **options)

    def _again(self, read: Callable[[], T]) -> T:
        """The result of a read, which is made anew where a record was removed during it: Chroma then refuses it whole."""
        for _ in range(_TRIES - 1):
            try:
                return read()
            except StoreError as error:
                if "Error finding id" not in str(error):
                    raise
        return read()

    def _called(self, method: str, **options: Any) -> Any:
        try:
            return getattr(self._collection, method)(**options)
        except Exception as error:  # Chroma's, and those of its transports
            raise StoreError(f"Chroma cannot {method} in {self._name!r}: {str(error)[:300]}") from error
