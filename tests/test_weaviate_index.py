"""An index in Weaviate: what a server answers is checked, its failures are errors, and nothing half stored is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.store import weaviate_index
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.records import Match, Range, Record
from firsthand.retrieval.store.weaviate_index import WeaviateRecords, open_weaviate_index
from index_tiny import DIMENSION, HEADER, TERMS_ONLY, lines, unit
from weaviate_wire import Handler, weaviate_server

pytest.importorskip("graphql", reason="graphql-core is not installed")


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    with weaviate_server() as running:
        yield running


@pytest.fixture
def index(server: tuple[str, type[Handler]]) -> Iterator[RecordIndex]:
    made = open_weaviate_index(server[0], "Chunks", HEADER)
    made.put([lines("a", ["one\n", "two\n"], meta={"year": 2024})])
    yield made
    made.close()


def test_the_class_is_made_without_vectorizer_and_with_an_exact_index(server: tuple[str, type[Handler]]) -> None:
    open_weaviate_index(server[0], "Chunks", HEADER).close()
    made = server[1].classes["Chunks"]
    assert (made["vectorizer"], made["vectorIndexType"], made["vectorIndexConfig"]) == (
        "none",
        "flat",
        {"distance": "dot"},
    )
    assert {each["name"] for each in made["properties"] if each["indexFilterable"]} == {"rid", "tags"}
    assert all(each["tokenization"] == "field" for each in made["properties"] if each["indexFilterable"])


@pytest.mark.slow
def test_the_record_that_names_the_chunks_is_written_alone_and_last(server: Any, index: RecordIndex) -> None:
    server[1].asked.clear()
    index.put([lines("many", [f"line {n}\n" for n in range(230)], vectors=unit(230, 1))])
    batches = [
        body["objects"] for method, path, body in server[1].asked if (method, path) == ("POST", "/v1/batch/objects")
    ]
    assert [len(each) for each in batches] == [100, 100, 30, 1]
    assert "kind=document" in batches[-1][0]["properties"]["tags"]
    assert len(index.chunks("many")) == 230, "three pages of a list, the last one short"


@pytest.mark.parametrize("count", [1, 2, 100, 101, 102, 201])
def test_every_record_is_sent_once_in_order(server: Any, count: int) -> None:
    records = WeaviateRecords(server[0], "Chunks", TERMS_ONLY)
    given = [Record(f"{n:032x}", {"kind": "chunk"}) for n in range(count)]
    server[1].asked.clear()
    records.upsert(given)
    sent = [each["properties"]["rid"] for _, _, body in server[1].asked for each in body["objects"]]
    assert sent == [each.id for each in given]
    assert len(server[1].asked[-1][2]["objects"]) == 1
    records.close()


def test_a_document_whose_last_write_fails_stays_as_it_was(server: Any, index: RecordIndex) -> None:
    refused = {"result": {"status": "FAILED", "errors": {"error": [{"message": "shard is read only"}]}}}
    own, seen = server[1].own, []

    def failing(self: Handler, method: str, route: str, body: Any) -> tuple[int, Any]:
        if (method, route) != ("POST", "/v1/batch/objects"):
            return own(self, method, route, body)
        seen.append(len(body["objects"]))
        return (200, [refused]) if len(seen) == 2 else own(self, method, route, body)

    server[1].own = failing
    with pytest.raises(StoreError, match=r"cannot store in 'Chunks'.*shard is read only"):
        index.put([lines("a", ["one\n", "three\n"], seed=5)])
    assert [each.text for each in index.chunks("a")] == ["one\n", "two\n"]
    assert index.put([lines("a", ["one\n", "three\n"], seed=5)]).updated == ("a",)
    assert index.verify() == []


REPLIES = {
    "no json": (200, b"<html>gateway</html>", "it is not JSON: <html>gateway"),
    "deep json": (200, b"[" * 200_000, "it is not JSON"),
    "a list": (200, [], "cannot search.*\\[\\]"),
    "no data": (200, {"data": None}, "cannot search.*it answered"),
    "another class": (200, {"data": {"Get": {"Other": []}}}, "cannot search.*it answered"),
    "graphql errors": (200, {"errors": [{"message": "explorer: not ready"}]}, "explorer: not ready"),
    "rows that are not ours": (200, {"data": {"Get": {"Chunks": [{"rid": 7}]}}}, "it answered"),
    "no vector": (200, {"data": {"Get": {"Chunks": [{"rid": "a" * 32}]}}}, "it answered"),
    "refused": (403, {"error": [{"message": "forbidden"}]}, "status 403.*forbidden"),
    "overloaded": (503, b"", "status 503"),
    "moved": (302, b"", "status 302"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_is_no_answer_is_an_error_of_one_sentence(name: str, server: Any, index: RecordIndex) -> None:
    status, body, said = REPLIES[name]
    server[1].answers.append((status, body))
    with pytest.raises(StoreError, match=said) as caught:
        index.search_vectors(unit(1, 3)[0], 3, {})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 420
    assert len(index.search_vectors(unit(1, 3)[0], 3, {})) == 2


def row(rid: str, **more: Any) -> dict[str, Any]:
    return {"rid": rid, "fields": "{}", "payload": "{}", "_additional": {"id": "x"}, **more}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("b" * 32), row("a" * 32)], "in the order of their ids"),
        ([row("a" * 32), row("a" * 32)], "in the order of their ids"),
        ([row("a" * 32, fields="{")], "was changed: index its document again"),
        ([row("a" * 32, fields="[]")], "was changed"),
        ([row("a" * 32, payload=None)], "it answered"),
    ],
)
def test_objects_that_somebody_changed_are_named(rows: Any, said: str, server: Any, index: RecordIndex) -> None:
    server[1].answers.append((200, {"data": {"Get": {"Chunks": rows}}}))
    with pytest.raises(StoreError, match=said):
        index.hashes()


def test_a_server_that_repeats_a_page_forever_is_refused(server: Any, index: RecordIndex) -> None:
    page = [row(f"{n:032x}") for n in range(100)]
    server[1].answers += [(200, {"data": {"Get": {"Chunks": page}}})] * 3
    with pytest.raises(StoreError, match="in the order of their ids"):
        index.hashes()
    assert len(server[1].answers) == 1


@pytest.mark.slow
@pytest.mark.parametrize("distance", [None, "near", True])
def test_a_hit_without_a_distance_is_an_error(distance: Any, server: Any, index: RecordIndex) -> None:
    found = [{"rid": "a" * 32, "_additional": {"distance": distance}}]
    server[1].answers.append((200, {"data": {"Get": {"Chunks": found}}}))
    with pytest.raises(StoreError, match="a hit has the distance"):
        index.search_vectors(unit(1, 3)[0], 3, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "low, high, held",
    [
        (None, None, "abcd"),
        (None, 2, "abc"),
        (2, None, "cd"),
        (1, 2, "bc"),
        (2.5, 3, "d"),
        (4, None, ""),
        (None, -9, ""),
    ],
)
def test_a_range_is_the_records_between_its_bounds_both_included(low: Any, high: Any, held: str, server: Any) -> None:
    records = WeaviateRecords(server[0], "Chunks", TERMS_ONLY)
    records.upsert([Record(each * 32, {"n_year": float(number)}) for number, each in enumerate("abcd")])
    records.upsert([Record("e" * 32, {"kind": "other"})])
    assert sorted(each.id[0] for each in records.select(Range("n_year", low, high))) == list(held)
    records.close()


@pytest.mark.parametrize("answer", [{"results": {"matches": 2, "failed": 1}}, {}, []])
def test_what_could_not_be_deleted_is_an_error(answer: Any, server: Any) -> None:
    records = WeaviateRecords(server[0], "Chunks", HEADER)
    server[1].answers.append((200, answer))
    with pytest.raises(StoreError, match="cannot delete in 'Chunks'"):
        records.remove(["a" * 32])
    records.close()


@pytest.mark.parametrize("answer", [[], {}, [{"result": None}], [{"result": {"status": "PENDING"}}], [{}, {}]])
def test_a_batch_is_stored_if_the_server_says_so_of_each(answer: Any, server: Any) -> None:
    records = WeaviateRecords(server[0], "Chunks", TERMS_ONLY)
    server[1].answers.append((200, answer))
    with pytest.raises(StoreError, match="cannot store"):
        records.upsert([Record("a" * 32, {})])
    records.close()


def test_a_reply_without_end_is_cut_off(server: Any, index: RecordIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weaviate_index, "MAX_REPLY_BYTES", 2**20)
    server[1].answers.append((200, b" " * (2**20 + 1)))
    with pytest.raises(StoreError, match="it sent more than 1048576 bytes"):
        index.hashes()


@pytest.mark.parametrize(
    "name", ["", "chunks", "Chunks{", "Ch unks", "Größe", "C" * 300, "Chunks\n", "../Meta", "A)}{B"]
)
def test_a_name_that_could_end_a_query_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a Weaviate class"):
        open_weaviate_index("http://127.0.0.1:9", name, HEADER)


@pytest.mark.slow
def test_values_cannot_end_a_query(index: RecordIndex) -> None:
    hostile = ['"]}}) { Get', "\\", "\u2028", "\U0001f600", "a\nb", "}", "{path:"]
    index.put(lines(f"h{n}", ["x\n"], meta={value: value}) for n, value in enumerate(hostile))
    for n, value in enumerate(hostile):
        assert {hit.chunk.document for hit in index.search_vectors(unit(1, 1)[0], 9, {value: value})} == {f"h{n}"}
        assert index.document(f"h{n}").meta == {value: value}


def test_a_class_of_somebody_else_is_left_alone(server: Any) -> None:
    server[1].classes["Article"] = {"class": "Article", "properties": [{"name": "body"}], "vectorIndexConfig": None}
    with pytest.raises(StoreError, match=r"was not made by firsthand.*'body'.*give another name"):
        open_weaviate_index(server[0], "Article", HEADER)
    cosine = {**open_class(server), "vectorIndexConfig": {"distance": "cosine"}}
    server[1].classes["Cosine"] = cosine
    with pytest.raises(StoreError, match="its distance is cosine"):
        open_weaviate_index(server[0], "Cosine", HEADER)
    assert not [method for method, path, _ in server[1].asked if path == "/v1/batch/objects" and "Cosine" in path]


def open_class(server: Any) -> Any:
    open_weaviate_index(server[0], "Chunks", HEADER).close()
    return server[1].classes["Chunks"]


def test_there_is_no_index_without_a_header(server: Any) -> None:
    with pytest.raises(StoreError, match="has no class 'Chunks': give a header to make one"):
        open_weaviate_index(server[0], "Chunks")


def test_a_key_goes_with_every_request_and_into_no_error() -> None:
    with weaviate_server(key="sesame") as (address, state):
        with pytest.raises(StoreError, match=r"status 401.*anonymous access"):
            open_weaviate_index(address, "Chunks", HEADER)
        with httpx.Client(base_url=address, headers={"Authorization": "Bearer sesame"}) as client:
            index = open_weaviate_index(client, "Chunks", HEADER)
            index.put([lines("a", ["one\n"])])
            state.answers.append((500, {"error": "broken"}))
            with pytest.raises(StoreError) as caught:
                index.hashes()
            assert "sesame" not in str(caught.value)
            index.close()
            assert not client.is_closed, "the caller's client is the caller's"


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nowhere", "http://[::1", "ftp://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_an_error_of_one_sentence(address: str) -> None:
    with pytest.raises((StoreError, ConfigError), match=r"cannot be reached|is no address"):
        open_weaviate_index(address, "Chunks", HEADER)


def test_a_vector_of_another_length_is_not_stored(server: Any, index: RecordIndex) -> None:
    records = WeaviateRecords(server[0], "Chunks", HEADER)
    with pytest.raises(StoreError, match=f"vector with length {DIMENSION}"):
        records.upsert([Record("f" * 32, {}, "", unit(1, 0, DIMENSION - 1)[0])])
    records.close()


def test_scores_are_dot_products_best_first(server: Any) -> None:
    records = WeaviateRecords(server[0], "Chunks", HEADER)
    rows = unit(4, 5)
    records.upsert([Record(f"{n:032x}", {"kind": "chunk"}, "", row) for n, row in enumerate(rows)])
    found = records.nearest(rows[2], 3, Match("kind", ("chunk",)))
    expected = sorted(((float(rows[2] @ row), f"{n:032x}") for n, row in enumerate(rows)), reverse=True)[:3]
    assert [id for id, _ in found] == [id for _, id in expected]
    assert [score for _, score in found] == pytest.approx([score for score, _ in expected], abs=1e-6)
    assert found[0] == (f"{2:032x}", pytest.approx(1))
    records.close()
