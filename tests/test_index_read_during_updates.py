"""Documents that another program updates between two questions of a read are found in their old or new version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, Vectors
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.postgres_index import PostgresRecords, open_postgres_index
from firsthand.retrieval.store.record_index import _READS, RecordIndex
from firsthand.retrieval.store.records import Condition, Record, RecordStore
from index_postgres import postgres  # noqa: F401
from listed_records import ListedRecords

HEADER = IndexHeader("m", "f", 2, "lines")
QUERY = np.array([1, 0], np.float32)


def version(id: str, number: int) -> IndexedDocument:
    """A document of two chunks, the first of which is the same in all versions."""
    head, tail = f"fox {id}\n", f"hen number {number}\n"
    document = Document(id, head + tail)
    chunks = [Chunk(id, 0, len(head), head), Chunk(id, len(head), len(head + tail), tail)]
    return IndexedDocument(document, chunks, vectors=np.array([[1, 0], [0.6, 0.8]], np.float32))


class Watched:
    """A store that calls `between` before each read, with the read's number."""

    def __init__(self, store: RecordStore):
        self.store = store
        self.between: Callable[[int], None] = lambda number: None
        self.reads = 0

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        self._read()
        return self.store.get(ids, vectors=vectors)

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        self._read()
        return self.store.select(condition, vectors=vectors)

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        self._read()
        return self.store.nearest(vector, k, condition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def _read(self) -> None:
        self.reads += 1
        self.between(self.reads)


def found_all(index: RecordIndex) -> dict[str, Callable[[], bool]]:
    """Reads of an index of the documents a and b, which are true if they find all of both."""
    both = {("a", 0), ("a", 6), ("b", 0), ("b", 6)}

    def places(hits: Sequence[Any]) -> bool:
        return {(hit.chunk.document, hit.chunk.start) for hit in hits} == both and len(hits) == 4

    first = version("a", 1).chunks[0].id
    return {
        "terms": lambda: places(index.search_terms("fox hen", 9, {})),
        "filtered": lambda: places(index.search_terms("fox hen", 9, {"document": ["a", "b"]})),
        "vectors": lambda: places(index.search_vectors(QUERY, 9, {})),
        "chunks": lambda: [each.start for each in index.chunks("a")] == [0, 6],
        "chunk": lambda: index.chunk(first).text == "fox a\n",
        "vector": lambda: index.vectors([first]).tolist() == [[1, 0]],
    }


@pytest.mark.parametrize("times", [1, 3, _READS - 1])
def test_a_read_finds_documents_that_are_updated_between_its_questions(times: int) -> None:
    for name in found_all(RecordIndex(ListedRecords(), "the shelf", HEADER)):
        for first in range(1, 7):
            store = ListedRecords()
            writer = RecordIndex(store, "the shelf", HEADER)
            writer.put([version("a", 1), version("b", 1)])
            watched = Watched(store)
            reader = RecordIndex(watched, "the shelf", None)
            watched.reads = 0

            def update(number: int, first: int = first, writer: RecordIndex = writer) -> None:
                if first <= number < first + times:
                    writer.put([version("a", 1 + number)])

            watched.between = update
            assert found_all(reader)[name](), (name, first)


def test_a_read_ends_where_documents_are_updated_without_end_or_left_half_stored() -> None:
    store = ListedRecords()
    writer = RecordIndex(store, "the shelf", HEADER)
    writer.put([version("a", 1), version("b", 1)])
    watched = Watched(store)
    reader = RecordIndex(watched, "the shelf", None)
    watched.reads = 0
    assert found_all(reader)["vectors"]() and watched.reads == 3, "nearest, get, owners: once where nothing changes"
    watched.between = lambda number: writer.put([version("a", 9 + number)]) and None
    reader.search_vectors(QUERY, 9, {})
    assert watched.reads <= 3 + 3 * _READS
    watched.between = lambda number: None
    left = [each for each in store.records.values() if each.fields.get("kind") == "chunk"]
    store.upsert([Record(f"{number:032x}", {**left[0].fields, "version": "x"}, left[0].payload, left[0].vector)
                  for number in range(3)])  # fmt: skip
    watched.reads = 0
    assert found_all(reader)["vectors"]() and watched.reads == 6, "what is stale twice is a leftover"


def test_a_read_of_postgres_sees_one_state_of_the_index(postgres: str) -> None:  # noqa: F811
    name = "t" + uuid4().hex
    writer = open_postgres_index(postgres, name, HEADER)
    writer.put([version("a", 0), version("b", 0)])
    watched = Watched(PostgresRecords(postgres, name, None))
    reader = RecordIndex(watched, "the table", None)
    watched.between = lambda number: writer.put([version("a", number)]) and None
    for what, finds in found_all(reader).items():
        watched.reads += 100
        assert all(finds() for _ in range(3)), what
    assert reader.verify() == []
    before = len(writer)
    writer.put([version("c", 1)])
    assert len(reader) == before + 2, "the next read sees what came after"
    writer.close()
    reader.close()
