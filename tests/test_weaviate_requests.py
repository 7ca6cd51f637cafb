"""The requests that an index makes of Weaviate: filters, pages and objects as they are sent, and replies by their status."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store import weaviate_index
from firsthand.retrieval.store.records import Among, Every, Match, Not, Range, Record, Some
from firsthand.retrieval.store.weaviate_index import WeaviateRecords, _record, _shown, _where

HEADER = IndexHeader("e", "f", 3, "c")
NAMES = ("rid", "tags", "fields", "payload")
CLASS = {"properties": [{"name": name} for name in (*NAMES, "more")], "vectorIndexConfig": {"distance": "dot"}}


class Wire:
    """A server whose answers are given: (status, JSON) in order. `asked` are the requests."""

    def __init__(self, *answers: Any):
        self.answers = [(200, CLASS), *answers]
        self.asked: list[tuple[str, str, Any]] = []
        self.client = httpx.Client(base_url="http://w/below", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        status, found = self.answers.pop(0)
        return httpx.Response(status, content=found if isinstance(found, bytes) else json.dumps(found).encode())

    def records(self, header: IndexHeader | None = HEADER) -> WeaviateRecords:
        made = WeaviateRecords(self.client, "K", header)
        self.asked.clear()
        return made

    def queries(self) -> list[str]:
        assert all(each[:2] == ("POST", "/below/v1/graphql") for each in self.asked)
        return [each[2]["query"] for each in self.asked]


def rows(*found: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"data": {"Get": {"K": list(found)}}}


def row(rid: str, fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"rid": rid, "fields": json.dumps(fields or {}), "payload": "p" + rid, "_additional": {"id": "i", **more}}


def test_conditions_are_filters_with_json_strings() -> None:
    none = '{path: ["rid"], operator: Equal, valueText: "-"}'
    kind = '{path: ["tags"], operator: ContainsAny, valueText: ["kind=a\\"", "kind=b=\\u00e9"]}'
    ids = '{path: ["rid"], operator: ContainsAny, valueText: ["x", "y"]}'
    assert _where(Match("kind", ('a"', "b=é"))) == kind and _where(Among(("x", "y"))) == ids
    assert _where(Match("kind", ())) == none == _where(Among(())) == _where(Some(()))
    assert _where(Every(())) == '{path: ["rid"], operator: NotEqual, valueText: "-"}'
    assert _where(Every((Among(("x", "y")),))) == ids == _where(Some((Every((Among(("x", "y")),)),)))
    assert (
        _where(Every((Match("kind", ('a"', "b=é")), Among(("x", "y")))))
        == f"{{operator: And, operands: [{kind}, {ids}]}}"
    )
    assert _where(Some((Among(()), Among(("x", "y"))))) == f"{{operator: Or, operands: [{none}, {ids}]}}"


def test_records_are_sent_as_objects_with_tags_of_texts_and_names_of_numbers() -> None:
    stored = [{"result": {}}]
    wire = Wire((200, stored * 2), (200, stored), (200, stored))
    records = wire.records()
    ids = [f"{n:032x}" for n in (10, 11, 12)]
    vector = np.array([1, 2.5, 3], np.float32)
    records.upsert([
        Record(ids[0], {"kind": "a", "n_x": 2.0}, "P", vector), Record(ids[1], {}, "Q"),
        Record(ids[2], {"n": "1"}, "R", vector[:1]),
    ])  # fmt: skip

    def sent(id: str, tags: list[str], fields: str, payload: str, vector: list[float]) -> dict[str, Any]:
        properties = {"rid": id, "tags": tags, "fields": fields, "payload": payload}
        uuid = f"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"
        return {"class": "K", "id": uuid, "properties": properties, "vector": vector}

    first = sent(ids[0], ["kind=a", "n_x"], '{"kind": "a", "n_x": 2.0}', "P", [1, 2.5, 3])
    second, last = sent(ids[1], [], "{}", "Q", [1.0]), sent(ids[2], ["n=1"], '{"n": "1"}', "R", [1])
    where = ("POST", "/below/v1/batch/objects")
    assert wire.asked == [(*where, {"objects": [first, second]}), (*where, {"objects": [last]})]
    records.upsert([])
    assert len(wire.asked) == 2
    for given in (stored * 2, []):
        wire.answers = [(200, given)]
        told = f"^Weaviate cannot store in 'K': it answers for {len(given)} of 1 objects$"
        with pytest.raises(StoreError, match=told):
            records.upsert([Record(ids[0], {})])


def test_objects_are_got_selected_and_removed_page_by_page() -> None:
    ids = [f"{n:04}" for n in range(150)]
    wire = Wire(rows(row("0001", vector=[1, 2, 3])), rows(), rows(row("0000", {"a": 1}), row("0149")))
    records = wire.records()
    found = records.get([*ids[:99], "0000", *ids[99:]], vectors=True)
    assert [*found] == ["0001"] and found["0001"].payload == "p0001" and found["0001"].vector is not None
    assert found["0001"].vector.tolist() == [1, 2, 3]
    listed = ", ".join(f'"{id}"' for id in ids[:99])
    shape = "{ rid fields payload _additional { vector } } } }"
    assert wire.queries()[0] == (
        f'{{ Get {{ K(where: {{path: ["rid"], operator: ContainsAny, valueText: [{listed}]}}, limit: 99) {shape}'
    )
    assert "limit: 51)" in wire.queries()[1] and '"0099"' in wire.queries()[1] and '"0098"' not in wire.queries()[1]
    assert records.get(["0149", "0000"]) == {
        "0000": Record("0000", {"a": 1}, "p0000"),
        "0149": Record("0149", {}, "p0149"),
    }
    assert "_additional { id }" in wire.queries()[2] and records.get([]) == {}
    wire.asked.clear()
    wire.answers = [rows(*(row(id) for id in ids[:100])), rows(*(row(id) for id in ids[100:]))]
    assert [each.id for each in records.select(Among(("q",)))] == ids
    inner = '{path: ["rid"], operator: ContainsAny, valueText: ["q"]}'
    beyond = '{path: ["rid"], operator: GreaterThan, valueText: "0099"}'
    assert [each.partition("K(")[2].partition(") {")[0] for each in wire.queries()] == [
        f'where: {inner}, sort: [{{path: ["rid"], order: asc}}], limit: 100',
        f'where: {{operator: And, operands: [{inner}, {beyond}]}}, sort: [{{path: ["rid"], order: asc}}], limit: 100',
    ]
    wire.asked.clear()
    wire.answers = [(200, {"results": {"failed": 0}}), (200, {"results": {}})]
    records.remove(ids)
    records.remove([])
    assert [(method, path, body["match"]["class"]) for method, path, body in wire.asked] == [
        ("DELETE", "/below/v1/batch/objects", "K")
    ] * 2
    assert [each[2]["match"]["where"] for each in wire.asked] == [
        {"path": ["rid"], "operator": "ContainsAny", "valueTextArray": some} for some in (ids[:100], ids[100:])
    ]


def test_ranges_and_negations_are_ids_and_the_nearest_come_with_their_dot_products() -> None:
    numbers = {"0001": -1.5, "0002": 0.0, "0003": 2.0, "0004": 2.5}
    held = rows(*(row(id, {"n_x": value}) for id, value in numbers.items()))
    for given, expected in (((0.0, 2.0), "0002 0003"), ((None, 0.0), "0001 0002"), ((2.0, None), "0003 0004"),
                            ((None, None), "0001 0002 0003 0004"), ((3, 1), "")):  # fmt: skip
        wire = Wire(held)
        records = wire.records()
        assert records._resolved(Range("n_x", *given)) == Among(tuple(expected.split()))
        assert 'path: ["tags"], operator: ContainsAny, valueText: ["n_x"]' in wire.queries()[0]
    bare = rows(row("0002"))
    wire = Wire(held, bare, rows(*map(row, ("0001", "0002", "0003"))))
    records = wire.records()
    found = records._resolved(Some((Not(Range("n_x", 0.0, 0.0)), Match("a", ("b",)), Every(()))))
    assert found == Some((Among(("0001", "0003")), Match("a", ("b",)), Every(())))
    assert [" fields " in each for each in wire.queries()] == [True, False, False]
    wire = Wire(rows({"rid": "b", "_additional": {"distance": -2}}, {"rid": "a", "_additional": {"distance": 0.5}}))
    records = wire.records()
    vector = np.array([0.5, -1, 2], np.float32)
    assert records.nearest(vector, 10_001, Among(("a",))) == [("b", 2.0), ("a", -0.5)]
    assert wire.queries() == [
        '{ Get { K(nearVector: {vector: [0.5, -1.0, 2.0]}, where: {path: ["rid"], operator: ContainsAny, valueText: ["a"]}, '
        "limit: 10000) { rid _additional { distance } } } }"
    ]


def test_replies_are_taken_by_status_and_a_class_by_its_distance_and_properties() -> None:
    made = Wire()
    made.answers = [(404, b""), (200, CLASS)]
    made.records()
    made = Wire((201, CLASS))
    made.answers[0] = (404, b"no")
    WeaviateRecords(made.client, "K", HEADER).close()
    assert [each[:2] for each in made.asked] == [("GET", "/below/v1/schema/K"), ("POST", "/below/v1/schema")]
    assert not made.client.is_closed, "the caller's client stays open"
    for answer, header, told in (
        ((404, b""), None, "Weaviate has no class 'K': give a header to make one"),
        ((500, b"a\n b"), HEADER, "Weaviate cannot answer in 'K': status 500: a b"),
        ((202, CLASS), HEADER, "Weaviate cannot answer in 'K': status 202: " + _shown(json.dumps(CLASS))),
        ((204, b""), HEADER, "Weaviate cannot answer in 'K': it is not JSON: "),
        ((200, {**CLASS, "vectorIndexConfig": {"distance": "cosine"}}), None,
         "Weaviate's class 'K' was not made by firsthand: its distance is cosine and its properties ['fields', 'more', "
         "'payload', 'rid', 'tags']; give another name"),
        ((200, {**CLASS, "properties": [{"name": name} for name in NAMES[1:]]}), HEADER,
         "Weaviate's class 'K' was not made by firsthand: its distance is dot and its properties ['fields', 'payload', "
         "'tags']; give another name"),
        ((200, [1]), HEADER, "Weaviate's class 'K' was not made by firsthand: its distance is None and its properties []; "
         "give another name"),
    ):  # fmt: skip
        wire = Wire()
        wire.answers = [answer]
        with pytest.raises(StoreError) as error:
            WeaviateRecords(wire.client, "K", header)
        assert str(error.value) == told
    assert _shown({"a": "b"}) == "{'a': 'b'}" and _shown(" x\n\ty ") == "x y" and len(_shown("z" * 301)) == 300
    assert _record(row("r", {"n": 1})) == Record("r", {"n": 1}, "pr")
    with pytest.raises(StoreError, match=rf"^Weaviate's object '{'r' * 40}' was changed: index its document again$"):
        _record({**row("r" * 41), "fields": "[1]"})


def test_an_answer_with_errors_is_refused_and_null_rows_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    null = {"data": {"Get": {"K": None}}}
    wire = Wire((200, null), (200, null), (200, {**null, "errors": None}), (200, {**null, "errors": []}))
    records = wire.records()
    assert records.get(["0001"]) == {} and records.select(Among(("q",))) == []
    assert records.nearest(np.ones(3, np.float32), 2, Among(("a",))) == [] == records.select(Among(("q",)))
    errors = [{"message": "shard  is\nnot ready"}]
    for body, told in (
        ({**null, "errors": errors}, "[{'message': 'shard is\\nnot ready'}]"), ({"errors": "x  y"}, "x y"),
        ({**rows(row("0001"))[1], "errors": errors}, "[{'message': 'shard is\\nnot ready'}]"),
        ([1], "[1]"), (None, "None"), ("text", "text"), ({}, "it answered {}"),
        ({"data": {"Get": None}}, "it answered {'data': {'Get': None}}"),
        ({"data": {"Get": {"K": [None]}}}, "it answered {'data': {'Get': {'K': [None]}}}"),
        ({"data": {"Get": {"K": [{**row("1"), "payload": 1}]}}}, "it answered "),
        ({"data": {"Get": {"K": 7}}}, "it answered {"),
        ({"data": {"Get": {"K": [{**row("1"), "_additional": None}]}}}, "it answered "),
        ({"data": {"Get": {"K": [{**row("1"), "rid": 1}]}}}, "it answered "),
    ):  # fmt: skip
        wire.answers = [(200, body)]
        with pytest.raises(StoreError) as refused:
            records.get(["0001"])
        start = f"Weaviate cannot search in 'K': {told}"
        assert (
            str(refused.value) == start if not told.startswith("it answered") else str(refused.value).startswith(start)
        )
    whole = len(json.dumps(rows(row("0001"))[1]).encode())
    for limit, fits in ((whole, True), (whole + 1, True), (whole - 1, False)):
        monkeypatch.setattr(weaviate_index, "MAX_REPLY_BYTES", limit)
        wire.answers = [rows(row("0001"))]
        if fits:
            assert [*records.get(["0001"])] == ["0001"]
            continue
        with pytest.raises(StoreError, match=rf"^Weaviate cannot answer in 'K': it sent more than {limit} bytes$"):
            records.get(["0001"])
    monkeypatch.undo()
    wire.answers = [(404, b"no  such\npath")]
    with pytest.raises(StoreError, match=r"^Weaviate cannot answer in 'K': status 404: no such path$"):
        records.get(["0001"])
    with pytest.raises(StoreError, match=r"^Weaviate cannot be reached in 'K': ConnectError: ") as unreached:
        WeaviateRecords("http://127.0.0.1:1", "K", HEADER)
    opened = next(each.frame.f_locals["self"] for each in unreached.traceback if each.name == "__init__")
    assert isinstance(opened, WeaviateRecords) and opened._client.is_closed, "no connection of its own is left open"
