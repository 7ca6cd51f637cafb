"""Metas and locations of a forged index: each has the form that we write, is counted, and is decoded once for an answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.store.meta_reader import MAX_ANSWER_VALUES, MAX_META_CHARS, MAX_META_VALUES, MetaReader
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.system.stored_json import MAX_DEPTH
from index_tiny import HEADER, lines, unit

READS: list[Callable[[SqliteIndex], Any]] = [
    lambda index: index.search_terms("cats", 3, {}),
    lambda index: index.search_vectors(unit(1, 2)[0], 3, {}),
    lambda index: index.chunks("a"),
    lambda index: index.chunks_with(["cats"]),
    lambda index: index.document("a"),
    lambda index: index.metas(),
    lambda index: list(index.outlines()),
]


def made(path: Path, meta: Any = None) -> None:
    with open_index(path, HEADER) as index:
        texts = ["cats purr\n", "cats nap\n"]
        receipt = index.put([lines("a", texts, vectors=unit(2, 1), meta={"n": 1} if meta is None else meta)])
        assert not receipt.failed, receipt.failed


def forge(path: Path, column: Any, places: Any = "[]") -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE metas SET json = ?", (column,))
        connection.execute("UPDATE documents SET meta = ?, locations = ?", (column, places))
    connection.close()


FORGED = {
    "a number": (5, "an object of JSON was expected, and there is int"),
    "a list": ('["a"]', "an object of JSON was expected, and there is list"),
    "a blob that is none": (b"\xff", "'utf-8' codec"),
    "nothing": ("", "Expecting value"),
    "deep": ('{"a":' * (MAX_DEPTH + 1) + "0" + "}" * (MAX_DEPTH + 1), f"its JSON is nested deeper than {MAX_DEPTH}"),
    "very deep": ('{"":' * 50_000 + "0" + "}" * 50_000, f"its JSON is nested deeper than {MAX_DEPTH}"),
    "many": ('{"a":[' + "0," * (MAX_META_VALUES - 1) + "0]}", f"its JSON holds more than {MAX_META_VALUES:,} values"),
    "large": ('{"a":"' + "x" * MAX_META_CHARS + '"}', f"its JSON is larger than {MAX_META_CHARS:,} characters"),
}


@pytest.mark.parametrize("name", sorted(FORGED.keys() - {"large"}))
def test_a_meta_of_another_form_is_damage_for_every_reader(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.index"
    made(path)
    column, told = FORGED[name]
    forge(path, column)
    with open_index(path, read_only=True) as index:
        for read in READS:
            with pytest.raises(StoreError) as raised:
                read(index)
            assert "is damaged" in str(raised.value) and told in str(raised.value)
        assert index.verify()


def test_a_meta_that_is_too_large_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    made(path)
    forge(path, FORGED["large"][0])
    with (
        open_index(path, read_only=True) as index,
        pytest.raises(StoreError, match="its JSON is larger than 16,777,216"),
    ):
        index.chunks("a")


def test_what_chunks_share_is_there_once(tmp_path: Path) -> None:
    path, name = tmp_path / "x.index", "a document of some name"
    with open_index(path, HEADER) as index:
        index.put([lines(name, ["cats purr\n", "cats nap\n"], vectors=unit(2, 1), meta={"n": 1})])
    forge(path, json.dumps({"a": [0] * (MAX_META_VALUES - 10)}))
    with open_index(path, read_only=True) as index:
        for chunks in (index.chunks(name), [hit.chunk for hit in index.search_terms("cats", 3, {})]):
            first, second = chunks
            assert first.meta is second.meta and len(first.meta["a"]) == MAX_META_VALUES - 10
            assert first.document is second.document and first.document == name


def test_the_metas_of_one_answer_are_counted_together() -> None:
    reader = MetaReader()
    reader._left = 200
    forms = [json.dumps({str(number): [0] * 99}) for number in range(3)]  # 100 marks each, of which 16 are free
    for each in [*forms[:2], *forms[:2]]:
        reader.read(each)
    assert reader._left == 32 and MetaReader()._left == MAX_ANSWER_VALUES == 2_000_000
    with pytest.raises(ValueError, match="metas hold more than 2,000,000 values together: ask for fewer chunks"):
        reader.read(forms[2])


def test_small_metas_may_be_as_many_as_there_are() -> None:
    reader = MetaReader()
    reader._left = 0
    for number in range(100):
        assert reader.read(json.dumps({"page": number, "title": "a, b", "tags": ["x", "y"]}))["page"] == number
    with pytest.raises(ValueError, match="together"):
        reader.read(json.dumps({"a": [0] * 20}))


@pytest.mark.parametrize(
    "places", ["5", "{}", "[5]", '[["0","line","1"]]', '[[0,"line"]]', '[[0,"line",[]]]', "[" * 9000]
)
def test_locations_of_another_form_are_damage(tmp_path: Path, places: str) -> None:
    path = tmp_path / "x.index"
    made(path)
    forge(path, '{"n": 1}', places)
    with open_index(path, read_only=True) as index, pytest.raises(StoreError, match="is damaged: a row cannot be read"):
        index.document("a")


def test_ordinary_metas_come_back_as_they_were_put(tmp_path: Path) -> None:
    deep: Any = 0
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    for place, meta in enumerate(
        [
            {},
            {"input_ids": [*range(50_000)], "url": "https://e.org/?a=1,2", "π": "naïve \ud800", "none": None},
            {"deep": deep, "big": 10**30, "text": "x" * 100_000},
        ]
    ):
        path = tmp_path / f"{place}.index"
        made(path, meta)
        with open_index(path, read_only=True) as index:
            assert index.metas() == {"a": meta} and index.document("a").meta == meta
            assert all(chunk.meta == meta for chunk in index.chunks("a")) and index.verify() == []
            assert [each.meta for each in index.outlines()] == [meta]


@pytest.mark.parametrize("name", ["deep", "many", "large"])
def test_a_meta_that_could_not_be_read_again_is_not_stored(tmp_path: Path, name: str) -> None:
    column, told = FORGED[name]
    with open_index(tmp_path / "x.index", HEADER) as index:
        receipt = index.put([lines("a", ["cats\n"], vectors=unit(1, 1), meta=json.loads(column))])
        assert receipt.failed == (("a", f"the meta of 'a' cannot be kept: {told}; keep fewer of its fields"),)
        assert index.metas() == {}
