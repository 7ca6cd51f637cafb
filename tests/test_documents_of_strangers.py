"""Files that are made to take far more memory than they have bytes: items that are none, headings without text."""

from __future__ import annotations

import json

import pytest

from firsthand.errors import DataError
from firsthand.retrieval.documents import json_reader
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.json_reader import read_json, read_jsonl
from firsthand.retrieval.documents.notebook_reader import read_notebook

PLAIN = ReadSettings()


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_the_first_hundred_items_that_are_no_documents_are_named_and_the_others_counted(form: str) -> None:
    items = [{"text": "a"}] * 20 + [0] * 1_000
    if form == "json":
        content = read_json(json.dumps(items).encode(), "f.json", PLAIN)
    else:
        content = read_jsonl("\n".join(map(json.dumps, items)).encode(), "f.json", PLAIN)
    assert len(content.documents) == 20 and len(content.failed) == 101
    assert content.failed[99] == ("f.json:120", "it is no JSON object")
    assert content.failed[100] == ("f.json", "it has 900 more items of which no document was made")
    same = read_jsonl(b'{"text": "a", "id": 1}\n' * 102, "f.jsonl", PLAIN)
    assert same.failed[99:] == (
        ("f.jsonl:101", "the id of 'f.jsonl:1' came before: give each its own"),
        ("f.jsonl", "it has 1 more item of which no document was made"),
    )
    assert len(read_jsonl(b'{"text": "a", "id": 1}\n' * 101, "f.jsonl", PLAIN).failed) == 100


def test_json_of_too_many_values_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "MAX_VALUES", 8)
    told = "JSON of more than 8 values: divide it, or write it as JSONL, a document a line"
    with pytest.raises(DataError) as error:
        read_json(b"[" + b"0," * 8 + b"0]", "f.json", PLAIN)
    assert str(error.value) == f"it is {told}"
    assert len(read_json(b"[" + b"0," * 7 + b"0]", "f.json", PLAIN).documents) == 1
    content = read_jsonl(
        b'{"text": "a, b, c, d, e, f, g, h, i, j"}\n{"text": "b", "l": [0,0,0,0,0,0,0,0]}\n', "f", PLAIN
    )
    assert [each.text[0] for each in content.documents] == ["a"], "commas within a text are no values"
    assert content.failed == (("f:2", f"it is {told}"),)
    with pytest.raises(DataError, match="more than 8 values"):
        read_notebook(b'{"cells": [' + b"{}," * 8 + b"{}]}", "f.ipynb", PLAIN)


def test_a_file_of_more_documents_than_memory_has_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "MAX_DOCUMENTS", 3)
    line = b'{"text": "a"}\n'
    for read, data in ((read_jsonl, line * 4), (read_json, b"[" + b",".join([line] * 4) + b"]")):
        with pytest.raises(DataError, match="more than 3 documents: divide the file"):
            read(data, "f", PLAIN)
    assert len(read_jsonl(line * 3, "f", PLAIN).documents) == 3
    long = json.dumps({"text": "a" * 100}).encode() + b"\n"
    assert len(read_jsonl(long * 50, "f", PLAIN).documents) == 50, (
        "documents of an ordinary length are as many as they are"
    )


def test_lines_of_jsonl_have_their_numbers_with_empty_lines_and_without_an_end() -> None:
    content = read_jsonl(b'\n{"text": "a"}\n\n  \n{"text": "b\\u2028c"}\r\n{"text": "d"}', "f", PLAIN)
    assert [each.id for each in content.documents] == ["f:2", "f:5", "f:6"] and content.failed == ()
