"""Files that are made to take far more memory than they have bytes: items that are none, headings without text."""

from __future__ import annotations

import json

import pytest

from firsthand.errors import DataError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking import markdown_chunks, text_spans
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.chunking.code_chunks import code
from firsthand.retrieval.chunking.markdown_chunks import blocks
from firsthand.retrieval.chunking.text_spans import bounded
from firsthand.retrieval.document import Document
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


@pytest.mark.parametrize("form", ["markdown", "code", "auto", "parents"])
def test_chunks_that_repeat_long_headings_above_a_few_characters_are_refused(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_spans, "MIN_CHUNKS_BOUND", 20_000)
    if form == "code":
        kind, head = "code", "".join(" " * n + f"class {'w' * 79}{n}:\n" for n in range(6))
        text = head + "".join(f"{' ' * 8}def f{n}(): {'x' * 1190}\n" for n in range(2))
        short, long = head + f"{' ' * 8}def f(): pass\n" * 9, text
        chunk = code(size=20)
    else:
        head = "".join(f"{'#' * n} {'word ' * 23}\n" for n in range(1, 6))
        kind, short, long = (
            "markdown",
            head + "######\n" * 200,
            head + f"###### a\n\n{'Text of a section. ' * 20}\n\n" * 200,
        )
        chunk = open_chunker(form).chunk
    with pytest.raises(
        DataError, match=r"it has [\d,]+ characters, and its chunks.* take more than .*--chunker recursive"
    ):
        chunk(Document("d", short * (3 if form == "code" else 1), meta={"kind": kind, "language": "python"}))
    if form != "code":
        assert len(chunk(Document("d", long, meta={"kind": kind}))) >= 200, (
            "sections of ordinary length are as many as they are"
        )
    assert open_chunker("recursive").chunk(Document("d", short)), "the chunker that the sentence names reads it"


def test_the_bound_of_chunks_goes_with_the_text_and_is_met_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document("d", "a" * 400)
    chunks = [Chunk("d", 0, 150, "a" * 150, "h" * 250)] * 4  # 1,000 each
    monkeypatch.setattr(text_spans, "MIN_CHUNKS_BOUND", 10)
    assert bounded(document, chunks) == chunks
    with pytest.raises(DataError, match="take more than 4,000"):
        bounded(document, [*chunks, chunks[0]])
    monkeypatch.setattr(text_spans, "MIN_CHUNKS_BOUND", 5_000)
    assert len(bounded(document, [*chunks, chunks[0]])) == 5


def test_markdown_of_millions_of_lines_of_one_letter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown_chunks, "MAX_LINES", 10)
    with pytest.raises(DataError, match=r"it has 11 lines, of 2\.0 characters: divide it, or take --chunker recursive"):
        list(blocks("a\n" * 11))
    assert len(list(blocks("a\n" * 10))) == 1 and len(list(blocks("a line of several words\n\n" * 40))) == 40
    assert [(each.start, each.end) for each in blocks("# a\nb\n\nc")] == [(0, 4), (4, 6), (7, 8)]
