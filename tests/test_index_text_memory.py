"""The text of a document in an index is bounded by the memory that it takes, when it is stored and when it is read."""

from __future__ import annotations

import hashlib
import zlib

import pytest

import firsthand.retrieval.store.document_rows as rows
from firsthand.errors import ConfigError
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document

HEADER = IndexHeader("", "", 0, "lines")


def row_of(text: str) -> tuple[object, ...]:
    """A row as `read_document` takes it, with the hash of its text."""
    raw = text.encode("utf-8", "surrogatepass")
    return ("d", zlib.compress(raw), "", "", "{}", "[]", hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize(
    ("text", "size"), [("x" * 40, 40), ("\U0001f600" + "x" * 9, 40), ("ж" * 20, 40), ("é" * 20, 40), ("\ud800" * 20, 60),
     ("", 0)],
)  # fmt: skip
def test_a_text_is_stored_and_read_if_it_takes_no_more_memory_than_the_bound(
    text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_TEXT_BYTES", size or 2)  # the places of none are `[]`
    columns = rows.prepared(IndexedDocument(Document("d", text), [], None), HEADER).columns
    assert rows.read_document(row_of(text)) == Document("d", text) and columns[3] == row_of(text)[-1]
    monkeypatch.setattr(rows, "MAX_TEXT_BYTES", size - 1)
    if text:
        with pytest.raises(ConfigError, match=rf"^'d' has {size} bytes of text: split it into parts below {size - 1}$"):
            rows.prepared(IndexedDocument(Document("d", text), [], None), HEADER)
        with pytest.raises(ValueError, match=r"^its text is cut short, or too large$"):
            rows.read_document(row_of(text))


def test_the_hash_is_compared_before_the_text_is_decoded() -> None:
    damaged = ("d", zlib.compress(b"\xff" * 9), "", "", "{}", "[]", "0" * 64)
    with pytest.raises(ValueError, match=r"^its text has another hash than it was stored under$"):
        rows.read_document(damaged)
