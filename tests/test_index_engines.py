"""Each engine's own layer below RecordIndex: conditions in its language, pages, records there and back, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store import lance_index, pinecone_index
from firsthand.retrieval.store.lance_index import LanceRecords
from firsthand.retrieval.store.pinecone_index import MAX_METADATA_BYTES, PineconeRecords
from firsthand.retrieval.store.postgres_index import _text, _where
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, RecordStore, Some
from listed_records import holds
from pinecone_wire import Namespace

TWO = IndexHeader("tiny", "print", 2, "lines")


def hexed(number: int) -> str:
    return f"{number:032x}"


def record(number: int, **fields: Any) -> Record:
    vector = np.array([1.0, number / 4], np.float32)
    return Record(hexed(number), {"kind": "chunk", **fields}, f"payload {number}", vector)


RECORDS = [
    record(1, of="a", searchable="1", n_x=1.0, v_t="4:o'k"),
    record(2, of="a", searchable="0", n_x=2.0),
    record(3, of="b", searchable="1", n_x=3.0, v_t="4:b"),
    Record(hexed(4), {"kind": "document"}, "payload 4", np.array([0.5, 9.0], np.float32)),
]
CONDITIONS: list[Condition] = [
    Match("kind", ("chunk",)),
    Match("of", ("a", "c")),
    Match("of", ()),
    Match("v_t", ("4:o'k", "4:x")),
    Range("n_x", 2.0, None),
    Range("n_x", None, 2.0),
    Range("n_x", 2.0, 2.5),
    Range("n_x", 0.0, None),
    Range("n_x", None, 0.0),
    Range("n_x", 0.0, 2.0),
    Range("n_x", -1.0, 0.0),
    Not(Range("n_x", 0.0, None)),
    Not(Range("n_x", None, 0.0)),
    Among((hexed(3), hexed(9))),
    Among(()),
    Not(Match("of", ("a",))),
    Not(Match("of", ())),
    Not(Range("n_x", 2.0, 2.0)),
    Not(Among((hexed(1),))),
    Not(Not(Match("of", ("b",)))),
    Every((Match("kind", ("chunk",)), Not(Range("n_x", 3.0, None)))),
    Not(Every((Match("kind", ("chunk",)), Match("of", ("a",))))),
    Some((Match("of", ("b",)), Match("kind", ("document",)))),
    Not(Some((Match("of", ("b",)), Range("n_x", None, 1.0)))),
]


def pinecone(folder: Path) -> RecordStore:
    return PineconeRecords(Namespace(), "space")


def qdrant(folder: Path) -> RecordStore:
    client = pytest.importorskip("qdrant_client", reason="this engine has no client here")
    from firsthand.retrieval.store.qdrant_index import QdrantRecords

    return QdrantRecords(client.QdrantClient(":memory:"), "records", TWO)


def lance(folder: Path) -> RecordStore:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    return LanceRecords(folder / "lance", "records", TWO)


def chroma(folder: Path) -> RecordStore:
    pytest.importorskip("chromadb", reason="chromadb is not installed")
    from firsthand.retrieval.store.chroma_index import ChromaRecords

    return ChromaRecords(folder / "chroma", "records", TWO)


@pytest.mark.parametrize(
    "engine", [pinecone, qdrant, *(pytest.param(each, marks=pytest.mark.slow) for each in (chroma, lance))]
)
@pytest.mark.filterwarnings("ignore")
def test_an_engine_keeps_records_and_selects_those_for_which_a_condition_holds(
    engine: Callable[[Path], RecordStore], tmp_path: Path
) -> None:
    store = engine(tmp_path)
    store.upsert(RECORDS)
    for condition in CONDITIONS:
        expected = {each.id for each in RECORDS if holds(condition, each)}
        assert {each.id for each in store.select(condition)} == expected, condition
    found = store.get([hexed(3), hexed(8), hexed(1)], vectors=True)
    assert sorted(found) == [hexed(1), hexed(3)]
    for id, each in found.items():
        [wanted] = [one for one in RECORDS if one.id == id]
        assert (each.id, dict(each.fields), each.payload) == (id, dict(wanted.fields), wanted.payload)
        assert each.vector is not None and each.vector.dtype == np.float32
        assert each.vector.tolist() == wanted.vector.tolist()  # type: ignore[union-attr]
    [selected] = store.select(Match("of", ("b",)), vectors=True)
    assert selected.vector is not None and selected.vector.tolist() == [1.0, 0.75]
    query = np.array([0.5, 2.0], np.float32)
    assert store.nearest(query, 2, Match("kind", ("chunk",))) == [(hexed(3), 2.0), (hexed(2), 1.5)]
    assert store.nearest(query, 9, Range("n_x", None, 2.0)) == [(hexed(2), 1.5), (hexed(1), 1.0)]
    assert store.nearest(query, 2, Match("of", ("nobody",))) == []
    store.upsert([record(1, of="z")])  # in place of the old one, with its fields
    assert dict(store.get([hexed(1)])[hexed(1)].fields) == {"kind": "chunk", "of": "z"}
    store.remove([hexed(1), hexed(77), hexed(4)])
    store.remove([])
    assert sorted(each.id for each in store.select(Every(()) if engine is not pinecone else Some(
        (Match("kind", ("chunk", "document")),)))) == [hexed(2), hexed(3)]  # fmt: skip
    assert store.get([]) == {}
    with store.atomically():
        store.close()


@pytest.mark.slow
def test_qdrant_writes_removes_and_reads_more_than_a_page(tmp_path: Path) -> None:
    store = qdrant(tmp_path)
    many = [record(n, of="a" if n % 2 else "b") for n in range(1, 1204)]
    store.upsert(many)
    assert len(store.get([each.id for each in many])) == 1203
    assert len(store.select(Match("kind", ("chunk",)))) == 1203
    store.remove([each.id for each in many[:-1]])
    assert [each.id for each in store.select(Match("kind", ("chunk",)))] == [hexed(1203)]
    from firsthand.retrieval.store.qdrant_index import QdrantRecords, open_qdrant_index

    client = store._client  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match=r"^Qdrant has no collection 'other': give a header to make one$"):
        QdrantRecords(client, "other", None)
    with pytest.raises(StoreError, match=r"^Qdrant cannot query_points in 'records': "):
        store.nearest(np.ones(3, np.float32), 1, Match("kind", ("chunk",)))
    terms = IndexHeader("", "", 0, "lines")
    index = open_qdrant_index(client, "terms", terms)
    assert open_qdrant_index(client, "terms").header == terms and index.header == terms
    assert client.get_collection("terms").config.params.vectors.size == 1
    with pytest.raises(ConfigError, match=r"^Qdrant's collection 'terms' was made with"):
        open_qdrant_index(client, "terms", TWO)


def test_pinecone_is_asked_page_by_page_and_refuses_a_record_beyond_its_room() -> None:
    client = Namespace()
    store = PineconeRecords(client, "space")
    many = [record(n) for n in range(1, 202)]
    store.upsert(many)
    assert client.calls == [("upsert", 100), ("upsert", 100), ("upsert", 1)]
    client.calls.clear()
    ids = [each.id for each in many]
    assert [*store.get(ids)] == ids and [each.id for each in store.select(Match("kind", ("chunk",)))] == ids
    store.nearest(np.ones(2, np.float32), 20_000, Match("kind", ("chunk",)))
    store.remove(ids)
    assert client.calls == [
        *[("fetch", 100)] * 2,
        ("fetch", 1),
        ("query", 10_000),
        *[("delete", 100)] * 2,
        ("delete", 1),
    ]
    assert not client.points
    client.calls.clear()
    room = MAX_METADATA_BYTES - len("kind" + "chunk" + "n" + "2.5")
    fits = Record(hexed(1), {"kind": "chunk", "n": 2.5}, "x" * room)
    over = Record(hexed(2), {"kind": "chunk", "n": 2.5}, "x" * (room + 1))
    with pytest.raises(
        ConfigError, match=r"^a record has 40001 bytes beside its vector, and Pinecone holds 40000: divide"
    ):
        store.upsert([fits, over])
    assert client.calls == []
    store.upsert([fits])
    assert client.points[hexed(1)].values == [1.0]
    assert client.points[hexed(1)].metadata == {"kind": "chunk", "n": 2.5, "payload": "x" * room, "rid": hexed(1)}
    with pytest.raises(StoreError, match=r"^Pinecone cannot query in 'space': "):
        store.nearest(np.ones(3, np.float32), 1, Match("kind", ("chunk",)))


def test_pinecones_filter_of_an_empty_match_is_never_or_always_true() -> None:
    assert pinecone_index._filter(Match("of", ())) == {"rid": {"$exists": False}}
    assert pinecone_index._filter(Not(Among(()))) == {"rid": {"$exists": True}}
    missing = {"n": {"$exists": False}}
    for low, high, within, beyond in (
        (0.0, None, [{"n": {"$gte": 0.0}}], [{"n": {"$lt": 0.0}}]),
        (None, 0.0, [{"n": {"$lte": 0.0}}], [{"n": {"$gt": 0.0}}]),
        (0.0, 0.0, [{"n": {"$gte": 0.0}}, {"n": {"$lte": 0.0}}], [{"n": {"$lt": 0.0}}, {"n": {"$gt": 0.0}}]),
    ):
        assert pinecone_index._filter(Range("n", low, high)) == {"$and": within}
        assert pinecone_index._filter(Not(Range("n", low, high))) == {"$or": [*beyond, missing]}
    assert pinecone_index._filter(Not(Range("n", 1.0, 2.0))) == {
        "$or": [{"n": {"$lt": 1.0}}, {"n": {"$gt": 2.0}}, {"n": {"$exists": False}}]
    }


def test_postgres_conditions_are_sql_with_their_values_in_order() -> None:
    among = ("id = ANY(%s)", [["x", "y"]])
    assert _where(Among(("x", "y"))) == among
    assert _where(Match("of", ("a",))) == ("coalesce(fields ->> %s = ANY(%s), false)", ["of", ["a"]])
    assert _where(Range("n", 1.0, 2.0)) == (
        "coalesce(fields ? %s AND (fields ->> %s)::float8 >= %s::float8 AND (fields ->> %s)::float8 <= %s::float8, false)",
        ["n", "n", 1.0, "n", 2.0],
    )
    assert _where(Range("n", None, 0.0)) == (
        "coalesce(fields ? %s AND (fields ->> %s)::float8 <= %s::float8, false)",
        ["n", "n", 0.0],
    )
    assert _where(Range("n", 0.0)) == (
        "coalesce(fields ? %s AND (fields ->> %s)::float8 >= %s::float8, false)",
        ["n", "n", 0.0],
    )
    assert _where(Not(Among(("x", "y")))) == ("NOT (id = ANY(%s))", among[1])
    both = (Match("of", ("a",)), Among(("z",)))
    values = ["of", ["a"], ["z"]]
    left, right = "(coalesce(fields ->> %s = ANY(%s), false))", "(id = ANY(%s))"
    assert _where(Every(both)) == (f"{left} AND {right}", values)
    assert _where(Some(both)) == (f"{left} OR {right}", values)
    assert _where(Every(())) == ("true", [])
    assert _text(None) is None and _text(np.array([0.5, -2.0], np.float32)) == "[0.5, -2.0]"


def test_a_name_that_is_no_postgres_schema_is_refused_before_anything_is_connected() -> None:
    pytest.importorskip("psycopg", reason="this engine has no client here")
    from firsthand.retrieval.store.postgres_index import PostgresRecords

    for name in ("a-b", "", "1a", "é", "a" * 49):
        with pytest.raises(
            ConfigError, match="is no name for a schema: give letters, digits and underscores, 48 at most"
        ):
            PostgresRecords("host=/nowhere dbname=x", name, TWO)
    with pytest.raises(StoreError, match=r"^PostgreSQL's index 'a{48}' cannot be used: "):
        PostgresRecords("host=/nowhere dbname=x", "a" * 48, TWO)
    with pytest.raises(StoreError) as raised:
        PostgresRecords("postgresql://me:secret@[x", "a", TWO)
    assert str(raised.value).startswith("PostgreSQL's address cannot be read") and "secret" not in str(raised.value)


def test_a_lance_row_has_columns_tags_and_the_fields_as_json() -> None:
    row = lance_index._row(Record(hexed(5), {"kind": "chunk", "of": "a", "n_x": 2.0, "v": "4:z"}, "p"))
    assert row == {
        "id": hexed(5), "kind": "chunk", "of": "a", "searchable": "", "text": "",
        "fields": json.dumps({"kind": "chunk", "of": "a", "n_x": 2.0, "v": "4:z"}), "payload": "p",
        "tags": ["kind=chunk", "of=a", "n_x", "v=4:z"], "vector": [1.0],
    }  # fmt: skip
    back = lance_index._record({key: row[key] for key in ("id", "fields", "payload")})
    assert back == Record(hexed(5), {"kind": "chunk", "of": "a", "n_x": 2.0, "v": "4:z"}, "p", None)
    assert (
        lance_index._sql_among("id", ["a'b", "c"]) == "id IN ('a''b', 'c')"
        and lance_index._sql_among("x", []) == "false"
    )


def test_lances_conditions_are_sql() -> None:
    sql = LanceRecords.__new__(LanceRecords)._sql
    assert sql(Every(())) == "true" and sql(Some(())) == "false" and sql(Match("v", ())) == "false"
    assert sql(Not(Among(("a", "b")))) == "NOT (id IN ('a', 'b'))"
    assert sql(Match("of", ("a", "b"))) == "of IN ('a', 'b')"
    both = (Match("v", ("x'", "y")), Match("kind", ("chunk",)))
    tags = "array_has_any(tags, make_array('v=x''', 'v=y'))"
    assert sql(Every(both)) == f"({tags}) AND (kind IN ('chunk'))"
    assert sql(Some(both)) == f"({tags}) OR (kind IN ('chunk'))"


@pytest.mark.slow
def test_lance_takes_a_list_of_very_many_values(tmp_path: Path) -> None:
    store = lance(tmp_path)
    store.upsert([record(n, v_g=f"s:{n}") for n in range(1, 4)])
    listed = Match("v_g", tuple(f"s:{n}" for n in range(2, 40_002)))
    assert sorted(each.id for each in store.select(listed)) == [hexed(2), hexed(3)]
    assert {id for id, _ in store.nearest(np.ones(2, np.float32), 3, listed)} == {hexed(2), hexed(3)}


@pytest.mark.slow
def test_lance_says_that_there_is_no_index_and_reads_more_than_a_page(tmp_path: Path) -> None:
    store = lance(tmp_path)
    with pytest.raises(StoreError, match=r"^LanceDB has no table 'none' \(.*\): give a header to make one$"):
        LanceRecords(tmp_path / "lance", "none", None)
    many = [record(n) for n in range(1, 1004)]
    store.upsert(many)
    ids = [each.id for each in many]
    assert sorted(store.get(ids)) == ids and len(store.select(Match("kind", ("chunk",)))) == 1003
    store.remove(ids[:-1])
    assert [each.id for each in store.select(Match("kind", ("chunk",)))] == ids[-1:]
    with pytest.raises(StoreError, match=r"^LanceDB cannot search in 'records': "):
        store.nearest(np.ones(3, np.float32), 1, Match("kind", ("chunk",)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_chroma_says_that_there_is_no_index_and_reads_more_than_a_page(tmp_path: Path) -> None:
    store = chroma(tmp_path)
    from firsthand.retrieval.store.chroma_index import ChromaRecords

    with pytest.raises(StoreError, match=r"(?s)^Chroma has no collection 'none' \(.*\): give a header to make one$"):
        ChromaRecords(tmp_path / "chroma", "none", None)
    many = [record(n) for n in range(1, 504)]
    store.upsert(many)
    ids = [each.id for each in many]
    assert sorted(store.get(ids)) == ids and len(store.select(Match("kind", ("chunk",)))) == 503
    store.remove(ids[:-1])
    assert [each.id for each in store.select(Match("kind", ("chunk",)))] == ids[-1:]
    with pytest.raises(StoreError, match=r"^Chroma cannot query in 'records': "):
        store.nearest(np.ones(3, np.float32), 1, Match("kind", ("chunk",)))
