"""The calls that an index makes of Qdrant's client, which notes them and answers: collections, pages, filters, exactness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store import qdrant_index
from firsthand.retrieval.store.qdrant_index import QdrantRecords
from firsthand.retrieval.store.records import Among, Every, Match, Not, Range, Record, Some

models = pytest.importorskip("qdrant_client.models", reason="this engine has no client here")
IDS = [f"{n:032x}" for n in range(1, 6)]
UUIDS = [str(UUID(id)) for id in IDS]


class Noting:
    """A client whose answers are given by method, in order."""

    def __init__(self, **answers: list[Any]):
        self.answers = answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        def called(*given: Any, **options: Any) -> Any:
            self.asked.append((method, given, options))
            found = self.answers[method].pop(0) if self.answers.get(method) else None
            if isinstance(found, Exception):
                raise found
            return found

        return called


def records(client: Noting, header: IndexHeader | None = None) -> QdrantRecords:
    client.answers.setdefault("collection_exists", [True])
    made = QdrantRecords(client, "shelf", header)  # type: ignore[arg-type]
    client.asked.clear()
    return made


def test_a_collection_is_made_with_dot_products_and_an_index_of_each_field_that_filters_read() -> None:
    for dimension, size in ((0, 1), (1, 1), (7, 7)):
        client = Noting(collection_exists=[False])
        QdrantRecords(client, "shelf", IndexHeader("e", "f", dimension, "c"))  # type: ignore[arg-type]
        keyword = models.PayloadSchemaType.KEYWORD
        assert client.asked == [
            ("collection_exists", ("shelf",), {}),
            ("create_collection", ("shelf", models.VectorParams(size=size, distance=models.Distance.DOT)), {}),
            *(
                ("create_payload_index", ("shelf", field, keyword), {})
                for field in ("kind", "of", "searchable", "text")
            ),
        ]
    client = Noting(collection_exists=[True])
    QdrantRecords(client, "shelf", None)  # type: ignore[arg-type]
    assert [each[0] for each in client.asked] == ["collection_exists"]
    with pytest.raises(StoreError, match=r"^Qdrant has no collection 'shelf': give a header to make one$"):
        QdrantRecords(Noting(collection_exists=[False]), "shelf", None)  # type: ignore[arg-type]
    gone = Noting(collection_exists=[RuntimeError("x" * 400)])
    with pytest.raises(StoreError) as error:
        QdrantRecords(gone, "shelf", None)  # type: ignore[arg-type]
    assert str(error.value) == f"Qdrant cannot collection_exists in 'shelf': {'x' * 300}"


def test_records_are_written_read_and_removed_in_pages_and_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_index, "_PAGE", 2)

    def point(at: int, payload: Any = None, vector: Any = None) -> Any:
        return SimpleNamespace(id=UUIDS[at], payload=payload, vector=vector)

    client = Noting(
        retrieve=[[point(1, {"payload": "P", "n": 2}), point(0, None, [1, 2])], []],
        scroll=[([point(4, {"payload": "a"})], UUIDS[3]), ([point(3, {"n": 1.5}, [3])], None)],
        query_points=[
            SimpleNamespace(points=[SimpleNamespace(id=UUIDS[at], score=score) for at, score in ((2, 3), (0, -1.5))])
        ],
    )  # fmt: skip
    store = records(client)
    vector = np.array([0.5, 2], np.float32)
    store.upsert(
        [
            Record(IDS[0], {"n": 1.0}, "A", vector),
            Record(IDS[1], {"kind": "k"}, "B"),
            Record(IDS[2], {}, "", vector[:1]),
        ]
    )
    points = [(UUIDS[0], [0.5, 2], {"n": 1.0, "payload": "A"}), (UUIDS[1], [1.0], {"kind": "k", "payload": "B"}),
              (UUIDS[2], [0.5], {"payload": ""})]  # fmt: skip
    sent = [[(each.id, each.vector, each.payload) for each in given[1]] for _, given, _ in client.asked]
    assert sent == [points[:2], points[2:]]
    assert [(name, given[0], options) for name, given, options in client.asked] == [
        ("upsert", "shelf", {"wait": True})
    ] * 2
    client.asked.clear()
    store.remove(IDS[:3]), store.remove([])
    assert client.asked == [("delete", ("shelf", UUIDS[:3]), {"wait": True})]
    client.asked.clear()
    found = store.get(IDS[:3], vectors=True)
    assert [(each.id, each.fields, each.payload) for each in found.values()] == [
        (IDS[1], {"n": 2}, "P"),
        (IDS[0], {}, ""),
    ]
    assert (
        found[IDS[1]].vector is None and found[IDS[0]].vector is not None and found[IDS[0]].vector.dtype == np.float32
    )
    options = {"with_payload": True, "with_vectors": True}
    assert client.asked == [("retrieve", ("shelf", UUIDS[:2]), options), ("retrieve", ("shelf", UUIDS[2:3]), options)]
    client.asked.clear()
    held = store.select(Match("n", ("x", "y")))
    assert [(each.id, each.fields, each.payload) for each in held] == [(IDS[4], {}, "a"), (IDS[3], {"n": 1.5}, "")]
    matched = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchAny(any=["x", "y"]))])
    page = {"limit": 2, "with_payload": True, "with_vectors": False}
    assert client.asked == [("scroll", ("shelf", matched), {**page, "offset": offset}) for offset in (None, UUIDS[3])]
    client.asked.clear()
    assert store.nearest(vector, 7, Among((IDS[0],))) == [(IDS[2], 3.0), (IDS[0], -1.5)]
    [(name, given, options)] = client.asked
    assert (name, given, options["limit"], options["with_payload"]) == ("query_points", ("shelf", [0.5, 2]), 7, False)
    assert options["search_params"] == models.SearchParams(exact=True)
    assert options["query_filter"] == models.Filter(must=[models.HasIdCondition(has_id=[UUIDS[0]])])
    store.close()
    assert len(client.asked) == 1, "the client is its owner's"


def test_conditions_are_filters_of_qdrant() -> None:
    store = records(Noting())
    match, span = Match("a", ("x",)), Range("n", 0.0, None)
    one = models.Filter(must=[models.FieldCondition(key="a", match=models.MatchAny(any=["x"]))])
    two = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=0.0, lte=None))])
    assert store._filter(match) == one and store._filter(span) == two
    assert store._filter(Range("n", None, 0.0)).must[0].range == models.Range(lte=0.0)
    assert store._filter(Every((match, span))) == models.Filter(must=[one, two])
    assert store._filter(Some((span, match))) == models.Filter(should=[two, one])
    assert store._filter(Not(span)) == models.Filter(must_not=[two])
    assert store._filter(Every(())) == models.Filter(must=[])


def test_a_client_in_local_mode_is_asked_by_one_thread_at_a_time() -> None:
    class QdrantLocal:
        pass

    class Local(Noting):
        _client = QdrantLocal()

        def __getattr__(self, method: str) -> Any:
            held.append(qdrant_index._LOCAL._is_owned())  # type: ignore[attr-defined]
            return super().__getattr__(method)

    held: list[bool] = []
    store = records(Local())
    store.remove(IDS)
    assert store._alone is qdrant_index._LOCAL and held == [True, True]
    assert records(Noting())._alone is not qdrant_index._LOCAL and not qdrant_index._LOCAL._is_owned()  # type: ignore[attr-defined]
