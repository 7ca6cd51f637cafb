"""Whole sentences, packed up to a size."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.text_spans import check_sizes, chunks_of, packed, sentence_pieces
from firsthand.retrieval.document import Document


def by_sentences(*, size: int = 800, overlap: int = 100) -> Chunker:
    """Chunks of whole sentences, at most `size` characters; only a sentence that is longer is cut.

    A chunk repeats the last sentences of the one before, as many as fit into `overlap` characters.
    """
    check_sizes(size, overlap)

    def chunk(document: Document) -> list[Chunk]:
        text, room = document.text, size - overlap
        whole = sentence_pieces(text, room)
        spans = packed(whole, room)
        starts = [start for start, _ in whole]
        made = spans[:1]
        for before, (start, end) in pairwise(spans):
            lowest = max(start - overlap, before[0] + 1)
            made.append((min(starts[bisect_left(starts, lowest)], start), end))
        return chunks_of(document, made)

    return chunk
