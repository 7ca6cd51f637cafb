"""Finds entries of the reading list by their words, best first (BM25)."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.reading.entry_documents import rendered
from firsthand.reading.reading_list import ReadingEntry
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.index_file import MEMORY
from firsthand.retrieval.store.sqlite_index import open_index

TITLE_WEIGHT = 3
"""A word of the title counts as often as this many words of the rest."""


def search_entries(query: str, entries: Sequence[ReadingEntry], k: int = 10) -> list[ReadingEntry]:
    """The k entries whose text has most of the query's words, best first; none if no word occurs."""
    by_id = {entry.id: entry for entry in entries}
    index = open_index(MEMORY, IndexHeader("", "", 0, "whole"))
    try:
        index.put([_indexed(entry) for entry in entries])
        hits = index.search_terms(query, k, {})
    finally:
        index.close()
    return [by_id[hit.chunk.document] for hit in hits]


def _indexed(entry: ReadingEntry) -> IndexedDocument:
    text = f"{(entry.title + '. ') * (TITLE_WEIGHT - 1)}{entry.id} {rendered(entry)}"
    return IndexedDocument(Document(entry.id, text), [Chunk(entry.id, 0, len(text), text)], None)
