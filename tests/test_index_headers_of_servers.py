"""The header that a server gives for an index is checked as that of a file is, and old headers are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.header_row import MAX_DIMENSION, MAX_SETTING_CHARS
from firsthand.retrieval.store.record_index import _HEADER_ID, RecordIndex
from firsthand.retrieval.store.records import Record
from listed_records import ListedRecords

HEADER = IndexHeader("small", "print", 2, "lines")


def opened(payload: str, header: IndexHeader | None = None) -> IndexHeader:
    """The header of an index whose server holds this text as its header."""
    store = ListedRecords()
    store.upsert([Record(_HEADER_ID, {"kind": "header"}, payload, None)])
    return RecordIndex(store, "the shelf", header).header


def with_field(name: str, value: Any) -> str:
    return json.dumps(asdict(HEADER) | {name: value})


DAMAGED = [
    '{"x": 1}', "[]", '"a"', "null", "not json", "", "[" * 100_000, "9" * 5_000, with_field("more", 1), "{}",
    json.dumps({"embedder": "small", "fingerprint": "print", "dimension": 2}),
    *(with_field("dimension", value) for value in ("big", -1, MAX_DIMENSION + 1, 2.0, True, None, [2])),
    *(
        with_field(name, value)
        for name in ("embedder", "fingerprint", "chunker", "query_prefix", "document_prefix")
        for value in (5, None, ["hf:evil/m"], "x" * (MAX_SETTING_CHARS + 1))
    ),
]  # fmt: skip


@pytest.mark.parametrize("payload", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("header", [None, HEADER], ids=["read", "agreed"])
def test_a_header_that_no_index_has_is_refused_in_one_sentence(payload: str, header: IndexHeader | None) -> None:
    with pytest.raises(
        StoreError, match=r"^the index the shelf is damaged: its header has a value that no index has\."
    ):
        opened(payload, header)


def test_headers_that_we_wrote_are_read() -> None:
    assert opened(json.dumps(asdict(HEADER))) == HEADER == opened(json.dumps(asdict(HEADER)), HEADER)
    old = {"embedder": "small", "fingerprint": "print", "dimension": 2, "chunker": "lines"}
    assert opened(json.dumps(old)) == HEADER, "prefixes came later"
    edge = IndexHeader("\U0001f600" * MAX_SETTING_CHARS, "", MAX_DIMENSION, "\x00" * MAX_SETTING_CHARS, "é", "\ud800")
    assert opened(json.dumps(asdict(edge))) == edge and opened(with_field("dimension", 0)).dimension == 0
    with pytest.raises(ConfigError, match="was made with"):
        opened(json.dumps(asdict(HEADER)), IndexHeader("small", "print", 2, "words"))
    store = ListedRecords()
    assert RecordIndex(store, "the shelf", HEADER).header == HEADER == RecordIndex(store, "the shelf", None).header
