"""Items of a forged memory, whose checksums are right: another form, size or number of values is one sentence."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.kept_item import MAX_ITEM_VALUES, body_of
from firsthand.memory import MemoryItem
from firsthand.runs.database import checksum
from firsthand.system.stored_json import MAX_DEPTH

FORGED = {
    "a list without end": (b"[" * 4_000 + b"]" * 4_000, f"its JSON is nested deeper than {MAX_DEPTH}"),
    "a number": (b"5", "it is no text with a provenance"),
    "a number in a column": (5, "JSON was expected, and there is int"),
    "three": (b'["a",{},{}]', "it is no text with a provenance"),
    "a text": (b'"ab"', "it is no text with a provenance"),
    "an object": (b'{"a":1,"b":2}', "it is no text with a provenance"),
    "no text": (b"[5,{}]", "it is no text with a provenance"),
    "no provenance": (b'["a",[1]]', "it is no text with a provenance"),
    "no JSON": (b"[", "Expecting value"),
    "no text of UTF-8": (b"\xff", "'utf-8' codec"),
    "too large": (b'["' + b"x" * 65_536 + b'",{}]', "its JSON is larger than 65,536 characters"),
    "too many": (b'["x",{"":[' + b"0," * (MAX_ITEM_VALUES - 3) + b"0]}]", "its JSON holds more than 10,000 values"),
    "deep": (b'["x",{"a":' + b"[" * 99 + b"]" * 99 + b"}]", f"its JSON is nested deeper than {MAX_DEPTH}"),
    "confidence": (b'["x",{"confidence":1' + b"0" * 400 + b"}]", "give a number from 0 to 1"),
    "confidence of text": (b'["x",{"confidence":"high"}]', "confidence is 'high': give a number from 0 to 1"),
}
BOUNDS = KeepingBounds()


def put(file: ItemFile, id: str, text: str, **provenance: Any) -> bool:
    return file.put("ann", "facts", MemoryItem(id, text, provenance), None, BOUNDS)


def forge(path: Path, **columns: Any) -> None:
    """Change columns of the item `a` so that its checksum is right."""
    with sqlite3.connect(path) as connection:
        names = "scope, id, body, key, valid_s, stored_s, length"
        row = connection.execute(f"SELECT {names} FROM items WHERE id = 'a'").fetchone()
        values = dict(zip(names.split(", "), row, strict=True)) | columns
        columns["digest"] = checksum(*values.values())
        changes = ", ".join(f"{name} = ?" for name in columns)
        connection.execute(f"UPDATE items SET {changes} WHERE id = 'a'", [*columns.values()])
    connection.close()


def with_forged(path: Path, **columns: Any) -> ItemFile:
    file = ItemFile(path)
    put(file, "a", "tea cup")
    put(file, "b", "tea pot")
    file.close()
    forge(path, **columns)
    return ItemFile(path)


@pytest.mark.parametrize("name", FORGED)
def test_an_item_of_another_form_is_a_sentence_and_can_be_deleted(tmp_path: Path, name: str) -> None:
    body, told = FORGED[name]
    file = with_forged(tmp_path / "m.db", body=body)
    scope = file.scope("ann", "facts")
    for read in (
        lambda: file.newest_first(scope, 9, None, 9),
        lambda: file.numbered([1]),
        lambda: file.with_id(scope, "a"),
    ):
        with pytest.raises(StoreError) as raised:
            read()
        assert "is damaged: item 1 cannot be read: " in str(raised.value) and told in str(raised.value)
    lost: list[int] = []
    assert [kept.item.id for kept in file.salvage("ann", "facts", lost.append)] == ["b"] and lost == [1]
    assert file.remove("ann", "facts", "a")
    assert [kept.item.text for kept in file.newest_first(scope, 9, None, 9)] == ["tea pot"]
    assert file._database.read("SELECT count(*) FROM postings WHERE item = 1") == [(0,)]
    file.close()


@pytest.mark.parametrize("columns", [{"key": 5}, {"key": b"k"}, {"valid_s": "soon"}, {"stored_s": b"x"}])
def test_columns_of_another_type_are_a_sentence(tmp_path: Path, columns: dict[str, Any]) -> None:
    forged = {"key": b"5"} if columns == {"key": 5} else columns  # the column makes a text of a number
    file = with_forged(tmp_path / "m.db", **forged)
    with pytest.raises(StoreError, match="item 1 has an id, key, time or length of another type"):
        file.numbered([1])
    file.close()


def test_a_vector_of_another_type_is_a_sentence(tmp_path: Path) -> None:
    file = with_forged(tmp_path / "m.db")
    scope = file.scope("ann", "facts")
    file.put_vectors(scope, "m", {1: b"abcd"})
    assert file.vectors(scope, "m", 0) == [(1, b"abcd")]
    with file._database.write() as connection:
        connection.execute("UPDATE vectors SET body = 1000000000")
    with pytest.raises(StoreError, match="its vectors are not all of one length"):
        file.vectors(scope, "m", 0)
    file.close()


def test_items_as_large_as_they_may_be_are_read_again(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    origin = [f"https://e.org/{number}" for number in range(2_000)]
    deep: Any = 0
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    for id, text, provenance in (
        ("a", "x" * 65_000, {}),
        ("b", "many, \ud800 [origins]", {"origin": origin, "confidence": 1, "mean": float("inf")}),
        ("c", "", {"deep": deep, "list": [0] * (MAX_ITEM_VALUES - 200)}),
    ):
        assert put(file, id, text, **provenance)
        kept = file.with_id(file.scope("ann", "facts"), id)
        assert kept is not None and (kept.item.text, kept.item.provenance) == (text, provenance)
    file.close()


@pytest.mark.parametrize("name", ["too many", "deep"])
def test_an_item_that_could_not_be_read_again_is_not_stored(name: str) -> None:
    body, told = FORGED[name]
    with pytest.raises(ConfigError) as raised:
        body_of(MemoryItem("a", *json.loads(body)))
    assert str(raised.value) == f"'x' cannot be kept: {told}; keep less of its provenance"
