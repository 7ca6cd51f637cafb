"""Recursive splitting: at paragraphs where they fit, else at lines, sentences, words, and characters last."""

from __future__ import annotations

from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.text_spans import check_sizes, chunks_of, overlapped, packed, pieces
from firsthand.retrieval.document import Document


def recursive(*, size: int = 800, overlap: int = 100) -> Chunker:
    """Chunks of at most `size` characters that end at the coarsest break there is.

    Each begins up to `overlap` characters before the end of the last one, at a sentence or a word.
    """
    check_sizes(size, overlap)

    def chunk(document: Document) -> list[Chunk]:
        text, room = document.text, size - overlap
        return chunks_of(document, overlapped(text, packed(pieces(text, 0, len(text), room), room), overlap))

    return chunk
