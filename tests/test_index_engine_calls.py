"""What the stores of Chroma and LanceDB ask of their engines: whole calls, page by page, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import engine_stand_ins
from engine_stand_ins import Chroma, Lance
from firsthand.errors import ConfigError, MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.chroma_index import ChromaRecords, open_chroma_index
from firsthand.retrieval.store.lance_index import LanceRecords, open_lance_index
from firsthand.retrieval.store.pinecone_index import open_pinecone_index
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, Some
from index_tiny import lines, unit
from pinecone_wire import Namespace

TWO = IndexHeader("tiny", "print", 2, "lines")
TERMS = IndexHeader("", "", 0, "lines")


def hexed(number: int) -> str:
    return f"{number:032x}"


def record(number: int, **fields: Any) -> Record:
    return Record(hexed(number), {"kind": "chunk", **fields}, f"p{number}", np.array([1.0, number / 4], np.float32))


RECORDS = [record(1, of="a", n_x=1.0), record(2, of="a", n_x=2.0), record(3, of="o'k", n_x=3.0),
           Record(hexed(4), {"kind": "document"}, "p4", np.array([0.5, 9.0], np.float32))]  # fmt: skip
SELECTED: list[tuple[Condition, str]] = [
    (Match("kind", ("chunk",)), "123"), (Match("of", ("o'k", "c")), "3"), (Match("of", ()), ""),
    (Range("n_x", 2.0, None), "23"), (Range("n_x", None, 2.0), "12"), (Range("n_x", 2.0, 2.5), "2"),
    (Range("n_x", 0.0, 0.0), ""), (Range("n_x", 0.0), "123"), (Range("n_x", None, 0.0), ""), (Range("n_x", 0.0, 2.0), "12"),
    (Not(Range("n_x", 0.0)), "4"), (Not(Range("n_x", None, 0.0)), "1234"), (Not(Range("n_x", 0.0, 2.0)), "34"),
    (Among((hexed(3), hexed(1))), "13"), (Among(()), ""), (Every(()), "1234"),
    (Not(Match("of", ("a",))), "34"), (Not(Range("n_x", None, 2.0)), "34"), (Some(()), ""),
    (Every((Match("of", ("a",)), Not(Range("n_x", 2.0)))), "1"), 
    (Some((Range("n_x", 3.0), Match("kind", ("document",)))), "34"),
]  # fmt: skip


@pytest.fixture
def stores() -> Iterator[Any]:
    """The modules in place, and a store of each."""
    with engine_stand_ins.modules(chromadb=engine_stand_ins.chroma(), **engine_stand_ins.lance()):
        yield SimpleNamespace(
            chroma=lambda: ChromaRecords(Chroma(), "r", TWO), lance=lambda: LanceRecords(Lance(), "r", TWO)
        )


@pytest.mark.parametrize("engine", ["chroma", "lance"])
def test_records_are_kept_selected_and_ranked(engine: str, stores: Any) -> None:
    store = getattr(stores, engine)()
    store.upsert(RECORDS)
    for condition, expected in SELECTED:
        assert sorted(each.id[-1] for each in store.select(condition)) == list(expected), condition
    found = store.get([hexed(3), hexed(8), hexed(1)])
    assert {id: (dict(each.fields), each.payload, each.vector) for id, each in found.items()} == {
        hexed(1): ({"kind": "chunk", "of": "a", "n_x": 1.0}, "p1", None),
        hexed(3): ({"kind": "chunk", "of": "o'k", "n_x": 3.0}, "p3", None),
    }
    (told,) = store.get([hexed(2)], vectors=True).values()
    assert told.vector.dtype == np.float32 and told.vector.tolist() == [1.0, 0.5] and told.id == hexed(2)
    (third,) = store.select(Match("of", ("o'k",)), vectors=True)
    assert third.vector.tolist() == [1.0, 0.75]
    query = np.array([0.5, 2.0], np.float32)
    assert store.nearest(query, 2, Match("kind", ("chunk",))) == [(hexed(3), 2.0), (hexed(2), 1.5)]
    assert store.nearest(query, 9, Range("n_x", None, 2.0)) == [(hexed(2), 1.5), (hexed(1), 1.0)]
    assert store.nearest(query, 2, Match("of", ("nobody",))) == []
    store.upsert([record(1, of="z"), Record(hexed(5), {"kind": "chunk"}, "none")])
    assert dict(store.get([hexed(1)])[hexed(1)].fields) == {"kind": "chunk", "of": "z"}
    assert store.get([hexed(5)], vectors=True)[hexed(5)].vector.tolist() == [1.0]
    store.remove([hexed(1), hexed(77), hexed(4)])
    store.remove([])
    store.upsert([])
    assert sorted(each.id[-1] for each in store.select(Every(()))) == ["2", "3", "5"] and store.get([]) == {}
    with store.atomically() as block:
        assert block is None and store.close() is None and store.transactional is False


@pytest.mark.parametrize("engine", ["chroma", "lance"])
def test_an_index_over_an_engine_finds_its_chunks(engine: str, stores: Any) -> None:
    client = Chroma() if engine == "chroma" else Lance()
    open_index: Callable[..., Any] = open_chroma_index if engine == "chroma" else open_lance_index
    name = "Chroma's collection 'c'" if engine == "chroma" else "LanceDB's table 'c'"
    index = open_index(client, "c", TWO)
    rows = unit(2, 5, 2)
    receipt = index.put([lines("a", ["the mill\n", "a river\n"], vectors=rows)])
    assert (receipt.failed, len(index)) == ((), 2)
    again = open_index(client, "c")
    assert again.header == TWO and [hit.chunk.text for hit in again.search_terms("river", 5, {})] == ["a river\n"]
    (best,) = again.search_vectors(rows[1], 1, {})
    assert (best.chunk.text, best.score) == ("a river\n", pytest.approx(1.0, abs=1e-3))
    with pytest.raises(ConfigError, match=f"^{name} was made with"):
        open_index(client, "c", TERMS)
    with pytest.raises(StoreError, match=r"has no (collection|table) 'd' \(.*\): give a header to make one$"):
        open_index(client, "d")


def test_an_index_in_a_namespace_of_pinecone_is_opened_by_its_name_and_a_missing_package_named() -> None:
    client = Namespace()
    with engine_stand_ins.modules(pinecone=ModuleType("pinecone")):
        index = open_pinecone_index(client, "space", TWO)
        assert index.put([lines("a", ["the mill\n", "a river\n"], vectors=unit(2, 5, 2))]).failed == ()
        again = open_pinecone_index(client, "space")
        assert again.header == TWO and [hit.chunk.text for hit in again.search_terms("river", 5, {})] == ["a river\n"]
        with pytest.raises(ConfigError, match=r"^Pinecone's namespace 'space' was made with"):
            open_pinecone_index(client, "space", TERMS)
        client.points.clear()
        with pytest.raises(StoreError, match=r"^no index at Pinecone's namespace 'space': give a header to make one$"):
            open_pinecone_index(client, "space")
    with engine_stand_ins.modules(pinecone=None), pytest.raises(MissingExtra, match="an index in Pinecone"):
        open_pinecone_index(client, "space", TWO)


def test_chroma_is_asked_page_by_page(stores: Any) -> None:
    client = Chroma()
    store, many = ChromaRecords(client, "r", TWO), [record(n, n_x=float(n)) for n in range(1, 1002)]
    assert client.made == {
        "r": {
            "embedding_function": None,
            "configuration": {"hnsw": {"space": "ip", "ef_search": 500, "ef_construction": 200}},
        }
    }
    calls = client.collections["r"].calls
    store.upsert(many)
    assert calls == [("get", 500), ("upsert", 500), ("get", 500), ("upsert", 500), ("get", 1), ("upsert", 1)]
    calls.clear()
    ids = [each.id for each in many]
    assert [*store.get(ids)] == ids and calls == [("get", 500), ("get", 500), ("get", 1)]
    calls.clear()
    assert len(store.nearest(np.ones(2, np.float32), 3, Range("n_x", 2.0))) == 3 and calls[-1] == ("query", 3)
    assert len(store.nearest(np.ones(2, np.float32), 9, Range("n_x", None, 4.0))) == 4 and calls[-1] == ("query", 4)
    calls.clear()
    assert store.nearest(np.ones(2, np.float32), 9, Match("kind", ())) == [] and calls == []
    store.remove([*ids[:-1], hexed(9999)])
    assert calls == [("get", 500), ("get", 500), ("get", 1), ("delete", 500), ("delete", 500)]
    assert [*client.collections["r"].rows] == [ids[-1]]
    with pytest.raises(StoreError, match=r"^Chroma cannot query in 'r': shapes \(2,\) and \(3,\) not aligned"):
        store.nearest(np.ones(3, np.float32), 1, Every(()))
    client.collections["r"].delete = lambda **options: 1 // 0
    with pytest.raises(StoreError, match=r"^Chroma cannot delete in 'r': integer division or modulo by zero$"):
        store.remove(ids)


def test_a_folder_of_chroma_is_opened_without_telemetry_and_a_missing_package_named(
    tmp_path: Path, stores: Any
) -> None:
    opened: list[Any] = []
    import chromadb

    made = Chroma()
    chromadb.PersistentClient = lambda *given: (opened.append(given), made)[1]  # type: ignore[misc,assignment]
    for place in (tmp_path / "c", "plain"):
        ChromaRecords(place, "r", TWO)
    assert opened == [
        (str(tmp_path / "c"), {"anonymized_telemetry": False}),
        ("plain", {"anonymized_telemetry": False}),
    ]
    assert ChromaRecords(made, "r", None)._collection is made.collections["r"] and len(opened) == 2
    with engine_stand_ins.modules(chromadb=None), pytest.raises(MissingExtra) as missing:
        ChromaRecords(made, "r", TWO)
    assert "an index in Chroma" in str(missing.value) and "chroma" in str(missing.value)


def test_lance_is_asked_page_by_page_and_its_table_has_a_column_for_each_part(tmp_path: Path, stores: Any) -> None:
    client = Lance()
    store, many = LanceRecords(client, "r", TWO), [record(n) for n in range(1, 2002)]
    texts = [("field", name, "string") for name in ("id", "kind", "of", "searchable", "text", "fields", "payload")]
    tags = ("field", "tags", ("list_", "string"))
    assert client.schemas["r"] == [*texts, tags, ("field", "vector", ("list_", "float32", 2))]
    LanceRecords(client, "t", TERMS)
    assert client.schemas["t"][-1] == ("field", "vector", ("list_", "float32", 1))
    calls = client.tables["r"].calls
    store.upsert(many)
    ids = [each.id for each in many]
    assert [*store.get(ids)] == ids and len(store.select(Every(()))) == 2001
    store.nearest(np.ones(2, np.float32), 7, Every(()))
    store.remove(ids[1:])
    assert calls == [
        ("write", 2001), *[("read", 2001)] * 4, ("nearest", 7), ("delete", 1000), ("delete", 1000)
    ]  # fmt: skip
    assert [each.id for each in store.select(Every(()))] == ids[:1]
    store.remove(ids[:1])
    assert store.select(Every(())) == [] and calls[-1] == ("read", 1)  # a limit of no rows is refused
    with pytest.raises(StoreError, match=r"^LanceDB cannot search in 'r': "):
        store._table.search = None
        store.nearest(np.ones(2, np.float32), 7, Every(()))
    with pytest.raises(StoreError, match=r"^LanceDB cannot read in 'r': "):
        store.select(Every(()))
    for what, act in (("write", lambda: store.upsert(many[:1])), ("delete", lambda: store.remove(ids))):
        store._table = None
        with pytest.raises(StoreError, match=f"^LanceDB cannot {what} in 'r': 'NoneType' object has no attribute"):
            act()


def test_a_place_of_lance_is_connected_so_that_others_writes_are_seen(tmp_path: Path, stores: Any) -> None:
    import lancedb

    connected: list[Any] = []
    made = Lance()
    lancedb.connect = lambda *given, **options: (connected.append((given, options)), made)[1]
    for place in (tmp_path / "l", "s3://bucket/x"):
        LanceRecords(place, "r", TWO)
    at_once = {"read_consistency_interval": timedelta(0)}
    assert connected == [((str(tmp_path / "l"),), at_once), (("s3://bucket/x",), at_once)]
    assert LanceRecords(made, "r", None)._table is made.tables["r"]
    with pytest.raises(StoreError, match=r"^LanceDB has no table 'none' \('none'\): give a header to make one$"):
        LanceRecords(made, "none", None)
    for name in ("lancedb", "pyarrow"):
        with engine_stand_ins.modules(**{name: None}), pytest.raises(MissingExtra, match="an index in LanceDB"):
            LanceRecords(made, "r", TWO)


def test_chroma_is_read_again_where_a_record_was_removed_meanwhile_and_other_errors_end_a_read(stores: Any) -> None:
    store, query = stores.chroma(), np.ones(2, np.float32)
    store.upsert(RECORDS)
    collection = store._collection
    errors: list[str] = []

    def failing(plain: Any) -> Any:
        def called(**given: Any) -> Any:
            if errors:
                raise ValueError(errors.pop())
            return plain(**given)

        return called

    plain_query, collection.get = collection.query, failing(collection.get)
    reads: list[tuple[Any, Callable[[], Any]]] = [
        (failing(plain_query), lambda: store.nearest(query, 1, Among((hexed(1),)))),
        (plain_query, lambda: store.get([hexed(2)], vectors=True)),
        (plain_query, lambda: store.select(Match("of", ("o'k",)))),
    ]
    for collection.query, read in reads:
        for times, text, ends in ((7, "Error finding id", False), (8, "Error finding id", True), (1, "no table", True)):
            errors += [text] * times
            if ends:
                with pytest.raises(StoreError, match=text):
                    read()
            else:
                assert len(read()) == 1
            assert errors == []


def test_chroma_is_asked_for_ten_thousand_values_of_a_filter_at_once(stores: Any) -> None:
    store = stores.chroma()
    store.upsert(RECORDS)
    calls = store._collection.calls
    calls.clear()
    values = tuple(f"v{n}" for n in range(20_000))
    assert [each.id for each in store.select(Match("of", ("a", *values, "o'k")))] == [hexed(1), hexed(2), hexed(3)]
    assert calls == [("get", -1)] * 3 + [("get", 3)]
